"""The records of one source: events go in, changes come out (semantics 4.1, 4.2).

Several groups may hold the same id; the record shows their merge, and goes when the last of them lets go. Evidence decides
how soon: what the backend calls ended goes at once, what a stream no longer shows 100 ms later (endpoints move between
groups), what a listing lacks when the guard lets it, and what could not be told stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from bridge.catalog.guard import GuardPolicy, Hold, Window, services_to_hold
from bridge.catalog.merge import merge
from bridge.errors import ContractError
from bridge.model import (
    Confirmed,
    Gone,
    InstanceGroup,
    Listing,
    Rejected,
    ServiceInstance,
    ServiceName,
    SourceEvent,
    covers,
)

LINGER = 0.1
"""Seconds an id that a stream event dropped stays, in case another group is about to show it."""

Pair = tuple[ServiceInstance | None, ServiceInstance | None]
"""An instance before and after a change; None where it was not, or is no longer, there."""


Parts = tuple[tuple[str, ServiceInstance], ...]
"""What each group says of an id: group key and instance, one or more."""


class Record:
    """One id: what it shows, what each group says of it, and when it was first listed (wall seconds)."""

    __slots__ = ("_held_by", "instance", "since")

    def __init__(self, instance: ServiceInstance, held_by: str | Parts, since: float) -> None:
        self.instance = instance
        self.since = since
        self._held_by = held_by  # nearly always one group: its key alone is a third of the memory

    @property
    def parts(self) -> Parts:
        """What each group says of it."""
        held_by = self._held_by
        return ((held_by, self.instance),) if isinstance(held_by, str) else held_by

    def is_only(self, key: str) -> bool:
        """Whether no group but ``key`` says anything of it."""
        return self._held_by == key

    def show(self, parts: Parts) -> None:
        """Take over what the groups say now."""
        self.instance = merge([part for _, part in parts])
        self._held_by = parts[0][0] if len(parts) == 1 else parts


class Group:
    """One key: the ids it shows, the ids kept though it shows them no more, and the services it stands for."""

    __slots__ = ("kept", "services", "shown")

    def __init__(self) -> None:
        self.shown: dict[str, None] = {}
        self.kept: dict[str, None] = {}
        self.services: tuple[ServiceName, ...] = ()


@dataclass(slots=True)
class Changes:
    """What a fold changed: instances by id, how many groups more or fewer stand for a service, groups touched.

    moved: ids that show the same as before, but are held by other groups now: only the disk cares.
    """

    pairs: dict[str, Pair] = field(default_factory=dict)
    stands: dict[ServiceName, int] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)
    moved: dict[str, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.pairs or self.stands or self.groups or self.moved)

    def absorb(self, other: Changes) -> None:
        """Add what happened after."""
        for id_, (before, after) in other.pairs.items():
            self.note(id_, before, after)
        self.groups.update(other.groups)
        self.moved.update(other.moved)

    def note(self, id_: str, before: ServiceInstance | None, after: ServiceInstance | None) -> None:
        """Add one step; steps of one id collapse, and one that leads back vanishes."""
        if id_ in self.pairs:
            before = self.pairs[id_][0]
            if before == after:
                del self.pairs[id_]
                return
        if before is not after:
            self.pairs[id_] = (before, after)


class SourceRecords:
    """All records of one source."""

    def __init__(self, policy: GuardPolicy | None, scopes: tuple[str, ...] = ("",)) -> None:
        self.policy = policy
        self.scopes = scopes
        self.records: dict[str, Record] = {}
        self.groups: dict[str, Group] = {}
        self.held: dict[str, Hold] = {}
        self.held_reason: str | None = None
        self.sizes: dict[ServiceName, int] = {}
        self._window = Window()
        self._listed = False
        self._lingering: dict[tuple[str, str], float] = {}

    # -- what the backend said

    def fold(self, events: Sequence[SourceEvent], now: float, wall: float) -> Changes:
        """Apply events that belong together. ``now``: monotonic seconds; ``wall``: seconds since the epoch, for `Record.since`.

        What the same observation rejects is kept, though its group no longer shows it.
        Raises ContractError, before anything was changed, where a listing calls a group unchanged that is not there.
        """
        for event in events:
            if isinstance(event, Listing):
                for key in event.unchanged:
                    if key not in self.groups:
                        raise ContractError(f"a listing calls the group {key!r} unchanged, which was never seen")
        changes = Changes()
        kept = _Kept((), tuple(event.key for event in events if isinstance(event, Rejected)))
        for event in events:
            self._fold(event, kept, changes, now, wall)
        return changes

    def _fold(self, event: SourceEvent, kept: _Kept, changes: Changes, now: float, wall: float) -> None:
        match event:
            case InstanceGroup():
                for id_ in self._put(event, changes, now, wall):
                    if not kept.keeps(event.key, id_):
                        self._linger(event.key, id_, now, changes)
            case Gone():
                self._end((event.key,), changes, now)
            case Listing():
                self._fold_listing(event, changes, now, wall)
            case Confirmed() | Rejected():
                pass

    def settle(self, now: float) -> tuple[Changes, float | None]:
        """Let go of what lingered long enough; also returns when to call again, or None."""
        changes = Changes()
        for key, id_ in [entry for entry, due in self._lingering.items() if due <= now]:
            del self._lingering[key, id_]
            self._drop(key, id_, changes, now)
        return changes, self.settling_due()

    def settling_due(self) -> float | None:
        """When the first of what lingers goes (monotonic seconds)."""
        return min(self._lingering.values(), default=None)

    def has_under(self, prefix: str) -> bool:
        """Whether any group lies under ``prefix``."""
        return prefix in self.groups or any(covers(prefix, key) for key in self.groups)

    def replaced(self, events: Iterable[SourceEvent]) -> set[str]:
        """Ids in groups that ``events`` tell anew, or lack; those that the events show again among them."""
        keys: set[str] = set()
        for event in events:
            if isinstance(event, InstanceGroup | Gone):
                keys.add(event.key)
            elif isinstance(event, Listing):
                kept = _Kept(event.unknown, event.rejected)
                unchanged = set(event.unchanged)
                keys.update(key for key, _ in self._under(event.scope) if key not in unchanged and not kept.covers(key))
        return {id_ for key in keys if key in self.groups for id_ in (*self.groups[key].shown, *self.groups[key].kept)}

    def relist(self, scope: str, changes: Changes, now: float) -> None:
        """A complete look found everything under ``scope`` as the last listing did: what it holds is weighed again."""
        if self.held:
            self._window.trim(now)
            lost = [(key, id_) for key, group in self._under(scope) for id_ in group.kept if id_ in self.held]
            self._weigh(lost, changes, now)

    def clear(self, now: float) -> Changes:
        """Remove everything (a retired source whose time is over)."""
        changes = Changes()
        self._end(list(self.groups), changes, now)
        return changes

    def mark(self, state: str, scope: str = "") -> Changes:
        """Set the state of every record with a group under ``scope``: ``listed`` on confirmation, ``expired`` without."""
        changes = Changes()
        for id_, record in self.records.items():
            if record.instance.state != state and any(covers(scope, key) for key, _ in record.parts):
                before = record.instance
                record.show(tuple((key, replace(part, state=state)) for key, part in record.parts))
                changes.note(id_, before, record.instance)
        return changes

    # -- restoring

    def restore(self, id_: str, parts: Parts, since: float) -> ServiceInstance:
        """Take a record from disk as it was; what it shows."""
        instance = merge([part for _, part in parts])
        self.records[id_] = Record(instance, parts[0][0] if len(parts) == 1 else parts, since)
        self._resize(instance.service_name, 1)
        self._listed = True  # what the next listing shows besides was added since
        for key, _ in parts:
            self.groups.setdefault(key, Group()).shown[id_] = None
        return instance

    def restore_group(self, key: str, services: tuple[ServiceName, ...]) -> None:
        """Take a group from disk: the services it stands for."""
        self.groups.setdefault(key, Group()).services = services

    # -- listings

    def _fold_listing(self, listing: Listing, changes: Changes, now: float, wall: float) -> None:
        self._window.trim(now)
        self._end(listing.gone, changes, now)
        present = {group.key for group in listing.groups}
        unchanged = set(listing.unchanged)
        absent: list[tuple[str, str]] = []
        for group in listing.groups:
            absent += [(group.key, id_) for id_ in self._put(group, changes, now, wall)]
        kept = _Kept(listing.unknown, listing.rejected)
        for key, members in self._under(listing.scope):
            if key in unchanged:
                absent += [(key, id_) for id_ in members.kept]
            elif key not in present and not kept.covers(key):
                absent += [(key, id_) for id_ in (*members.shown, *members.kept)]
                members.kept.update(members.shown)
                members.shown.clear()
        lost: list[tuple[str, str]] = []
        for key, id_ in absent:
            if kept.keeps(key, id_):
                continue
            if (key, id_) in self._lingering:  # a stream let go of it, and it moved nowhere
                self._drop(key, id_, changes, now)
            else:
                lost.append((key, id_))
        self._weigh(lost, changes, now)
        self._listed = True
        for key, members in [*self._under(listing.scope)]:
            if not (members.shown or members.kept or key in present or key in unchanged or kept.covers(key)):
                self._forget_group(key, changes)

    def _under(self, scope: str) -> Iterator[tuple[str, Group]]:
        """The groups a listing of ``scope`` speaks of: those under it, and those that no scope covers any more."""
        whole = "" in self.scopes
        for key, group in self.groups.items():
            if covers(scope, key) or not (whole or any(covers(declared, key) for declared in self.scopes)):
                yield key, group

    def _weigh(self, lost: list[tuple[str, str]], changes: Changes, now: float) -> None:
        """Obey or hold the absence of ``lost`` (group key, id)."""
        only_here: dict[str, list[str]] = {}
        for key, id_ in lost:
            only_here.setdefault(id_, []).append(key)
        candidates: dict[str, ServiceName] = {}
        for id_, keys in only_here.items():
            record = self.records[id_]
            elsewhere = len(record.parts) > len(keys)
            if elsewhere or record.instance.lifecycle == "draining" or self.policy is None:
                for key in keys:  # not by mere absence: it is shown elsewhere, or was announced to end
                    self._drop(key, id_, changes, now)
            else:
                candidates[id_] = record.instance.service_name
        missing = dict(candidates) | {id_: self.records[id_].instance.service_name for id_ in self.held}
        absent = Counter(missing.values())
        if self.policy is None or not absent:
            return
        services, reason = services_to_hold(
            self.policy,
            absent=absent,
            sizes=self.sizes,
            total=len(self.records),
            lost=self._window.lost,
            added=self._window.added,
        )
        for id_, service in candidates.items():
            hold = self.held.get(id_)
            if hold is not None:
                hold.listings += 1
            if service in services and not (hold is not None and hold.is_over(self.policy, now)):
                self.held.setdefault(id_, Hold(now))
            else:
                for key in only_here[id_]:
                    self._drop(key, id_, changes, now, lost_by_absence=True)
        self.held_reason = reason if self.held else None

    # -- steps

    def _put(self, event: InstanceGroup, changes: Changes, now: float, wall: float) -> list[str]:
        """Apply what the group shows; the ids it showed or kept before and shows no more."""
        group = self.groups.get(event.key)
        if group is None:
            group = self.groups[event.key] = Group()
            changes.groups[event.key] = None
        if group.services != event.services:
            self._stand(group, event.services, changes)
            changes.groups[event.key] = None
        shown = {instance.id: instance for instance in event.instances}
        arrived: list[ServiceInstance] = []
        for id_, instance in shown.items():
            record = self.records.get(id_)
            if record is None:
                self.records[id_] = Record(instance, event.key, wall)
                arrived.append(instance)
            elif record.instance is not instance or self.held or not record.is_only(event.key) or self._lingering:
                self._put_part(event.key, instance, record, changes)
        self._arrive(arrived, changes, now)
        missing = [id_ for id_ in (*group.shown, *group.kept) if id_ not in shown]
        group.shown, group.kept = dict.fromkeys(shown), dict.fromkeys(missing)
        return missing

    def _arrive(self, instances: Sequence[ServiceInstance], changes: Changes, now: float) -> None:
        """Count and note instances whose records are new."""
        for instance in instances:
            changes.note(instance.id, None, instance)
        for name, count in Counter([instance.service_name for instance in instances]).items():
            self._resize(name, count)
        if self._listed:
            for instance in instances:
                self._window.add(now, instance.service_name)

    def _put_part(self, key: str, part: ServiceInstance, record: Record, changes: Changes) -> None:
        id_ = part.id
        self._lingering.pop((key, id_), None)
        self._unhold(id_)
        if record.is_only(key):
            if record.instance == part:
                return
            parts: Parts = ((key, part),)
        else:
            lingering = [group for group, _ in record.parts if (group, id_) in self._lingering]
            for group in lingering:
                del self._lingering[group, id_]
                self.groups[group].kept.pop(id_, None)
            others = [entry for entry in record.parts if entry[0] != key and entry[0] not in lingering]
            parts = (*others, (key, part))
        self._show(id_, record, parts, changes)

    def _show(self, id_: str, record: Record, parts: Parts, changes: Changes) -> None:
        before = record.instance
        changed = record.parts != parts
        record.show(parts)
        if record.instance != before:
            if record.instance.service_name != before.service_name:
                self._resize(before.service_name, -1)
                self._resize(record.instance.service_name, 1)
            changes.note(id_, before, record.instance)
        elif changed:
            changes.moved[id_] = None

    def _linger(self, key: str, id_: str, now: float, changes: Changes) -> None:
        """A stream no longer shows ``id_`` under ``key``: explicit, but it may be moving to another group."""
        self._unhold(id_)
        if len(self.records[id_].parts) > 1:
            self._drop(key, id_, changes, now)
        else:
            self._lingering.setdefault((key, id_), now + LINGER)

    def _end(self, keys: Iterable[str], changes: Changes, now: float) -> None:
        """The backend called ``keys`` (ids, groups, or prefixes of groups) ended; what nobody knows had ended before."""
        prefixes: set[str] = set()
        for key in keys:
            if key in self.records:
                for group, _ in self.records[key].parts:
                    self._drop(group, key, changes, now)
            elif key in self.groups:
                self._end_group(key, changes, now)
            else:
                prefixes.add(key)
        if prefixes:
            for group in [group for group in self.groups if any(prefix in prefixes for prefix in _prefixes(group))]:
                self._end_group(group, changes, now)

    def _end_group(self, key: str, changes: Changes, now: float) -> None:
        members = self.groups[key]
        for id_ in (*members.shown, *members.kept):
            self._drop(key, id_, changes, now)
        self._forget_group(key, changes)

    def _drop(self, key: str, id_: str, changes: Changes, now: float, *, lost_by_absence: bool = False) -> None:
        """``key`` lets go of ``id_``; the record goes with its last part."""
        group, record = self.groups[key], self.records[id_]
        group.shown.pop(id_, None)
        group.kept.pop(id_, None)
        self._lingering.pop((key, id_), None)
        parts = tuple(entry for entry in record.parts if entry[0] != key)
        if parts:
            self._show(id_, record, parts, changes)
            return
        service = record.instance.service_name
        del self.records[id_]
        self._unhold(id_)
        self._resize(service, -1)
        if lost_by_absence:
            self._window.lose(now, service)
        changes.note(id_, record.instance, None)

    def _unhold(self, id_: str) -> None:
        if self.held.pop(id_, None) is not None and not self.held:
            self.held_reason = None

    def _forget_group(self, key: str, changes: Changes) -> None:
        self._stand(self.groups.pop(key), (), changes)
        changes.groups[key] = None

    def _stand(self, group: Group, services: tuple[ServiceName, ...], changes: Changes) -> None:
        for names, step in ((group.services, -1), (services, 1)):
            for name in names:
                if count := changes.stands.get(name, 0) + step:
                    changes.stands[name] = count
                else:
                    del changes.stands[name]
        group.services = services

    def _resize(self, service: ServiceName, step: int) -> None:
        if size := self.sizes.get(service, 0) + step:
            self.sizes[service] = size
        else:
            del self.sizes[service]


class _Kept:
    """What a listing could not tell: keys or prefixes unknown, keys or ids rejected."""

    def __init__(self, unknown: Iterable[str], rejected: Iterable[str]) -> None:
        self._ids = frozenset(rejected)
        self._parts = self._ids | {part.removesuffix("/") for part in unknown}
        self._above = {prefix for part in self._ids for prefix in _prefixes(part)}

    def covers(self, key: str) -> bool:
        """Whether the group ``key`` lies under what is unknown, or a rejection concerns it or something in it."""
        return bool(self._parts) and (key in self._above or any(prefix in self._parts for prefix in _prefixes(key)))

    def keeps(self, key: str, id_: str) -> bool:
        """Whether ``id_`` may be there though the group ``key`` does not show it."""
        return id_ in self._ids or self.covers(key)


def _prefixes(path: str) -> Iterator[str]:
    """The path, and every path above it, the whole (``""``) last."""
    yield path
    while path:
        path = path.rpartition("/")[0]
        yield path
