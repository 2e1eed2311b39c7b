"""A supervisor tries again after every failure that ends an attempt, however often, and lets listings come to their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from bridge.aio import SystemClock
from bridge.contracts import PluginContext, SourceConfig
from bridge.errors import ForbiddenError, SourceError
from bridge.model import Listing, Observation
from bridge.sync.supervisor import SourceSupervisor


class Denied:
    """A poll source that is denied every time."""

    polls = 0

    async def list(self) -> Observation:
        Denied.polls += 1
        await asyncio.sleep(0)
        raise ForbiddenError("403")


class DeniedConfig(SourceConfig):
    """Opens it."""

    type: Literal["denied"] = "denied"

    @asynccontextmanager
    async def open(self, ctx: PluginContext) -> AsyncGenerator[Denied, None]:
        yield Denied()


class Slow:
    """A source whose listing takes some turns of the loop."""

    async def watch(self) -> AsyncGenerator[Observation, None]:
        for _ in range(20):
            await asyncio.sleep(0)
        yield Listing()
        await asyncio.Event().wait()


class SlowConfig(SourceConfig):
    """Opens it."""

    type: Literal["slow"] = "slow"

    @asynccontextmanager
    async def open(self, ctx: PluginContext) -> AsyncGenerator[Slow, None]:
        yield Slow()


class Quick(SystemClock):
    """Nothing takes time."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


class Notes:
    """Stands for ingest and scheduler."""

    def __init__(self) -> None:
        self.feeds: dict[str, Any] = {}
        self.failures: list[str] = []
        self.accepted = 0

    def add(self, name: str, config: SourceConfig, *, scopes: Any, polled: bool) -> None:
        """A source is taken on."""

    async def apply(self, name: str, observation: Listing, **_: Any) -> None:
        self.accepted += 1

    def fail(self, name: str, scope: str, error: SourceError) -> None:
        self.failures.append(str(error))

    def every(self, name: str, seconds: float, run: Callable[[], Awaitable[None]], *, jitter: float = 0.0) -> Callable[[], None]:
        return lambda: None


def supervise(config: SourceConfig, notes: Notes) -> SourceSupervisor:
    context = PluginContext("test", "s", logging.getLogger("test"), Quick(), lambda event, amount=1: None)
    return SourceSupervisor("s", config, context, notes, notes)  # type: ignore[arg-type]


async def end(running: asyncio.Task[None]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_polled_source_that_is_denied_is_opened_again_and_again() -> None:
    notes = Notes()
    running = asyncio.create_task(supervise(DeniedConfig(), notes).run())
    async with asyncio.timeout(5.0):
        while len(notes.failures) < 3 and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert not running.done(), "the supervisor ended: nobody tries this source again"
    await end(running)
    assert set(notes.failures) == {"403"}
    assert Denied.polls >= 3


async def test_a_wish_to_list_anew_never_ends_a_listing_under_way() -> None:
    notes = Notes()
    supervisor = supervise(SlowConfig(), notes)
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(5.0):
        while notes.accepted < 3:
            supervisor.relist()
            await asyncio.sleep(0)
    await end(running)
    assert not notes.failures
