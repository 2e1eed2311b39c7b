"""The listener: who may connect, who may read, which surface answers, and how it all stops."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.errors import QueryError
from bridge.serve.http.message import Answer, Reply, Request, Surface, problem
from bridge.serve.http.protocol import Connection
from bridge.serve.http.waiting import Waits

BOOKMARK_EVERY = 10.0
HANDSHAKE_DEADLINE = 5.0
OPEN_PATHS = ("/healthz", "/readyz")
"""What anybody may ask, from anywhere."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections in all, from one loopback address, and from one other address."""

    connections: int = 20_000
    per_loopback: int = 10_000
    per_address: int = 1_000


class HttpServer:
    """Serves surfaces on one port. ``tokens``: SHA-256 digests of reader tokens; ``insecure``: names are for everybody."""

    def __init__(
        self,
        catalog: Catalog,
        surfaces: Sequence[Surface],
        clock: Clock,
        *,
        tokens: frozenset[bytes] = frozenset(),
        insecure: bool = False,
        limits: Limits | None = None,
    ) -> None:
        self.catalog = catalog
        self.clock = clock
        self.waits = Waits(clock)
        self.stopping = False
        self.connections: set[Connection] = set()
        self.counts: Counter[tuple[str, int]] = Counter()
        self.tokens = tokens
        self._insecure = insecure
        self._surfaces = tuple(surfaces)
        self._limits = limits or Limits()
        self._per_address: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._logger = logging.getLogger("bridge.http")
        catalog.on_wake = self.waits.wake

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Begin to accept; the address bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE_DEADLINE if tls is not None else None,
            backlog=4096,
            reuse_address=True,
        )
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def run(self) -> None:
        """Deadlines every second, bookmarks every ten, until cancelled."""
        bookmarked = self.clock.monotonic()
        while True:
            await self.clock.sleep(1.0)
            now = self.clock.monotonic()
            for connection in list(self.connections):
                connection.expire(now)
            if now - bookmarked >= BOOKMARK_EVERY - 0.5:
                bookmarked = now
                for connection in list(self.connections):
                    if connection.following is not None:
                        connection.following.bookmark()

    def begin_stopping(self) -> None:
        """Answer on, but say that it ends: no connection is kept, `/readyz` is 503."""
        self.stopping = True

    async def stop(self) -> None:
        """Accept nothing more, answer what waits, end what streams, and let the last bytes go."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        self.waits.end_all()
        for connection in list(self.connections):
            if connection.following is not None:
                connection.following.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while any(connection.unsent for connection in self.connections):  # noqa: ASYNC110  # no event tells it
                    await asyncio.sleep(0.01)
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.close()

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; whether it is within the limits."""
        self.connections.add(connection)
        self._per_address[connection.peer] += 1
        limit = self._limits.per_loopback if connection.loopback else self._limits.per_address
        admitted = len(self.connections) <= self._limits.connections and self._per_address[connection.peer] <= limit
        if not admitted:
            self.count("refused", 503)
        return admitted

    def release(self, connection: Connection) -> None:
        """Forget a connection that was lost."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._per_address[connection.peer] -= 1
            if not self._per_address[connection.peer]:
                del self._per_address[connection.peer]

    def sees_names(self, connection: Connection, headers: dict[str, str]) -> bool:
        """Whether the reader may read: from a loopback address, with a token, or because the listener is insecure."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hashlib.sha256(token.strip().encode("latin-1")).digest() in self.tokens:
            return True
        return connection.loopback or (self._insecure and not self.tokens)

    def count(self, what: str, status: int) -> None:
        """Add to the counters that `/metrics` shows."""
        self.counts[what, status] += 1

    def reply(self, request: Request) -> Reply:
        """The reply of the first surface that knows the path. Never raises: a defect is a 500, logged."""
        try:
            reply = self._reply(request)
        except QueryError as error:
            reply = problem(error.status, error.detail, parameter=error.parameter)
        except Exception:  # one request must not end the connection's loop
            self._logger.exception("a request failed", extra={"method": request.method, "path": request.path})
            reply = problem(500, "this is a defect of ours; the log has the details")
        if isinstance(reply, Answer):
            self.count("answered", reply.status)
        else:
            self.count("waited" if hasattr(reply, "seconds") else "streamed", 200)
        return reply

    def _reply(self, request: Request) -> Reply:
        if not request.named and request.path not in OPEN_PATHS:
            return problem(401, "a bearer token is needed to read from here", headers=[("WWW-Authenticate", "Bearer")])
        reply: Reply | None = None
        method, request.method = request.method, "GET"
        try:
            for surface in self._surfaces:
                reply = surface.answer(request)
                if reply is not None:
                    break
        except QueryError:
            if method in ("GET", "HEAD"):
                raise
            reply = Answer(400)
        finally:
            request.method = method
        if reply is None:
            return problem(404, "nothing is served under this path")
        if method not in ("GET", "HEAD"):
            return problem(405, f"{method} is not allowed here: this is a read", headers=[("Allow", "GET, HEAD")])
        return reply
