"""The view of services: names with counts, ports and tags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bridge.catalog.log import Change
from bridge.catalog.query import Query
from bridge.catalog.summary import ServiceSummary, Tally
from bridge.catalog.view import Delta, Page, View
from bridge.model import Origin, ServiceInstance, ServiceName

if TYPE_CHECKING:
    from bridge.catalog.catalog import Catalog
    from bridge.catalog.entry import ServiceEntry

_PLAIN = Query(health=("ready", "unready", "unknown"), lifecycle=("active", "draining"))


class ServicesView(View):
    """Every service with the counts of its matching instances; it remembers the entries it shows, to see what changes."""

    collection = "services"
    min_gap = 0.1

    def __init__(self, catalog: Catalog, query: Query, index: int) -> None:
        super().__init__(catalog, "services", query, index)
        self.status = self.evaluate_status()
        self._plain = (
            query.health == _PLAIN.health
            and query.lifecycle == _PLAIN.lifecycle
            and query.state == _PLAIN.state
            and not (query.filtered or query.environment)
        )
        self._known: dict[ServiceName, ServiceSummary] = {}
        self.rebuild()

    def evaluate_status(self) -> int:
        return 503 if self.catalog.nothing_read(self.query) else 200

    def key(self, item: Any) -> str:
        return f"{item.namespace}/{item.name}"

    def page(self) -> Page:
        names = sorted(self._known)
        if self.query.page is not None:
            names = [name for name in names if tuple(name) > self.query.page]
        limit = self.query.limit if self.query.limit is not None else len(names)
        shown = names[:limit]
        return Page([self._known[name] for name in shown], tuple(shown[-1]) if len(names) > limit else None)

    def delta(self, change: Change) -> Delta | None:
        added: list[ServiceSummary] = []
        updated: list[ServiceSummary] = []
        removed: list[str] = []
        replaced: list[ServiceSummary] = []
        for touch in change.touches:
            before = self._known.get(touch.service)
            after = self._remember(touch.service)
            if before == after:
                continue
            if before is not None:
                replaced.append(before)
            if after is None:
                removed.append(str(touch.service))
            else:
                (added if before is None else updated).append(after)
        return Delta(tuple(added), tuple(updated), tuple(removed), tuple(replaced)) or None

    def delta_since(self, changes: Iterable[Change]) -> Delta:
        added: list[ServiceSummary] = []
        updated: list[ServiceSummary] = []
        removed: list[str] = []
        past: dict[ServiceName, _Past] = {}
        for change in changes:
            for touch in change.touches:
                past.setdefault(touch.service, _Past(touch.known[0], touch.degraded[0], touch.environments)).undo(touch.pairs)
        for name, was in past.items():
            before, after = was.summary(self, name), self._known.get(name)
            if before == after:
                continue
            if after is None:
                removed.append(str(name))
            else:
                (added if before is None else updated).append(after)
        return Delta(tuple(added), tuple(updated), tuple(removed))

    def rebuild(self) -> None:
        self._known = {}
        for name in self.catalog.services:
            self._remember(name)

    def summarize(
        self, name: ServiceName, instances: Iterable[ServiceInstance], environments: Iterable[str], degraded: bool
    ) -> ServiceSummary | None:
        """The entry made of ``instances``, all the service has; None where the query leaves it out."""
        query = self.query
        if query.namespace and name.namespace not in query.namespace:
            return None
        tally = Tally(
            instance for instance in instances if query.matches(instance, degraded=degraded) and not self._hidden(instance)
        )
        known = [environment for environment in environments if not query.environment or environment in query.environment]
        if not tally and (query.filtered or not known):
            return None
        return tally.summary(name, known, "its instances are unconfirmed" if degraded else None)

    def _remember(self, name: ServiceName) -> ServiceSummary | None:
        entry: ServiceEntry | None = self.catalog.services.get(name)
        if entry is None:
            summary = None
        elif self._plain and entry.all_listed and (not self.query.namespace or name.namespace in self.query.namespace):
            summary = entry.tally.summary(name, entry.environments(), None)
        else:
            summary = self.summarize(name, entry.ordered(), entry.environments(), entry.degraded)
        if summary is None:
            self._known.pop(name, None)
        else:
            self._known[name] = summary
        return summary

    def _hidden(self, instance: ServiceInstance) -> bool:
        return self.stale_sensitive and Origin(instance.environment, instance.source) in self.catalog.stale


class _Past:
    """A service as it was before some changes, rebuilt from what it is by undoing them."""

    def __init__(self, known: bool, degraded: bool, environments: tuple[str, ...]) -> None:
        self.known = known
        self.degraded = degraded
        self.environments = environments
        self.before: dict[str, ServiceInstance | None] = {}

    def undo(self, pairs: Iterable[tuple[ServiceInstance | None, ServiceInstance | None]]) -> None:
        """Note the oldest state of every instance in ``pairs``; called from the oldest change to the newest."""
        for before, after in pairs:
            instance = before or after
            if instance is not None:
                self.before.setdefault(instance.ref, before)

    def summary(self, view: ServicesView, name: ServiceName) -> ServiceSummary | None:
        """The entry the view showed then."""
        if not self.known:
            return None
        entry = view.catalog.services.get(name)
        now = {instance.ref: instance for instance in entry.ordered()} if entry is not None else {}
        then = [instance for instance in (now | self.before).values() if instance is not None]
        return view.summarize(name, then, self.environments, self.degraded)
