"""Listens on loopback for the fakes: whatever is accepted belongs to a task from that very moment.

`asyncio.start_server` is not enough for servers that come and go under load: a connection that it has accepted, but not
yet handed over when the server is closed, is left to the garbage collector.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import partial

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection. It is closed when this returns, and reset when this raises or is cancelled."""

_BACKLOG = 100
_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing sends a reset (socket(7))."""


class Listener:
    """Listens from now on, in the running event loop. port: 0 takes a free one; limit: bytes a reader may hold."""

    def __init__(self, serve: Serve, port: int = 0, *, limit: int = 65_536) -> None:
        self._serve = serve
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._socket = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self.connections: set[asyncio.Task[None]] = set()
        self._loop.add_reader(self._socket.fileno(), self._accept)

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return self._socket.fileno() >= 0

    def close(self) -> None:
        """Listen no longer; open connections stay."""
        if self.listening:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    async def reset(self) -> None:
        """Reset every connection but the one this is called from, and wait until that is done."""
        others = self.connections - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                connection, _ = self._socket.accept()
                task = self._loop.create_task(self._connected(connection))
                self.connections.add(task)
                task.add_done_callback(self.connections.discard)
                task.add_done_callback(partial(_close, connection))

    async def _connected(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            reader, writer = await asyncio.open_connection(sock=connection, limit=self._limit)
            try:
                await self._serve(reader, writer)
                writer.close()
                await writer.wait_closed()
            finally:
                await reset(writer)


def _close(connection: socket.socket, _: asyncio.Task[None]) -> None:
    connection.close()  # its task may never have begun


async def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, with a reset unless it is closed already, and wait until that is done."""
    if not writer.is_closing():
        with contextlib.suppress(OSError):  # the other side was faster
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
