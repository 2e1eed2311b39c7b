"""Runs one source for ever: opens it, follows or polls it, and tries again after every failure.

The only place that retries. A plugin raises; what it raises becomes the source's state, once, and a pause with full jitter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from bridge.aio import Clock
from bridge.contracts import AnySource, PluginContext, PollHints, PollSource, ScopedSource, Source, SourceConfig
from bridge.errors import ContractError, SourceError, TransientError
from bridge.model import Observation
from bridge.sync.backoff import Backoff
from bridge.sync.ingest import Ingest

OPEN_DEADLINE = 30.0
HEALTHY_AFTER = 10.0
"""Seconds a watch must last before its next failure counts as a first one."""

RELIST_EVERY = (240.0, 300.0)
DEFAULT_POLL = 5.0


class Scheduler(Protocol):
    """Whoever runs periodic work."""

    def every(self, name: str, seconds: float, run: Callable[[], Awaitable[None]], *, jitter: float = 0.0) -> Callable[[], None]:
        """Run ``run`` every ``seconds``, never twice at a time, and show it as ``name``; returns what ends it."""
        ...


class SourceSupervisor:
    """The life of one configured source."""

    def __init__(self, name: str, config: SourceConfig, ctx: PluginContext, ingest: Ingest, scheduler: Scheduler) -> None:
        self.name = name
        self.config = config
        self._ctx = ctx
        self._ingest = ingest
        self._scheduler = scheduler
        self._clock: Clock = ctx.clock
        self._logger = logging.getLogger("bridge.supervisor")
        self._relist = asyncio.Event()
        self.failures = 0

    def relist(self) -> None:
        """Have every watch list anew, soon."""
        self._relist.set()

    async def run(self) -> None:
        """Until cancelled. Never raises because of the source."""
        backoff = Backoff()
        while True:
            error = await self._attempt(self._run_opened)
            self._fail_all(error)
            await self._clock.sleep(backoff.delay(error))

    async def _run_opened(self) -> None:
        async with self._open() as source:
            if isinstance(source, ScopedSource):
                scopes = source.scopes
            elif isinstance(source, Source):
                scopes = ("",)
            elif isinstance(source, PollSource):
                self._ingest.add(self.name, self.config, scopes=("",), polled=True)
                await self._poll(source)
                return
            else:
                raise ContractError(f"{type(source).__name__} is neither a Source, a ScopedSource nor a PollSource")
            self._ingest.add(self.name, self.config, scopes=scopes, polled=False)
        seconds = self.config.refresh or sum(RELIST_EVERY) / 2
        jitter = 0.0 if self.config.refresh else (RELIST_EVERY[1] - RELIST_EVERY[0]) / 2
        cancel = self._scheduler.every(f"relist {self.name}", seconds, self._relist_soon, jitter=jitter)
        try:
            async with asyncio.TaskGroup() as tasks:
                for scope in scopes:
                    tasks.create_task(self._watch(scope), name=f"watch {self.name} {scope}")
        finally:
            cancel()

    async def _relist_soon(self) -> None:
        self.relist()

    # -- watching

    async def _watch(self, scope: str) -> None:
        """One scope, for ever: denied, it is opened anew (credentials are read again); else watched again as it is."""
        backoff = Backoff()
        while True:
            error = await self._attempt(lambda: self._watch_opened(scope, backoff))
            self._ingest.fail(self.name, scope, error)
            self.failures += 1
            await self._clock.sleep(backoff.delay(error))

    async def _watch_opened(self, scope: str, backoff: Backoff) -> None:
        async with self._open() as source:
            while True:
                try:
                    await self._follow(source, scope, backoff)
                except TransientError as error:
                    self._ingest.fail(self.name, scope, error)
                    self.failures += 1
                    await self._clock.sleep(backoff.delay(error))

    async def _follow(self, source: AnySource, scope: str, backoff: Backoff) -> None:
        """One watch from its listing to its end; returns when it asks to be listed anew."""
        generator = source.watch_scope(scope) if isinstance(source, ScopedSource) else source.watch()  # type: ignore[union-attr]
        began = self._clock.monotonic()
        async with aclosing(generator):
            while True:
                observation = await self._next(generator)
                if observation is None:
                    if self._clock.monotonic() - began < 1.0:
                        await self._clock.sleep(1.0)  # an empty watch must not become a hot loop
                    return
                self._ingest.accept(self.name, observation, scope=scope)
                if self._clock.monotonic() - began > HEALTHY_AFTER:
                    backoff.reset()

    async def _next(self, generator: AsyncGenerator[Observation, None]) -> Observation | None:
        """The next observation; None when the watch ended or is to be listed anew."""
        coming: asyncio.Task[Observation] = asyncio.ensure_future(anext(generator))
        relist = asyncio.ensure_future(self._relist.wait())
        try:
            done, _ = await asyncio.wait({coming, relist}, timeout=self.config.silence, return_when=asyncio.FIRST_COMPLETED)
            if coming in done:
                return coming.result()
            if relist in done:
                self._relist.clear()
                return None
            raise TransientError(f"nothing was heard for {self.config.silence:g} s")
        except StopAsyncIteration:
            return None
        finally:
            relist.cancel()
            if not coming.done():
                coming.cancel()
                with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, SourceError):
                    await coming

    # -- polling

    async def _poll(self, source: PollSource) -> None:
        """Poll on schedule and on hints until the source must be opened anew (raises what demands it)."""
        poller = _Poller(self, source)
        cancel = self._scheduler.every(f"poll {self.name}", self.config.refresh or DEFAULT_POLL, poller.on_schedule)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(poller.poll(), name=f"first poll {self.name}")
                tasks.create_task(poller.until_broken(), name=f"polls {self.name}")
                if isinstance(source, PollHints):
                    tasks.create_task(poller.follow_hints(source), name=f"hints {self.name}")
        finally:
            cancel()

    # -- failing

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncGenerator[AnySource, None]:
        manager = self.config.open(self._ctx)
        try:
            async with asyncio.timeout(OPEN_DEADLINE):
                source = await manager.__aenter__()
        except TimeoutError as error:
            raise TransientError(f"it could not be opened within {OPEN_DEADLINE:g} s") from error
        try:
            yield source
        finally:
            async with asyncio.timeout(OPEN_DEADLINE):
                await manager.__aexit__(None, None, None)

    async def _attempt(self, run: Callable[[], Awaitable[None]]) -> SourceError:
        """Run until it fails; the failure as a SourceError. A defect is logged with its traceback and counts as transient."""
        try:
            await run()
        except Exception as failure:  # noqa: BLE001  # a plugin's defect must not end the daemon
            error = _first(failure)
            return error if isinstance(error, SourceError) else self.defect(error)
        return TransientError("the source ended by itself")

    def defect(self, error: BaseException) -> SourceError:
        """Log what a plugin should not have raised; as a SourceError."""
        self._logger.error("source raised an unexpected error", extra={"source": self.name}, exc_info=error)
        return TransientError(f"{type(error).__name__}: {error}")

    def _fail_all(self, error: SourceError) -> None:
        self.failures += 1
        if self.name not in self._ingest.feeds:
            self._ingest.add(self.name, self.config, scopes=("",), polled=self.config.silence is None)
        self._ingest.fail(self.name, "", error)

    def accept_poll(self, observation: Observation) -> None:
        """Apply what a poll returned."""
        self._ingest.accept(self.name, observation, listing=True)

    def fail_poll(self, error: SourceError) -> None:
        """Note that a poll failed."""
        self.failures += 1
        self._ingest.fail(self.name, "", error)


class _Poller:
    """The polls of one opened source: one at a time, put off after failures, brought forward by hints."""

    def __init__(self, supervisor: SourceSupervisor, source: PollSource) -> None:
        self._supervisor = supervisor
        self._source = source
        self._clock = supervisor._ctx.clock
        self._lock = asyncio.Lock()
        self._backoff = Backoff(base=2.0)
        self._not_before = 0.0
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_schedule(self) -> None:
        """The periodic poll; left out while one runs, or while a failure is being waited out."""
        if not self._lock.locked() and self._clock.monotonic() >= self._not_before:
            await self.poll()

    async def poll(self) -> None:
        """One poll. A transient failure becomes the source's state; any other demands a newly opened source."""
        deadline = self._supervisor.config.list_deadline
        async with self._lock:
            try:
                async with asyncio.timeout(deadline):
                    observation = await self._source.list()
            except (TransientError, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    error = TransientError(f"it did not answer within {deadline:g} s")
                self._supervisor.fail_poll(error)
                self._not_before = self._clock.monotonic() + self._backoff.delay(error)
                return
            except Exception as error:  # noqa: BLE001  # a plugin's defect must not end the daemon
                self._break(error)
                return
            try:
                self._supervisor.accept_poll(observation)
            except Exception as error:  # noqa: BLE001  # the source takes it for applied: only a new one tells it again
                self._break(error)
                return
            self._backoff.reset()
            self._not_before = 0.0

    async def until_broken(self) -> None:
        """Wait for a failure that only a newly opened source can mend; raises it."""
        await self._broken

    def _break(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    async def follow_hints(self, source: PollHints) -> None:
        """Poll when the source asks for it; its hints are opened again when they fail or end."""
        backoff = Backoff()
        while True:
            error: SourceError = TransientError("the hints ended")
            try:
                async with aclosing(source.hints()) as hints:
                    async for seconds in hints:
                        backoff.reset()
                        await self._clock.sleep(seconds)
                        await self.poll()
            except SourceError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001  # timeliness only: the polls go on
                error = self._supervisor.defect(failure)
            await self._clock.sleep(backoff.delay(error))


def _first(error: BaseException) -> BaseException:
    """The first error of a group that is not a group itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
