"""One client: its socket, its deadlines, and how it is refused."""

from __future__ import annotations

import asyncio
from sys import intern
from typing import TYPE_CHECKING

from bridge.serve.http.limits import Limit
from bridge.serve.http.message import problem
from bridge.serve.http.response import CLOSE, answer_head

if TYPE_CHECKING:
    from bridge.serve.http.server import HttpServer

LINGER = 1.0
"""Seconds a client has to read the last answer before its connection is closed."""


class Client(asyncio.Protocol):
    """The protocol of one accepted socket, whatever is said over it.

    There may be 10,000 that wait, hence slots here and in what is derived, and nothing kept of what was answered.
    """

    __slots__ = (
        "_half_closed",
        "_paused_writing",
        "_refused",
        "_server",
        "_taken",
        "_taken_at",
        "_written",
        "idle_since",
        "loopback",
        "peer",
        "request_began",
        "transport",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.loopback = False
        self.request_began: float | None = None
        self.idle_since = 0.0
        self._refused = False
        self._half_closed = False
        self._paused_writing = False
        self._written = 0
        self._taken = 0
        self._taken_at: float | None = None

    def attach(self, transport: asyncio.Transport) -> None:
        """Begin to talk over ``transport``."""
        self.transport = transport
        address = transport.get_extra_info("peername")
        self.peer = intern(address[0]) if isinstance(address, tuple) else ""
        self.loopback = self.peer.startswith(("127.", "::ffff:127.")) or self.peer == "::1"
        self.idle_since = self._server.clock.monotonic()

    def succeed(self, other: Client, transport: asyncio.Transport) -> None:
        """Talk on where ``other`` left off."""
        self._half_closed, self._paused_writing = other._half_closed, other._paused_writing
        self._written, self._taken, self._taken_at = other._written, other._taken, other._taken_at
        self.request_began = other.request_began
        self.attach(transport)
        self._server.admission.replace(other, self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # gone is gone
        self._server.admission.release(self)
        self._abandon()
        self.transport = None

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False

    @property
    def unsent(self) -> int:
        """Bytes the client did not take yet."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def write(self, data: bytes) -> bool:
        """Write; whether the client keeps up."""
        if self.transport is None or self.transport.is_closing():
            return False
        self._written += len(data)
        self.transport.write(data)
        return not self._paused_writing

    def expire(self, now: float) -> None:
        """Look at the deadlines. ``now``: monotonic seconds."""
        if self.transport is None:
            return
        limits = self._server.limits
        if unsent := self.unsent:
            taken = self._written - unsent
            if self._taken_at is None or taken != self._taken:
                self._taken_at, self._taken = now, taken
            elif now - self._taken_at > limits.reader:
                self._server.count_limit("slow_reader")
                self._server.count("stuck", 0)
                self.transport.abort()
            return
        self._taken_at = None
        if self.request_began is not None:
            if now - self.request_began > limits.request and self._is_awaited():
                self.refuse("slow_request", 408, f"the request was not complete within {limits.request:g} s")
        elif now - self.idle_since > limits.idle and self._is_clear() and not self._refused:
            self._server.count_limit("idle")
            self.transport.close()

    def refuse(self, limit: Limit, status: int, detail: str) -> None:
        """Close; with an answer where it could not be taken for that to another request."""
        if self._refused:
            return
        self._refused = True
        self._server.count_limit(limit)
        self._server.count("refused", status)
        if self._may_answer():
            answer = problem(status, detail)
            body = b"" if self._asks_for_head() else answer.body
            self.write(answer_head(answer, self._server.date_field()) + CLOSE + body)
        self._abandon()
        self._close_soon()

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

    # -- what a derived class knows

    def _is_clear(self) -> bool:
        """Whether every request was answered."""
        raise NotImplementedError

    def _is_awaited(self) -> bool:
        """Whether it is the client that is waited for."""
        return self._is_clear()

    def _may_answer(self) -> bool:
        """Whether what is written now would be the answer to what was read last."""
        return self._is_clear()

    def _asks_for_head(self) -> bool:
        """Whether an answer may have no body."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """Leave what is being answered."""
        raise NotImplementedError
