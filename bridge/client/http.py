"""Requests to a bridge's read API, synchronous and with the standard library alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from bridge.errors import ApiError

EVERYTHING: Mapping[str, str] = {"health": "any", "lifecycle": "any", "state": "any"}
"""The filters that hide no instance."""

_MAX_BODY = 1 << 30
_MAX_PROBLEM = 64 << 10
_MAX_DETAIL = 500
_PIECE = 1 << 16
_PAGE = "1000"


def path_of(*segments: str) -> str:
    """``/v1/`` and the segments, each percent-encoded so that none can become two."""
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200: the decoded body, and what its headers tell about how far it can be trusted.

    stale: environments with a source that has been silent for too long.
    incomplete: sources and peers that were never read yet, so the body may lack what they have.
    """

    body: Any
    stale: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()


class Client:
    """Asks one bridge. Each request has a connection of its own.

    url: ``http://`` or ``https://``, with a path when the bridge is behind one.
    token: sent as a bearer token; never shown again.
    ca_file: PEM file with the authorities to trust instead of the system's.
    timeout: seconds to connect, and between two pieces of an answer.
    deadline: seconds for a whole answer.
    Raises ValueError for a URL, token or CA file that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca_file: Path | None = None,
        timeout: float = 10.0,
        deadline: float = 120.0,
    ) -> None:
        parts = urlsplit(url)
        port = parts.port  # raises ValueError itself
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("a bridge's URL looks like https://bridge.example.org:7400")
        if parts.username is not None:
            raise ValueError("a bridge's URL holds no credentials; give a token instead")
        if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
            raise ValueError("the token must be one word of printable ASCII")
        self.url = url.rstrip("/")
        self._host = parts.hostname
        self._port = port
        self._base = parts.path.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._deadline = deadline
        self._tls = _trust(ca_file) if parts.scheme == "https" else None

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """The decoded answer. Raises ApiError for any other status, a broken answer, or none (status 0)."""
        with self.open(path, params, accept="application/json") as response:
            if response.status != 200:
                raise problem(response)
            text = self._read(response)
            try:
                body = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ApiError(f"{self.url} answered something else than JSON; is it a bridge?") from error
            return Answer(body, _names(response.headers, "Envbridge-Stale"), _names(response.headers, "Envbridge-Incomplete"))

    def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The body of `get`."""
        return self.get(path, params).body

    def pages(self, path: str, key: str, params: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Every entry of the list ``key``, fetched page by page. Raises as `get` does."""
        query = {**(params or {}), "limit": _PAGE}
        while True:
            body = self.get_json(path, query)
            if not isinstance(body, dict) or not isinstance(entries := body.get(key), list):
                raise ApiError(f"{self.url}{path} answered no list of {key}; is it a bridge?")
            yield from entries
            following = body.get("next")
            if not isinstance(following, str) or following == query.get("page"):
                return
            query["page"] = following

    @contextlib.contextmanager
    def open(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        accept: str,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer's head, whatever its status; the body is still to be read, inside the context.

        silence: seconds between two pieces of the body, where it differs from the client's ``timeout``.
        Raises ApiError with status 0 where the network fails, inside the context too.
        """
        connection = self._connection()
        try:
            target = self._base + path + (f"?{urlencode(params)}" if params else "")
            sent = {"Accept": accept, "User-Agent": "envbridge", **(headers or {})}
            if self._token is not None:
                sent["Authorization"] = f"Bearer {self._token}"
            connection.request("GET", target, headers=sent)
            socket = connection.sock
            response = connection.getresponse()
            if silence is not None and socket is not None:
                socket.settimeout(silence)
            with response:
                yield response
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise ApiError(f"cannot read {self.url}: {_reason(error)}") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        end = time.monotonic() + self._deadline
        pieces: list[bytes] = []
        size = 0
        while piece := response.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_BODY:
                raise ApiError(f"{self.url} answered more than {_MAX_BODY >> 20} MiB")
            if time.monotonic() > end:
                raise TimeoutError(f"no whole answer within {self._deadline:.0f} s")
        if response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(pieces)


def problem(response: http.client.HTTPResponse) -> ApiError:
    """The error an answer stands for: title and detail of its problem document (RFC 9457), else its status line."""
    message = f"HTTP {response.status} {response.reason}".rstrip()
    if response.headers.get_content_type() == "application/problem+json":
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(response.read(_MAX_PROBLEM))
            if isinstance(document, dict):
                told = [document[key] for key in ("title", "detail") if isinstance(document.get(key), str)]
                message = ": ".join(told) or message
    return ApiError(message[:_MAX_DETAIL], status=response.status)


def _names(headers: Message, name: str) -> tuple[str, ...]:
    listed = str(headers.get(name, ""))
    return tuple(unquote(entry.strip()) for entry in listed.split(",") if entry.strip())


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"CA file {ca_file}: {error.strerror or error}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return str(error) or "timed out"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer broke off"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
