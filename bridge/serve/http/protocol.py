"""One connection: requests to replies, replies to bytes. Requests of a connection are answered one after the other, in order."""

from __future__ import annotations

import asyncio
from sys import intern
from typing import TYPE_CHECKING, cast

from bridge.serve.http.access import unauthorized
from bridge.serve.http.message import Answer, Request, Stream, Wait, problem
from bridge.serve.http.parser import NO_FIELDS, RequestParser
from bridge.serve.http.ready import ReadyAnswer
from bridge.serve.http.response import CLOSE, CONTINUE, END, answer_head, stream_head
from bridge.serve.http.stream import StreamFollower

if TYPE_CHECKING:
    from bridge.serve.http.server import HttpServer
    from bridge.serve.http.waiting import BlockedRead

HIGH_WATER = 512 * 1024
JOIN_UP_TO = 64 * 1024
"""Bytes of a body that is sent together with its head; copying a larger one costs more than a second buffer."""


class Connection(RequestParser):
    """The protocol of one accepted socket: answers what the surfaces know."""

    __slots__ = (
        "_authorization",
        "_completed",
        "_current",
        "_method",
        "_paused_reading",
        "_pristine",
        "_queue",
        "_ready",
        "_sent",
        "following",
        "waiting",
    )

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server)
        self._queue: list[tuple[Request, bool]] = []
        self._current: bool | None = None
        self._authorization: str | None = None
        self._method = ""
        self.waiting: BlockedRead | None = None
        self.following: StreamFollower | None = None
        self._paused_reading = False
        self._ready: dict[bytes, ReadyAnswer] = {}
        self._pristine = True
        self._completed = 0
        self._sent: tuple[Answer, bytes] | None = None

    # -- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(cast(asyncio.Transport, transport))
        if (exceeded := self._server.admission.admit(self)) is not None:
            self._refused = True
            self._server.count_limit(exceeded)
            self._server.count("refused", 503)
            self._send(problem(503, "too many connections", headers=[("Retry-After", "1")]), close=True)
            self._close_soon()

    def attach(self, transport: asyncio.Transport) -> None:
        super().attach(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._ready = self._server.ready.loopback if self.loopback else self._server.ready.elsewhere

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf:
            return
        alone = (self._pristine or not self._in_message) and self._current is None and not self._queue
        if alone and (ready := self._ready.get(data)) is not None and self._give(ready):
            return
        self._pristine = False
        self._completed, self._sent = 0, None
        self._parse(data)
        if self._awaits_continue:
            self._invite()
        if alone and self._completed == 1 and self._sent is not None and not self._in_message:
            self._keep(data, *self._sent)
        self._sent = None
        if not self._in_message:
            self._target, self._headers = b"", NO_FIELDS
            if self.waiting is not None and not self._refused and not self._deaf:
                self._drop_parser()

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

    def eof_received(self) -> bool:
        """A half-closed reader still gets its answers, unless it waits for something that may never come."""
        self._half_closed = True
        return bool(self._queue or self._current is not None) and self.following is None and self.waiting is None

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.following is not None:
            self.following.drained()
        else:
            self._next()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._completed += 1
        if self._refused:
            return
        target = self._target.decode("latin-1")
        path, _, query = target.partition("?")
        method = intern(self._parser.get_method().decode("latin-1"))
        request = Request(method, path, query.partition("#")[0], self._headers, loopback=self.loopback)
        keep = bool(self._parser.should_keep_alive()) and not self._parser.should_upgrade()
        self._queue.append((request, keep))
        if len(self._queue) > self._server.limits.pipelined and not self._paused_reading and self.transport is not None:
            self._paused_reading = True
            self._server.count_limit("pipelining")
            self.transport.pause_reading()
        self._next()

    def _resume_reading(self) -> None:
        self._paused_reading = False
        if self.transport is not None:
            self.transport.resume_reading()

    def _is_clear(self) -> bool:
        return self._current is None and not self._queue

    def _is_for_another(self) -> bool:
        return self._is_for_application()

    def _heir(self) -> RequestParser:
        return self._server.hand_over()

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
        if self._paused_reading and len(self._queue) < self._server.limits.pipelined // 2 and not self._refused:
            self._resume_reading()
        if self._rest is not None:
            self._pass_on()
        if self._awaits_continue:
            self._invite()
        if self._half_closed and self._is_clear() and self.transport is not None:
            self.transport.close()

    def finish(self, answer: Answer) -> None:
        """Send the answer to the request at hand, and go on with the next."""
        keep = bool(self._current) and not self._server.stopping
        self.waiting = None
        self._send(answer, close=not keep)
        if keep:
            self._current = None
            self.idle_since = now = self._server.clock.monotonic()
            if self.request_began is not None:  # the next one begins when it can be answered
                self.request_began = now
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
        """As `finish`, of a read that waited."""
        self._server.counts["waited", answer.status] += 1
        whole, transport = answer.whole, self.transport
        if (
            whole is None
            or transport is None
            or self._method == "HEAD"
            or not self._current
            or self._queue
            or self._in_message
            or self._half_closed
            or self._paused_writing
            or self._rest is not None
            or self._server.stopping
            or transport.is_closing()
        ):
            self.finish(answer)
            self._next()
            return
        # What thousands of readers of one view get at once, and there is nothing more to do.
        self.waiting = self._current = None
        self.idle_since = self._server.clock.monotonic()
        self._written += len(whole)
        transport.write(whole)

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
            self.finish(unauthorized(self._authorization))
            self._next()

    @property
    def keeps_up(self) -> bool:
        """Whether the reader takes what it is sent."""
        return not self._paused_writing

    def _begin_stream(self, stream: Stream) -> None:
        self._queue.clear()
        self.write(stream_head(self._server.date_field()))
        if self._method == "HEAD":
            self.end()
            return
        self.following = StreamFollower(self, stream, self._server.catalog)
        self.following.begin()

    def _send(self, answer: Answer, *, close: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if answer.head is None:
            answer.head = answer_head(answer, self._server.date_field())
        body = answer.body if self._method != "HEAD" and answer.status != 304 else b""
        end = CLOSE if close or self._server.stopping else END
        self._written += len(answer.head) + len(end) + len(body)
        if len(body) > JOIN_UP_TO:
            self.transport.writelines((answer.head + end, body))
            return
        if end is END and body is answer.body:  # what all readers of a view get
            if answer.whole is None:
                answer.whole = answer.head + end + body
            whole = answer.whole
        else:
            whole = answer.head + end + body
        self.transport.write(whole)
        self._sent = (answer, whole)

    def _invite(self) -> None:
        """Have the reader that asked for it send its body, once everything before it is answered (RFC 9110, section 10.1.1)."""
        if self._is_clear() and not self._refused and self.transport is not None:
            self._awaits_continue = False
            self.request_began = self._server.clock.monotonic()
            self.write(CONTINUE)

    def _abandon(self) -> None:
        """Leave what is queued, waited for or followed."""
        self._queue.clear()
        if self.waiting is not None:
            self._server.waits.cancel(self.waiting)
            self.waiting = None
        if self.following is not None:
            self.following.close()
            self.following = None
