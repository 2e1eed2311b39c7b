"""A bridge inside the test's process: the real ingest, supervisor and catalog around one source, no disk and no sockets."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

from bridge.aio import Clock, SystemClock
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.log import Change
from bridge.catalog.partition import Partition
from bridge.catalog.record import Changes
from bridge.catalog.status import SourceStatus
from bridge.contracts import PluginContext, SourceConfig
from bridge.model import ServiceInstance, ServiceName
from bridge.sync.ingest import Ingest
from bridge.sync.supervisor import SourceSupervisor

T = TypeVar("T")


async def eventually(what: str, probe: Callable[[], T], *, deadline: float = 10.0, every: float = 0.01) -> T:
    """Poll ``probe`` until it is truthy; its value. Raises AssertionError with ``what`` after ``deadline`` s."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while not (value := probe()):
        if loop.time() > end:
            raise AssertionError(f"not within {deadline:g} s: {what}; last: {value!r}")
        await asyncio.sleep(every)
    return value


class LoopScheduler:
    """Periodic work on plain tasks, for tests."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def every(self, name: str, seconds: float, run: Callable[[], Awaitable[None]], *, jitter: float = 0.0) -> Callable[[], None]:  # noqa: ARG002  # tests want no jitter
        """Run ``run`` every ``seconds``; returns what ends it."""

        async def loop() -> None:
            while True:
                await asyncio.sleep(seconds)
                await run()

        task = asyncio.create_task(loop(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return lambda: (task.cancel(), None)[1]


class InProcessBridge:
    """An async context manager that runs one source. ``removed`` and ``added`` count what readers would have seen."""

    def __init__(
        self, config: SourceConfig, *, environment: str = "test", source: str = "source", clock: Clock | None = None
    ) -> None:
        self.clock = clock or SystemClock()
        self.config = config
        self.source = source
        self.catalog = Catalog(Indexes("test", 1, 1_000_000_000))
        self.partition = Partition(environment, "uid", 1)
        self.catalog.partitions[environment] = self.partition
        self.ingest = Ingest(self.catalog, self.partition, self.clock, logging.getLogger("bridge.testing"))
        self.ingest.on_changes = self._on_changes
        self.ingest.on_linger = self._on_linger
        self.events: Counter[str] = Counter()
        self.added: list[str] = []
        self.removed: list[str] = []
        self.updates = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> InProcessBridge:
        context = PluginContext(
            self.partition.environment,
            self.source,
            logging.getLogger("bridge.testing.plugin"),
            self.clock,
            self._count,
            known=lambda: frozenset(self.partition.sources[self.source].groups),
        )
        supervisor = SourceSupervisor(self.source, self.config, context, self.ingest, LoopScheduler())
        self._task = asyncio.create_task(supervisor.run(), name="supervisor")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=10.0)
            assert self._task.done(), "the source did not end within 10 s of being cancelled"

    @property
    def instances(self) -> dict[str, ServiceInstance]:
        """What the source shows now, by id."""
        records = self.partition.sources.get(self.source)
        return {id_: record.instance for id_, record in records.records.items()} if records is not None else {}

    @property
    def services(self) -> set[ServiceName]:
        """The services that exist."""
        return set(self.catalog.services)

    @property
    def status(self) -> SourceStatus | None:
        """The source's status; None before it was opened."""
        return self.partition.statuses.get(self.source)

    def state(self) -> str:
        """The source's state, ``starting`` before it was opened."""
        return self.status.state(self.clock.monotonic()) if self.status is not None else "starting"

    async def listed(self, deadline: float = 30.0) -> None:
        """Wait until the first listing is over."""
        await eventually("the first listing", lambda: self.status is not None and self.status.listed, deadline=deadline)

    def _on_changes(self, source: str, changes: Changes, change: Change | None) -> None:  # noqa: ARG002
        for id_, (before, after) in changes.pairs.items():
            if before is None:
                self.added.append(id_)
            elif after is None:
                self.removed.append(id_)
            else:
                self.updates += 1

    def _on_linger(self, due: float) -> None:
        asyncio.get_running_loop().call_later(max(0.0, due - self.clock.monotonic()), self.ingest.settle)

    def _count(self, event: str, amount: int = 1) -> None:
        self.events[event] += amount
