"""Trying a source once, for ``envbridge check --connect``: can it be reached, may we read it, what does it show?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Literal

from bridge.aio import SystemClock
from bridge.contracts import AnySource, PluginContext, PollSource, ScopedSource, SourceConfig
from bridge.errors import ContractError, ForbiddenError, SourceError
from bridge.model import Listing, Observation, Rejected, ServiceInstance

DEADLINE = 15.0
"""Seconds a source has for opening, its first observation and closing."""

_SCOPES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """How trying a source went.

    state: ``reachable``, ``forbidden`` or ``failed``.
    reason: why it is not reachable; empty where it is.
    instances: what its first observation had, under the source's own names.
    unknown: key or prefix -> why the source could not tell it; ``rejected``: key or id -> what is broken about it.
    """

    type: str
    state: Literal["reachable", "forbidden", "failed"]
    reason: str = ""
    instances: tuple[ServiceInstance, ...] = ()
    unknown: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether it could be read as a whole; a rejected object is the object's fault and counts as read."""
        return self.state == "reachable" and not self.unknown


async def try_source(name: str, config: SourceConfig, environment: str, *, deadline: float = DEADLINE) -> Outcome:
    """Open the source, take its first observation (of each scope, where it has scopes) and close it. Never raises.

    deadline: seconds for all of it.
    """
    logger = logging.getLogger(f"bridge.sources.{name}")
    context = PluginContext(environment=environment, name=name, logger=logger, clock=SystemClock(), count=_ignore)
    try:
        async with asyncio.timeout(deadline), config.open(context) as source:
            observed, unknown = await _first(source)
    except Exception as error:  # noqa: BLE001  # whatever a plugin raises is the outcome
        return Outcome(config.type, _state(error), _reason(error, deadline))
    return _summarise(config.type, observed, unknown)


async def _first(source: AnySource) -> tuple[list[Observation], dict[str, SourceError]]:
    if isinstance(source, ScopedSource):
        return await _first_of_scopes(source)
    if isinstance(source, PollSource):
        return [await source.list()], {}
    return [await _next(source.watch())], {}


async def _first_of_scopes(source: ScopedSource) -> tuple[list[Observation], dict[str, SourceError]]:
    """What the scopes show; one that fails is unknown, unless all do: then the source is, and the first failure is raised."""
    room = asyncio.Semaphore(_SCOPES_AT_ONCE)

    async def one(scope: str) -> Observation | SourceError:
        async with room:
            try:
                return await _next(source.watch_scope(scope))
            except SourceError as error:
                return error

    async with asyncio.TaskGroup() as group:
        tasks = {scope: group.create_task(one(scope)) for scope in source.scopes}
    results = {scope: task.result() for scope, task in tasks.items()}
    failed = {scope: result for scope, result in results.items() if isinstance(result, SourceError)}
    if failed and len(failed) == len(results):
        raise next(iter(failed.values()))
    return [result for result in results.values() if not isinstance(result, SourceError)], failed


async def _next(events: AsyncGenerator[Observation, None]) -> Observation:
    async with contextlib.aclosing(events):
        async for observation in events:
            return observation
    raise ContractError("the source ended without a first listing")


def _summarise(type: str, observed: list[Observation], failed: dict[str, SourceError]) -> Outcome:
    events = [event for observation in observed for event in (observation if isinstance(observation, tuple) else (observation,))]
    listings = [event for event in events if isinstance(event, Listing)]
    if not listings:
        return Outcome(type, "failed", "its first observation was no listing")
    instances = tuple(instance for listing in listings for group in listing.groups for instance in group.instances)
    errors = dict(failed)
    rejected = {event.key: event.reason for event in events if isinstance(event, Rejected)}
    for listing in listings:
        errors.update(listing.unknown)
        rejected.update(listing.rejected)
    unknown = {key: str(error) for key, error in errors.items()}
    if "" in errors:  # nothing could be told for certain
        return Outcome(type, _state(errors[""]), unknown[""], instances, unknown, rejected)
    return Outcome(type, "reachable", "", instances, unknown, rejected)


def _state(error: Exception) -> Literal["forbidden", "failed"]:
    if isinstance(error, ExceptionGroup):
        return _state(error.exceptions[0])
    return "forbidden" if isinstance(error, ForbiddenError) else "failed"


def _reason(error: Exception, deadline: float) -> str:
    if isinstance(error, ExceptionGroup):
        return _reason(error.exceptions[0], deadline)
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, TimeoutError):
        return str(error) or f"no answer within {deadline:g} s"
    return f"{type(error).__name__}: {error}"  # a defect in the plugin: its text names it best


def _ignore(event: str, amount: int = 1) -> None:
    del event, amount
