"""Server-Sent Events: the parser, and a stream that goes on through every loss of its connection.

Source: WHATWG HTML, section 9.2 (Server-sent events).
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPResponse
from typing import NamedTuple

from bridge.client.http import Client, problem
from bridge.errors import ApiError

SILENCE = 30.0
"""Seconds without a byte after which a stream is taken for dead: three of the bridge's bookmarks."""

_MAX_EVENT = 64 << 20
_PIECE = 1 << 16
_FIRST_DELAY = 0.5
_LONGEST_DELAY = 15.0
_LONGEST_RETRY_AFTER = 60.0
_SETTLED = 5.0
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event. ``id`` is the last one that the stream gave, which need not be this event's own."""

    type: str
    data: str
    id: str


class EventParser:
    """Turns the bytes of a stream, however they are cut, into events. ``last_id`` may be that of a stream before."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self._partial: list[bytes] = []
        self._size = 0
        self._ended_with_cr = False
        self._at_start = True
        self._type = ""
        self._data: list[str] = []
        self._id = last_id

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that ``chunk`` completes. Raises ApiError for an event of unreasonable size."""
        if not chunk:
            return []
        if self._ended_with_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._ended_with_cr = chunk.endswith(b"\r")
        first, *rest = _LINE_END.split(chunk)
        self._partial.append(first)
        self._size += len(chunk)
        events: list[Event] = []
        for following in rest:
            self._line(b"".join(self._partial), events)
            self._partial = [following]
        if self._size > _MAX_EVENT:
            raise ApiError(f"an event of more than {_MAX_EVENT >> 20} MiB")
        return events

    def _line(self, line: bytes, events: list[Event]) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        name, _, raw = line.partition(b":")
        value = raw.removeprefix(b" ").decode(errors="replace")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value
        elif name == b"id" and "\0" not in value:
            self._id = value

    def _dispatch(self, events: list[Event]) -> None:
        self.last_id = self._id
        if self._data:
            events.append(Event(self._type or "message", "\n".join(self._data), self.last_id))
        self._type = ""
        self._data = []
        self._size = 0


def follow(
    client: Client,
    path: str,
    params: Mapping[str, str] | None = None,
    *,
    last_id: str = "",
    silence: float = SILENCE,
    on_lost: Callable[[ApiError, float], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Yield the events of a stream for ever; an event of type ``open`` comes first on each connection.

    A lost or silent connection is opened again, with ``Last-Event-ID``, after a random delay of up to 15 s that grows with
    each failure, or after what the bridge asked for. So is one that is refused for a passing reason (429, 5xx), and, once it
    was open, one that finds nobody or nothing (404).
    on_lost: told why, and in how many seconds the next attempt comes.
    Raises ApiError where trying again would change nothing: before the first connection, any error but a passing one; later,
    any other refusal.
    """
    opened = False
    failures = 0
    while True:
        began = time.monotonic()
        asked: float | None = None
        parser = EventParser(last_id)
        headers = {"Cache-Control": "no-cache"} | ({"Last-Event-ID": last_id} if last_id else {})
        try:
            with client.open(path, params, accept="text/event-stream", headers=headers, silence=silence) as response:
                asked = _retry_after(response)
                _must_be_stream(response)
                opened = True
                yield Event("open", "", last_id)
                while chunk := response.read1(_PIECE):
                    for event in parser.feed(chunk):
                        last_id = event.id
                        yield event
            error = ApiError("the bridge ended the stream")
        except ApiError as failure:
            if not (failure.status in _PASSING or (opened and failure.status in (0, 404))):
                raise
            error = failure
        if time.monotonic() - began >= _SETTLED:
            failures = 0
        delay = asked if asked is not None else random.uniform(0, min(_LONGEST_DELAY, _FIRST_DELAY * 2**failures))
        failures = min(failures + 1, 10)
        if on_lost is not None:
            on_lost(error, delay)
        sleep(delay)


def _must_be_stream(response: HTTPResponse) -> None:
    if response.status != 200:
        raise problem(response)
    if response.headers.get_content_type() != "text/event-stream":
        raise ApiError("the answer is no stream of events; is it a bridge?", status=response.status)


def _retry_after(response: HTTPResponse) -> float | None:
    """Seconds, at least one; the form with a date (RFC 9110, 10.2.3) counts as none."""
    value = response.headers.get("Retry-After", "")
    return min(max(float(value), 1.0), _LONGEST_RETRY_AFTER) if value.isascii() and value.isdigit() else None
