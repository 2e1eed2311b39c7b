"""Looking at many services at once: bounded, spread, and none waiting for another that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from bridge.aio import Clock, in_thread
from bridge.errors import SourceError, TransientError
from bridge_plugins.sources.cloud_map.api import Api
from bridge_plugins.sources.cloud_map.mapping import Discovered, Service
from bridge_plugins.sources.cloud_map.schedule import Bucket, Intervals, Plan

CALLS = 40
"""Calls under way at once."""

_SLOW_CALLS = 8
"""Of these, for services that did not answer in time the last time."""

_CONTROL_RATE = 5.0
_CONTROL_BURST = 2.0
_CALL_DEADLINE = 60.0
_PATIENCE = 0.9
_FIRST_PATIENCE = 2.0
_SLOW_PATIENCE = 0.5
_TICK = 0.05

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Watched:
    """One service: what is known of it, and what of that was told.

    told, fresh: what was last returned; what was discovered since then.
    ended, error: how looks ended since then, and why the last one failed. error_told: its failure was returned.
    missing: complete lists in a row that lacked it. superseded: its name is another service's by now.
    slow: it did not answer in time the last time. not_before: when a throttled one may be asked again.
    complete: what the last full answer showed that was found to lack nothing.
    """

    service: Service
    plan: Plan = field(default_factory=Plan)
    revision: int | None = None
    told: Discovered | None = None
    fresh: Discovered | None = None
    ended: Literal["well", "badly"] | None = None
    error: SourceError | None = None
    error_told: bool = False
    missing: int = 0
    superseded: bool = False
    slow: bool = False
    look: asyncio.Task[None] | None = None
    started_at: float = 0.0
    asking_since: float | None = None
    not_before: float = 0.0
    looked_at: float = 0.0
    complete: frozenset[str] = frozenset()

    @property
    def running(self) -> bool:
        """Whether a look at it has not ended."""
        return self.look is not None and not self.look.done()


class NotReachedError(Exception):
    """There was no turn for a call in this poll."""


class Looks:
    """Runs the calls. At most one look at a service at a time; who is left running is not waited for."""

    def __init__(self, api: Api, clock: Clock, intervals: Intervals, *, discover: float, revision: float) -> None:
        self._api = api
        self._clock = clock
        self._intervals = intervals
        self._discovers, self._revisions = Bucket(discover), Bucket(revision)
        self._control = Bucket(_CONTROL_RATE, burst=_CONTROL_BURST)
        self._slots = asyncio.Semaphore(CALLS - _SLOW_CALLS)
        self._slow_slots = asyncio.Semaphore(_SLOW_CALLS)
        self._until = 0.0

    def start(self, services: Iterable[Watched], until: float) -> None:
        """Look at each service whose last look has ended, the longest unseen first. ``until``: when calls begin no more."""
        self._until = until
        now = self._clock.monotonic()
        for watched in sorted(services, key=lambda watched: watched.looked_at):
            if not watched.running and not watched.superseded and now >= watched.not_before:
                watched.started_at = now
                watched.look = asyncio.create_task(self._look(watched), name=f"look {watched.service.key}")

    async def wait(self, services: Iterable[Watched], *, first: bool) -> None:
        """Until every look has ended, or is not worth waiting for."""
        services = list(services)
        while True:
            now = self._clock.monotonic()
            waited_for = [watched.look for watched in services if watched.look and self._worth(watched, now, first=first)]
            if not waited_for or now >= self._until:
                return
            await asyncio.wait(waited_for, timeout=_TICK)

    def stop(self, services: Iterable[Watched]) -> None:
        """End the looks that wait for their turn. Those that wait for an answer are left to it, and not waited for again."""
        for watched in services:
            if watched.look is None:
                continue
            if not watched.look.done():
                if watched.asking_since is None:
                    watched.look.cancel()
                else:
                    watched.slow = True
            elif not watched.look.cancelled():
                watched.look.result()  # a look ends by itself or has a defect, which must not stay in here

    async def control(self, call: Callable[[], T]) -> T:
        """A call of the control plane, which allows few a second. Raises what ``call`` raises."""
        await self._clock.sleep(self._control.reserve(self._clock.monotonic(), float("inf")) or 0.0)
        async with self._slots:
            return await _in_thread(call)

    def _worth(self, watched: Watched, now: float, *, first: bool) -> bool:
        if not watched.running:
            return False
        if watched.asking_since is None:
            return not watched.slow or now - watched.started_at < _SLOW_PATIENCE
        patience = _SLOW_PATIENCE if watched.slow else _FIRST_PATIENCE if first else _PATIENCE
        return now - watched.asking_since < patience

    async def _look(self, watched: Watched) -> None:
        began = self._clock.monotonic()
        try:
            await self._ask(watched)
        except NotReachedError:
            return
        except SourceError as error:
            watched.ended, watched.error = "badly", error
            watched.not_before = self._clock.monotonic() + (error.retry_after or 0.0)
        else:
            watched.ended, watched.error = "well", None
        watched.looked_at = began
        watched.slow = watched.slow and self._clock.monotonic() - began > _SLOW_PATIENCE

    async def _ask(self, watched: Watched) -> None:
        service, api = watched.service, self._api
        seen: int | None = None
        unsure = watched.fresh or watched.told
        checked = service.checked or (unsure is not None and unsure.full)
        if watched.plan.ask(self._clock.monotonic(), self._intervals, checked=checked) == "revision":
            seen = await self._call(watched, self._revisions, lambda: api.revision(service))
            if seen == watched.revision:
                return
        began = self._clock.monotonic()
        discovered, revision = await self._call(watched, self._discovers, lambda: api.instances(service))
        if discovered.full:
            discovered = await self._complete(watched, discovered)
        # An answer that says no revision is at least as new as the revision asked before it.
        watched.revision = seen if revision is None else revision
        watched.plan.discovered(began, self._intervals, service.id)
        watched.fresh = discovered

    async def _complete(self, watched: Watched, discovered: Discovered) -> Discovered:
        """A full answer, with ``full`` withdrawn where the control plane lists no more instances than it shows."""
        shown = frozenset(instance.id for instance in discovered.group.instances) | discovered.rejected.keys()
        if shown != watched.complete:
            try:
                listed = await self._call(watched, self._control, lambda: self._api.instance_ids(watched.service))
            except (SourceError, NotReachedError):
                return discovered  # the right to ask is optional
            if not listed <= shown:
                return discovered
            watched.complete = shown
        return discovered._replace(full=False)

    async def _call(self, watched: Watched, bucket: Bucket, call: Callable[[], T]) -> T:
        delay = bucket.reserve(self._clock.monotonic(), self._until)
        if delay is None:
            raise NotReachedError
        if delay:
            await self._clock.sleep(delay)
        async with self._slow_slots if watched.slow else self._slots:
            watched.asking_since = self._clock.monotonic()
            try:
                return await _in_thread(call)
            finally:
                watched.asking_since = None


async def _in_thread(call: Callable[[], T]) -> T:
    """The sockets' own timeouts end a call; the deadline is for one that trickles."""
    try:
        return await in_thread(call, deadline=_CALL_DEADLINE, name="cloud map call")
    except TimeoutError:
        raise TransientError(f"the answer has not ended for {_CALL_DEADLINE:g} s") from None
