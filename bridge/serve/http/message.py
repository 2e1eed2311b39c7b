"""Requests as surfaces see them, and what surfaces return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from bridge.catalog.cursor import Cursor
from bridge.catalog.view import View
from bridge.errors import QueryError

Headers = list[tuple[str, str]]

VARY = ("Vary", "Accept, Accept-Encoding")
"""What a view's answers depend on besides the URI; the same on its 200, 304 and stream (RFC 9110, section 15.4.5)."""

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass(slots=True)
class Request:
    """One request. ``path`` is as it was sent, percent-encoded; header names are in lower case.

    named: whether the reader may see names (a loopback address, a valid token, or an insecure listener).
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    named: bool = True
    loopback: bool = True

    def segments(self) -> list[str]:
        """The path's segments, decoded. Raises QueryError where they are not UTF-8."""
        return segments(self.path)


@dataclass(slots=True)
class Answer:
    """A complete answer. ``view``: what alone it depends on, besides ages; ``head``, ``whole``: its bytes, once it was sent."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    view: View | None = None
    head: bytes | None = None
    whole: bytes | None = None


@dataclass(slots=True)
class Wait:
    """A blocking read: until ``view`` differs from what ``cursor`` saw, or ``seconds`` are over.

    render: makes the answer; one object for all who want it in the same form.
    """

    view: View
    cursor: Cursor
    seconds: float
    render: Callable[[View, bool], Answer]

    def answer(self, changed: bool) -> Answer:
        """The view as it is now, or, unchanged, the 304."""
        return self.render(self.view, changed)


@dataclass(slots=True)
class Stream:
    """A stream of ``view``: from ``cursor`` on, where that is possible, else from a snapshot."""

    view: View
    cursor: Cursor | None
    given: bool
    bookmark: Callable[[], dict[str, Any]]


Reply = Answer | Wait | Stream


class Surface(Protocol):
    """A read protocol on HTTP."""

    def knows(self, path: str) -> bool:
        """Whether `answer` has a reply to requests for ``path`` (as it was sent, percent-encoded)."""
        ...

    def answer(self, request: Request) -> Reply | None:
        """The reply to ``request``; None: not mine. Pure: it reads the catalog and does no I/O. Raises QueryError."""
        ...


def segments(path: str) -> list[str]:
    """The segments of ``path``, decoded. Raises QueryError where they are not UTF-8."""
    if "%" not in path and path.isascii():
        return path.split("/")[1:]
    try:
        return [unquote_to_bytes(part).decode() for part in path.split("/")[1:]]
    except UnicodeDecodeError as error:
        raise QueryError("the path is not UTF-8 once its percent signs are decoded") from error


def parameters(query: str) -> list[tuple[str, str]]:
    """The parameters in a query string, decoded. Raises QueryError where they are not UTF-8 or more than 256."""
    try:
        return parse_qsl(query, keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=256)
    except ValueError as error:
        raise QueryError("the query string is not UTF-8, or has more than 256 parameters") from error


def problem(status: int, detail: str, *, parameter: str | None = None, headers: Headers | None = None) -> Answer:
    """An error as RFC 9457 problem details."""
    document: dict[str, Any] = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": detail}
    if parameter is not None:
        document["parameter"] = parameter
    body = msgspec.json.encode(document)
    return Answer(status, [("Content-Type", "application/problem+json"), ("Cache-Control", "no-cache"), *(headers or [])], body)
