"""The native API: lists, single names, environments; one cursor for all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

import msgspec

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Cursor, parse_cursor
from bridge.catalog.instances import InstanceView
from bridge.catalog.query import Query, Reading, Resource, parse
from bridge.catalog.status import SourceStatus
from bridge.catalog.view import View, encode_json, encode_msgpack
from bridge.errors import QueryError
from bridge.model import Origin, ServiceName
from bridge.serve.http.message import VARY, Answer, Headers, Reply, Request, Stream, Wait, parameters, problem, segments
from bridge.serve.http.negotiate import EVENTS, JSON, MSGPACK, media_type, takes_gzip
from bridge.serve.http.ready import LIFE
from bridge.serve.http.render import body

RETRY_AFTER = ("Retry-After", "1")
_HEADER_SAFE = "".join(chr(code) for code in range(33, 127) if chr(code) not in ",%")


class NativeSurface:
    """Answers everything under ``/v1`` that reads the catalog."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._random = random.Random()
        self._renderers: dict[tuple[str, bool, bool], Callable[[View, bool], Answer]] = {}

    def knows(self, path: str) -> bool:
        """Whether the path is ours."""
        if not path.startswith("/v1/"):
            return False
        try:
            match segments(path):
                case (
                    ["v1", "services" | "instances" | "environments"]
                    | ["v1", "services", _, _]
                    | ["v1", "instances", _, _, _, *_]
                ):
                    return True
        except QueryError:  # which `answer` tells
            return True
        return False

    def answer(self, request: Request) -> Reply | None:
        """The reply, None where the path is not ours. Raises QueryError for what cannot be asked."""
        if not request.path.startswith("/v1/"):
            return None
        match request.segments():
            case ["v1", "services"]:
                query, reading = _parsed("services", request.query)
                return self._read(request, self._catalog.services_view(query), reading)
            case ["v1", "services", namespace, name]:
                query, reading = _parsed("service", request.query)
                return self._read(request, self._catalog.instances_view(query, ServiceName(namespace, name)), reading)
            case ["v1", "instances"]:
                query, reading = _parsed("instances", request.query)
                return self._read(request, self._catalog.instances_view(query, None), reading)
            case ["v1", "instances", environment, source, *rest] if rest:
                _, reading = _parsed("instance", request.query)
                return self._read(request, self._catalog.instance_view(Origin(environment, source), "/".join(rest)), reading)
            case ["v1", "environments"]:
                _, reading = _parsed("environments", request.query)
                return self._read(request, self._catalog.environments_view(self._clock.monotonic()), reading)
        return None

    def _read(self, request: Request, view: View, reading: Reading) -> Reply:
        media = media_type(request.headers.get("accept", ""))
        if media == EVENTS and view.collection:
            return self._stream(request, view, reading)
        cursor = parse_cursor(reading.after) if reading.after is not None else None
        given = reading.after is not None
        conditional = request.headers.get("if-none-match")
        if not given and conditional is not None:
            tags = [tag.strip() for tag in conditional.split(",")]
            if "*" in tags and view.status == 200:
                return self._not_modified(view)
            cursors = [parsed for tag in tags if (parsed := parse_cursor(tag)) is not None]
            cursor = max(cursors, key=lambda parsed: (view.holds(parsed), self._is_ours(parsed)), default=None)
            given = True
            if reading.wait is None:
                return (
                    self._not_modified(view)
                    if cursor is not None and view.holds(cursor)
                    else self._render(request, view, media, cursor, given)
                )
        if cursor is None or not reading.wait:
            if cursor is not None and view.holds(cursor):
                return self._not_modified(view)
            return self._render(request, view, media, cursor, given)
        seconds = reading.wait + self._random.uniform(0, reading.wait / 16)
        return Wait(view, cursor, seconds, self._renderer(media, _compressed(request), not self._is_ours(cursor)))

    def _renderer(self, media: str, compressed: bool, reset: bool) -> Callable[[View, bool], Answer]:
        key = (media, compressed, reset)
        if key not in self._renderers:
            self._renderers[key] = partial(self._after_waiting, media, compressed, reset)
        return self._renderers[key]

    def _after_waiting(self, media: str, compressed: bool, reset: bool, view: View, changed: bool) -> Answer:
        return self._give(view, media, compressed, reset) if changed else self._not_modified(view)

    def _is_ours(self, cursor: Cursor) -> bool:
        return self._catalog.indexes.handed_out(cursor)

    def _stream(self, request: Request, view: View, reading: Reading) -> Stream | Answer:
        for name, value in (("limit", view.query.limit), ("page", view.query.page)):
            if value is not None:
                raise QueryError(f"a stream is always whole: {name!r} cannot be given with {EVENTS}", parameter=name)
        text = request.headers.get("last-event-id") or reading.after
        cursor = parse_cursor(text) if text is not None else None
        if view.status != 200:
            return self._render(request, view, JSON, cursor, text is not None)
        return Stream(view, cursor, text is not None, lambda: self._bookmark(view))

    def _bookmark(self, view: View) -> dict[str, Any]:
        now, reach = self._clock.monotonic(), self._catalog.reach(view.query)
        ages = [age for status in reach if (age := status.age_ms(now)) is not None]
        return {"age_ms": max(ages, default=None), "stale": _stale(reach, now)}

    # -- answers

    def _not_modified(self, view: View) -> Answer:
        return self._shared(view, 304, lambda: Answer(304, self._headers(view)))

    def _render(self, request: Request, view: View, media: str, cursor: Cursor | None, given: bool) -> Answer:
        return self._give(view, media, _compressed(request), given and (cursor is None or not self._is_ours(cursor)))

    def _give(self, view: View, media: str, compressed: bool, reset: bool) -> Answer:
        if media == EVENTS:
            media = JSON
        return self._shared(view, (media, compressed, reset), lambda: self._made(view, media, compressed, reset))

    def _shared(self, view: View, key: Hashable, make: Callable[[], Answer]) -> Answer:
        """The same answer for all who ask the same of a list within a moment."""
        if not view.collection:
            return make()
        now, revised = self._clock.monotonic(), self._catalog.revised
        until, of, answer = view.bodies.get(key, (0.0, 0, None))
        if answer is None or now >= until or of != revised:
            answer = make()
            answer.view = view
            view.bodies[key] = (now + LIFE, revised, answer)
        return answer  # type: ignore[no-any-return]  # the view holds renderings of all kinds

    def _made(self, view: View, media: str, compressed: bool, reset: bool) -> Answer:
        headers = self._headers(view)
        if reset:
            headers.append(("Envbridge-Reset", "true"))
        if view.status != 200:
            return self._missing(view, headers)
        headers.append(("Content-Type", media))
        if view.collection:
            content, packed = body(view, media, compressed=compressed)
            if packed:
                headers.append(("Content-Encoding", "gzip"))
            return Answer(200, headers, content)
        document = self._instance(view) if isinstance(view, InstanceView) else view.page().items
        return Answer(200, headers, encode_msgpack(document) if media == MSGPACK else encode_json(document))

    def _missing(self, view: View, headers: Headers) -> Answer:
        if view.status == 503:
            detail = (
                "not every source that could answer was read yet"
                if view.resource in ("service", "instance")
                else "no source was read yet"
            )
            return problem(503, detail, headers=[*headers[1:], RETRY_AFTER])
        return problem(404, f"no {view.resource} has this name", headers=headers[1:])

    def _instance(self, view: InstanceView) -> dict[str, Any]:
        """A single instance's own page: the record, and what is known about it besides."""
        document: dict[str, Any] = msgspec.to_builtins(view.instance)
        partition = self._catalog.partitions[view.origin.environment]
        records = partition.sources[view.origin.source]
        since = datetime.fromtimestamp(records.records[view.id].since, UTC)
        return {
            **document,
            "held": view.id in records.held,
            "since": since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "age_ms": partition.statuses[view.origin.source].age_ms(self._clock.monotonic()),
        }

    def _headers(self, view: View) -> Headers:
        """Cache-Control first, then the cursor, Vary, and what is known of the sources in reach: a 304 has what a 200 would."""
        query = view.query
        if isinstance(view, InstanceView):
            query = Query(environment=(view.origin.environment,), source=(view.origin.source,))
        now = self._clock.monotonic()
        headers: Headers = [("Cache-Control", "no-cache"), ("ETag", f'W/"{view.cursor()}"'), VARY]
        reach = self._catalog.reach(query)
        ages = [age for status in reach if (age := status.age_ms(now)) is not None]
        if ages:
            headers.append(("Envbridge-Age", str(max(ages))))
        if stale := _stale(reach, now):
            headers.append(("Envbridge-Stale", ", ".join(map(_header_text, stale))))
        if unread := [status.origin for status in reach if not status.read]:
            names = sorted(f"{_header_text(origin.environment)}/{_header_text(origin.source)}" for origin in unread)
            headers.append(("Envbridge-Incomplete", ", ".join(names)))
        return headers


@lru_cache(maxsize=1024)
def _parsed(resource: Resource, query: str) -> tuple[Query, Reading]:
    """What the query string asks of ``resource``; the same text always asks the same. Raises QueryError."""
    return parse(resource, parameters(query))


def _compressed(request: Request) -> bool:
    return takes_gzip(request.headers.get("accept-encoding", ""))


def _stale(reach: Sequence[SourceStatus], now: float) -> list[str]:
    """The environments that have a stale source among those in reach."""
    return sorted({status.origin.environment for status in reach if status.is_stale(now)})


def _header_text(name: str) -> str:
    return quote(name, safe=_HEADER_SAFE)
