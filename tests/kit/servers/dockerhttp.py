"""A raw HTTP client of the Docker Engine over its unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

VERSION = "v1.41"
"""The API version of Docker 20.10."""


class DockerError(RuntimeError):
    """The Engine or its command line answered with an error; `status` is the HTTP status or the exit status."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"{what}: {status} {message.strip()[:800]}")
        self.status, self.message = status, message


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path, self._limit = path, timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._limit)
        self.sock.connect(str(self._path))


def call(path_of_socket: Path, method: str, path: str, body: Any = None, timeout: float = 10.0) -> Any:
    """One request; parsed JSON back, or text where it is none.

    Raises DockerError for an error status and OSError when there is no answer.
    """
    connection = _UnixConnection(path_of_socket, timeout)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, f"/{VERSION}{path}", data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode(errors="replace")
    except http.client.HTTPException as error:
        raise OSError(f"{method} {path}: {error!r}") from error
    finally:
        connection.close()
    if response.status >= 400:
        raise DockerError(f"{method} {path}", response.status, text)
    return json.loads(text) if text and "json" in (response.headers.get("Content-Type") or "") else text
