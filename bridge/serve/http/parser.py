"""Bytes to requests: what a client may send on one connection, and where one request ends."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

import httptools

from bridge.serve.http.client import Client
from bridge.serve.http.head import FRAMING, awaits_continue, body_length, fault, origin_form
from bridge.serve.http.limits import Limit

if TYPE_CHECKING:
    from bridge.serve.http.server import HttpServer

MOST_HELD = 64 * 1024
"""Bytes for another protocol that are read on before it is their turn: what is not read tells no end either."""

_HEAD_END = b"\r\n\r\n"
_REQUEST_LINE = 64
"""Bytes of a request line besides its target, at most."""

NO_FIELDS: dict[str, str] = {}
"""The header between two requests; never written to."""


@lru_cache(maxsize=512)
def _field_name(name: bytes) -> str:
    return name.decode("latin-1").lower()


class RequestParser(Client):
    """Reads a client's requests. A derived class answers them."""

    __slots__ = (
        "_awaits_continue",
        "_body_bytes",
        "_deaf",
        "_fields",
        "_header_bytes",
        "_headers",
        "_in_head",
        "_in_message",
        "_moved",
        "_parser",
        "_rest",
        "_tail",
        "_target",
        "_unparsed",
    )

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server)
        self._parser: Any = None
        self._target = b""
        self._headers: dict[str, str] = {}
        self._fields = 0
        self._header_bytes = 0
        self._body_bytes = 0
        self._in_message = True  # of the first message the parser tells no begin when an empty line precedes it
        self._in_head = True
        self._awaits_continue = False
        self._moved = False
        self._unparsed = 0
        self._tail = b""
        self._rest: bytes | None = None
        self._deaf = False

    def attach(self, transport: asyncio.Transport) -> None:
        super().attach(transport)
        self._parser = httptools.HttpRequestParser(self)

    def _drop_parser(self) -> None:
        """Let go of the parser, a quarter of what a waiting reader costs, until more comes."""
        self._parser = None

    def _is_for_application(self) -> bool:
        """Whether no surface knows the path of the request at hand, and whoever asks may learn so."""
        path = self._target.partition(b"?")[0].decode("latin-1")
        if self._parser.should_upgrade() or not path.startswith("/") or self._server.knows(path):
            return False
        return self._server.sees_names(self, self._headers.get("authorization"))

    def _is_for_another(self) -> bool:
        """Whether the request whose head was just read is for another protocol."""
        raise NotImplementedError

    def _heir(self) -> RequestParser:
        """The protocol that such a request is for."""
        raise NotImplementedError

    def _asks_for_head(self) -> bool:
        return self._in_message and not self._in_head and bool(self._parser.get_method() == b"HEAD")

    # -- reading

    def _parse(self, data: bytes) -> None:
        if self._rest is not None:
            self._rest += data
            if len(self._rest) > MOST_HELD and self.transport is not None:
                self.transport.pause_reading()
            return
        if self._parser is None:
            data = data.lstrip(b"\r\n")  # empty lines before a request say nothing, but a new parser would not tell its begin
            if not data:
                return
            self._parser = httptools.HttpRequestParser(self)
        self._moved = False
        try:
            if self._server.application is None:
                self._parser.feed_data(data)
            else:
                self._parse_in_pieces(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # answered as plain HTTP, then closed: what follows is no HTTP
        except httptools.HttpParserCallbackError:
            if not self._refused:  # a limit was passed, and answered there; all else is a defect
                raise
        except httptools.HttpParserError as error:
            if not self._deaf:
                self.refuse("malformed", 400, f"malformed HTTP: {error}")
        if not self._in_message:
            return
        if self.request_began is None:
            self.request_began = self._server.clock.monotonic()
        # The parser keeps a field until it is whole, and counts no framing.
        if not self._moved:
            self._unparsed += len(data)
        elif self._in_head:  # all behind the end of the message before
            self._unparsed = len(data) - (data.rfind(_HEAD_END) + len(_HEAD_END) if _HEAD_END in data else 0)
        limits = self._server.limits
        if self._in_head and self._unparsed > limits.header_size + len(self._target) + _REQUEST_LINE:
            self.refuse("header_size", 431, f"the header is longer than {limits.header_size} bytes")
        elif self._unparsed > 2 * limits.body_size:
            self.refuse("body_size", 413, f"the message is longer than {2 * limits.body_size} bytes")

    def _parse_in_pieces(self, data: bytes) -> None:
        """Parse in pieces that each head, and each body, is an end of: what follows a head may be for another protocol."""
        data, read = self._tail + data, len(self._tail)
        while read < len(data):
            end = self._end_of_piece(data, read)
            try:
                self._parser.feed_data(data[read:end])
            except httptools.HttpParserCallbackError:
                if self._rest is None:
                    raise
                self._rest += data[end:]
                self._pass_on()
                return
            read = end
        self._tail = data[-3:] if self._in_message else b""

    def _end_of_piece(self, data: bytes, start: int) -> int:
        if self._in_message and not self._in_head and "content-length" in self._headers:
            return min(start + body_length(self._headers) - self._body_bytes, len(data))
        found = data.find(_HEAD_END, max(start - 3, 0))  # a body in chunks ends with an empty line, too
        return found + len(_HEAD_END) if found >= 0 else len(data)

    def _pass_on(self) -> None:
        """Give the connection, and what was read of it too far, to its heir, once everything before is answered."""
        transport, rest = self.transport, self._rest
        if transport is None or rest is None:
            return
        if not self._is_clear():
            return
        heir = self._heir()
        heir.succeed(self, transport)
        self.transport = self._rest = None
        transport.set_protocol(heir)
        transport.resume_reading()
        heir.data_received(rest)

    def _head(self) -> bytes:
        """The head of the request at hand, written anew: nothing in it that we would read in another way than others do."""
        parser = self._parser
        fields = "".join([f"{name}: {value}\r\n" for name, value in self._headers.items()]).encode("latin-1")
        return b"%b %b HTTP/%b\r\n%b\r\n" % (parser.get_method(), self._target, parser.get_http_version().encode(), fields)

    # -- the parser's callbacks

    def on_message_begin(self) -> None:
        self._target, self._headers, self._fields, self._header_bytes, self._body_bytes = b"", {}, 0, 0, 0
        self._in_message = self._in_head = self._moved = True
        self._unparsed = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > (most := self._server.limits.target_size):
            self._limit("target_size", 414, f"the request target is longer than {most} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # merged into the head it could pass for one (RFC 9110, section 6.5.1); nobody here needs any
            self._limit("malformed", 400, "a body in chunks may have no trailer fields here")
        limits = self._server.limits
        self._header_bytes += len(name) + len(value) + 4
        self._fields += 1
        if self._header_bytes > limits.header_size or self._fields > limits.header_fields:
            most = f"{limits.header_size} bytes or has more than {limits.header_fields} fields"
            self._limit("header_size", 431, f"the header is longer than {most}")
        key = _field_name(name)
        text = value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._in_head, self._moved, self._unparsed = False, True, 0
        version, headers = self._parser.get_http_version(), self._headers
        if (wrong := fault(version, headers)) is not None:
            self._limit("malformed", *wrong)
        if not FRAMING.isdisjoint(headers):
            if body_length(headers) > self._server.limits.body_size:
                self._limit_body()
            self._awaits_continue = awaits_continue(version, headers)
        if not self._target.startswith(b"/"):
            target = origin_form(self._parser.get_method().decode("latin-1"), self._target.decode("latin-1"), headers)
            if target is None:
                self._limit("malformed", 400, "the request target is neither a path nor an http or https URI")
            else:
                self._target = target.encode("latin-1")
        if self._server.application is not None and self._is_for_another():
            self._rest = self._head()
            raise ValueError("the request is for another protocol")  # ends the parser's run

    def on_body(self, body: bytes) -> None:
        self._awaits_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._server.limits.body_size:
            self._limit_body()

    def on_message_complete(self) -> None:
        self._in_message = self._awaits_continue = False
        self.request_began = None

    def _limit_body(self) -> NoReturn:
        self._limit("body_size", 413, f"the body is longer than {self._server.limits.body_size} bytes")

    def _limit(self, limit: Limit, status: int, detail: str) -> NoReturn:
        self.refuse(limit, status, detail)
        raise ValueError(detail)  # ends the parser's run
