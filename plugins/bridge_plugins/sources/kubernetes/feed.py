"""One kind of object in one scope: everything that is there, then what happens to it.

A list is either one stream (KEP-3157: events up to a marked bookmark) or pages (``limit`` and ``continue``, one
resourceVersion for all, else the list begins again); the watch goes on from the list's resourceVersion. resourceVersions
are opaque: what a list says counts whatever its number, so a store that was restored from a backup is followed back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from msgspec import Raw

from bridge.aio import in_thread, iterate
from bridge.errors import ForbiddenError, SourceError, TransientError

from . import wire
from .requests import Question, Resource, Selection, StatusError, UnauthorizedError, refusal
from .transport import Api, Exchange
from .wire import Event, Page, UnreadableError

LIST_RESTARTS = 3
_LINES_WAITING = 64
_SHORTEST_WATCH = 1.0
# The part of the silence deadline after which the server is asked; longer than a minute, by default.
_PATIENCE = 0.75
_SPARE = 5.0
_LONGEST_VERSION = 40

Take = Callable[[Event], Awaitable[None]]
"""Receives the objects of a list as events, in order. Raises UnreadableError where one is no JSON."""


class StreamingRefusedError(Exception):
    """The server does not do streaming lists. ``lasting``: nor will it the next time."""

    def __init__(self, lasting: bool) -> None:
        super().__init__()
        self.lasting = lasting


class MixedPagesError(TransientError):
    """A page shows another state of the store than the pages before it; together they may lack what lives in both."""


class ExpiredError(Exception):
    """410: the watch cannot go on from its resourceVersion; list anew."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds: for one whole list, and between two lines of a watch."""

    request: float
    silence: float


class Feed:
    """Lists and watches one kind. Use: ``fill``, then ``changes``, then ``aclose``; never again after an error.

    streaming: kinds whose streaming list was refused for good; shared by all feeds of a source.
    """

    def __init__(self, api: Api, resource: Resource, selection: Selection, deadlines: Deadlines, no_streaming: set[str]) -> None:
        self.resource = resource
        self._api = api
        self._selection = selection
        self._deadlines = deadlines
        self._no_streaming = no_streaming
        self._version = ""
        self._last: Raw | None = None
        self._watch: AsyncGenerator[list[bytes], None] | None = None
        self._opened = 0.0
        self._pending: list[bytes] = []
        self._answered = self._heard = False

    async def fill(self, take: Take, restart: Callable[[], None]) -> None:
        """Tell ``take`` everything that is there. ``restart``: forget what was told, it begins again. Raises SourceError."""
        if self.resource.plural not in self._no_streaming:
            try:
                async with asyncio.timeout(self._deadlines.request):
                    await self._fill_from_stream(take)
            except StreamingRefusedError as refused:
                if refused.lasting:
                    self._no_streaming.add(self.resource.plural)
            except TimeoutError as error:
                # Either slow, or a server that takes no notice of the wish and never marks the end.
                self._no_streaming.add(self.resource.plural)
                raise self._late() from error
            else:
                return
            finally:
                if not self._version:
                    await self.aclose()
            restart()
        try:
            async with asyncio.timeout(self._deadlines.request):
                await self._fill_from_pages(take, restart)
        except TimeoutError as error:
            raise self._late() from error

    async def changes(self) -> AsyncGenerator[list[Event], None]:
        """What happens, as the lines of the watch come, bookmarks included; an empty list: nothing, on enquiry.

        Reconnects after a clean end. Raises ExpiredError on 410, else SourceError: also where the watch is not even
        answered, or silent and nothing can be learnt about why.
        """
        lines, self._pending = self._pending, []
        while True:
            events: list[Event] = []
            failure: Exception | None = None
            try:
                events.extend(self._event(line) for line in lines if line)
            except (SourceError, ExpiredError) as error:
                failure = error
            if events:
                self._last = events[-1].object
                self._heard = True
                yield events
            if failure is not None:
                raise failure
            while (heard := await self._next_lines()) is None:
                await self._enquire()
                yield []
            lines = heard

    async def aclose(self) -> None:
        """End the connection, if there is one."""
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.aclose()

    async def _fill_from_stream(self, take: Take) -> None:
        question = self._selection.stream(self.resource)
        self._watch = self._open(question)
        try:
            async for lines in self._watch:
                for index, line in enumerate(lines):
                    if not line:
                        continue
                    event = wire.read_event(line, self.resource.kind)
                    if event.type == "ERROR":
                        raise StreamingRefusedError(lasting=True)
                    if event.type != "BOOKMARK":
                        try:
                            await take(event)
                        except UnreadableError as error:
                            raise TransientError(f"watch of {self.resource.kind}: a line cannot be read: {error}") from error
                    elif (bookmark := wire.read_bookmark(event.object, self.resource.kind)).initial_end:
                        self._version = bookmark.version
                        self._pending = lines[index + 1 :]
                        return
        except UnauthorizedError:
            raise
        except ForbiddenError as error:
            raise StreamingRefusedError(lasting=False) from error  # the right to list may be there
        except StatusError as error:
            if 400 <= error.status < 500 and error.status != 429:
                raise StreamingRefusedError(lasting=True) from error
            raise
        raise StreamingRefusedError(lasting=True)

    async def _fill_from_pages(self, take: Take, restart: Callable[[], None]) -> None:
        token: str | None = None
        version = ""
        restarts = 0
        while True:
            question = self._selection.page(self.resource, token)
            try:
                body, page = await self._ask(question)
                if token is not None:
                    _check_version(question, page.version, version)
            except (StatusError, MixedPagesError) as error:
                lost = isinstance(error, MixedPagesError) or error.status in (400, 410)
                if token is None or not lost or restarts >= LIST_RESTARTS:
                    raise
                token, restarts = None, restarts + 1
                restart()
                continue
            version, token = page.version, page.next
            try:
                await _take_all(page, take)
            except UnreadableError:  # what was taken is in it once more
                await _take_all(wire.read_page(body, self.resource.kind, cut=False), take)
            if token is None:
                self._version = version
                return
            del body, page  # two pages at once are one too many

    async def _ask(self, question: Question) -> tuple[bytes, Page]:
        seconds = self._deadlines.request
        exchange = Exchange(self._api, question, read_timeout=seconds)

        def ask() -> tuple[bytes, Page]:
            body = exchange.body(seconds)
            return body, wire.read_page(body, self.resource.kind)

        try:
            return await in_thread(ask, deadline=seconds, name=f"kubernetes {question}")
        finally:
            exchange.abort()

    def _resumed_from(self) -> str:
        """The resourceVersion of what was heard last. Raises TransientError where that has none."""
        if self._last is not None:
            self._version, self._last = wire.read_bookmark(self._last, self.resource.kind).version, None
        return self._version

    async def _next_lines(self) -> list[bytes] | None:
        """The next lines of the watch; None where it is silent."""
        while True:
            if self._watch is None:
                self._watch = self._open(self._selection.watch(self.resource, self._resumed_from()))
                self._heard = False
            patience = self._deadlines.silence * _PATIENCE
            try:
                async with asyncio.timeout(patience):
                    return await anext(self._watch)
            except StopAsyncIteration:
                self._watch = None
            except TimeoutError as error:
                await self.aclose()
                if not self._answered:  # a server answers a watch at once: such a one tells nothing, whatever happens
                    raise TransientError(f"watch {self.resource.plural}: no answer within {patience:g} s") from error
                return None
            except StatusError as error:
                if error.status == 410:
                    raise ExpiredError from error
                raise
            if not self._heard and time.monotonic() - self._opened < _SHORTEST_WATCH:
                raise TransientError(f"watch {self.resource.plural}: ended as soon as it began")

    async def _enquire(self) -> None:
        """Learn whether a silent watch may be trusted; the next one then begins where it was. Raises TransientError.

        Bookmarks come once a minute, but from some servers only after a first change of the kind, so that silence alone
        says nothing. A store that was brought back to before our resourceVersion is silent too: its lists say less.
        Only here are resourceVersions compared (as KEP-5504 lets clients); where they are no numbers, silence is failure.
        """
        silent = f"watch {self.resource.plural}: silent for {self._deadlines.silence * _PATIENCE:g} s"
        try:
            async with asyncio.timeout(self._deadlines.silence * (1 - _PATIENCE)):
                _, page = await self._ask(self._selection.newest(self.resource))
        except TimeoutError as error:
            raise TransientError(f"{silent}, and no answer to why") from error
        newest, ours = page.version, self._resumed_from()
        if not _is_at_least(newest, ours):
            raise TransientError(f"{silent}, and the store is at {newest[:40]!r}, before {ours[:40]!r}")

    def _event(self, line: bytes) -> Event:
        event = wire.read_event(line, self.resource.kind)
        if event.type == "ERROR":
            status = wire.read_status(event.object)
            if status.code == 410:
                raise ExpiredError
            question = self._selection.watch(self.resource, self._version)
            raise refusal(question, status.code or 500, status)
        return event

    async def _open(self, question: Question) -> AsyncGenerator[list[bytes], None]:
        # The deadlines of the event loop come first; the socket's own only lets a forgotten thread end.
        exchange = Exchange(self._api, question, read_timeout=self._deadlines.silence + _SPARE)
        self._opened = time.monotonic()
        self._answered = False
        lines = iterate(exchange.lines, close=exchange.abort, limit=_LINES_WAITING, name=f"kubernetes {question}")
        async with aclosing(lines):
            async for batch in lines:
                self._answered = True
                yield batch

    def _late(self) -> TransientError:
        return TransientError(f"list {self.resource.plural}: not whole within {self._deadlines.request:g} s")


async def _take_all(page: Page, take: Take) -> None:
    for item in page.items:
        await take(Event("ADDED", item))


def _check_version(question: Question, version: str, first: str) -> None:
    """All pages of a list have the resourceVersion of its first. Raises MixedPagesError."""
    if version != first:
        raise MixedPagesError(f"{question}: a page of {version[:40]!r} in a list of {first[:40]!r}")


def _is_at_least(newest: str, ours: str) -> bool:
    """Whether a resourceVersion is not before another; no where that cannot be told."""
    if not all(text.isascii() and text.isdecimal() and len(text) <= _LONGEST_VERSION for text in (newest, ours)):
        return False
    return int(newest) >= int(ours)
