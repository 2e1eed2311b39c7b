"""A world that changes at random: real ingest, catalog and write-back around scripted sources, and a memory of the truth."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any, Literal

from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.log import Change
from bridge.catalog.partition import Partition
from bridge.contracts import AnySource, PluginContext, Relabel, SourceConfig
from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import (
    Confirmed,
    Gone,
    InstanceGroup,
    Listing,
    Observation,
    Port,
    Rejected,
    ServiceInstance,
    ServiceName,
    SourceEvent,
)
from bridge.sync.ingest import Ingest
from bridge.sync.restore import restore
from bridge.sync.store import Batch, Identity, Snapshot, StoredGroup, StoredRecord, StoredService, StoredSource
from bridge.sync.writeback import Writeback
from bridge.testing import ManualClock
from tests.contract.watch_model import ENVIRONMENT, Facts, SourceFacts
from tests.kit.ledger import Ledger

LINEAGE = "a1b2c3"
SERVICES = (("shop", "web"), ("shop", "api"), ("pay", "db"), ("pay", "ghost"))
DAY = 24 * 3600.0


class ScriptedConfig(SourceConfig):
    """A source that the test speaks for."""

    type: Literal["scripted"] = "scripted"

    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[AnySource]:
        raise NotImplementedError


RENAMING = Relabel.model_validate({"from": "{meta.role}", "match": "(.+)", "to": "name", "value": r"\1"})

CONFIGS: dict[str, tuple[ScriptedConfig, tuple[str, ...]]] = {
    "a": (ScriptedConfig(guard=None, relabel=(RENAMING,)), ("",)),
    "b": (ScriptedConfig(hold=200.0), ("",)),
    "c": (ScriptedConfig(guard=None, hold=100.0, fresh_for=40.0, tags=("v2",)), ("east", "west")),
    "d": (ScriptedConfig(guard=None, fresh_for=30.0), ("",)),
}


class MemoryStore:
    """A disk that holds what was flushed; what was not is lost with an unclean stop."""

    def __init__(self, reserve: int) -> None:
        self._reserve = reserve
        self.index = self.revision = 0
        self.limit = 0
        self.gaps: tuple[tuple[int, int], ...] = ()
        self.records: dict[tuple[str, str], StoredRecord] = {}
        self.groups: dict[tuple[str, str], StoredGroup] = {}
        self.sources: dict[str, StoredSource] = {}
        self.services: dict[tuple[str, str], StoredService] = {}

    def open(self, *, clean: bool) -> Snapshot:
        """As a daemon finds it after a stop."""
        floor = self.index
        if not clean and self.limit > self.index:
            floor = self.limit
            self.gaps = (*self.gaps, (self.index, floor))
        floor = max(1, floor)
        self.limit = floor + self._reserve
        identity = Identity(ENVIRONMENT, "uid", LINEAGE, 1)
        return Snapshot(
            identity,
            self.revision,
            self.index,
            floor,
            self.gaps,
            sources=tuple(self.sources.values()),
            groups=tuple(self.groups.values()),
            records=tuple(self.records.values()),
            services=tuple(self.services.values()),
        )

    async def write_pieces(self, batches: Iterable[Batch]) -> None:
        """One transaction."""
        for batch in list(batches):
            self._write(batch)

    def _write(self, batch: Batch) -> None:
        self.index, self.revision = batch.index, batch.revision
        self.records |= {(row.source, row.id): row for row in batch.put_records}
        self.groups |= {(row.source, row.key): row for row in batch.put_groups}
        self.sources |= {row.name: row for row in batch.put_sources}
        self.services |= {(row.namespace, row.name): row for row in batch.put_services}
        tables: list[tuple[dict[Any, Any], tuple[Any, ...]]] = [
            (self.records, batch.removed_records),
            (self.groups, batch.removed_groups),
            (self.sources, batch.removed_sources),
            (self.services, batch.removed_services),
        ]
        for table, keys in tables:
            for key in keys:
                table.pop(key, None)

    async def reserve(self, index: int) -> None:
        """A new ceiling."""
        self.limit = index + self._reserve

    def ceiling(self) -> int:
        """The highest index that may be handed out."""
        return self.limit


class History:
    """What was true from which index on, in one process and those whose disk it took over."""

    def __init__(self, entries: list[tuple[int, Facts]]) -> None:
        self.entries = entries

    def truth(self, index: int) -> Facts:
        """The truth that a cursor with ``index`` stands for, which this process handed out."""
        return self.entries[bisect_left(self.entries, index, key=lambda entry: entry[0])][1]


class World:
    """``step`` changes something; ``history`` tells what every cursor stands for."""

    def __init__(self, random: Random, *, reserve: int = 10_000) -> None:
        self.random = random
        self.clock = ManualClock()
        self.steps: list[str] = []
        self._store = MemoryStore(reserve)
        self._emptied: dict[ServiceName, float] = {}
        self._stored_emptied: dict[ServiceName, float] = {}
        self._known: set[ServiceName] = set()
        self._stored_known: set[ServiceName] = set()
        self.history = History([])
        self.ledger = Ledger()
        self._stored_ledger: dict[str, frozenset[str]] = {}
        self._ticking = False
        self._configured = {name: CONFIGS[name] for name in "abc"}
        self._build(self._store.open(clean=True))

    def _build(self, snapshot: Snapshot) -> None:
        indexes = Indexes(LINEAGE, snapshot.floor, self._store.ceiling(), snapshot.gaps)
        self.catalog = Catalog(indexes)
        self.catalog.on_change = self._on_change
        self.partition = Partition(ENVIRONMENT, "uid", 1, snapshot.revision)
        self.catalog.partitions[ENVIRONMENT] = self.partition
        restore(self.catalog, self.partition, snapshot, self.clock)
        self._note(snapshot.floor)
        self.ingest = Ingest(self.catalog, self.partition, self.clock, logging.getLogger("test.ingest"))
        self.ingest._logger.disabled = True
        self.writeback = Writeback(self.catalog, self.partition, self._store, self.clock)  # type: ignore[arg-type]
        self.ingest.on_changes = self.writeback.mark
        self.ingest.on_forgotten = self.writeback.mark_services
        for name, (config, scopes) in self._configured.items():
            self.ingest.add(name, config, scopes=scopes, polled=False)
        for name in list(self.partition.statuses):
            if name not in self._configured:
                self.ingest.retire(name, self.clock.monotonic())
        self._note()

    # -- the truth

    @property
    def now(self) -> Facts:
        """The truth now."""
        return self.history.entries[-1][1]

    def _on_change(self, change: Change) -> None:
        """One of several changes of a step, perhaps: streams show each."""
        if self._ticking and not change.pairs:
            self._forget()
        self._note(change.index)

    def _forget(self) -> None:
        wall = self.clock.wall()
        due = {name for name, at in self._emptied.items() if wall - at >= DAY}
        self._known -= due
        self._emptied = {name: at for name, at in self._emptied.items() if name not in due}

    def _note(self, index: int | None = None) -> None:
        records = self.partition.sources
        instances = [record.instance for source in records.values() for record in source.records.values()]
        alive = {instance.service_name for instance in instances}
        alive |= {name for source in records.values() for group in source.groups.values() for name in group.services}
        for service in self._known - alive:
            self._emptied.setdefault(service, self.clock.wall())
        for service in alive:
            self._emptied.pop(service, None)
        self._known = alive | set(self._emptied)
        now = self.clock.monotonic()
        sources = {}
        for name, status in self.partition.statuses.items():
            held = records[name]
            error = str(status.error) if status.error is not None else next(iter(status.rejected.values()), None)
            row = (
                *(name, status.type, status.state(now), len(held.records)),
                *(len(status.rejected), len(held.held), held.held_reason, error),
            )
            sources[name] = SourceFacts(status.read, bool(status.unread), status.origin in self.catalog.stale, row)
        facts = Facts(instances, set(self._known), sources)
        self.history.entries.append((index or self.catalog.indexes.index, facts))

    # -- changes

    def step(self) -> str:
        """One random change; its name."""
        actions: list[tuple[Callable[[], None], int]] = [
            (self._list, 8),
            (self._group, 14),
            (self._flip, 10),
            (self._gone, 4),
            (self._batch, 6),
            (self._confirm, 6),
            (self._fail, 3),
            (self._reject, 2),
            (self._settle, 8),
            (self._pass_time, 5),
            (self._pass_a_day, 1),
            (self._configure, 3),
            (self._flush, 5),
        ]
        action = self.random.choices([action for action, _ in actions], [weight for _, weight in actions])[0]
        action()
        self.ingest.review()
        self._note()
        statuses = self.partition.statuses.values()
        assert set(self.catalog.services) == self._known, self.steps
        assert self.catalog.stale == {status.origin for status in statuses if status.is_stale(self.clock.monotonic())}
        self.steps.append(f"{self.catalog.indexes.index}:{action.__name__[1:]}")
        return action.__name__[1:]

    def quiesce(self) -> None:
        """Let everything end that only waits for time, and what a restart left half done for the next listing."""
        self._accept("a", Listing("", (self._make_group("a"),)))
        self._note()
        self._settle()
        self._note()

    def restart(self, *, clean: bool) -> None:
        """The process ends and another takes over its disk; the server around it is the caller's affair."""
        if clean:
            self._flush()
            self._note()
        else:
            self._emptied, self._known = dict(self._stored_emptied), set(self._stored_known)
            self.ledger.groups = dict(self._stored_ledger)
        past = self.history.entries
        self.history = History([entry for entry in past if entry[0] <= self._store.index] or past[:1])
        self.steps.append(f"{self.catalog.indexes.index}:{'clean' if clean else 'unclean'} restart")
        self._build(self._store.open(clean=clean))

    def _source(self) -> str:
        return self.random.choice(sorted(self._configured))

    def _accept(self, name: str, observation: Observation, scope: str = "", *, listing: bool = False) -> None:
        self.ingest.accept(name, observation, scope=scope, listing=listing)
        if name == "a":
            self.ledger.apply(observation)

    def _instance(self, namespace: str, service: str) -> ServiceInstance:
        pick = self.random.choice
        number = self.random.randrange(4)
        return ServiceInstance(
            id=f"{namespace}/{service}/{number}",
            namespace=namespace,
            service=service,
            addresses=(f"10.0.0.{self.random.randrange(1, 4)}",),
            ports=pick([(), (Port("http", 80),), (Port("http", 80), Port(None, 81)), (Port("grpc", 90),)]),
            health=pick(["ready", "ready", "ready", "unready", "unknown"]),
            lifecycle=pick(["active", "active", "active", "draining"]),
            weight=pick([1, 1, 2]),
            zone=pick([None, "z1", "z2", "z3"]),
            node=pick([None, "n1"]),
            tags=pick([(), ("v1",), ("v1", "v2")]),
            meta=pick([{}, {}, {"role": "web2"}, {"role": "api"}]),
        )

    def _make_group(self, source: str, scope: str = "") -> InstanceGroup:
        namespace, service = self.random.choice(SERVICES)
        prefix = scope or self.random.choice(CONFIGS[source][1])
        key = f"{namespace}/{service}-{self.random.randrange(2)}"
        instances = {i.id: i for i in (self._instance(namespace, service) for _ in range(self.random.randrange(5)))}
        services = (ServiceName(namespace, service),) if self.random.random() < 0.5 else ()
        return InstanceGroup(f"{prefix}/{key}" if prefix else key, tuple(instances.values()), services)

    def _make_listing(self, source: str) -> Listing:
        scope = self.random.choice(CONFIGS[source][1])
        groups = {group.key: group for group in (self._make_group(source, scope) for _ in range(self.random.randrange(7)))}
        records = self.partition.sources[source]
        unchanged: tuple[str, ...] = ()
        unknown: dict[str, SourceError] = {}
        missing = [key for key in records.groups if key.startswith(scope) and key not in groups]
        if missing and self.random.random() < 0.5:
            unchanged = tuple(key for key in missing if self.random.random() < 0.7)
        if self.random.random() < 0.2:
            part = self.random.choice([f"{scope}/pay" if scope else "pay", *missing])
            if part not in groups and part not in unchanged:
                unknown[part] = self.random.choice([TransientError("no answer"), ForbiddenError("denied")])
        return Listing(scope, tuple(groups.values()), unchanged, unknown)

    def _list(self) -> None:
        source = self._source()
        listing = self._make_listing(source)
        self._accept(source, listing, listing.scope)

    def _group(self) -> None:
        source = self._source()
        group = self._make_group(source)
        self._accept(source, group, self._scope_of(source, group.key))

    def _flip(self) -> None:
        """One instance of a group that is there changes its readiness."""
        source = self._source()
        records = self.partition.sources[source]
        groups = [key for key, group in records.groups.items() if group.shown]
        if not groups or source == "a":  # what source a shows was renamed on the way in
            return
        key = self.random.choice(groups)
        parts = [dict(records.records[id_].parts)[key] for id_ in records.groups[key].shown]
        flipped = self.random.randrange(len(parts))
        instances = tuple(
            ServiceInstance(
                id=part.id,
                namespace=part.namespace,
                service=part.service,
                addresses=part.addresses,
                ports=part.ports,
                health=("unready" if part.health == "ready" else "ready") if n == flipped else part.health,
                lifecycle=part.lifecycle,
                zone=part.zone,
                tags=part.tags,
                meta=part.meta,
            )
            for n, part in enumerate(parts)
        )
        self._accept(source, InstanceGroup(key, instances, records.groups[key].services), self._scope_of(source, key))

    def _gone(self) -> None:
        source = self._source()
        keys = list(self.partition.sources[source].groups)
        if keys:
            key = self.random.choice(keys)
            self._accept(source, Gone(key), self._scope_of(source, key))

    def _batch(self) -> None:
        source = self._source()
        scope = self.random.choice(CONFIGS[source][1])
        events: list[SourceEvent] = [self._make_group(source, scope) for _ in range(self.random.randrange(1, 5))]
        if keys := [key for key in self.partition.sources[source].groups if key.startswith(scope)]:
            events.insert(self.random.randrange(len(events)), Gone(self.random.choice(keys)))
        self._accept(source, tuple(events), scope)

    def _confirm(self) -> None:
        source = self._source()
        scope = self.random.choice(CONFIGS[source][1])
        self._accept(source, Confirmed(scope), scope, listing=self.random.random() < 0.5)

    def _fail(self) -> None:
        source = self._source()
        error = self.random.choice([TransientError("no answer"), TransientError("refused"), ForbiddenError("denied")])
        self.ingest.fail(source, self.random.choice(CONFIGS[source][1]), error)

    def _reject(self) -> None:
        source = self._source()
        scope = self.random.choice(CONFIGS[source][1])
        self._accept(source, Rejected(f"{scope}/odd", self.random.choice(["broken", "torn"])), scope)

    def _settle(self) -> None:
        self.clock.advance(0.2)
        self.ingest.settle()
        self.ingest.review()

    def _pass_time(self) -> None:
        if self.random.random() < 0.1:  # the process itself stood still
            self.clock.advance(100.0)
            self._tick()
        for _ in range(self.random.choice([1, 1, 8, 20, 50])):
            self.clock.advance(2.9)
            self._tick()
        self.ingest.settle()

    def _pass_a_day(self) -> None:
        self.clock.advance(DAY + 1)
        self._tick()
        self.ingest.settle()

    def _tick(self) -> None:
        self._ticking = True
        self.ingest.tick()
        self._ticking = False
        self._note()

    def _configure(self) -> None:
        """A reload: the source d appears, is retired, comes back, is dropped, or takes c's records over."""
        status = self.partition.statuses.get("d")
        if "d" not in self._configured:
            if status is not None and self.random.random() < 0.5:
                self.ingest.drop("d")
                return
            self._configured["d"] = CONFIGS["d"]
            self.ingest.add("d", CONFIGS["d"][0], scopes=("",), polled=False)
        else:
            del self._configured["d"]
            self.ingest.retire("d", self.clock.monotonic())

    def _flush(self) -> None:
        _finish(self.writeback.mark_sources())
        _finish(self.writeback.flush())
        self._stored_emptied, self._stored_known = dict(self._emptied), set(self._known)
        self._stored_ledger = dict(self.ledger.groups)

    @staticmethod
    def _scope_of(source: str, key: str) -> str:
        return next(scope for scope in CONFIGS[source][1] if key.startswith(scope))


def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run what never really waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")
