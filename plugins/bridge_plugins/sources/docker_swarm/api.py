"""The blocking side: GETs of one manager through the SDK's client, in a thread of the caller's.

The SDK contributes hosts, TLS and transport (unix sockets); bodies are read here, because its own calls decode into plain
dictionaries, and time out between two bytes but never altogether.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from bridge.errors import ForbiddenError, SourceError, TransientError

from . import wire

CONNECT_TIMEOUT = 2.0
_ANSWER_TIMEOUT = 10.0
_KEEPALIVE = 30
_CHUNK = 2**18
_LONGEST_BODY = 512 * 2**20
_LONGEST_LINE = 2**20
_ERROR_BODY = 2**14
_LONGEST_RETRY_AFTER = 3600
_SHOWN = 200


def _query(path: str, filters: dict[str, list[str]]) -> str:
    return f"{path}?{urlencode({'filters': json.dumps(filters, separators=(',', ':'))})}"


SERVICES = "/services?status=true"
TASKS = _query("/tasks", {"desired-state": ["running", "shutdown", "remove"]})
"""Tasks of a scale-down, or of a removed service, are to be ``remove``; those that wait for their turn are left out."""
NODES = "/nodes"
NETWORKS = _query("/networks", {"scope": ["swarm"]})
EVENTS = _query("/events", {"scope": ["swarm"], "type": ["service", "node", "network"]})


class AbsentError(TransientError):
    """404: what was asked for is not there, or is not let through. ``said``: what the server says of it."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


class Manager:
    """One manager, asked by blocking GETs. ``client``: the SDK's `docker.APIClient` for it.

    It may be used by one list and one event stream at a time.
    """

    def __init__(self, host: str, client: Any) -> None:
        self.host = host
        self._client = client
        self._version: str | None = None
        self._closed = False

    def get(self, path: str, end: float) -> bytes:
        """The body of a 200 that is JSON. end: when to give up, on the clock of `time.monotonic`. Raises SourceError."""
        if self._version is None:
            self._version = wire.read_version(self._read("/version", end))
        return self._read(path, end)

    def has_service(self, id_: str, end: float) -> bool:
        """Whether a service is still there. Raises SourceError where that cannot be told."""
        try:
            self.get(f"/services/{id_}", end)
        except AbsentError as error:
            # What does not let the call pass may also say 404; the Engine names what it did not find.
            if id_ in error.said:
                return False
            raise
        return True

    def forget(self) -> None:
        """Begin anew: with another connection, and by asking for the API's version."""
        self._version = None
        self._client.close()

    def close(self) -> None:
        """End for good: a cycle that goes on in its thread makes no further connection."""
        self._closed = True
        self._client.close()

    def open(self, path: str, left: float) -> Any:
        """Send one GET; the answer, body unread, if it is a 200 with JSON. left: seconds without a byte. Raises SourceError."""
        question = _question(path)
        if self._closed:
            raise TransientError(f"{question}: the source was closed")
        version = self._version
        try:
            response = self._client.get(
                f"{self._client.base_url}{'/v' + version if version else ''}{path}",
                stream=True,
                timeout=(min(CONNECT_TIMEOUT, left), left),
                allow_redirects=False,
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            )
        except _transport_errors() as error:
            raise broken(question, error) from error
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        if response.status_code == 200 and kind == "application/json":
            return response
        try:
            body = b"" if response.status_code == 200 else response.raw.read(_ERROR_BODY)
        except _transport_errors() as error:
            raise broken(question, error) from error
        finally:
            response.close()
        if response.status_code == 200:
            raise TransientError(f"{question}: the answer is {kind[:80]!r}, not application/json")
        raise refusal(question, response.status_code, wire.read_message(body), response.headers.get("Retry-After"))

    def _read(self, path: str, end: float) -> bytes:
        question = _question(path)
        parts: list[bytes] = []
        size = 0
        response = self.open(path, _left(question, end))
        try:
            stream = _socket_of(response)
            while part := response.raw.read1(_CHUNK):
                parts.append(part)
                size += len(part)
                if size > _LONGEST_BODY:
                    raise TransientError(f"{question}: the answer is longer than {_LONGEST_BODY} bytes")
                stream.settimeout(_left(question, end))
        except _transport_errors() as error:
            raise broken(question, error) from error
        finally:
            response.close()
        return b"".join(parts)


class EventStream:
    """``/events`` of a manager. ``lines`` runs in a thread; ``abort``, from another, makes it end."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._aborted = False
        self._socket: socket.socket | None = None

    def lines(self) -> Iterator[bytes]:
        """The lines as they come; first an empty one, once it is open. Raises SourceError, also where it ends."""
        question = _question(EVENTS)
        response = self._manager.open(EVENTS, _ANSWER_TIMEOUT)
        try:
            self._socket = _socket_of(response)
            if self._aborted:
                return
            _wait_for_ever(self._socket)
            yield b""
            held = b""
            while part := response.raw.read1(_CHUNK):
                *ended, held = (held + part).split(b"\n")
                yield from ended
                if len(held) > _LONGEST_LINE:
                    raise TransientError(f"{question}: a line is longer than {_LONGEST_LINE} bytes")
        except _transport_errors() as error:
            raise broken(question, error) from error
        finally:
            self._socket = None
            response.close()
        raise TransientError(f"{question}: the stream ended")

    def abort(self) -> None:
        """Shut the socket down, so that a blocked read ends. Before it is open, and once it ended, nothing else happens."""
        self._aborted = True
        if (stream := self._socket) is not None:
            with suppress(OSError):
                # Past SSLSocket's own method, which is not safe while another thread reads.
                socket.socket.shutdown(stream, socket.SHUT_RDWR)


def refusal(question: str, status: int, said: str, retry_after: str | None) -> SourceError:
    """The error for an HTTP status. said: what the server says of it. retry_after: the header, whole seconds."""
    said = "".join(character if character.isprintable() else " " for character in said[:_SHOWN]).strip()
    if status in (401, 403):
        return ForbiddenError(f"{question}: {status}, the right to {question} is missing: {said}".rstrip(": "))
    if 300 <= status < 400:
        return TransientError(f"{question}: {status}, a redirect, which is not followed")
    text = f"{question}: {status} {said}".rstrip()
    if status == 404:
        return AbsentError(text, said)
    wait = float(min(int(retry_after), _LONGEST_RETRY_AFTER)) if retry_after and retry_after.isdecimal() else None
    return TransientError(text, retry_after=wait)


def broken(question: str, error: BaseException) -> SourceError:
    """An error of the transport, in words that stay the same from one time to the next and hold no secret."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PermissionError):
            return ForbiddenError(f"{question}: this process may not use the socket: {str(cause.strerror).lower()}")
        if isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__:
            return TransientError(f"{question}: no answer in time")
        if isinstance(cause, OSError) and cause.strerror:
            return TransientError(f"{question}: {cause.strerror.lower()}")
        cause = cause.__cause__ or cause.__context__ or _nested(cause)
    return TransientError(f"{question}: the connection broke ({type(error).__name__})")


def _nested(error: BaseException) -> BaseException | None:
    """The SDK's transport wraps errors as arguments of errors."""
    return next((each for each in (*error.args, getattr(error, "reason", None)) if isinstance(each, BaseException)), None)


def _left(question: str, end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TransientError(f"{question}: no whole answer in time")
    return left


def _question(path: str) -> str:
    return f"GET {path.partition('?')[0]}"


def _transport_errors() -> tuple[type[Exception], ...]:
    """What a transport raises; requests' own errors are OSErrors. urllib3 is imported when it is needed, as the SDK is."""
    import urllib3

    return OSError, http.client.HTTPException, ValueError, urllib3.exceptions.HTTPError


def _socket_of(response: Any) -> socket.socket:
    """The socket under an answer of which nothing was read; where the server closes at the end, only the reader has it."""
    found = getattr(response.raw.connection, "sock", None) or response.raw._fp.fp.raw._sock
    if not isinstance(found, socket.socket):
        raise TransientError("the transport has no socket")
    return found


def _wait_for_ever(stream: socket.socket) -> None:
    """An event stream may be silent for days; a peer that is no more is found out by the kernel."""
    stream.settimeout(None)
    if stream.family != socket.AF_UNIX:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE)
