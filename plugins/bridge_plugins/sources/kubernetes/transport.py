"""The blocking side: one HTTP exchange at a time through the SDK's client, in a thread of its own.

The SDK contributes configuration, credentials, TLS, proxy and connection pool; requests go to its urllib3 pool manager
directly, because its own calls follow redirects, retry, and build models.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from bridge.errors import TransientError

from .requests import Question, UnauthorizedError, refusal
from .wire import read_status

CONNECT_TIMEOUT = 2.0
LONGEST_LINE = 64 * 2**20
LONGEST_BODY = 512 * 2**20
_CHUNK = 2**18
_ERROR_BODY = 2**16

_current = threading.local()


class Api:
    """The API server as one source talks to it. Used from many threads.

    load: builds the SDK's `ApiClient`; called once more after each 401, since tokens and certificates rotate in their files.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._client: Any = None

    def prepare(self) -> Any:
        """Load configuration and credentials, unless they are. Raises what the loader raises."""
        with self._lock:
            if self._client is None:
                self._client = self._load()
                _report_connections(self._client)
            return self._client

    def forget(self, client: Any) -> None:
        """Let the next request read the credentials anew, unless another one has seen to it."""
        with self._lock:
            if self._client is client:
                self._client = None
        # Connections in use go on; only idle ones are closed.
        client.rest_client.pool_manager.clear()

    def get(self, client: Any, question: Question, read_timeout: float) -> urllib3.BaseHTTPResponse:
        """Send one GET and return the answer, body unread. read_timeout: seconds without a byte."""
        with self._lock:  # the SDK's hooks read token files and run exec plugins, and are not made for threads
            credentials = client.configuration.auth_settings().get("BearerToken") or {}
        headers = {"Accept": "application/json", "User-Agent": "envbridge"}
        if value := str(credentials.get("value") or "").strip():
            headers["Authorization"] = value
        response: urllib3.BaseHTTPResponse = client.rest_client.pool_manager.request(
            "GET",
            client.configuration.host.rstrip("/") + question.target,
            headers=headers,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=read_timeout),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        return response

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.rest_client.pool_manager.clear()


class Exchange:
    """One request and its answer. ``body`` or ``lines`` runs in a thread; ``abort``, from another, makes it end."""

    def __init__(self, api: Api, question: Question, *, read_timeout: float) -> None:
        self._api = api
        self._question = question
        self._read_timeout = read_timeout
        self._aborted = self._reused = False
        self._connection: Any = None

    def body(self, deadline: float) -> bytes:
        """The whole body of a 200. deadline: seconds for all of it. Raises SourceError."""
        end = time.monotonic() + deadline
        parts: list[bytes] = []
        size = 0
        for part in self._parts():
            parts.append(part)
            size += len(part)
            if size > LONGEST_BODY:
                raise TransientError(f"{self._question}: the answer is longer than {LONGEST_BODY} bytes")
            if time.monotonic() > end:
                raise TransientError(f"{self._question}: no whole answer within {deadline:g} s")
        return b"".join(parts)

    def lines(self) -> Iterator[bytes]:
        """The lines of a 200 as they come, without their ends; first an empty one, once it was answered. Raises SourceError."""
        held: list[bytes] = []
        size = 0
        for part in self._parts(announce=True):
            *ended, rest = part.split(b"\n")
            for line in ended:
                held.append(line)
                yield b"".join(held)
                held, size = [], 0
            if not part:
                yield b""
            if rest:
                held.append(rest)
                size += len(rest)
            if size > LONGEST_LINE:
                raise TransientError(f"{self._question}: a line is longer than {LONGEST_LINE} bytes")
        if held:
            raise TransientError(f"{self._question}: the stream ended inside a line")

    def begin(self, connection: Any, reused: bool) -> None:
        """Note the connection in use. Raises TransientError where the exchange was aborted while that was being made."""
        self._connection, self._reused = connection, reused
        if self._aborted:
            raise TransientError(f"{self._question}: given up")

    def abort(self) -> None:
        """Shut the socket down, so that a blocked read ends. Idle or ended, nothing happens."""
        self._aborted = True
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            plain = getattr(sock, "socket", sock)  # TLS inside TLS, behind an HTTPS proxy
            with suppress(OSError):
                # Past SSLSocket's own method, which is not safe while another thread reads.
                socket.socket.shutdown(plain, socket.SHUT_RDWR)

    def _parts(self, announce: bool = False) -> Iterator[bytes]:
        try:
            response = self._respond()
            try:
                if announce:
                    yield b""
                while part := response.read1(_CHUNK):
                    yield part
            finally:
                # Read to its end, the connection has gone back to the pool; else it must not.
                self._connection = None
                response.close()
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            raise TransientError(f"{self._question}: {_reason(error, self._read_timeout)}") from error

    def _respond(self) -> urllib3.BaseHTTPResponse:
        try:
            return self._ask_connected()
        except UnauthorizedError:
            return self._ask_connected()  # with credentials read anew: those in use may just have expired

    def _ask_connected(self) -> urllib3.BaseHTTPResponse:
        while True:
            try:
                return self._ask()
            except (HTTPError, OSError) as error:
                # An idle connection may be closed by the server at any moment, which says nothing about the request
                # (RFC 9112, 9.3.1). Each such failure takes one from the pool, so this ends.
                if not self._reused or isinstance(error, ReadTimeoutError):
                    raise

    def _ask(self) -> urllib3.BaseHTTPResponse:
        client = self._api.prepare()
        self._reused = False
        _current.exchange = self
        try:
            response = self._api.get(client, self._question, self._read_timeout)
        finally:
            _current.exchange = None
        if response.status == 200:
            kind = response.headers.get("Content-Type", "")
            if kind.partition(";")[0].strip() == "application/json":
                return response
            response.close()
            raise TransientError(f"{self._question}: the answer is {kind[:80]!r}, not application/json")
        try:
            status = read_status(response.read(_ERROR_BODY))
        finally:
            response.close()
        if response.status == 401:
            self._api.forget(client)
        raise refusal(self._question, response.status, status, response.headers.get("Retry-After"))


def _report_connections(client: Any) -> None:
    """Let the client's connections tell the exchange that uses them, so that it can be aborted at any moment."""
    pool = client.rest_client.pool_manager.connection_from_url(client.configuration.host)
    plain = pool.ConnectionCls

    class Reporting(plain):  # type: ignore[misc, valid-type]  # whichever class the SDK and its proxy settings chose
        served = False

        def request(self, *args: Any, **kwargs: Any) -> None:
            exchange = getattr(_current, "exchange", None)
            if exchange is not None:
                exchange.begin(self, self.served)
            self.served = True
            super().request(*args, **kwargs)

    pool.ConnectionCls = Reporting


def _reason(error: BaseException, read_timeout: float) -> str:
    """An error of the transport in words that stay the same from one time to the next, and hold no URL."""
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, ReadTimeoutError | TimeoutError):
        return f"no byte within {read_timeout:g} s"
    if isinstance(error, ProxyError):
        return "the proxy refuses or cannot be reached"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return ("TLS: " if isinstance(error, SSLError) else "") + cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, SSLError):
        return "TLS failed"
    if isinstance(error, NewConnectionError):
        return "the server cannot be reached"
    return f"the connection broke ({type(error).__name__})"
