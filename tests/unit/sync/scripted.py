"""A supervisor around scripted sources: what a source does next is put into a queue by the test."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Literal, Self

from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.catalog.status import SourceStatus
from bridge.contracts import AnySource, PluginContext, SourceConfig
from bridge.model import InstanceGroup, Listing, Observation, ServiceInstance, ServiceName
from bridge.sync.ingest import Ingest
from bridge.sync.supervisor import SourceSupervisor
from bridge.testing import ManualClock, eventually

SOURCE = "source"
END = "end"
"""A step: the generator ends, without an exception."""


def group(key: str, *ids: str, service: str = "web") -> InstanceGroup:
    """A group of instances in the namespace ``shop``; an id that ends with ``!`` has a name no instance may have."""
    return InstanceGroup(key, tuple(instance(id_, service) for id_ in ids), (ServiceName("shop", service),))


def instance(id_: str, service: str = "web") -> ServiceInstance:
    """One instance."""
    return ServiceInstance(id=id_, namespace="shop", service="/" if id_.endswith("!") else service, addresses=("192.0.2.1",))


def listing(*groups: InstanceGroup, scope: str = "", **more: Any) -> Listing:
    """A complete listing."""
    return Listing(scope, groups, **more)


class Backend:
    """What the sources of one configuration do, and what was done with them.

    opening: what the next `open`s raise, or None; steps: by scope, what a watch (or ``list``, scope ``""``) does next: yield an
    observation, raise an exception, or `END`; hinted: likewise for hints. While there is nothing to do, it waits.
    before: awaited before each step. leaving: awaited when a source is closed; unwinding: awaited when a watch is cancelled.
    """

    def __init__(self, kind: Literal["watch", "scoped", "poll", "hinting"], scopes: Collection[str] = ("",)) -> None:
        self.kind = kind
        self.scopes = tuple(scopes)
        self.opening: list[BaseException | None] = []
        self.steps: defaultdict[str, asyncio.Queue[Observation | BaseException | str]] = defaultdict(asyncio.Queue)
        self.hinted: asyncio.Queue[float | BaseException | str] = asyncio.Queue()
        self.before: Callable[[], Awaitable[None]] | None = None
        self.leaving: Callable[[], Awaitable[None]] | None = None
        self.unwinding: Callable[[], Awaitable[None]] | None = None
        self.opened = 0
        self.closed = 0
        self.asked: Counter[str] = Counter()
        self.released: Counter[str] = Counter()
        self.hearing = 0

    def do(self, *steps: Observation | BaseException | str, scope: str = "") -> None:
        """What comes next."""
        for step in steps:
            self.steps[scope].put_nowait(step)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AnySource]:
        """As a configuration's `open`."""
        self.opened += 1
        if self.opening and (failure := self.opening.pop(0)) is not None:
            self.closed += 1
            raise failure
        try:
            made: AnySource = _KINDS[self.kind](self)
            yield made
        finally:
            if self.leaving is not None:
                await self.leaving()
            self.closed += 1

    async def next(self, scope: str) -> Observation | str:
        """Wait for the next step; raises where it says so."""
        if self.before is not None:
            await self.before()
        step = await self.steps[scope].get()
        if isinstance(step, BaseException):
            raise step
        return step

    async def watch(self, scope: str) -> AsyncGenerator[Observation, None]:
        """One watch."""
        self.asked[scope] += 1
        try:
            while not isinstance(step := await self.next(scope), str):
                yield step
        except asyncio.CancelledError:
            if self.unwinding is not None:
                await self.unwinding()
            raise
        finally:
            self.released[scope] += 1


class _Watching:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def watch(self) -> AsyncGenerator[Observation, None]:
        return self._backend.watch("")


class _Scoped:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.scopes = backend.scopes

    def watch_scope(self, scope: str) -> AsyncGenerator[Observation, None]:
        return self._backend.watch(scope)


class _Polled:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def list(self) -> Observation:
        self._backend.asked[""] += 1
        try:
            step = await self._backend.next("")
        finally:
            self._backend.released[""] += 1
        assert not isinstance(step, str)
        return step


class _Hinting(_Polled):
    async def hints(self) -> AsyncGenerator[float, None]:
        self._backend.hearing += 1
        while not isinstance(step := await self._backend.hinted.get(), str):
            if isinstance(step, BaseException):
                raise step
            yield step


_KINDS: dict[str, Callable[[Backend], AnySource]] = {
    "watch": _Watching,
    "scoped": _Scoped,
    "poll": _Polled,
    "hinting": _Hinting,
}


class ScriptedConfig(SourceConfig):
    """Opens what its backend says."""

    type: Literal["scripted"] = "scripted"
    backend: Any = None

    silence: ClassVar[float | None] = 60.0
    list_deadline: ClassVar[float] = 60.0

    @asynccontextmanager
    async def open(self, ctx: PluginContext) -> AsyncIterator[AnySource]:
        async with self.backend.open() as source:
            yield source


class Impatient(ScriptedConfig):
    """Takes a twentieth of a second of silence for a stalled watch, and as long a poll for a hung one."""

    silence: ClassVar[float | None] = 0.05
    list_deadline: ClassVar[float] = 0.05


class Schedule:
    """Jobs that run when a test runs them: name -> (seconds, jitter, what to run)."""

    def __init__(self) -> None:
        self.jobs: dict[str, tuple[float, float, Callable[[], Awaitable[None]]]] = {}

    def every(self, name: str, seconds: float, run: Callable[[], Awaitable[None]], *, jitter: float = 0.0) -> Callable[[], None]:
        self.jobs[name] = (seconds, jitter, run)
        return lambda: (self.jobs.pop(name), None)[1]

    async def run(self, name: str) -> None:
        """Run one now."""
        await self.jobs[name][2]()


class Rig:
    """``async with Rig(backend) as rig``: a supervised source, a catalog, and a clock that stands still."""

    def __init__(self, backend: Backend, config: type[ScriptedConfig] = ScriptedConfig, **keys: Any) -> None:
        self.backend = backend
        self.clock = ManualClock()
        self.schedule = Schedule()
        self.partition = Partition("test", "uid", 1)
        catalog = Catalog(Indexes("test", 1, 1_000_000))
        catalog.partitions["test"] = self.partition
        self.catalog = catalog
        self.ingest = Ingest(catalog, self.partition, self.clock, logging.getLogger("bridge.ingest"))
        self.config = config(backend=backend, **keys)
        context = PluginContext("test", SOURCE, logging.getLogger("plugin"), self.clock, lambda event, amount=1: None)
        self.supervisor = SourceSupervisor(SOURCE, self.config, context, self.ingest, self.schedule)
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.supervisor.run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel it, and see that it ends."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task], timeout=5.0)
        assert self.task.cancelled()

    @property
    def status(self) -> SourceStatus:
        return self.partition.statuses[SOURCE]

    @property
    def state(self) -> str:
        return self.status.state(self.clock.monotonic()) if SOURCE in self.partition.statuses else "unopened"

    @property
    def failures(self) -> int:
        return self.status.failures if SOURCE in self.partition.statuses else 0

    @property
    def ids(self) -> set[str]:
        return set(self.partition.sources[SOURCE].records) if SOURCE in self.partition.sources else set()

    async def is_(self, state: str) -> None:
        """Wait for a state."""
        await eventually(f"the state {state}", lambda: self.state == state, deadline=5.0, every=0.0)

    async def has(self, *ids: str) -> None:
        """Wait for exactly these instances."""
        await eventually(f"the instances {ids}", lambda: self.ids == set(ids), deadline=5.0, every=0.0)

    async def until(self, what: str, probe: Callable[[], object]) -> None:
        """Wait for anything."""
        await eventually(what, probe, deadline=5.0, every=0.0)

    async def rest(self) -> None:
        """Let everything run that can."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def pause(self) -> float:
        """Wait until it pauses, and let the pause pass; how long it was."""
        await eventually("a pause", lambda: self.clock.sleeping, deadline=5.0, every=0.0)
        seconds = self.clock.sleeping[0]
        self.clock.advance(seconds)
        await self.rest()
        return seconds
