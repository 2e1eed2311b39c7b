"""Steady readers of the daemon: so many reads a second, whatever becomes of those before."""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_CONNECTIONS = 64
_DEADLINE = 60.0
_SWITCH = 0.0001
"""Seconds that another thread of this process may keep a reader from noting an answer."""


@dataclass
class _Exchange:
    """A request on its way: when it was due, and what has come of its answer."""

    since: float
    received: bytes = b""

    @property
    def complete(self) -> bool:
        """Whether the whole answer is here. Raises RuntimeError unless it is a 200."""
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a read was answered {head[:100]!r}")
        return len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


class Readers:
    """Connections to a port of this machine, as a context manager. Each request is another one: it has an id of its own."""

    def __init__(self, port: int, paths: Sequence[str], *, rate: float) -> None:
        """``rate``: requests per second, of the ``paths`` in turn."""
        self._port, self._paths, self._pause = port, paths, 1 / rate
        self._number = 0

    def __enter__(self) -> Self:
        self._selector = selectors.SelectSelector()  # epoll's timeouts are whole milliseconds
        address = ("127.0.0.1", self._port)
        self._idle = deque(socket.create_connection(address, timeout=_DEADLINE) for _ in range(_CONNECTIONS))
        self._busy: dict[socket.socket, _Exchange] = {}
        self._switching = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        sys.setswitchinterval(self._switching)
        self._selector.close()
        for connection in [*self._idle, *self._busy]:
            connection.close()

    def read_until(self, ended: Callable[[], bool]) -> list[float]:
        """Read until ``ended()``, and what is due until then to its end: seconds that each took.

        A request that finds every connection busy has begun to wait when it was due. Raises RuntimeError for any answer but 200,
        and TimeoutError when there is none for a minute.
        """
        took: list[float] = []
        waiting: deque[float] = deque()
        due = time.monotonic()
        more = True
        while more or waiting or self._busy:
            now, more = time.monotonic(), more and not ended()
            while more and due <= now:
                waiting.append(due)
                due += self._pause
            fresh = not self._busy or len(self._idle) > len(waiting)
            while waiting and self._idle:
                since = waiting.popleft()
                self._send(self._idle.popleft(), time.monotonic() if fresh else since)
            self._receive(max(0.0, due - time.monotonic()) if more else _DEADLINE, took)
            if self._busy and now - next(iter(self._busy.values())).since > _DEADLINE:
                raise TimeoutError(f"a read was not answered for {_DEADLINE:g} s")
        return took

    def _send(self, connection: socket.socket, since: float) -> None:
        self._number += 1
        path = self._paths[self._number % len(self._paths)]
        request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n"
            f"Accept-Encoding: identity\r\nX-Request-Id: {self._number:032x}\r\n\r\n"
        )
        connection.sendall(request.encode())
        self._busy[connection] = _Exchange(since)
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, timeout: float, took: list[float]) -> None:
        if not self._busy:
            time.sleep(timeout if timeout < _DEADLINE else 0.0)
            return
        for key, _ in self._selector.select(timeout):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            exchange, part = self._busy[connection], connection.recv(2**18)
            if not part:
                raise RuntimeError("the daemon closed a connection")
            exchange.received += part
            if exchange.complete:
                took.append(time.monotonic() - exchange.since)
                self._selector.unregister(connection)
                del self._busy[connection]
                self._idle.append(connection)
