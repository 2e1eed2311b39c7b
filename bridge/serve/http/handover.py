"""What no surface knows is for an application, on the connection it came on.

Our parser stays in front: the same limits hold, and what uvicorn reads was written anew from what we read, so that the two
cannot disagree about where a request ends.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bridge.serve.http.parser import RequestParser
from bridge.serve.http.protocol import Connection

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from bridge.serve.http.application import Application, UvicornProtocol
    from bridge.serve.http.server import HttpServer


class HandedOver(RequestParser):
    """The protocol of a socket whose requests are for the application.

    A request that is for a surface again, or one of too many at once, is left until everything before it is answered;
    then the socket goes back to a `Connection`.
    """

    __slots__ = ("_answering", "_application", "_authorization", "_body", "_chunked", "_giving", "_inner")

    following = None
    """It has no stream of ours."""

    def __init__(self, server: HttpServer, application: Application) -> None:
        super().__init__(server)
        self._application = application
        self._inner: UvicornProtocol | None = None
        self._answering = 0
        self._giving = False
        self._chunked = False
        self._authorization: str | None = None
        self._body: list[bytes] = []

    # -- the socket

    def attach(self, transport: asyncio.Transport) -> None:
        super().attach(transport)
        self._inner = self._application.inner(self._answered)
        self._inner.connection_made(transport)
        if self._paused_writing:
            self._inner.pause_writing()

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf:
            return
        self._parse(data)
        self._give_body()

    def eof_received(self) -> bool:
        """A half-closed client still gets its answers; one that leaves during an answer is gone."""
        self._half_closed = True
        cycle = self._cycle
        return not self._is_clear() and not self._giving and cycle is not None and not cycle.response_started

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._inner is not None:
            self._inner.resume_writing()

    def expire(self, now: float) -> None:
        if self._giving and self._is_application_slow():
            self.request_began = now
        super().expire(now)

    def recheck(self) -> None:
        """End what is being answered to one who may no longer read."""
        if self.transport is not None and not self._is_clear() and not self._server.sees_names(self, self._authorization):
            self._server.count("refused", 401)
            self._refused = True
            self._abandon()
            self.transport.close()

    # -- requests, and their answers

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._answering += 1
        self._giving = True
        self._chunked = "transfer-encoding" in self._headers
        self._authorization = self._headers.get("authorization")
        if self._inner is not None:
            access = self._server.access
            self._inner.app_state["caller"] = access.caller(self.peer, self._authorization, loopback=self.loopback)
        self._give(self._head())

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body.append(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._deaf = not self._parser.should_keep_alive()
        self._give_body()
        if self._chunked:
            self._give(b"0\r\n\r\n")
        self._giving = self._chunked = False

    def _give_body(self) -> None:
        """Give what was read of a body, which may be many small pieces, at once."""
        if self._body:
            body = b"".join(self._body)
            self._body.clear()
            self._give(b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body)

    def _give(self, data: bytes) -> None:
        if self._inner is not None and self.transport is not None and not self.transport.is_closing():
            self._inner.data_received(data)

    def _answered(self) -> None:
        self._answering -= 1
        self.idle_since = self._server.clock.monotonic()
        if not self._is_clear():
            return
        if self._rest is not None:
            self._pass_on()
        elif self._half_closed and self.transport is not None:
            self.transport.close()

    def _is_clear(self) -> bool:
        return self._answering == 0

    def _is_awaited(self) -> bool:
        return self._is_clear() or self._giving

    def _may_answer(self) -> bool:
        if not self._giving:
            return self._is_clear()
        cycle = self._cycle
        return self._answering == 1 and cycle is not None and not cycle.response_started

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """What uvicorn knows of the request it read last."""
        return self._inner.cycle if self._inner is not None else None

    def _is_application_slow(self) -> bool:
        """Whether it is the application that holds a body up."""
        inner, cycle = self._inner, self._cycle
        return inner is not None and cycle is not None and (inner.flow.read_paused or cycle.waiting_for_100_continue)

    def _is_for_another(self) -> bool:
        if self._answering >= self._server.limits.pipelined:
            self._server.count_limit("pipelining")
            return True
        return not self._is_for_application()

    def _heir(self) -> RequestParser:
        return Connection(self._server)

    def _abandon(self) -> None:
        """Tell the application that nobody listens any more."""
        if self._inner is not None:
            inner, self._inner = self._inner, None
            if inner.cycle is not None:
                inner.cycle.waiting_for_100_continue = False  # it would invite the body all the same
            inner.connection_lost(ConnectionAbortedError())

    def _close_soon(self) -> None:
        if self._answering > 1 and self.transport is not None:
            self.transport.close()  # of requests in a row uvicorn ends the last alone; the first would still be answered
        else:
            super()._close_soon()
