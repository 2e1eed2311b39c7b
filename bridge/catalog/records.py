"""The records of one source: events go in, changes come out (semantics 4.1, 4.2).

Several groups may hold the same id; the record shows their merge, and goes when the last of them lets go. Evidence decides
how soon: what the backend calls ended goes at once, what a stream no longer shows 100 ms later (endpoints move between
groups), what a listing lacks when the guard lets it, and what could not be told stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from bridge.batched import batched
from bridge.catalog.guard import GuardPolicy, Hold, Window, services_to_hold
from bridge.catalog.kept import Kept, upwards
from bridge.catalog.merge import merge
from bridge.catalog.record import Changes, Group, Parts, Record
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

Part = tuple[str, str]
"""A group key and an id: what one group says of one instance."""

LINGER = 0.1
"""Seconds an id that a stream event dropped stays, in case another group is about to show it."""


class _Ending(NamedTuple):
    """What a listing says of groups while its pieces are applied: those that are over, those it tells, and what it keeps."""

    over: set[str]
    told: set[str]
    kept: Kept


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
        self._unlisted = False
        self._ending: _Ending | None = None
        self._lingering: dict[tuple[str, str], float] = {}

    # -- what the backend said

    def check(self, events: Iterable[SourceEvent]) -> None:
        """Raises ContractError where a listing calls a group unchanged that is not there."""
        for event in events:
            if isinstance(event, Listing):
                for key in event.unchanged:
                    if key not in self.groups:
                        raise ContractError(f"a listing calls the group {key!r} unchanged, which was never seen")

    def fold(self, events: Sequence[SourceEvent], now: float, wall: float) -> Changes:
        """Apply events that belong together. ``now``: monotonic seconds; ``wall``: seconds since the epoch, for `Record.since`.

        What the same observation rejects is kept, though its group no longer shows it. Raises as `check`, before anything
        was changed.
        """
        self.check(events)
        changes = Changes()
        kept = Kept((), tuple(event.key for event in events if isinstance(event, Rejected)))
        for event in events:
            match event:
                case InstanceGroup():
                    for id_ in self._put(event, changes, now, wall):
                        if not kept.keeps(event.key, id_):
                            self._linger(event.key, id_, now, changes)
                case Gone():
                    self._end((event.key,), changes, now)
                case Listing():
                    self._window.trim(now)
                    self._end(event.gone, changes, now)
                    for group in event.groups:
                        self._put(group, changes, now, wall)
                    announced, lost, vanished = self._end_listing(event)
                    self._let_go(announced, changes, now)
                    self._let_go(self._weigh(lost, now), changes, now, by_absence=True)
                    self._forget_empty(vanished, changes)
                case Confirmed() | Rejected():
                    pass
        return changes

    def begin_listing(self, listing: Listing, now: float) -> None:
        """Before the pieces of a listing."""
        self._window.trim(now)
        told, kept = _told(listing)
        over = {key for key, _ in self._under(listing.scope) if key not in told and not kept.covers(key)}
        self._ending = _Ending(over.union(listing.gone), told, kept)

    def fold_piece(self, groups: Sequence[InstanceGroup], now: float, wall: float) -> Changes:
        """Apply what a part of a listing's groups shows; what they lack stays until `end_listing`, unless it moved to them."""
        changes = Changes()
        for group in groups:
            self._put(group, changes, now, wall)
        self._complete_moves(groups, changes, now)
        return changes

    def end_listing(self, listing: Listing, now: float, size: int) -> Iterator[Changes]:
        """After the pieces of a listing: what the backend calls ended, and what it lacks; ``size`` of them at a time."""
        self._ending = None
        shown = {instance.id for group in listing.groups for instance in group.instances} if listing.gone else set()
        for ended in batched([key for key in listing.gone if key not in shown], size):
            changes = Changes()
            self._end(ended, changes, now)
            yield changes
        announced, lost, vanished = self._end_listing(listing)
        for parts in batched(announced, size):
            changes = Changes()
            self._let_go(parts, changes, now)
            yield changes
        for parts in batched(self._weigh(lost, now), size):
            changes = Changes()
            self._let_go(parts, changes, now, by_absence=True)
            yield changes
        for keys in batched(vanished, size):
            changes = Changes()
            self._forget_empty(keys, changes)
            yield changes

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
                kept = Kept(event.unknown, event.rejected)
                unchanged = set(event.unchanged)
                keys.update(key for key, _ in self._under(event.scope) if key not in unchanged and not kept.covers(key))
        return {id_ for key in keys if key in self.groups for id_ in (*self.groups[key].shown, *self.groups[key].kept)}

    def relist(self, scope: str, changes: Changes, now: float) -> None:
        """A complete look found everything under ``scope`` as the last listing did: what it holds is weighed again."""
        if self.held:
            self._window.trim(now)
            lost = [(key, id_) for key, group in self._under(scope) for id_ in group.kept if id_ in self.held]
            self._let_go(self._weigh(lost, now), changes, now, by_absence=True)

    def clear(self, now: float) -> Changes:
        """Remove everything (a retired source whose time is over)."""
        changes = Changes()
        self._end(list(self.groups), changes, now)
        return changes

    def mark(self, state: str, scope: str = "") -> Changes:
        """Set the state of every record with a group under ``scope``: ``listed`` on confirmation, ``expired`` without."""
        changes = Changes()
        if state == "listed" and not self._unlisted:
            return changes
        self._unlisted = state != "listed" or scope != ""
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
        self._unlisted |= instance.state != "listed"
        for key, part in parts:
            group = self.groups.get(key)
            if group is None:
                group = self.groups[key] = Group()
            group.instances.append(part)
        return instance

    def restore_members(self, key: str, service: ServiceName, members: dict[str, Record]) -> None:
        """Take from disk, as they were, records of one service that only the group ``key`` shows; as `restore`, for many."""
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group()
        group.instances += [record.instance for record in members.values()]
        self.records.update(members)
        self._resize(service, len(members))
        self._listed = True
        self._unlisted = self._unlisted or any(record.instance.state != "listed" for record in members.values())

    def restore_group(self, key: str, services: tuple[ServiceName, ...]) -> None:
        """Take a group from disk: the services it stands for."""
        self.groups.setdefault(key, Group()).services = services

    # -- listings

    def _complete_moves(self, groups: Iterable[InstanceGroup], changes: Changes, now: float) -> None:
        """What these groups of a listing show, and former groups do not any more: they let go of it, that it is not both."""
        ending = self._ending
        if ending is None:
            return
        shorter: dict[str, set[str]] = {}
        for group in groups:
            for instance in group.instances:
                record = self.records[instance.id]
                if isinstance(record.held_by, str):  # as nearly all are
                    continue
                for key, _ in record.parts:
                    left = key in ending.over or (key in ending.told and instance.id in self.groups[key].kept)
                    if key != group.key and left and not ending.kept.keeps(key, instance.id):
                        self._drop(key, instance.id, changes, now)
                        shorter.setdefault(key, set()).add(instance.id)
        self._shorten(shorter)

    def _shorten(self, ended: Mapping[str, set[str]]) -> None:
        """Groups show some ids no more, which are gone from there already."""
        for key, ids in ended.items():
            if (members := self.groups.get(key)) is not None:
                members.instances = [instance for instance in members.instances if instance.id not in ids]

    def _end_listing(self, listing: Listing) -> tuple[list[Part], list[Part], list[str]]:
        """What a listing lacks: what goes as it is, what is to be weighed, and groups that may be over then."""
        told, kept = _told(listing)
        absent: dict[str, list[str]] = {}
        vanished: list[str] = []
        for key, members in self._under(listing.scope):
            if key not in told and not kept.covers(key):
                vanished.append(key)
                members.kept.update(dict.fromkeys(members.shown))
                members.instances = []
            for id_ in members.kept:
                if not kept.keeps(key, id_):
                    absent.setdefault(id_, []).append(key)
        announced: list[Part] = []
        lost: list[Part] = []
        for id_, keys in absent.items():
            # Not by mere absence: a stream let go of it and it moved nowhere, it is shown elsewhere, or was said to be ending.
            record = self.records[id_]
            goes = len(record.parts) > len(keys) or record.instance.lifecycle == "draining"
            for key in keys:
                (announced if goes or (key, id_) in self._lingering else lost).append((key, id_))
        self._listed = True
        return announced, lost, vanished

    def _let_go(self, parts: Iterable[Part], changes: Changes, now: float, *, by_absence: bool = False) -> None:
        """Obey the absence of ``parts``, as far as it still stands."""
        for key, id_ in parts:
            group = self.groups.get(key)
            if group is not None and id_ in group.kept:
                self._drop(key, id_, changes, now, lost_by_absence=by_absence)

    def _forget_empty(self, keys: Iterable[str], changes: Changes) -> None:
        for key in keys:
            group = self.groups.get(key)
            if group is not None and not (group.instances or group.kept):
                self._forget_group(key, changes)

    def _under(self, scope: str) -> Iterator[tuple[str, Group]]:
        """The groups a listing of ``scope`` speaks of: those under it, and those that no scope covers any more."""
        whole = "" in self.scopes
        for key, group in self.groups.items():
            if covers(scope, key) or not (whole or any(covers(declared, key) for declared in self.scopes)):
                yield key, group

    def _weigh(self, lost: Iterable[Part], now: float) -> list[Part]:
        """Which of ``lost``, as far as it still stands, is to be let go of; the rest is held."""
        standing = [(key, id_) for key, id_ in lost if key in self.groups and id_ in self.groups[key].kept]
        if self.policy is None:
            return standing
        candidates = {id_: self.records[id_].instance.service_name for _, id_ in standing}
        missing = candidates | {id_: self.records[id_].instance.service_name for id_ in self.held}
        absent = Counter(missing.values())
        if not absent:
            return []
        services, reason = services_to_hold(
            self.policy,
            absent=absent,
            sizes=self.sizes,
            total=len(self.records),
            lost=self._window.lost,
            added=self._window.added,
        )
        obeyed: set[str] = set()
        for id_, service in candidates.items():
            hold = self.held.get(id_)
            if hold is not None:
                hold.listings += 1
            if service in services and not (hold is not None and hold.is_over(self.policy, now)):
                self.held.setdefault(id_, Hold(now))
            else:
                obeyed.add(id_)
        self.held_reason = reason if self.held else None
        return [part for part in standing if part[1] in obeyed]

    # -- steps

    def _put(self, event: InstanceGroup, changes: Changes, now: float, wall: float) -> list[str]:
        """Apply what the group shows; the ids it showed or kept before and shows no more."""
        key, records = event.key, self.records
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group()
            changes.groups[key] = None
        if group.services != event.services:
            self._stand(group, event.services, changes)
            changes.groups[key] = None
        if (differences := group.differences(event.instances)) is not None and self._replace(group, event, differences, changes):
            return list(group.kept)
        shown = {instance.id: instance for instance in event.instances}
        if records.keys().isdisjoint(shown):
            arrived = list(shown.values())
            records.update({id_: Record(instance, key, wall) for id_, instance in shown.items()})
        else:
            arrived = []
            for id_, instance in shown.items():
                record = records.get(id_)
                if record is None:
                    records[id_] = Record(instance, key, wall)
                    arrived.append(instance)
                elif record.instance is not instance or self.held or record.held_by != key or self._lingering:
                    self._put_part(key, instance, record, changes)
        if arrived:
            self._arrive(arrived, changes, now)
        missing: list[str] = []
        if group.instances or group.kept:
            missing = [id_ for id_ in (*group.shown, *group.kept) if id_ not in shown]
            group.kept = dict.fromkeys(missing)
        group.instances = list(shown.values())
        return missing

    def _replace(self, group: Group, event: InstanceGroup, positions: list[int], changes: Changes) -> bool:
        """Apply what the group shows at ``positions``, where all else is as it was; whether that is all there is to it."""
        former, now = group.instances, event.instances
        if self.held or self._lingering or any(former[position].id != now[position].id for position in positions):
            return False
        for position in positions:
            part = now[position]
            self._put_part(event.key, part, self.records[part.id], changes)
        group.instances = list(now)
        return True

    def _arrive(self, instances: Sequence[ServiceInstance], changes: Changes, now: float) -> None:
        """Count and note instances whose records are new."""
        changes.arrive(instances)
        for name, count in Counter([(instance.namespace, instance.service) for instance in instances]).items():
            service = ServiceName(*name)
            self._resize(service, count)
            if self._listed:
                self._window.add(now, service, count)

    def _put_part(self, key: str, part: ServiceInstance, record: Record, changes: Changes) -> None:
        id_ = part.id
        if self._lingering:
            self._lingering.pop((key, id_), None)
        if self.held:
            self._unhold(id_)
        if record.held_by == key:
            if (before := record.instance) != part:
                record.instance = part
                self._note(id_, before, part, changes)
            return
        lingering = [group for group, _ in record.parts if (group, id_) in self._lingering]
        for group in lingering:
            del self._lingering[group, id_]
            self.groups[group].kept.pop(id_, None)
        others = [entry for entry in record.parts if entry[0] != key and entry[0] not in lingering]
        self._show(id_, record, (*others, (key, part)), changes)

    def _show(self, id_: str, record: Record, parts: Parts, changes: Changes) -> None:
        before = record.instance
        changed = record.parts != parts
        record.show(parts)
        if record.instance != before:
            self._note(id_, before, record.instance, changes)
        elif changed:
            changes.moved[id_] = None

    def _note(self, id_: str, before: ServiceInstance, after: ServiceInstance, changes: Changes) -> None:
        if before.service != after.service or before.namespace != after.namespace:
            self._resize(before.service_name, -1)
            self._resize(after.service_name, 1)
        changes.note(id_, before, after)

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
        shorter: dict[str, set[str]] = {}
        for key in keys:
            if key in self.records:
                for group, _ in self.records[key].parts:
                    self._drop(group, key, changes, now)
                    shorter.setdefault(group, set()).add(key)
            elif key in self.groups:
                self._end_group(key, changes, now)
            else:
                prefixes.add(key)
        self._shorten(shorter)
        if prefixes:
            for group in [group for group in self.groups if any(prefix in prefixes for prefix in upwards(group))]:
                self._end_group(group, changes, now)

    def _end_group(self, key: str, changes: Changes, now: float) -> None:
        members = self.groups[key]
        for id_ in (*members.shown, *members.kept):
            if id_ in self.records:  # it may have ended by its own name
                self._drop(key, id_, changes, now)
        self._forget_group(key, changes)

    def _drop(self, key: str, id_: str, changes: Changes, now: float, *, lost_by_absence: bool = False) -> None:
        """``key``, which shows ``id_`` no more or is about to, lets go of it; the record goes with its last part."""
        record = self.records[id_]
        self.groups[key].kept.pop(id_, None)
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


def _told(listing: Listing) -> tuple[set[str], Kept]:
    """Keys of the groups that a listing tells, and what it could not tell."""
    return {group.key for group in listing.groups}.union(listing.unchanged), Kept(listing.unknown, listing.rejected)
