"""Runs one source for ever: opens it, follows or polls it, and tries again after every failure.

The only place that retries. A plugin raises; what it raises becomes the source's state, once, and a pause with full jitter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from bridge.aio import Clock
from bridge.contracts import AnySource, PluginContext, PollHints, PollSource, ScopedSource, Source, SourceConfig
from bridge.errors import ContractError, SourceError, TransientError
from bridge.model import Observation
from bridge.sync.backoff import Backoff
from bridge.sync.ingest import Ingest

T = TypeVar("T")

OPEN_DEADLINE = 30.0
LISTING_DEADLINE = 300.0
"""Seconds until a watch must have listed: many pages take long, and each call within has a deadline of its own."""

HEALTHY_AFTER = 10.0
"""Seconds a source must work before its next failure counts as a first one."""

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
        self._watches: dict[str, _Watch] = {}

    def relist(self) -> None:
        """Have every watch list anew, soon."""
        for watch in self._watches.values():
            watch.relist()

    async def run(self) -> None:
        """Until cancelled. Never raises because of the source."""
        backoff = Backoff()
        while True:
            began = self._clock.monotonic()
            error = await self._attempt(self._run_opened)
            self._fail_all(error)
            if self._clock.monotonic() - began > HEALTHY_AFTER:
                backoff.reset()
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
        self._watches = {scope: _Watch() for scope in scopes}
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
        """One scope, for ever: a transient failure is watched again, any other demands a newly opened source."""
        backoff = Backoff()
        while True:
            error = await self._attempt(lambda: self._watch_opened(scope, backoff), scope)
            await self._pause(scope, error, backoff)

    async def _watch_opened(self, scope: str, backoff: Backoff) -> None:
        async with self._open() as source:
            while True:
                error = await self._follow(source, scope, backoff)
                if error is not None:
                    await self._pause(scope, error, backoff)

    async def _pause(self, scope: str, error: SourceError, backoff: Backoff) -> None:
        """Note that ``scope`` failed, and wait."""
        self._ingest.fail(self.name, scope, error)
        await self._clock.sleep(backoff.delay(error))

    async def _follow(self, source: AnySource, scope: str, backoff: Backoff) -> TransientError | None:
        """One watch from its listing to its end: None when it is to be listed anew, or the failure to wait out first."""
        generator = source.watch_scope(scope) if isinstance(source, ScopedSource) else source.watch()  # type: ignore[union-attr]
        watch, began = self._watches[scope], self._clock.monotonic()
        watch.begin()
        async with aclosing(generator):
            while True:
                try:
                    observation = await watch.next(generator, self.config.silence)
                except TransientError as error:
                    return error
                if observation is None:
                    if self._clock.monotonic() - began < 1.0:
                        await self._clock.sleep(1.0)  # an empty watch must not become a hot loop
                    return None
                # What this refuses goes up: the source takes it for applied, so only a new one tells it again.
                await self._ingest.apply(self.name, observation, scope=scope)
                await asyncio.sleep(0)  # observations that are there already must not keep others from their turn
                if self._clock.monotonic() - began > HEALTHY_AFTER:
                    backoff.reset()

    # -- polling

    async def _poll(self, source: PollSource) -> None:
        """Poll on schedule and on hints until the source must be opened anew (raises what demands it)."""
        poller = _Poller(self, source)
        cancel = self._scheduler.every(f"poll {self.name}", self.config.refresh or DEFAULT_POLL, poller.on_schedule)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(poller.run(), name=f"polls {self.name}")
                if isinstance(source, PollHints):
                    tasks.create_task(poller.follow_hints(source), name=f"hints {self.name}")
        finally:
            cancel()

    # -- failing

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncGenerator[AnySource, None]:
        manager = self.config.open(self._ctx)
        try:
            async with asyncio.timeout(OPEN_DEADLINE) as deadline:
                source = await manager.__aenter__()
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TransientError(f"it could not be opened within {OPEN_DEADLINE:g} s") from error
        try:
            yield source
        finally:
            async with asyncio.timeout(OPEN_DEADLINE):
                await manager.__aexit__(None, None, None)

    async def _attempt(self, run: Callable[[], Coroutine[Any, Any, None]], scope: str = "") -> SourceError:
        """Run until it fails; the failure as a SourceError. A defect is logged with its traceback and counts as transient."""
        try:
            await _apart(run())
        except Exception as failure:  # a plugin's defect must not end the daemon
            first = _first(failure)
            error = first if isinstance(first, SourceError) else self.defect(first, scope)
            if _is_cancelled():  # it failed on its way out
                raise asyncio.CancelledError from failure
            return error
        return TransientError("the source ended by itself")

    def defect(self, failure: BaseException, scope: str = "") -> SourceError:
        """What a plugin should not have raised, as a SourceError; logged unless it is what ``scope`` fails with already."""
        error = TransientError(f"{type(failure).__name__}: {failure}")
        feed = self._ingest.feeds.get(self.name)
        known = feed.status.errors.get(scope) if feed is not None else None
        if known is None or str(known) != str(error):
            self._logger.error("source raised an unexpected error", extra={"source": self.name}, exc_info=failure)
        return error

    def _fail_all(self, error: SourceError) -> None:
        if self.name not in self._ingest.feeds:
            self._ingest.add(self.name, self.config, scopes=("",), polled=self.config.silence is None)
        self._ingest.fail(self.name, "", error)

    async def accept_poll(self, observation: Observation) -> None:
        """Apply what a poll returned."""
        await self._ingest.apply(self.name, observation, listing=True)

    def fail_poll(self, error: SourceError) -> None:
        """Note that a poll failed."""
        self._ingest.fail(self.name, "", error)


class _Watch:
    """One watch's wait for its next observation, which silence ends, and a wish to list anew."""

    def __init__(self) -> None:
        self._listed = False
        self._wanted = False
        self._deadline: asyncio.Timeout | None = None

    def begin(self) -> None:
        """A listing begins: whatever wished for one has it."""
        self._listed = self._wanted = False

    def relist(self) -> None:
        """List anew, at once or when it comes to waiting. A listing under way goes on: it is what is wished for."""
        if not self._listed:
            return
        self._wanted = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def next(self, generator: AsyncGenerator[Observation, None], silence: float | None) -> Observation | None:
        """The next observation; None when the watch ended or is to be listed anew.

        silence: seconds, once it has listed; TransientError then.
        """
        if self._wanted:
            return None
        seconds = silence if self._listed or silence is None else max(silence, LISTING_DEADLINE)
        try:
            async with asyncio.timeout(seconds) as deadline:
                self._deadline = deadline
                observation = await anext(generator)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            if not deadline.expired():
                raise
        else:
            self._listed = True
            return observation
        finally:
            self._deadline = None
        if self._wanted:
            return None
        raise TransientError(f"nothing was heard for {seconds:g} s" if self._listed else f"no listing within {seconds:g} s")


class _Poller:
    """The polls of one opened source: one at a time, put off after failures, brought forward by hints."""

    def __init__(self, supervisor: SourceSupervisor, source: PollSource) -> None:
        self._supervisor = supervisor
        self._source = source
        self._clock = supervisor._ctx.clock
        self._backoff = Backoff(base=2.0)
        self._not_before = 0.0
        self._polling = False
        self._due = asyncio.Event()
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_at = 0.0

    async def on_schedule(self) -> None:
        """Ask for the periodic poll; left out while one runs, or while a failure is being waited out."""
        if not self._polling and self._clock.monotonic() >= self._not_before:
            self._due.set()

    async def run(self) -> None:
        """Poll now and whenever it is due. A transient failure becomes the source's state; raises any other."""
        while True:
            self._due.clear()
            self._polling = True
            try:
                await self._poll()
            finally:
                self._polling = False
            await self._due.wait()

    async def _poll(self) -> None:
        seconds = self._supervisor.config.list_deadline
        try:
            async with asyncio.timeout(seconds) as deadline:
                observation = await _apart(self._source.list())
        except (TransientError, TimeoutError) as failure:
            if isinstance(failure, TransientError):
                error = failure
            elif deadline.expired():
                error = TransientError(f"it did not answer within {seconds:g} s")
            else:
                raise
            self._supervisor.fail_poll(error)
            self._not_before = self._clock.monotonic() + self._backoff.delay(error)
            return
        # What this refuses goes up: the source takes it for applied, so only a new one tells it again.
        await self._supervisor.accept_poll(observation)
        self._backoff.reset()
        self._not_before = 0.0

    async def follow_hints(self, source: PollHints) -> None:
        """Poll when the source asks for it; its hints are opened again when they fail or end."""
        backoff = Backoff()
        try:
            while True:
                error: SourceError = TransientError("the hints ended")
                try:
                    await _apart(self._heed(source, backoff))
                except SourceError as failure:
                    error = failure
                except Exception as failure:  # noqa: BLE001  # timeliness only: the polls go on
                    error = self._supervisor.defect(failure)
                await self._clock.sleep(backoff.delay(error))
        finally:
            if self._alarm is not None:
                self._alarm.cancel()

    async def _heed(self, source: PollHints, backoff: Backoff) -> None:
        async with aclosing(source.hints()) as hints:
            async for seconds in hints:
                backoff.reset()
                self._poll_within(seconds)
                await asyncio.sleep(0)  # hints without end must not keep others from their turn

    def _poll_within(self, seconds: float) -> None:
        """Poll in ``seconds`` at the latest: a sooner poll that is waited for stays."""
        at = self._clock.monotonic() + seconds
        if self._alarm is not None and not self._alarm.done():
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.create_task(self._ring(seconds), name=f"next poll {self._supervisor.name}")

    async def _ring(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._due.set()


async def _apart(plugin: Coroutine[Any, Any, T]) -> T:
    """Run what a plugin does in a task of its own, which ends with ours.

    Ours is then cancelled by nobody but its owner: a CancelledError that the plugin lets out becomes a defect, and a TaskGroup
    of the plugin's that fails does not leave us counted as cancelled, as it does its own task up to Python 3.12.
    """
    try:
        return await asyncio.create_task(plugin)
    except asyncio.CancelledError as error:
        if _is_cancelled():
            raise
        raise RuntimeError("a CancelledError came out of the plugin") from error


def _is_cancelled() -> bool:
    """Whether somebody asked the current task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _first(error: BaseException) -> BaseException:
    """The first error of a group that is not a group itself."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
