"""Views of instances: one service's, all services', and a single instance."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bridge.catalog.entry import ServiceEntry
from bridge.catalog.log import Change, Touch
from bridge.catalog.query import Query
from bridge.catalog.record import Pair
from bridge.catalog.view import Delta, Page, View
from bridge.model import Origin, ServiceInstance, ServiceName

if TYPE_CHECKING:
    from bridge.catalog.catalog import Catalog


class InstancesView(View):
    """The instances of one service (``service``), or of all (None), that match the query."""

    collection = "instances"

    def __init__(self, catalog: Catalog, query: Query, index: int, service: ServiceName | None) -> None:
        self.service = service
        super().__init__(catalog, "instances" if service is None else "service", query, index)
        if service is None:
            self.min_gap = 0.1
        self._evaluate()

    def evaluate_degraded(self) -> bool:
        entry = self.catalog.services.get(self.service) if self.service is not None else None
        return entry is not None and entry.degraded

    def evaluate_status(self) -> int:
        if self.service is None:
            return 503 if self.catalog.nothing_read(self.query) else 200
        if self.service in self.catalog.services:
            return 200
        return 503 if self.catalog.unread(self.query) else 404

    def key(self, item: Any) -> str:
        return str(item.ref)

    def document(self) -> dict[str, Any]:
        if self.service is None:
            return {}
        document: dict[str, Any] = {"namespace": self.service.namespace, "name": self.service.name}
        if self.degraded:
            document["degraded"] = ServiceEntry.degraded_reason
        return document

    def page(self) -> Page:
        query = self.query
        if not (query.paged or query.near):
            return Page(list(self._matching(None)), None)
        if query.near:
            ranked = sorted(self._matching(None), key=self._position)
            if query.page is not None:
                start = query.page
                ranked = [item for item in ranked if self._position(item) > start]
            matching: Iterator[ServiceInstance] = iter(ranked)
        else:
            matching = self._matching(query.page)
        if query.limit is None:
            return Page(list(matching), None)
        items: list[ServiceInstance] = []
        for item in matching:
            if len(items) == query.limit:
                return Page(items, self._position(items[-1]))
            items.append(item)
        return Page(items, None)

    def delta(self, change: Change) -> Delta | None:
        touches = self._touches(change)
        degraded = {touch.service: touch.degraded for touch in touches if touch.degraded != (False, False)}
        return self._net(self._pairs(change, touches), degraded) or None

    def delta_since(self, changes: Iterable[Change]) -> Delta | None:
        net: dict[str, Pair] = {}
        degraded: dict[ServiceName, tuple[bool, bool]] = {}
        for change in changes:
            touches = self._touches(change)
            for touch in touches:
                degraded[touch.service] = (degraded.get(touch.service, touch.degraded)[0], touch.degraded[1])
            for before, after in self._pairs(change, touches):
                ref = (after or before).ref  # type: ignore[union-attr]  # one of the two is there
                net[ref] = (net.get(ref, (before, after))[0], after)
        if self.service is not None and (flip := degraded.get(self.service)) is not None and flip[0] != flip[1]:
            return None
        return self._net(net.values(), degraded)

    def _touches(self, change: Change) -> Sequence[Touch]:
        if self.service is None:
            return change.touches
        touch = change.touch(self.service)
        return (touch,) if touch is not None else ()

    def _pairs(self, change: Change, touches: Sequence[Touch]) -> Iterator[Pair]:
        """What of ``change`` concerns the view. Of all services a renamed instance is one pair, of its services two."""
        if self.service is None:
            yield from change.pairs
        for touch in touches:
            if self.service is not None:
                yield from touch.pairs
            for instance in touch.swayed:
                yield instance, instance

    def _net(self, pairs: Iterable[Pair], degraded: dict[ServiceName, tuple[bool, bool]]) -> Delta:
        added: list[ServiceInstance] = []
        updated: list[ServiceInstance] = []
        removed: list[str] = []
        replaced: list[ServiceInstance] = []
        matches, hidden = self.query.matches, self._hidden
        for before, after in pairs:
            was = before is not None and not hidden(before)
            was = was and matches(before, degraded=degraded.get(before.service_name, (False, False))[0])  # type: ignore[union-attr,arg-type]
            now = after is not None and not hidden(after)
            now = now and matches(after, degraded=degraded.get(after.service_name, (False, False))[1])  # type: ignore[union-attr,arg-type]
            if was and now:
                if before != after:
                    updated.append(after)  # type: ignore[arg-type]
                    replaced.append(before)  # type: ignore[arg-type]
            elif now:
                added.append(after)  # type: ignore[arg-type]
            elif was:
                removed.append(before.ref)  # type: ignore[union-attr]
                replaced.append(before)  # type: ignore[arg-type]
        return Delta(tuple(added), tuple(updated), tuple(removed), tuple(replaced))

    def _hidden(self, instance: ServiceInstance) -> bool:
        return self.stale_sensitive and Origin(instance.environment, instance.source) in self.catalog.stale

    def _matching(self, after: tuple[str, ...] | None) -> Iterator[ServiceInstance]:
        if self.service is not None:
            names: Iterable[ServiceName] = [self.service]
        else:
            names = self.catalog.sorted_services()
            if after is not None:
                names = names[bisect_left(names, ServiceName(*after[1:3])) :]
        matches = self.query.matches
        for name in names:
            entry = self.catalog.services.get(name)
            if entry is None or (self.query.namespace and name.namespace not in self.query.namespace):
                continue
            for instance in entry.ordered():
                if matches(instance, degraded=entry.degraded) and not self._hidden(instance):
                    if after is not None and self._position(instance) <= after:
                        continue
                    yield instance

    def _position(self, instance: ServiceInstance) -> tuple[str, ...]:
        return (
            f"{self.query.distance(instance):06}",
            instance.namespace,
            instance.service,
            instance.environment,
            instance.source,
            instance.id,
        )


class InstanceView(View):
    """One instance, whatever its health and state."""

    collection = ""

    def __init__(self, catalog: Catalog, query: Query, index: int, origin: Origin, id_: str) -> None:
        self.origin = origin
        self.id = id_
        super().__init__(catalog, "instance", query, index)
        self.status = self.evaluate_status()

    @property
    def instance(self) -> ServiceInstance | None:
        """The instance, where it is known."""
        return self.catalog.instance(self.origin, self.id)

    def evaluate_status(self) -> int:
        if self.instance is not None:
            return 200
        return 503 if self.catalog.unread_origin(self.origin) else 404

    def key(self, item: Any) -> str:
        return str(item.ref)

    def page(self) -> Page:
        instance = self.instance
        return Page([instance] if instance is not None else [], None)

    def delta(self, change: Change) -> Delta | None:
        return self._net(change.pairs) or None

    def delta_since(self, changes: Iterable[Change]) -> Delta:  # noqa: ARG002  # it has no streams
        return Delta()

    def _net(self, pairs: Iterable[Pair]) -> Delta:
        for before, after in pairs:
            if (
                after is not None
                and before is not None
                and after.id == self.id
                and Origin(after.environment, after.source) == self.origin
            ):
                return Delta(updated=(after,), replaced=(before,))
        return Delta()
