"""A TCP proxy on loopback that misbehaves on demand: the network between an adapter and its backend.

    with Proxy(6443) as proxy:
        proxy.set("hang")

It runs in one thread of its own, so that blocking and asynchronous tests can both use it.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Literal, Self

from tests.kit.listener import Listener, reset
from tests.kit.servers.process import free_port

Mode = Literal["pass", "refuse", "reset", "hang"]
"""What happens to connections, old and new.

pass: they are forwarded. refuse: old ones are reset, nobody listens. reset: old ones are reset, new ones accepted and reset.
hang: they stay open and nothing moves, until it passes again: then what was under way goes on, as after lost packets.
"""

_CHUNK = 65_536
_DEADLINE = 5.0


class Proxy:
    """Forwards ``port`` to ``upstream``; it keeps its port through every mode."""

    def __init__(self, upstream: int, upstream_host: str = "127.0.0.1") -> None:
        self.port = free_port()
        self.mode: Mode = "pass"
        self._upstream = (upstream_host, upstream)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._moving = asyncio.Event()
        self._listener: Listener | None = None

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
        return len(self._listener.connections) if self._listener is not None else 0

    def set(self, mode: Mode) -> None:
        """Behave so from now on; returns once it does. Raises OSError where the port was taken meanwhile."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(_DEADLINE)

    async def _set(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "pass":
            self._moving.set()
        else:
            self._moving.clear()
        if self._listener is not None and mode == "refuse":
            self._listener.close()
        if self._listener is not None and mode in ("refuse", "reset"):
            await self._listener.reset()
        if mode != "refuse" and (self._listener is None or not self._listener.listening):
            self._listener = Listener(self._connected, self.port, limit=_CHUNK)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both directions of one connection, until both have ended; what breaks one ends the other."""
        if self.mode in ("refuse", "reset"):
            raise ConnectionResetError
        await self._moving.wait()
        there, back = await asyncio.open_connection(*self._upstream, limit=_CHUNK)
        try:
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._pump(reader, back))
                directions.create_task(self._pump(there, writer))
            back.close()
            await back.wait_closed()
        except* OSError:
            await reset(writer)
        finally:
            await reset(back)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._moving.wait()
            writer.write(data)
            await writer.drain()
        await self._moving.wait()
        writer.write_eof()
