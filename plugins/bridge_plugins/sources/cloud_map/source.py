"""The poll over Cloud Map: what is asked in it, and what it believes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from bridge.contracts import PluginContext
from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import Confirmed, Observation, SourceEvent
from bridge_plugins.sources.cloud_map import report
from bridge_plugins.sources.cloud_map.api import Api
from bridge_plugins.sources.cloud_map.catalogue import Catalogue, read
from bridge_plugins.sources.cloud_map.failure import NotThereError
from bridge_plugins.sources.cloud_map.looks import Looks, Watched
from bridge_plugins.sources.cloud_map.report import NO_PROBLEM, Problem
from bridge_plugins.sources.cloud_map.schedule import Intervals

CATALOGUE_EVERY = 60.0
"""Seconds between two readings of namespaces and services."""

CONFIRMATIONS = 2
"""Complete lists in a row that must lack something before that is believed."""

_FIRST_POLL = 45.0
_SHORTEST_POLL = 2.0
_CATALOGUE_PATIENCE = 0.5
_CLOSE_DEADLINE = 5.0


class CloudMapSource:
    """A `PollSource`: one group for each Cloud Map service.

    watched: names of the namespaces to follow, empty for all. discover, revision: calls a second at most.
    """

    def __init__(
        self,
        api: Api,
        intervals: Intervals,
        ctx: PluginContext,
        *,
        watched: Sequence[str] = (),
        discover: float = 100,
        revision: float = 500,
    ) -> None:
        self._api = api
        self._intervals = intervals
        self._ctx = ctx
        self._clock = ctx.clock
        self._names = tuple(dict.fromkeys(watched))
        self._looks = Looks(api, ctx.clock, intervals, discover=discover, revision=revision)
        self._services: dict[str, Watched] = {}
        self._catalogue = Catalogue()
        self._reading: asyncio.Task[Catalogue] | None = None
        self._read_at = float("-inf")
        self._read_error: SourceError | None = None
        self._absent: Counter[str] = Counter()
        self._problems: dict[str, Problem] = {}
        self._problems_told: dict[str, Problem] = {}
        self._told = False

    async def list(self) -> Observation:
        """Look at every service that is not still being asked, and return what differs from what was returned before.

        Raises the first error when nothing answered; a denial only where everything was denied.
        """
        now = self._clock.monotonic()
        until = now + (max(self._intervals.refresh, _SHORTEST_POLL) if self._told else _FIRST_POLL)
        if self._reading is None and now >= self._read_at:
            self._reading = asyncio.create_task(read(self._api, self._names, self._looks.control), name="catalogue")
        self._looks.start(self._services.values(), until)
        if self._reading is not None:
            await asyncio.wait((self._reading,), timeout=_CATALOGUE_PATIENCE if self._told else until - now)
        if self._take_catalogue():
            new = [watched for watched in self._services.values() if watched.look is None]
            self._looks.start(new, until)
        await self._looks.wait(self._services.values(), first=not self._told)
        self._looks.stop(self._services.values())
        return self._observation()

    async def close(self) -> None:
        """End what still runs. Calls under way end by their own timeouts, and nobody hears them."""
        tasks: list[asyncio.Task[None] | asyncio.Task[Catalogue]] = [w.look for w in self._services.values() if w.look]
        tasks += [self._reading] if self._reading is not None else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_DEADLINE)

    # -- namespaces and services

    def _take_catalogue(self) -> bool:
        """Take in a reading that has ended; whether there was one that told something."""
        if self._reading is None or not self._reading.done():
            return False
        reading, self._reading = self._reading, None
        now = self._clock.monotonic()
        try:
            catalogue = reading.result()
        except SourceError as error:
            self._read_error = error
            self._read_at = now + (error.retry_after or 0.0)
            parts = self._parts() | ({""} & self._problems.keys())
            self._problems = {key: Problem(error, self._problem(key).rejected) for key in parts}
            return False
        self._read_error = None
        self._catalogue = catalogue
        self._note_services(catalogue)
        self._note_problems(catalogue)
        waits = [error.retry_after or 0.0 for error in catalogue.failed.values()]
        again = bool(waits or catalogue.unsure) or not self._services
        again = again or any(0 < w.missing < CONFIRMATIONS for w in self._services.values())
        again = again or any(count < CONFIRMATIONS for count in self._absent.values())
        self._read_at = now + (max(waits, default=0.0) if again else CATALOGUE_EVERY)
        return True

    def _note_services(self, catalogue: Catalogue) -> None:
        for key, service in catalogue.services.items():
            watched = self._services.setdefault(key, Watched(service))
            watched.service, watched.missing, watched.superseded = service, 0, False
        for watched in self._services.values():
            if catalogue.lacks(watched.service):
                watched.missing += 1
                watched.superseded = catalogue.supersedes(watched.service)

    def _note_problems(self, catalogue: Catalogue) -> None:
        if catalogue.all_told:
            self._absent = Counter({name: self._absent[name] + 1 for name in catalogue.absent})
        problems = {key: Problem(None, rejected) for key, rejected in catalogue.rejected.items()}
        problems |= {place: Problem(None, {place: reason}) for place, reason in catalogue.broken.items()}
        for key, why in catalogue.unsure.items():
            problems[key] = Problem(TransientError(why), catalogue.rejected.get(key, {}))
        problems |= {key: Problem(error, self._problem(key).rejected) for key, error in catalogue.failed.items()}
        for name in catalogue.absent:
            if self._absent[name] < CONFIRMATIONS:
                problems[name] = Problem(TransientError(f"ListNamespaces has no namespace {name!r}"), {})
            elif self._absent[name] == CONFIRMATIONS:
                self._ctx.logger.warning("there is no namespace %r, which namespaces_watched names", name)
        self._problems = problems

    def _problem(self, key: str) -> Problem:
        return self._problems.get(key, NO_PROBLEM)

    def _parts(self) -> set[str]:
        """The keys of all namespaces known."""
        return {*self._catalogue.listed, *self._names, *(w.service.namespace.key for w in self._services.values())}

    # -- what is told

    def _observation(self) -> Observation:
        lost = [watched for watched in self._services.values() if _is_gone(watched)]
        for watched in lost:
            del self._services[watched.service.key]
        try:
            self._check_answered(lost)
            if self._told:
                return self._changes(lost)
            self._told, self._problems_told = True, self._problems
            told = report.listing("", self._services.values(), self._problems, whole=True)
            return _one_or_all(report.exact(told, self._services.values()))
        finally:
            self._seek_the_missing()
            for watched in self._services.values():
                watched.ended = None

    def _check_answered(self, lost: Sequence[Watched]) -> None:
        """Raise where nothing answered. That a service is not there is an answer."""
        services = self._services.values()
        if lost or any(watched.ended == "well" or isinstance(watched.error, NotThereError) for watched in services):
            return
        if services:
            errors = [watched.error for watched in services if watched.error is not None]
            if not errors and all(watched.superseded for watched in services):
                return
            raise _first(errors) or TransientError("Cloud Map has not answered in time")
        errors = [problem.error for problem in self._problems.values() if problem.error is not None]
        if self._read_error is not None:
            raise self._read_error
        if self._reading is not None:
            raise TransientError("Cloud Map has not answered ListNamespaces and ListServices in time")
        if self._catalogue.failed and not self._catalogue.complete:
            raise _first(errors) or TransientError("no namespace could be listed")

    def _changes(self, lost: Sequence[Watched]) -> Observation:
        now = self._clock.monotonic()
        parts = {
            key
            for key in self._problems.keys() | self._problems_told.keys()
            if self._problem(key).differs(self._problems_told.get(key, NO_PROBLEM))
        }
        self._problems_told = self._problems
        events: list[SourceEvent] = [report.gone(watched) for watched in lost]
        if "" in parts or "" in self._problems:  # each time: what is told of parts would count as an answer of the whole
            told_of_all = report.listing("", self._services.values(), self._problems)
            return _one_or_all((*events, *report.exact(told_of_all, self._services.values())))
        for key in sorted(parts):
            inside = [watched for watched in self._services.values() if watched.service.namespace.key == key]
            problems = {key: self._problem(key)} if key in self._problems else {}
            events += report.exact(report.listing(key, inside, problems), inside)
        told = [report.event(watched, now) for watched in self._services.values() if watched.service.namespace.key not in parts]
        if not events and not self._problems and told and all(isinstance(event, Confirmed) for event in told):
            return Confirmed("")
        events += [event for event in told if event is not None]
        return tuple(events) if events or self._services else Confirmed("")

    def _seek_the_missing(self) -> None:
        """Look for what the backend says is not there, before that is believed."""
        if any(isinstance(w.error, NotThereError) and w.missing < CONFIRMATIONS for w in self._services.values()):
            self._read_at = float("-inf")


def _is_gone(watched: Watched) -> bool:
    return watched.missing >= CONFIRMATIONS and (watched.superseded or isinstance(watched.error, NotThereError))


def _one_or_all(events: tuple[SourceEvent, ...]) -> Observation:
    return events if len(events) > 1 else events[0]


def _first(errors: Sequence[SourceError]) -> SourceError | None:
    """The error to raise for all: a denial only where all are denials, which opens the source anew."""
    return next((error for error in errors if not isinstance(error, ForbiddenError)), next(iter(errors), None))
