"""From what the managers answer to what is said of it, relative to what was said before. Pure.

What ended is named (`Listing.gone`) where the managers say so; what is merely absent is left to the core's guard; what could
not be told is named as unknown or rejected, and kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import Struct

from bridge.errors import SourceError, TransientError
from bridge.model import Confirmed, InstanceGroup, Listing, Observation

from . import wire
from .facts import Cluster, cluster_facts
from .mapping import Mapped, map_service
from .policy import Settings

_MOST_KNOWN = 10_000
"""Instance ids remembered for a service; what is beyond (a crash loop's) is left to the guard."""


class Bodies(Struct, frozen=True):
    """The answers to one cycle of calls, all of one manager."""

    services: bytes
    tasks: bytes
    nodes: bytes
    networks: bytes


class Memos(Struct, frozen=True):
    """What was decoded for the cycle before."""

    services: dict[bytes, wire.Service] = {}
    tasks: dict[bytes, wire.Task] = {}
    nodes: dict[bytes, wire.Node] = {}
    networks: dict[bytes, wire.Network] = {}


class Snapshot(Struct, frozen=True):
    """What the managers show.

    tasks: of containers, by service id, in order of their ids. broken_tasks: why, by id. broken_networks: the same, by a key
    that is no group's; what needs one of them is rejected as well.
    unknown: key prefix -> why what is under it could not be told.
    """

    services: dict[str, wire.Service]
    broken_services: dict[str, str]
    tasks: dict[str, tuple[wire.Task, ...]]
    broken_tasks: dict[str, str]
    broken_networks: dict[str, str]
    cluster: Cluster
    unknown: dict[str, SourceError]
    memos: Memos


class Told(Struct, frozen=True):
    """A service as it was told last.

    known: the instance ids that may still stand for it, and whether each was last seen draining. certain: all of them were
    looked into, so that the same answer means the same again.
    """

    service: wire.Service
    tasks: tuple[wire.Task, ...]
    mapped: Mapped
    known: dict[str, bool]
    certain: bool


class State(Struct, frozen=True):
    """What was told so far. first: nothing yet. settled: nothing was left open."""

    told: dict[str, Told] = {}
    cluster: Cluster = Cluster()
    memos: Memos = Memos()
    rejected: dict[str, str] = {}
    first: bool = True
    settled: bool = True


class Outcome(Struct, frozen=True):
    """What is to be said, what is true then, whether something is under way, and labels not understood by service."""

    observation: Observation
    state: State
    unsettled: bool
    complaints: dict[str, tuple[str, ...]]


def read_snapshot(bodies: Bodies, memos: Memos, settings: Settings) -> Snapshot:
    """Decode the answers. Raises TransientError where one of them is no list."""
    services = wire.read_items(bodies.services, wire.SERVICES, memos.services)
    tasks = wire.read_items(bodies.tasks, wire.TASKS, memos.tasks)
    nodes = wire.read_items(bodies.nodes, wire.NODES, memos.nodes)
    networks = wire.read_items(bodies.networks, wire.NETWORKS, memos.networks)
    unknown: dict[str, SourceError] = {}
    # Such a service may be any; such a node too, and each service of the routing mesh has an instance on it.
    for reason, _ in (*services.nameless, *nodes.nameless):
        unknown.setdefault("", TransientError(reason))
    for reason, owner in tasks.nameless:
        unknown.setdefault(owner, TransientError(reason))
    own: dict[str, list[wire.Task]] = {}
    for task in sorted(tasks.found.values(), key=lambda task: task.id):
        if task.spec.container_spec is not None:
            own.setdefault(task.service_id, []).append(task)
    return Snapshot(
        services=services.found,
        broken_services=services.broken,
        tasks={id_: tuple(listed) for id_, listed in own.items()},
        broken_tasks=tasks.broken,
        broken_networks=_broken_networks(networks),
        cluster=cluster_facts(nodes, networks, settings.label_prefix),
        unknown=unknown,
        memos=Memos(services.memo, tasks.memo, nodes.memo, networks.memo),
    )


def _broken_networks(networks: wire.Items[wire.Network]) -> dict[str, str]:
    named = {f"networks/{id_}": reason for id_, reason in networks.broken.items()}
    return named | {f"networks/[{position}]": reason for position, (reason, _) in enumerate(networks.nameless)}


def missing_services(snapshot: Snapshot, state: State) -> list[str]:
    """The services told before that are not listed; whether they ended is to be asked."""
    return [id_ for id_ in state.told if id_ not in snapshot.services and id_ not in snapshot.broken_services]


def compare(
    snapshot: Snapshot, state: State, settings: Settings, ended: Collection[str], doubts: Mapping[str, SourceError]
) -> Outcome:
    """What to say of a snapshot.

    ended: services of which the managers say that they are no more. doubts: why that is not known of another one that is
    missing; one that is neither ended nor doubted is yet to be asked about.
    """
    groups: list[InstanceGroup] = []
    unchanged: list[str] = []
    gone: list[str] = []
    told: dict[str, Told] = {}
    unknown = dict(snapshot.unknown)
    rejected = snapshot.broken_services | snapshot.broken_tasks | snapshot.broken_networks
    complaints: dict[str, tuple[str, ...]] = {}
    same_cluster = snapshot.cluster == state.cluster
    for id_, service in snapshot.services.items():
        before, tasks = state.told.get(id_), snapshot.tasks.get(id_, ())
        certain = not (id_ in unknown or "" in unknown)
        if before is not None and same_cluster and before.certain and certain and _inputs(before) == (service, tasks):
            told[id_] = before
        else:
            mapped = map_service(service, tasks, snapshot.cluster, settings)
            past = _ended(mapped, before, snapshot.broken_tasks, certain)
            gone += past
            known = _known(mapped, before, past)
            looked_into = certain and known.keys().isdisjoint(snapshot.broken_tasks)
            told[id_] = Told(service, tasks, mapped, known, looked_into)
            complaints[id_] = mapped.complaints
        rejected |= told[id_].mapped.rejected
        if before is not None and before.mapped.group == told[id_].mapped.group:
            unchanged.append(id_)
        else:
            groups.append(told[id_].mapped.group)
    for id_ in snapshot.broken_services.keys() & state.told.keys():
        told[id_] = state.told[id_]
    for id_ in missing_services(snapshot, state):
        if id_ in ended:
            gone.append(id_)
        else:
            told[id_] = state.told[id_]
            unknown[id_] = doubts.get(id_) or TransientError(f"the service {id_} is missing, which is yet to be looked into")
    quiet = not (state.first or groups or gone or unknown) and state.settled and rejected == state.rejected
    return Outcome(
        Confirmed() if quiet else Listing("", tuple(groups), tuple(unchanged), unknown, rejected, tuple(gone)),
        State(told, snapshot.cluster, snapshot.memos, rejected, first=False, settled=not unknown),
        unsettled=bool(unknown) or any(each.mapped.unsettled for each in told.values()),
        complaints=complaints,
    )


def _ended(mapped: Mapped, before: Told | None, broken: Collection[str], certain: bool) -> list[str]:
    """Which of a service's instances the managers call ended.

    Those listed as ended; of those that are not listed any more, the ones last seen draining, and all where as many tasks are
    listed running as there are to be: then the list was not cut. certain: every task listed can be told whose it is.
    """
    if before is None:
        return list(mapped.ended)  # an earlier run of this bridge may have known them
    ended = [id_ for id_ in mapped.ended if id_ in before.known]
    if certain:
        complete = mapped.desired is not None and mapped.running >= mapped.desired
        absent = [id_ for id_ in before.known if "/" not in id_ and id_ not in mapped.phases and id_ not in broken]
        ended += [id_ for id_ in absent if complete or before.known[id_]]
    return ended


def _inputs(told: Told) -> tuple[wire.Service, tuple[wire.Task, ...]]:
    return told.service, told.tasks


def _known(mapped: Mapped, before: Told | None, gone: Collection[str]) -> dict[str, bool]:
    """What stands for the service from now on; what was shown last comes last."""
    shown = {instance.id: instance.lifecycle == "draining" for instance in mapped.group.instances}
    known = {} if before is None else {id_: old for id_, old in before.known.items() if id_ not in gone and id_ not in shown}
    for id_ in known.keys() & mapped.rejected.keys():
        known[id_] = mapped.phases.get(id_) == "draining"
    known |= shown
    for id_ in list(known)[:-_MOST_KNOWN]:
        del known[id_]
    return known
