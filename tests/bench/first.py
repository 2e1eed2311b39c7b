"""From the start of a server's process to its first answer."""

from __future__ import annotations

import socket
import time

from tests.kit.servers.process import ServerFailed, ServerProcess

_PAUSE = 0.001
_DEADLINE = 60.0


def first_answer(process: ServerProcess, port: int, path: str) -> tuple[float, bytes]:
    """Start a process and GET ``path`` from it, again and again until it is a 200: seconds, and the body.

    Raises ServerFailed with the tail of its log where it ends before, or does not answer within a minute.
    """
    began = time.monotonic()
    process.start()
    while time.monotonic() - began < _DEADLINE and process.alive:
        body = _get(port, path)
        if body is not None:
            return time.monotonic() - began, body
        time.sleep(_PAUSE)
    raise ServerFailed(f"{process.name} was not heard of:\n{process.tail()}")


def _get(port: int, path: str) -> bytes | None:
    """The body of a 200; None for anything else, and where nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            with connection.makefile("rb") as reader:
                answer = reader.read()
    except ConnectionError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return body if head.startswith(b"HTTP/1.1 200 ") else None
