"""The source: lists every kind of a scope, then turns what happens into groups. One generator per watched namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from bridge.contracts import PluginContext
from bridge.errors import TransientError
from bridge.model import Confirmed, InstanceGroup, Listing, Observation, Origin, Rejected, SourceEvent

from .feed import Deadlines, ExpiredError, Feed
from .policy import Publish
from .requests import NODES, SERVICES, SLICES, Resource, Selection
from .slices import Renderer
from .state import Input, Kind, ScopeState
from .transport import Api
from .wire import Event, UnreadableError

_PIECE_OF_WORK = 32 * 1024
_COMPLAINTS_KEPT = 1000
_PORTION = 100
"""Instances in one observation, about."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the configuration a scope needs."""

    publish: Publish
    nodes: bool
    label_selector: str | None
    field_selector: str | None
    deadlines: Deadlines


class KubernetesSource:
    """The EndpointSlices and Services of some namespaces, or of all (`bridge.contracts.ScopedSource`)."""

    def __init__(self, api: Api, scopes: tuple[str, ...], settings: Settings, ctx: PluginContext) -> None:
        self.scopes = scopes
        self._api = api
        self._settings = settings
        self._ctx = ctx
        self._no_streaming: set[str] = set()
        self._states: dict[str, ScopeState] = {}
        self._yielded: dict[str, dict[str, Input]] = {}
        self._renderer = Renderer()
        self._complaints: dict[tuple[str, str], None] = {}

    @property
    def without_streaming_lists(self) -> tuple[str, ...]:
        """The kinds that the server was found not to stream, and that are listed in pages since."""
        return tuple(sorted(self._no_streaming))

    async def watch_scope(self, scope: str) -> AsyncGenerator[Observation, None]:
        """Yield the namespace's listing, then its changes, until history was lost (`ScopedSource.watch_scope`)."""
        async with AsyncExitStack() as stack:
            settings = self._settings
            selection = Selection(scope, settings.label_selector, settings.field_selector)
            feeds = [
                Feed(self._api, resource, selection, settings.deadlines, self._no_streaming) for resource in self._resources()
            ]
            for feed in feeds:
                stack.push_async_callback(feed.aclose)
            state = await self._list(scope, feeds)
            self._states[scope] = state
            listing, yielded = await self._listing(state)
            self._yielded[scope] = yielded
            yield listing

            changes = _merged(feeds)
            stack.push_async_callback(changes.aclose)
            unheard = {feed.resource.kind for feed in feeds}
            heard_any = False
            pace = Pace()
            try:
                async for kind, batch in changes:
                    try:
                        for event in batch:
                            await _take(state, pace, kind, event)
                    except UnreadableError as error:  # nothing after it is believed; what came before it is told
                        state.unknown[kind] = str(error)
                    unheard.discard(kind)
                    heard_any = True
                    rejected = tuple(Rejected(key, reason) for key, reason in state.rejected.items())
                    events, inputs = await self._render(state)
                    if not unheard:
                        # Each kind was heard of since: only then is the whole scope known to be as it was said.
                        unheard = {feed.resource.kind for feed in feeds}
                        events.append(Confirmed(scope))
                    if events:
                        for key, made_from in inputs.items():
                            if made_from is None:
                                yielded.pop(key, None)
                            else:
                                yielded[key] = made_from
                        for portion in _portions(events):
                            yield portion
                    if rejected:  # on their own: in one observation with groups they would be taken for parts of those
                        yield rejected
                    if state.unknown:
                        raise TransientError(f"watch: {next(iter(state.unknown.values()))}")
            except ExpiredError as error:
                if not heard_any:
                    raise TransientError("watch: 410, expired right after the list") from error

    def _resources(self) -> tuple[Resource, ...]:
        return (NODES, SERVICES, SLICES) if self._settings.nodes else (SERVICES, SLICES)

    async def _list(self, scope: str, feeds: Sequence[Feed]) -> ScopeState:
        """The state after each kind was listed whole."""
        state = ScopeState(
            scope,
            self._settings.publish,
            nodes=self._settings.nodes,
            count=self._ctx.count,
            complain=self._complain,
            before=self._states.get(scope),
            origin=Origin(self._ctx.environment, self._ctx.name),
            renderer=self._renderer,
        )
        pace = Pace()
        for feed in feeds:
            await feed.fill(partial(_take, state, pace, feed.resource.kind), partial(state.restart, feed.resource.kind))
        state.settle()
        return state

    async def _listing(self, state: ScopeState) -> tuple[Listing, dict[str, Input]]:
        """The listing, and what its groups were rendered from."""
        before = self._yielded.get(state.scope, {})
        groups: list[InstanceGroup] = []
        unchanged: list[str] = []
        rejected: dict[str, str] = {}
        inputs: dict[str, Input] = {}
        pace = Pace()
        for key in state.dirty:
            if key in before and state.input(key) == before[key]:
                unchanged.append(key)
                inputs[key] = before[key]
                continue
            events, made_from = state.event(key)
            for event in events:
                if isinstance(event, InstanceGroup):
                    groups.append(event)
                elif isinstance(event, Rejected):
                    rejected[event.key] = event.reason
            if made_from is not None:
                inputs[key] = made_from
            await pace.keep(state)
        listing = state.listing(groups, unchanged, rejected)
        state.clean()
        return listing, inputs

    async def _render(self, state: ScopeState) -> tuple[list[SourceEvent], dict[str, Input | None]]:
        """What is to be said about each touched group, and what it was rendered from."""
        events: list[SourceEvent] = []
        inputs: dict[str, Input | None] = {}
        pace = Pace()
        for key in state.dirty:
            made, inputs[key] = state.event(key)
            events.extend(made)
            await pace.keep(state)
        state.clean()
        return events, inputs

    def _complain(self, key: str, complaint: str) -> None:
        if (key, complaint) in self._complaints:
            return
        if len(self._complaints) >= _COMPLAINTS_KEPT:
            self._complaints.clear()
        self._complaints[key, complaint] = None
        self._ctx.count("annotations_ignored")
        self._ctx.logger.warning("%s: %s", key, complaint)


class Pace:
    """Lets the event loop breathe between pieces of work, so that none holds it for more than a millisecond or so."""

    def __init__(self) -> None:
        self._done = 0

    async def keep(self, state: ScopeState) -> None:
        """Every 32 KiB of work on ``state``, let others go first."""
        if state.work - self._done >= _PIECE_OF_WORK:
            self._done = state.work
            await asyncio.sleep(0)


def _portions(events: Sequence[SourceEvent]) -> Iterator[tuple[SourceEvent, ...]]:
    """The events, in parts that are applied in a moment; what follows a group and belongs to it stays with it."""
    portion: list[SourceEvent] = []
    size = 0
    for event in events:
        if isinstance(event, InstanceGroup):
            if size >= _PORTION:
                yield tuple(portion)
                portion, size = [], 0
            size += len(event.instances) + 1
        portion.append(event)
    yield tuple(portion)


async def _take(state: ScopeState, pace: Pace, kind: Kind, event: Event) -> None:
    if event.type == "DELETED":
        state.drop(kind, event.object, cut=True)
    elif event.type != "BOOKMARK":
        state.put(kind, event.object, cut=True)
    await pace.keep(state)


async def _merged(feeds: Sequence[Feed]) -> AsyncGenerator[tuple[Kind, list[Event]], None]:
    """What each feed tells, as it comes."""
    streams = {feed.resource.kind: feed.changes() for feed in feeds}
    waiting: dict[asyncio.Task[list[Event]], Kind] = {
        asyncio.create_task(_next(stream)): kind for kind, stream in streams.items()
    }
    try:
        while True:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            told = [task for task in waiting if task in done]
            told.sort(key=lambda task: task.exception() is not None)
            for task in told:  # failures last, so that nothing told before them is lost
                kind = waiting.pop(task)
                events = task.result()
                waiting[asyncio.create_task(_next(streams[kind]))] = kind
                yield kind, events
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams.values():
            await stream.aclose()


async def _next(stream: AsyncGenerator[list[Event], None]) -> list[Event]:
    return await anext(stream)
