"""The listener: who may connect, who may read, which surface answers, and how it all stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from functools import lru_cache
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.errors import QueryError
from bridge.serve.http.access import Access, unauthorized
from bridge.serve.http.admission import Admission
from bridge.serve.http.limits import LIMITS, Limit, Limits
from bridge.serve.http.message import Answer, Reply, Request, Stream, Surface, problem
from bridge.serve.http.protocol import Connection
from bridge.serve.http.ready import ReadyAnswers
from bridge.serve.http.waiting import SLICE, Waits

if TYPE_CHECKING:
    from bridge.serve.http.application import Application, ASGIApp
    from bridge.serve.http.client import Client
    from bridge.serve.http.handover import HandedOver

BACKLOG = 4096
BOOKMARK_EVERY = 10.0
OPEN_PATHS = ("/healthz", "/readyz")
"""What anybody may ask, from anywhere."""


class HttpServer:
    """Serves surfaces on one port.

    tokens: SHA-256 digests of reader tokens.
    insecure: names are for everybody, until there are tokens.
    app: an ASGI application that is asked what no surface knows; it needs uvicorn (the extra ``admin``).
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
        app: ASGIApp | None = None,
    ) -> None:
        self.catalog = catalog
        self.clock = clock
        self.waits = Waits(clock)
        self.stopping = False
        self.limits = limits or Limits()
        self.admission = Admission(self.limits)
        self.connections = self.admission.connections
        self.counts: Counter[tuple[str, int]] = Counter()
        self.limited: dict[Limit, int] = dict.fromkeys(LIMITS, 0)
        self.ready = ReadyAnswers(catalog)
        self.access = Access(tokens, insecure=insecure)
        self._surfaces = tuple(surfaces)
        self.knows = lru_cache(maxsize=1024)(self._knows)
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._date = (0, "")
        self._logger = logging.getLogger("bridge.http")
        self.application: Application | None = None
        if app is not None:
            from bridge.serve.http.application import Application

            self.application = Application(self, app)
        catalog.on_wake = self.waits.wake

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Begin to accept; the address bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._tls = tls
        sock = _bound(host, port)
        where: dict[str, Any] = {"sock": sock} if sock is not None else {"host": host, "port": port, "reuse_address": True}
        self._server = await loop.create_server(
            self._connection,
            **where,
            ssl=tls,
            ssl_handshake_timeout=self.limits.handshake if tls is not None else None,
            backlog=BACKLOG,
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
            self.limited["handshake"] += self.admission.failed_handshakes(now)
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
                while any(connection.unsent for connection in self.connections) or self._is_application_busy:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        for connection in list(self.connections):
            if connection.transport is not None:
                connection.transport.close()
        if self.application is not None:
            await self.application.stop()

    @property
    def _is_application_busy(self) -> bool:
        return self.application is not None and self.application.is_busy

    def _connection(self) -> Connection:
        connection = Connection(self)
        if self._tls is not None:
            self.admission.await_handshake(connection, self.clock.monotonic())
        return connection

    def sees_names(self, connection: Client, authorization: str | None) -> bool:
        """Whether the reader may read."""
        return self.access.lets_in(authorization, loopback=connection.loopback)

    def replace_tokens(self, tokens: frozenset[bytes]) -> None:
        """Take ``tokens`` (SHA-256 digests) for the old ones, from the next request on; call it in the event loop.

        Blocked reads and streams that only a token now gone let in are ended at once, the first ones before this returns.
        A listener that had tokens once is never open again, whatever ``insecure`` says: an empty set lets nobody in but
        loopback addresses.
        """
        self.access.replace(tokens)
        self.ready.clear()
        self._recheck(iter(list(self.connections)))

    def _recheck(self, connections: Iterator[Connection | HandedOver]) -> None:
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

    def count_limit(self, limit: Limit) -> None:
        """Note that a limit took effect."""
        self.limited[limit] += 1

    # -- what is answered

    def _knows(self, path: str) -> bool:
        """Whether a surface answers requests for ``path``."""
        return any(surface.knows(path) for surface in self._surfaces)

    def hand_over(self) -> HandedOver:
        """A protocol that asks the application."""
        assert self.application is not None  # noqa: S101
        return self.application.protocol()

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
        elif isinstance(reply, Stream):
            self.count("streamed", 200)
        return reply

    def _reply(self, request: Request) -> Reply:
        if not request.named and request.path not in OPEN_PATHS:
            return unauthorized(request.headers.get("authorization"))
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


def _bound(host: str, port: int) -> socket.socket | None:
    """A socket that listens at an IP address, None for a name. Raises OSError.

    Given even an address to resolve, the event loop starts four threads and loads the tables of international names.
    """
    try:
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        return None
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0)) from error  # it says the address once more
    sock.setblocking(False)
    return sock
