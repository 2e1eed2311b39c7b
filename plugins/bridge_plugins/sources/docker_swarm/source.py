"""A Swarm as one source: cycles of calls that list, and events that say when to list again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from bridge.aio import in_thread, iterate
from bridge.contracts import PluginContext
from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import Observation

from . import api
from .api import EventStream, Manager
from .listing import Bodies, Outcome, Snapshot, State, compare, missing_services, read_snapshot
from .policy import Settings
from .wire import read_event

CYCLE_SECONDS = 9.0
"""For all calls of a cycle, whichever managers answer."""
DEBOUNCE = 0.2
"""Seconds after an event: one change is several events."""
UNSETTLED = 1.0
"""Seconds until the next cycle while something is under way: tasks have no events (moby/moby#37403)."""
CHECKS = 8
"""Services that are missing from a list and asked about singly, each cycle."""

_GRACE = 2.0
_COMPLAINTS_KEPT = 1000


class _Done(NamedTuple):
    outcome: Outcome
    manager: Manager


class DockerSwarmSource:
    """A `PollSource` with `PollHints`. managers: of one and the same Swarm, in the order in which they are tried."""

    def __init__(self, managers: Sequence[Manager], settings: Settings, ctx: PluginContext) -> None:
        self._managers = tuple(managers)
        self._settings = settings
        self._ctx = ctx
        self._state = State()
        self._current: Manager | None = None
        self._first = 0
        self._removed: set[str] = set()
        self._due: float | None = None
        self._wake = asyncio.Event()
        self._complaints: dict[tuple[str, str], None] = {}

    async def list(self) -> Observation:
        """What the Swarm runs, relative to what this returned before. Raises SourceError where no manager tells all of it."""
        state, removed = self._state, frozenset(self._removed)
        self._due = None  # whatever asked for a list gets it now
        try:
            done = await in_thread(
                lambda: self._cycle(state, removed), deadline=CYCLE_SECONDS + _GRACE, name=f"swarm {self._ctx.name}"
            )
        except TimeoutError:
            self._first += 1
            raise TransientError(f"no whole answer within {CYCLE_SECONDS + _GRACE:g} s") from None
        except SourceError:
            self._first += 1
            raise
        self._first = self._managers.index(done.manager)
        self._state, self._current = done.outcome.state, done.manager
        self._removed -= removed
        self._wake.set()
        if done.outcome.unsettled:
            self._ask(UNSETTLED)
        for key, complaints in done.outcome.complaints.items():
            for complaint in complaints:
                self._complain(key, complaint)
        return done.outcome.observation

    async def hints(self) -> AsyncGenerator[float, None]:
        """When to list again: at once when events begin to be followed, soon after each, and while something is under way.

        Follows the manager that answered last; ends when another one did. Raises SourceError where the stream ends or fails.
        """
        while (manager := self._current) is None:
            self._wake.clear()
            await self._wake.wait()
        following = asyncio.create_task(self._follow(manager), name=f"swarm events {self._ctx.name}")
        following.add_done_callback(lambda _: self._wake.set())
        try:
            while manager is self._current:
                self._wake.clear()
                if following.done():
                    following.result()
                due, self._due = self._due, None
                if due is not None:
                    yield due
                else:
                    await self._wake.wait()
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError, SourceError):  # it is ended whatever it came to
                await following

    def _ask(self, seconds: float) -> None:
        self._due = seconds if self._due is None else min(self._due, seconds)
        self._wake.set()

    async def _follow(self, manager: Manager) -> None:
        stream = EventStream(manager)
        async with contextlib.aclosing(
            iterate(stream.lines, close=stream.abort, name=f"swarm events {self._ctx.name}")
        ) as batches:
            opened = False
            async for lines in batches:
                for line in lines:
                    event = read_event(line)
                    if event.type == "service" and event.action == "remove" and event.actor is not None:
                        self._note_removed(event.actor.id)
                # What happened before the stream was open is in no event.
                self._ask(DEBOUNCE if opened else 0.0)
                opened = True

    def _note_removed(self, id_: str) -> None:
        if id_ in self._state.told:  # of others there is nothing to remove, and they must not pile up
            self._removed.add(id_)

    def _cycle(self, state: State, removed: frozenset[str]) -> _Done:
        """Runs in a thread; changes nothing here, so that one which outlives its deadline does no harm."""
        end = time.monotonic() + CYCLE_SECONDS
        start = self._first % len(self._managers)
        order = self._managers[start:] + self._managers[:start]
        failures: list[tuple[Manager, SourceError]] = []
        for position, manager in enumerate(order):
            now = time.monotonic()
            share = (end - now) / (len(order) - position)
            try:
                return _Done(self._ask_all(manager, state, removed, now + share), manager)
            except SourceError as error:
                manager.forget()
                failures.append((manager, error))
        try:
            raise _combined(failures)
        finally:
            failures.clear()  # they know this frame: a cycle would keep what the calls held, sockets for instance

    def _ask_all(self, manager: Manager, state: State, removed: frozenset[str], end: float) -> Outcome:
        """One cycle against one manager; what it says is never mixed with what another one does.

        Services come first: a task of one that was made in between is left for the next cycle, and no task is missed because
        its service was not there yet. Nodes and networks are older than the tasks on them.
        """
        bodies = Bodies(
            services=manager.get(api.SERVICES, end),
            tasks=manager.get(api.TASKS, end),
            nodes=manager.get(api.NODES, end),
            networks=manager.get(api.NETWORKS, end),
        )
        snapshot = read_snapshot(bodies, state.memos, self._settings)
        if self._is_another_swarm(manager, snapshot, state):
            raise TransientError("it knows none of the nodes of the Swarm that was listed before")
        missing = missing_services(snapshot, state)
        ended = {id_ for id_ in missing if id_ in removed}
        doubts: dict[str, SourceError] = {}
        for id_ in [id_ for id_ in missing if id_ not in ended][:CHECKS]:
            try:
                if manager.has_service(id_, end):
                    doubts[id_] = TransientError(f"the service {id_} is not listed, and yet there")
                else:
                    ended.add(id_)
            except SourceError as error:
                doubts[id_] = error
        return compare(snapshot, state, self._settings, ended, doubts)

    def _is_another_swarm(self, manager: Manager, snapshot: Snapshot, state: State) -> bool:
        """Whether ``hosts`` name managers of different Swarms: the second would call everything of the first ended."""
        known = state.cluster.nodes.keys()
        return bool(known) and manager is not self._current and known.isdisjoint(snapshot.cluster.nodes)

    def _complain(self, key: str, complaint: str) -> None:
        """Say once that a label was not understood."""
        if (key, complaint) in self._complaints:
            return
        if len(self._complaints) >= _COMPLAINTS_KEPT:
            self._complaints.clear()
        self._complaints[key, complaint] = None
        self._ctx.count("labels_ignored")
        self._ctx.logger.warning("service %s: %s", key, complaint)


def _combined(failures: Sequence[tuple[Manager, SourceError]]) -> SourceError:
    """What all managers failed with. Forbidden only where each of them forbids."""
    text = "; ".join(f"{manager.host}: {error}" for manager, error in failures)
    if all(isinstance(error, ForbiddenError) for _, error in failures):
        return ForbiddenError(text)
    waits = [error.retry_after for _, error in failures if error.retry_after is not None]
    return TransientError(text, retry_after=max(waits, default=None))
