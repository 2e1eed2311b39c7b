"""One Swarm service to its instance group. Pure functions: no clock, no I/O, no state.

What stands for a service depends on the mode: its tasks (``host``, ``task-overlay``), the nodes of the routing mesh
(``ingress``) or its virtual IP (``vip``). A task counts by its state *and* what the managers want of it: with a HEALTHCHECK it
stays ``starting`` until it is healthy, and one that is to stop goes on ``running`` until it has (moby/moby#24092).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sys import intern
from typing import Literal

from msgspec import Struct, structs

from bridge.model import DEFAULT_NAMESPACE, Health, InstanceGroup, Port, ServiceInstance, ServiceName

from . import wire
from .facts import Cluster, NetworkFacts, NodeFacts, UnfitError, choose_network, is_usable, one_per_family
from .policy import Policy, PortKey, Settings, meta_labels, service_policy

Phase = Literal["ready", "draining", "ended", "other"]

_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
_LEAVING = frozenset({"shutdown", "remove"})
_MOVING = frozenset({"updating", "rollback_started"})
_STACK = "com.docker.stack.namespace"


class Mapped(Struct, frozen=True):
    """A service as it is shown.

    rejected: instance id -> why it cannot be shown. phases: of the tasks listed. ended: instance ids that cannot be any more.
    desired: how many tasks are to run, or None where the managers do not say. unsettled: something is under way.
    complaints: labels that were not understood.
    """

    group: InstanceGroup
    rejected: dict[str, str] = {}
    phases: dict[str, Phase] = {}
    ended: tuple[str, ...] = ()
    desired: int | None = None
    unsettled: bool = False
    complaints: tuple[str, ...] = ()

    @property
    def running(self) -> int:
        """How many tasks are listed that run and are to run."""
        return sum(phase == "ready" for phase in self.phases.values())


def service_name(spec: wire.ServiceSpec) -> ServiceName:
    """``<stack>/<name>``; the stack's prefix of the name goes."""
    stack = (spec.labels or {}).get(_STACK)
    if not stack:
        return ServiceName(DEFAULT_NAMESPACE, intern(spec.name))
    return ServiceName(intern(stack), intern(spec.name.removeprefix(f"{stack}_") or spec.name))


def phase_of(task: wire.Task) -> Phase:
    """What a task counts as: running and to run, running and to stop, ended for good, or anything else."""
    state, desired = task.status.state, task.desired_state
    if state in _ENDED:
        return "ended"
    if state == "running" and desired == "running":
        return "ready"
    return "draining" if state == "running" and desired in _LEAVING else "other"


def map_service(service: wire.Service, tasks: Sequence[wire.Task], cluster: Cluster, settings: Settings) -> Mapped:
    """The group of a service, and what else is to be known of it. tasks: all of its own, in a stable order."""
    policy, complaints = service_policy(service.spec.labels, settings)
    phases = {task.id: phase_of(task) for task in tasks}
    status, update = service.service_status, service.update_status
    desired = None if status is None else status.desired_tasks
    lost = {task.id for task in tasks if task.node_id in cluster.nodes and cluster.nodes[task.node_id].health != "ready"}
    # A task on a lost node keeps its last state for a day: nothing is to be awaited there.
    moving = any(phase in ("draining", "other") and id_ not in lost for id_, phase in phases.items())
    running = sum(phase == "ready" for phase in phases.values())
    mapping = _Mapping(service, cluster, settings, policy)
    if policy.publish == "ingress":
        mapping.add_mesh(any(phases[task.id] == "ready" and task.id not in lost for task in tasks))
    elif policy.publish == "vip":
        mapping.add_virtual_ip(any(phases[task.id] == "ready" and task.id not in lost for task in tasks))
    else:
        mapping.add_tasks(task for task in tasks if phases[task.id] in ("ready", "draining"))
    return Mapped(
        group=InstanceGroup(service.id, tuple(mapping.instances), (mapping.name,)),
        rejected=mapping.rejected,
        phases=phases,
        ended=(*(id_ for id_, phase in phases.items() if phase == "ended"), *mapping.ended),
        desired=desired,
        unsettled=(update is not None and update.state in _MOVING)
        or moving
        or (desired is not None and running != desired and not service.spec.is_job),
        complaints=complaints,
    )


class _Mapping:
    """One service on its way to a group."""

    def __init__(self, service: wire.Service, cluster: Cluster, settings: Settings, policy: Policy) -> None:
        self.name = service_name(service.spec)
        self.instances: list[ServiceInstance] = []
        self.rejected: dict[str, str] = {}
        self.ended: list[str] = []
        self._service = service
        self._cluster = cluster
        self._prefix = settings.label_prefix
        self._policy = policy
        endpoint = service.endpoint
        self._published = (endpoint.ports if endpoint else None) or []
        self._virtual_ips = (endpoint.virtual_ips if endpoint else None) or []
        self._names = {_key(port): port.name for port in self._published if port.name} | policy.ports
        self._shared_ports: dict[tuple[Port, ...], tuple[Port, ...]] = {}
        self._shared_meta: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        self._base = ServiceInstance(
            id="",
            namespace=self.name.namespace,
            service=self.name.name,
            weight=policy.weight,
            tags=policy.tags,
            meta=policy.meta,
        )

    def add_tasks(self, tasks: Iterable[wire.Task]) -> None:
        """An instance for each task, as the modes ``host`` and ``task-overlay`` have it."""
        targets = self._target_ports() if self._policy.publish == "task-overlay" else ()
        for task in tasks:
            try:
                node = self._node_of(task)
                inside = self._policy.publish == "task-overlay"
                addresses = self._overlay_addresses(task) if inside else (_address_of(node),)
                ports = targets if inside else self._host_ports(task)
            except UnfitError as error:
                self.rejected[task.id] = f"{self.name}: the task {task.id} {error}"
                continue
            self._add(
                task.id,
                addresses,
                ports,
                node.health,
                node,
                draining=phase_of(task) == "draining",
                meta=self._meta_of(task),
            )

    def add_mesh(self, ready: bool) -> None:
        """An instance for each node of the routing mesh. ready: whether any task is."""
        ports = self._mesh_ports()
        for id_, node in self._cluster.nodes.items():
            own = f"{self._service.id}/{id_}"
            if node.health != "ready" or not node.active:
                self.ended.append(own)
            elif ports:
                try:
                    self._add(own, (_address_of(node),), ports, "ready" if ready else "unready", node)
                except UnfitError as error:
                    self.rejected[own] = f"{self.name}: in the routing mesh it {error}"
        for id_, reason in self._cluster.broken_nodes.items():
            self.rejected[f"{self._service.id}/{id_}"] = f"{self.name}: {reason}"

    def add_virtual_ip(self, ready: bool) -> None:
        """One instance for the service's virtual IP; none where its endpoint mode is ``dnsrr``. ready: whether any task is."""
        own = f"{self._service.id}/vip"
        try:
            addresses = self._virtual_addresses()
        except UnfitError as error:
            self.rejected[own] = f"{self.name}: the service {error}"
            return
        if addresses:
            self._add(own, addresses, self._target_ports(), "ready" if ready else "unready", None)

    def _add(
        self,
        id_: str,
        addresses: tuple[str, ...],
        ports: tuple[Port, ...],
        health: Health,
        node: NodeFacts | None,
        *,
        draining: bool = False,
        meta: dict[str, str] | None = None,
    ) -> None:
        policy = self._policy
        self.instances.append(
            structs.replace(
                self._base,
                id=id_,
                addresses=addresses,
                ports=self._shared_ports.setdefault(ports, ports),
                health=health,
                lifecycle="draining" if draining else "active",
                zone=policy.zone or (node.zone if node else None),
                region=policy.region or (node.region if node else None),
                node=node.name if node else None,
                meta=policy.meta if meta is None else meta,
            )
        )

    def _node_of(self, task: wire.Task) -> NodeFacts:
        node = self._cluster.nodes.get(task.node_id)
        if node is None:
            why = self._cluster.broken_nodes.get(task.node_id) or f"{task.node_id!r} is not listed"
            raise UnfitError(f"is on a node that is not known: {why}")
        return node

    def _meta_of(self, task: wire.Task) -> dict[str, str]:
        container = task.spec.container_spec
        fallback = meta_labels(container.labels if container else None, self._prefix)
        if not fallback:
            return self._policy.meta
        meta = fallback | self._policy.meta
        return self._shared_meta.setdefault(tuple(sorted(meta.items())), meta)

    def _virtual_addresses(self) -> tuple[str, ...]:
        facts = {}
        for virtual in self._virtual_ips:
            if virtual.network_id not in self._cluster.networks:
                raise UnfitError(f"has a virtual IP on the network {virtual.network_id!r}, which is not listed")
            facts[virtual.network_id] = self._cluster.networks[virtual.network_id]
        if not facts:
            return ()
        chosen = choose_network(facts, self._policy.network)
        addresses = one_per_family(each.addr for each in self._virtual_ips if each.network_id == chosen and each.addr)
        if not addresses:
            raise UnfitError(f"has no virtual IP on {facts[chosen].name!r}")
        return addresses

    def _overlay_addresses(self, task: wire.Task) -> tuple[str, ...]:
        attached = task.networks_attachments or []
        facts = {}
        for each in attached:
            spec = each.network.spec or wire.AttachedSpec()
            facts[each.network.id] = NetworkFacts(spec.name, is_usable(spec.name, spec.ingress))
        chosen = choose_network(facts, self._policy.network)
        addresses = one_per_family(text for each in attached if each.network.id == chosen for text in each.addresses or ())
        if not addresses:
            raise UnfitError(f"has no address on {facts[chosen].name!r}")
        return addresses

    def _host_ports(self, task: wire.Task) -> tuple[Port, ...]:
        """A port stands there once per address family, its numbers may differ, and it has no name: the first one counts."""
        status = task.status.port_status
        found: dict[PortKey, Port] = {}
        for port in (status.ports if status else None) or ():
            if port.publish_mode == "host" and port.published_port and _key(port) not in found:
                found[_key(port)] = self._port(_key(port), port.published_port)
        return tuple(found.values())

    def _mesh_ports(self) -> tuple[Port, ...]:
        published = [port for port in self._published if port.publish_mode == "ingress" and port.published_port]
        return tuple(dict.fromkeys(self._port(_key(port), port.published_port) for port in published))

    def _target_ports(self) -> tuple[Port, ...]:
        """Inside a network a task is reached at its own port, never at a published one; labels add what is not published."""
        keys = dict.fromkeys((*(_key(port) for port in self._published if port.target_port), *self._policy.ports))
        return tuple(self._port(key, key[0]) for key in keys)

    def _port(self, key: PortKey, number: int) -> Port:
        name = self._names.get(key)
        return Port(intern(name) if name else None, number, key[1].upper())


def _address_of(node: NodeFacts) -> str:
    if node.address is None:
        raise UnfitError(
            f"has no address: its node {node.name!r} gives none that others can use; a label of the node can name one"
        )
    return node.address


def _key(port: wire.Port) -> PortKey:
    return port.target_port, port.protocol
