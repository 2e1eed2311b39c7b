"""A TCP proxy on loopback that misbehaves on demand: the network between an adapter and its backend.

    with Proxy(6443) as proxy:
        proxy.set("hang")

It runs in one thread of its own, so that blocking and asynchronous tests can both use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Literal, Self

from tests.kit.servers.process import free_port

Mode = Literal["pass", "refuse", "reset", "hang"]
"""What happens to connections, old and new.

pass: they are forwarded. refuse: old ones are reset, nobody listens. reset: old ones are reset, new ones accepted and reset.
hang: they stay open and nothing moves, until it passes again: then what was under way goes on, as after lost packets.
"""

_CHUNK = 65_536
_DEADLINE = 5.0
_LINGER_NOT = struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing sends a reset (socket(7))."""


class Proxy:
    """Forwards ``port`` to ``upstream``; it keeps its port through every mode."""

    def __init__(self, upstream: int, upstream_host: str = "127.0.0.1") -> None:
        self.port = free_port()
        self.mode: Mode = "pass"
        self._upstream = (upstream_host, upstream)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._moving = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.set("pass")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.set("refuse")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE)
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def set(self, mode: Mode) -> None:
        """Behave so from now on; returns once it does. Raises OSError where the port was taken meanwhile."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(_DEADLINE)

    async def _set(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "pass":
            self._moving.set()
        else:
            self._moving.clear()
        if mode == "refuse" and self._server is not None:
            self._server.close()
            self._server = None
        if mode in ("refuse", "reset"):
            await self._reset_all()
        if mode != "refuse" and self._server is None:
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, limit=_CHUNK)

    async def _reset_all(self) -> None:
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._connected(reader, writer))
        self._connections.add(task)
        task.add_done_callback(lambda _: self._ended(task, writer))

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._connections.discard(task)
        _reset(writer)  # it may have been cancelled before it began

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions of one connection, until both have ended; what breaks one ends the other."""
        writers = [writer]
        try:
            if self.mode not in ("refuse", "reset"):
                await self._moving.wait()
                there, back = await asyncio.open_connection(*self._upstream, limit=_CHUNK)
                writers.append(back)
                await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
                for one in writers:
                    one.close()
        except (OSError, asyncio.CancelledError):
            pass  # the other side is told by a reset
        finally:
            for one in writers:
                _reset(one)
            await asyncio.gather(*(one.wait_closed() for one in writers), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._moving.wait()
            writer.write(data)
            await writer.drain()
        await self._moving.wait()
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    if writer.is_closing():
        return
    with contextlib.suppress(OSError):  # the other side was faster
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
