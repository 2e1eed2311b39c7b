"""One connection: bytes to requests, replies to bytes. Requests of a connection are answered one after the other, in order."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

import httptools

from bridge.serve.http.head import FRAMING, awaits_continue, body_length, fault, origin_form
from bridge.serve.http.message import TITLES, VARY, Answer, Request, Stream, Wait, problem
from bridge.serve.http.negotiate import EVENTS
from bridge.serve.http.ready import ReadyAnswer
from bridge.serve.http.stream import StreamFollower

if TYPE_CHECKING:
    from bridge.serve.http.server import HttpServer
    from bridge.serve.http.waiting import BlockedRead

MAX_HEADER = 16 * 1024
MAX_TARGET = 8 * 1024
MAX_BODY = 1024 * 1024
MAX_UNPARSED = 2 * MAX_BODY
MAX_PIPELINED = 64
REQUEST_DEADLINE = 10.0
IDLE_DEADLINE = 75.0
STUCK_DEADLINE = 30.0
LINGER = 1.0
HIGH_WATER = 512 * 1024
JOIN_UP_TO = 64 * 1024
"""Bytes of a body that is sent together with its head; copying a larger one costs more than a second buffer."""


_LINES = {status: f"HTTP/1.1 {status} {title}\r\n" for status, title in {**TITLES, 200: "OK", 304: "Not Modified"}.items()}
_END = b"\r\n"
_CLOSE = b"Connection: close\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@lru_cache(maxsize=512)
def _field_name(name: bytes) -> str:
    return name.decode("latin-1").lower()


class Connection(asyncio.Protocol):
    """The protocol of one accepted socket. There may be 10,000 that wait, hence slots, and nothing kept of what was answered."""

    __slots__ = (
        "_authorization",
        "_awaits_continue",
        "_body_bytes",
        "_completed",
        "_current",
        "_deaf",
        "_half_closed",
        "_header_bytes",
        "_headers",
        "_in_head",
        "_in_message",
        "_method",
        "_moved",
        "_parser",
        "_paused_reading",
        "_paused_writing",
        "_pristine",
        "_queue",
        "_ready",
        "_refused",
        "_sent",
        "_server",
        "_taken",
        "_target",
        "_unparsed",
        "_written",
        "following",
        "idle_since",
        "loopback",
        "peer",
        "request_began",
        "transport",
        "waiting",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.loopback = False
        self._parser: Any = httptools.HttpRequestParser(self)
        self._queue: list[tuple[Request, bool]] = []
        self._current: bool | None = None
        self._authorization: str | None = None
        self._method = ""
        self.waiting: BlockedRead | None = None
        self.following: StreamFollower | None = None
        self._target = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body_bytes = 0
        self._in_message = True  # of the first message the parser tells no begin when an empty line precedes it
        self._in_head = True
        self._awaits_continue = False
        self._moved = False
        self._unparsed = 0
        self._deaf = False
        self._refused = False
        self._half_closed = False
        self._paused_writing = False
        self._paused_reading = False
        self.request_began: float | None = None
        self.idle_since = 0.0
        self._written = 0
        self._taken: tuple[float, int] = (0.0, 0)
        self._ready: dict[bytes, ReadyAnswer] = {}
        self._pristine = True
        self._completed = 0
        self._sent: tuple[Answer, bytes] | None = None

    # -- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else ""
        self.loopback = self.peer.startswith(("127.", "::ffff:127.")) or self.peer == "::1"
        self.idle_since = self._server.clock.monotonic()
        self._ready = self._server.ready.loopback if self.loopback else self._server.ready.elsewhere
        if not self._server.admit(self):
            self._refused = True
            self._send(problem(503, "too many connections", headers=[("Retry-After", "1")]), close=True)
            self._close_soon()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # gone is gone
        self._server.release(self)
        self._abandon()
        self.transport = None

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf:
            return
        alone = (self._pristine or not self._in_message) and self._current is None and not self._queue
        if alone and (ready := self._ready.get(data)) is not None and self._give(ready):
            return
        self._pristine = False
        self._completed, self._sent = 0, None
        self._parse(data)
        if alone and self._completed == 1 and self._sent is not None and not self._in_message:
            self._keep(data, *self._sent)
        self._sent = None
        if not self._in_message:
            self._target, self._headers = b"", {}

    def _give(self, ready: ReadyAnswer) -> bool:
        """Send an answer made before, where it still is one."""
        now = self._server.clock.monotonic()
        if self._paused_writing or self._half_closed or self.transport is None or not ready.holds(now):
            return False
        self._written += len(ready.data)
        self.transport.write(ready.data)
        self._server.counts["answered", ready.status] += 1
        self.idle_since = now
        return True

    def _keep(self, data: bytes, answer: Answer, sent: bytes) -> None:
        """Remember the answer that the request ``data`` got, where it depends on nothing but a view."""
        if answer.view is not None and self._current is None and not self._server.stopping and "expect" not in self._headers:
            now = self._server.clock.monotonic()
            self._server.ready.keep(data, answer.view, answer.status, sent, loopback=self.loopback, now=now)

    def _parse(self, data: bytes) -> None:
        if self.request_began is None and not self._queue:
            self.request_began = self._server.clock.monotonic()
        self._moved = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # answered as plain HTTP, then closed: what follows is no HTTP
        except httptools.HttpParserCallbackError:
            if not self._refused:  # a limit was passed, and answered there; all else is a defect
                raise
        except httptools.HttpParserError as error:
            self.refuse(400, f"malformed HTTP: {error}")
        # The parser keeps a field until it is whole, and counts no framing.
        if self._in_message and not self._moved:
            self._unparsed += len(data)
            if self._in_head and self._unparsed > MAX_HEADER + MAX_TARGET:
                self.refuse(431, f"the header is longer than {MAX_HEADER} bytes")
            elif self._unparsed > MAX_UNPARSED:
                self.refuse(413, f"the message is longer than {MAX_UNPARSED} bytes")
        if self._awaits_continue:
            self._invite()

    def eof_received(self) -> bool:
        """A half-closed reader still gets its answers, unless it waits for something that may never come."""
        self._half_closed = True
        return bool(self._queue or self._current is not None) and self.following is None and self.waiting is None

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False
        if self.following is not None:
            self.following.drained()
        else:
            self._next()

    # -- the parser's callbacks

    def on_message_begin(self) -> None:
        self._target, self._headers, self._header_bytes, self._body_bytes = b"", {}, 0, 0
        self._in_message = self._in_head = self._moved = True
        self._unparsed = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > MAX_TARGET:
            self._limit(414, f"the request target is longer than {MAX_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MAX_HEADER or len(self._headers) >= 128:
            self._limit(431, f"the header is longer than {MAX_HEADER} bytes or has more than 128 fields")
        if not self._in_head:
            return  # a trailer field: merged into the head it could pass for one (RFC 9110, section 6.5.1)
        key = _field_name(name)
        text = value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._in_head, self._moved, self._unparsed = False, True, 0
        version, headers = self._parser.get_http_version(), self._headers
        if (wrong := fault(version, headers)) is not None:
            self._limit(*wrong)
        if not FRAMING.isdisjoint(headers):
            if body_length(headers) > MAX_BODY:
                self._limit(413, f"the body is longer than {MAX_BODY} bytes")
            self._awaits_continue = awaits_continue(version, headers)
        if not self._target.startswith(b"/"):
            target = origin_form(self._parser.get_method().decode("latin-1"), self._target.decode("latin-1"), headers)
            if target is None:
                self._limit(400, "the request target is neither a path nor an http or https URI")
            else:
                self._target = target.encode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._awaits_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY:
            self._limit(413, f"the body is longer than {MAX_BODY} bytes")

    def on_message_complete(self) -> None:
        self._in_message = self._awaits_continue = False
        self._completed += 1
        if self._refused:
            return
        target = self._target.decode("latin-1")
        path, _, query = target.partition("?")
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, path, query.partition("#")[0], self._headers, loopback=self.loopback)
        keep = bool(self._parser.should_keep_alive()) and not self._parser.should_upgrade()
        self.request_began = None
        self._queue.append((request, keep))
        if len(self._queue) > MAX_PIPELINED and not self._paused_reading and self.transport is not None:
            self._paused_reading = True
            self.transport.pause_reading()
        self._next()

    # -- answering

    def _next(self) -> None:
        """Answer what is queued, as long as nothing is being waited for and the reader takes what it gets."""
        while self._queue and self._current is None and not self._paused_writing and self.transport is not None:
            request, keep = self._queue.pop(0)
            self._current = keep
            self._authorization = request.headers.get("authorization")
            self._method = request.method
            request.named = self._server.sees_names(self, self._authorization)  # now: it may have waited for its turn
            reply = self._server.reply(request)
            if isinstance(reply, Answer):
                self.finish(reply)
            elif isinstance(reply, Wait):
                read = self._server.waits.begin(self, reply)
                self._sent = None  # it was paced: the next one is to be, too
                if read is not None:
                    self.waiting = read
            else:
                self._begin_stream(reply)
        if self._paused_reading and len(self._queue) < MAX_PIPELINED // 2 and self.transport is not None and not self._refused:
            self._paused_reading = False
            self.transport.resume_reading()
        if self._awaits_continue:
            self._invite()
        if self._half_closed and self._current is None and not self._queue and self.transport is not None:
            self.transport.close()

    def finish(self, answer: Answer) -> None:
        """Send the answer to the request at hand, and go on with the next."""
        keep = bool(self._current) and not self._server.stopping
        self.waiting = None
        self._send(answer, close=not keep)
        if keep:
            self._current = None
            self.idle_since = self._server.clock.monotonic()
        else:
            self._queue.clear()
            self._refused = True
            self._close_soon()

    def end(self) -> None:
        """The stream at hand ended."""
        self.following = None
        self._refused = True
        if self.transport is not None:
            self.transport.close()

    def finish_later(self, answer: Answer) -> None:
        """As `finish`, from outside a turn of this connection."""
        self.finish(answer)
        self._next()

    def recheck(self) -> None:
        """End what the reader waits for or follows where it may no longer read: a stream ends, a blocked read is 401."""
        if (self.waiting is None and self.following is None) or self._server.sees_names(self, self._authorization):
            return
        self._server.count("refused", 401)
        if self.following is not None:
            self.following.close()
            self.end()
        elif self.waiting is not None:
            self._server.waits.cancel(self.waiting)
            self.finish_later(self._server.unauthorized(self._authorization))

    def refuse(self, status: int, detail: str) -> None:
        """Answer what cannot be understood, and close."""
        if not self._refused:
            self._refused = True
            self._server.count("refused", status)
            if self._current is None and not self._queue:
                knows_method = self._in_message and not self._in_head
                self._method = self._parser.get_method().decode("latin-1") if knows_method else ""
                self._send(problem(status, detail), close=True)
            self._abandon()
            self._close_soon()

    def write(self, data: bytes) -> bool:
        """Write a stream's bytes; whether the reader keeps up."""
        if self.transport is None or self.transport.is_closing():
            return False
        self._written += len(data)
        self.transport.write(data)
        return not self._paused_writing

    @property
    def unsent(self) -> int:
        """Bytes the reader did not take yet."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    @property
    def keeps_up(self) -> bool:
        """Whether the reader takes what it is sent."""
        return not self._paused_writing

    def expire(self, now: float) -> None:
        """End the connection where a deadline passed: a request begun, an idle one, a reader that takes nothing."""
        if self.transport is None:
            return
        taken = self._written - self.unsent
        if not self.unsent or taken != self._taken[1]:
            self._taken = (now, taken)
        elif now - self._taken[0] > STUCK_DEADLINE:
            self._server.count("stuck", 0)
            self.transport.abort()
            return
        if self._current is None and not self._queue and not self.unsent:
            if self.request_began is not None and now - self.request_began > REQUEST_DEADLINE:
                self.refuse(408, f"the request was not complete within {REQUEST_DEADLINE:g} s")
            elif self.request_began is None and now - self.idle_since > IDLE_DEADLINE:
                self.transport.close()

    def _begin_stream(self, stream: Stream) -> None:
        head = (
            f"{_LINES[200]}{self._server.date_field()}Content-Type: {EVENTS}\r\nCache-Control: no-cache\r\n"
            f"{VARY[0]}: {VARY[1]}\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
        )
        self._queue.clear()
        self.write(head.encode())
        if self._method == "HEAD":
            self.end()
            return
        self.following = StreamFollower(self, stream, self._server.catalog)
        self.following.begin()

    def _send(self, answer: Answer, *, close: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if answer.head is None:
            answer.head = self._head(answer)
        body = answer.body if self._method != "HEAD" and answer.status != 304 else b""
        end = _CLOSE if close or self._server.stopping else _END
        self._written += len(answer.head) + len(end) + len(body)
        if len(body) > JOIN_UP_TO:
            self.transport.writelines((answer.head + end, body))
            return
        if end is _END and body is answer.body:  # what all readers of a view get
            if answer.whole is None:
                answer.whole = answer.head + end + body
            whole = answer.whole
        else:
            whole = answer.head + end + body
        self.transport.write(whole)
        self._sent = (answer, whole)

    def _head(self, answer: Answer) -> bytes:
        """The status line and the fields, but for the connection's own."""
        lines = [_LINES.get(answer.status) or f"HTTP/1.1 {answer.status} Status\r\n", self._server.date_field()]
        lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
        if answer.status != 304:
            lines.append(f"Content-Length: {len(answer.body)}\r\n")
        return "".join(lines).encode("latin-1")

    def _invite(self) -> None:
        """Have the reader that asked for it send its body, once everything before it is answered (RFC 9110, section 10.1.1)."""
        if self._current is None and not self._queue and not self._refused and self.transport is not None:
            self._awaits_continue = False
            self.request_began = self._server.clock.monotonic()
            self._written += len(_CONTINUE)
            self.transport.write(_CONTINUE)

    def _limit(self, status: int, detail: str) -> NoReturn:
        self.refuse(status, detail)
        raise ValueError(detail)  # ends the parser's run

    def _abandon(self) -> None:
        """Leave what is queued, waited for or followed."""
        self._queue.clear()
        if self.waiting is not None:
            self._server.waits.cancel(self.waiting)
            self.waiting = None
        if self.following is not None:
            self.following.close()
            self.following = None

    def _close_soon(self) -> None:
        """Close once the answer was read: closing over unread input would reset the connection and lose it."""
        transport = self.transport
        if transport is None:
            return
        if transport.can_write_eof():
            transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER, transport.close)
        else:
            transport.close()
