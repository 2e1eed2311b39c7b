"""The listener: who may connect, who may read, which surface answers, and how it all stops."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from itertools import islice
from pathlib import Path
from typing import Any

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.errors import QueryError
from bridge.serve.http.message import Answer, Reply, Request, Surface, problem
from bridge.serve.http.protocol import Connection
from bridge.serve.http.ready import ReadyAnswers
from bridge.serve.http.waiting import SLICE, Waits

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
    """Serves surfaces on one port.

    tokens: SHA-256 digests of reader tokens.
    insecure: names are for everybody, until there are tokens.
    """

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
        self.ready = ReadyAnswers(catalog)
        self.tokens = tokens
        self._guarded = bool(tokens)
        self._insecure = insecure
        self._surfaces = tuple(surfaces)
        self._limits = limits or Limits()
        self._per_address: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._date = (0, "")
        self._logger = logging.getLogger("bridge.http")
        catalog.on_wake = self.waits.wake

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Begin to accept; the address bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._tls = tls
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
            self.ready.clear()
            now = self.clock.monotonic()
            for number, connection in enumerate(list(self.connections)):
                connection.expire(now)
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)  # of 10,000 the others are answered in between
            if now - bookmarked >= BOOKMARK_EVERY - 0.5:
                bookmarked = now
                for connection in list(self.connections):
                    if connection.following is not None:
                        connection.following.bookmark()

    def begin_stopping(self) -> None:
        """Answer on, but say that it ends: no connection is kept, `/readyz` is 503."""
        self.stopping = True
        self.ready.clear()

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

    def sees_names(self, connection: Connection, authorization: str | None) -> bool:
        """Whether the reader may read: with a token, from a loopback address, or because the listener is insecure.

        A token that is none of ours is refused wherever it comes from: its owner should learn that it is wrong or revoked.
        """
        if self._guarded and (token := _bearer_token(authorization)) is not None:
            return hashlib.sha256(token.encode("latin-1")).digest() in self.tokens
        return connection.loopback or (self._insecure and not self._guarded)

    def unauthorized(self, authorization: str | None) -> Answer:
        """The answer to a reader who may not read (RFC 6750, section 3)."""
        if _bearer_token(authorization) is None:
            return problem(401, "a bearer token is needed to read from here", headers=[("WWW-Authenticate", "Bearer")])
        return problem(401, "the bearer token is not valid here", headers=[("WWW-Authenticate", 'Bearer error="invalid_token"')])

    def replace_tokens(self, tokens: frozenset[bytes]) -> None:
        """Take ``tokens`` (SHA-256 digests) for the old ones, from the next request on; call it in the event loop.

        Blocked reads and streams that only a token now gone let in are ended at once, the first ones before this returns.
        A listener that had tokens once is never open again, whatever ``insecure`` says: an empty set lets nobody in but
        loopback addresses.
        """
        self.tokens = tokens
        self.ready.clear()
        self._guarded = self._guarded or bool(tokens)
        self._recheck(iter(list(self.connections)))

    def _recheck(self, connections: Iterator[Connection]) -> None:
        """Look at some, and at the rest when other work of the loop had its turn."""
        checked = 0
        for connection in islice(connections, SLICE):
            connection.recheck()
            checked += 1
        if checked == SLICE:
            asyncio.get_running_loop().call_soon(self._recheck, connections)

    def reload_tls(self, cert_file: str | Path, key_file: str | Path) -> None:
        """Show new connections the certificate in ``cert_file``; open ones go on with theirs.

        Raises OSError (ssl.SSLError is one) where the files cannot be read, are none, or do not belong together, and
        ValueError where the listener has no TLS; the old certificate stays then.
        """
        if self._tls is None:
            raise ValueError("this listener has no TLS")
        # Loading into the context in use could fail between certificate and key, and keeps an old one of another key type.
        renewed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        renewed.minimum_version = self._tls.minimum_version
        renewed.load_cert_chain(cert_file, key_file, password="")  # an encrypted key must fail, not ask at a terminal

        def choose(connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = renewed

        self._tls.sni_callback = choose

    def date_field(self) -> str:
        """The Date field's line, made once a second (RFC 9110, section 6.6.1)."""
        second = int(self.clock.wall())
        if second != self._date[0]:
            self._date = (second, f"Date: {formatdate(second, usegmt=True)}\r\n")
        return self._date[1]

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
            return self.unauthorized(request.headers.get("authorization"))
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


def _bearer_token(authorization: str | None) -> str | None:
    """The token in an Authorization field, None where there is none (RFC 6750, section 2.1)."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
