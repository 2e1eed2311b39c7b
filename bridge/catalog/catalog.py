"""The unified catalog: the disjoint union of partitions, its indexes, its log and its live views.

It answers from memory and changes only in `publish`, which applies all that one index changes before any reader
is told: an index is never seen before its data.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from bridge.catalog.cursor import Indexes
from bridge.catalog.entry import REMEMBERED_FOR, ServiceEntry
from bridge.catalog.environments import EnvironmentsView
from bridge.catalog.instances import InstancesView, InstanceView
from bridge.catalog.log import Change, ChangeLog, Touch
from bridge.catalog.partition import Partition
from bridge.catalog.query import Query
from bridge.catalog.record import Changes, Pair
from bridge.catalog.services import ServicesView
from bridge.catalog.status import SourceStatus
from bridge.catalog.view import View
from bridge.errors import QueryError
from bridge.model import Origin, ServiceInstance, ServiceName

MAX_LIVE_LISTS = 1000
"""Live views of a list at most; beyond them 429."""

MAX_IDLE = 256
"""Views of one kind that are remembered though nobody waits for them."""

V = TypeVar("V", bound=View)


class Catalog:
    """All partitions, read as one."""

    def __init__(self, indexes: Indexes) -> None:
        self.indexes = indexes
        self.partitions: dict[str, Partition] = {}
        self.services: dict[ServiceName, ServiceEntry] = {}
        self.stale: frozenset[Origin] = frozenset()
        self.stale_index = indexes.index
        self.now = 0.0
        self.revised = 0
        self.log = ChangeLog(indexes.index)
        self.on_change: Callable[[Change], None] = lambda _change: None
        self.on_wake: Callable[[Sequence[View]], None] = lambda _views: None
        self._sorted: list[ServiceName] | None = None
        self._views: dict[str, OrderedDict[Hashable, View]] = {
            kind: OrderedDict() for kind in ("services", "instances", "service", "instance", "environments")
        }
        self._by_service: dict[ServiceName, dict[Hashable, View]] = {}
        self._list_index = indexes.index
        self._unknown_index = indexes.index
        self._environments_index = indexes.index

    # -- what is known

    def statuses(self) -> Iterable[SourceStatus]:
        """Every source of every environment."""
        for partition in self.partitions.values():
            yield from partition.statuses.values()

    def reach(self, query: Query) -> list[SourceStatus]:
        """The sources whose instances can be in an answer to ``query``."""
        return [status for status in self.statuses() if query.reaches(*status.origin)]

    def nothing_read(self, query: Query) -> bool:
        """Whether there are sources in reach and not one of them was ever read."""
        reach = self.reach(query)
        return bool(reach) and not any(status.read for status in reach)

    def unread(self, query: Query) -> bool:
        """Whether a source in reach, or a part of one, was never read."""
        return any(status.unread or not status.read for status in self.reach(query))

    def unread_origin(self, origin: Origin) -> bool:
        """Whether the source ``origin`` is there, and it or a part of it was never read."""
        return any(status.origin == origin and (status.unread or not status.read) for status in self.statuses())

    def instance(self, origin: Origin, id_: str) -> ServiceInstance | None:
        """One instance by its name."""
        partition = self.partitions.get(origin.environment)
        records = partition.sources.get(origin.source) if partition is not None else None
        record = records.records.get(id_) if records is not None else None
        return record.instance if record is not None else None

    def sorted_services(self) -> list[ServiceName]:
        """The names of all services, in order."""
        if self._sorted is None:
            self._sorted = sorted(self.services)
        return self._sorted

    # -- views

    def instances_view(self, query: Query, service: ServiceName | None) -> InstancesView:
        """The view of all instances, or of one service's."""
        if service is None:
            return self._view("instances", query, lambda: InstancesView(self, query, self._list_index, None))
        entry = self.services.get(service)
        index = entry.index if entry is not None else self._unknown_index
        if not query.stale:
            index = max(index, self.stale_index)
        return self._view("service", (service, query), lambda: InstancesView(self, query, index, service))

    def services_view(self, query: Query) -> ServicesView:
        """The view of all services."""
        return self._view("services", query, lambda: ServicesView(self, query, self._list_index))

    def instance_view(self, origin: Origin, id_: str) -> InstanceView:
        """The view of one instance."""
        instance = self.instance(origin, id_)
        entry = self.services.get(instance.service_name) if instance is not None else None
        index = entry.index if entry is not None else self._list_index
        return self._view("instance", (origin, id_), lambda: InstanceView(self, Query(), index, origin, id_))

    def environments_view(self, now: float) -> EnvironmentsView:
        """The view of environments and their sources, as they are at ``now`` (monotonic seconds)."""
        self.now = now
        view = self._view("environments", "", lambda: EnvironmentsView(self, "environments", Query(), self._environments_index))
        if view.digest != view.compute_digest():
            # Nobody waited while it changed, or time alone changed it just now.
            changed = self._environments_index > view.index
            view.revise(self._environments_index if changed else self.indexes.advance())
            self._wake([view])
        return view

    def live_views(self) -> int:
        """How many views are remembered."""
        return sum(map(len, self._views.values()))

    def _view(self, kind: str, key: Hashable, make: Callable[[], V]) -> V:
        views = self._views[kind]
        view: Any = views.get(key)
        if view is not None:
            views.move_to_end(key)
            return view  # type: ignore[no-any-return]  # each kind holds one class
        if kind in ("instances", "services") and len(views) >= MAX_LIVE_LISTS and not self._evict(kind, MAX_LIVE_LISTS - 1):
            raise QueryError(f"{MAX_LIVE_LISTS} different queries of this list are being followed already", status=429)
        made = make()
        views[key] = made
        if isinstance(made, InstancesView) and made.service is not None:
            self._by_service.setdefault(made.service, {})[key] = made
        self._evict(kind, MAX_IDLE)
        return made

    def _evict(self, kind: str, keep: int) -> bool:
        """Forget idle views of ``kind``, the longest unasked first, until ``keep`` are left; whether that was reached."""
        views = self._views[kind]
        excess = len(views) - keep
        if excess <= 0:
            return True
        newest = next(reversed(views))
        for key in [key for key, view in views.items() if view.idle and key != newest][:excess]:
            view = views.pop(key)
            view.forgotten = True
            if isinstance(view, InstancesView) and view.service is not None:
                siblings = self._by_service[view.service]
                del siblings[key]
                if not siblings:
                    del self._by_service[view.service]
        return len(views) <= keep

    # -- changes

    def publish(self, partition: Partition, changes: Changes, *, now: float, wall: float) -> Change | None:
        """Apply what a fold changed in ``partition`` under one new index, and tell every reader whose view it changes.

        ``now``: monotonic seconds; ``wall``: seconds since the epoch. None when no reader could see a difference.
        """
        touched = _by_service(changes)
        if not touched:
            return None
        index = self.indexes.advance()
        touches: list[Touch] = []
        for name, pairs in touched.items():
            touch = self._apply(partition, name, pairs, changes.stands.get(name, 0), wall)
            entry = self.services[name]
            if touch.pairs or touch.known[0] != touch.known[1] or touch.environments != entry.environments():
                entry.index = index
                touches.append(touch)
        if not touches:
            return None
        partition.revision += 1
        change = Change(index, now, tuple(changes.pairs.values()), tuple(touches))
        self._tell(change)
        return change

    def forget_emptied(self, *, now: float, wall: float) -> Change | None:
        """Let go of services whose last instance went a day ago."""
        touches: list[Touch] = []
        for name, entry in list(self.services.items()):
            due = [env for env, at in entry.emptied_at.items() if wall - at >= REMEMBERED_FOR]
            if due:
                environments = entry.environments()
                for environment in due:
                    del entry.emptied_at[environment]
                    if environment not in entry.environments():
                        self.partitions[environment].services -= 1
                if not entry.known:
                    del self.services[name]
                    self._sorted = None
                touches.append(Touch(name, (), (True, entry.known), (entry.degraded, entry.degraded), environments))
        if not touches:
            return None
        change = Change(self.indexes.advance(), now, (), tuple(touches))
        for touch in touches:
            if touch.service in self.services:
                self.services[touch.service].index = change.index
        self._unknown_index = change.index
        self._tell(change)
        return change

    def revise(self, now: float, *, stale: frozenset[Origin] | None = None, reading: bool = False) -> None:
        """Something other than records changed: the states of sources, which of them are ``stale``, or what was ever read.

        Only views that show such things are looked at. ``now``: monotonic seconds.
        """
        self.now = now
        self.revised += 1
        self._environments_index = index = self.indexes.advance()
        woken: list[View] = [view for view in self._views["environments"].values() if view.revise(index)]
        if stale is not None:
            self.stale, self.stale_index = stale, index
        if reading:
            self._unknown_index = index
        if stale is not None or reading:
            self._list_index = index
            for kind in ("services", "instances", "service", "instance"):
                for view in self._views[kind].values():
                    concerned = view.stale_sensitive if stale is not None else False
                    if (concerned or (reading and view.evaluate_status() != view.status)) and view.revise(index):
                        woken.append(view)
        self._wake(woken)

    def _apply(self, partition: Partition, name: ServiceName, pairs: list[Pair], stands: int, wall: float) -> Touch:
        entry = self.services.get(name)
        if entry is None:
            entry = self.services[name] = ServiceEntry(name)
            self._sorted = None
            known = False
        else:
            known = True
        degraded, environments = entry.degraded, entry.environments()
        entry.change(pairs)
        environment = partition.environment
        if stands:
            entry.stand(environment, stands)
        entry.settle(environment, wall)
        partition.services += (environment in entry.environments()) - (environment in environments)
        swayed: tuple[ServiceInstance, ...] = ()
        if entry.degraded != degraded:
            seen = {id(after) for _, after in pairs}
            swayed = tuple(i for i in entry.ordered() if i.state == "expired" and id(i) not in seen)
        return Touch(name, tuple(pairs), (known, True), (degraded, entry.degraded), environments, swayed)

    def _tell(self, change: Change) -> None:
        self.log.append(change)
        self.now = change.at
        self._list_index = self._environments_index = change.index
        woken: list[View] = []
        for touch in change.touches:
            woken += [view for view in self._by_service.get(touch.service, {}).values() if view.apply(change)]
        if self._views["instance"]:
            woken += self._tell_instances(change)
        for kind in ("instances", "services"):
            woken += [view for view in self._views[kind].values() if view.apply(change)]
        woken += [view for view in self._views["environments"].values() if not view.idle and view.revise(change.index)]
        self.on_change(change)
        self._wake(woken)

    def _tell_instances(self, change: Change) -> list[View]:
        views = self._views["instance"]
        found = []
        for before, after in change.pairs:
            instance = after or before
            if instance is not None:
                view = views.get((Origin(instance.environment, instance.source), instance.id))
                if view is not None and view.apply(change):
                    found.append(view)
        return found

    def _wake(self, views: list[View]) -> None:
        waiting = [view for view in views if view.waiters]
        if waiting:
            self.on_wake(waiting)


def _by_service(changes: Changes) -> dict[ServiceName, list[Pair]]:
    """The pairs of each service that a fold touched; an instance that moved to another is a pair in both."""
    touched: dict[ServiceName, list[Pair]] = {name: [] for name in changes.stands}
    namespace = service = ""
    found: list[Pair] = []
    for pair in changes.pairs.values():
        before, after = pair
        if before is not None and after is not None and (before.service != after.service or before.namespace != after.namespace):
            touched.setdefault(before.service_name, []).append((before, None))
            touched.setdefault(after.service_name, []).append((None, after))
            continue
        instance = after if after is not None else before
        if instance is None:
            continue
        if instance.namespace is not namespace or instance.service is not service:  # most come service by service
            namespace, service = instance.namespace, instance.service
            found = touched.setdefault(instance.service_name, [])
        found.append(pair)
    return touched
