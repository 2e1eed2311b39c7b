"""A listener in this process, and ways to talk to it below any HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from bridge.aio import SystemClock
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.model import InstanceGroup, Listing, ServiceInstance, ServiceName
from bridge.serve.http.message import Surface
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.protocol import Connection
from bridge.serve.http.server import HttpServer
from bridge.serve.http.system import SystemSurface
from bridge.sync.ingest import Ingest
from tests.contract.watch_world import ScriptedConfig

GET = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Host:
    """A process that is not ready, and says why."""

    def unready(self) -> list[str] | None:
        return ["secret-source"]

    def warnings(self) -> list[str]:
        return []

    def status(self) -> dict[str, Any]:
        return {}

    def metrics(self) -> tuple[bytes, str]:
        return b"", "text/plain"


class HastyClock(SystemClock):
    """The server looks for deadlines twenty times as often."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 20)


class Bench:
    """A server in this process, and what to say to it."""

    def __init__(self, **options: Any) -> None:
        clock = HastyClock()
        self.catalog = Catalog(Indexes("abc", 1, 1_000_000))
        partition = self.catalog.partitions["eu"] = Partition("eu", "uid", 1)
        self.ingest = Ingest(self.catalog, partition, clock, logging.getLogger("test.raw"))
        self.ingest.add("main", ScriptedConfig(guard=None), scopes=("",), polled=False)
        self.show(2)
        surfaces: list[Surface] = [NativeSurface(self.catalog, clock), SystemSurface(Host(), "0")]
        self.server = HttpServer(self.catalog, surfaces, clock, **options)
        self.port = 0

    def show(self, count: int, *, size: int = 1) -> None:
        """The source shows ``count`` instances of shop/web."""
        instances = tuple(
            ServiceInstance(
                id=f"shop/web/{n}", namespace="shop", service="web", addresses=("10.0.0.1",), meta={"pad": "x" * size}
            )
            for n in range(count)
        )
        self.ingest.accept("main", Listing("", (InstanceGroup("web", instances, (ServiceName("shop", "web"),)),)))

    def connect(self, *, receive_buffer: int | None = None) -> socket.socket:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.connect(("127.0.0.1", self.port))
        sock.setblocking(False)
        return sock

    async def say(self, *pieces: bytes, within: float = 5.0, half_close: bool = False, until: int | None = None) -> bytes:
        """Send ``pieces`` one after the other; everything that comes until the server hangs up, or ``until`` answers came."""
        loop = asyncio.get_running_loop()
        sock = self.connect()
        received = b""
        try:
            async with asyncio.timeout(within):
                for piece in pieces:
                    with contextlib.suppress(OSError):
                        await loop.sock_sendall(sock, piece)
                    await asyncio.sleep(0)
                if half_close:
                    sock.shutdown(socket.SHUT_WR)
                while until is None or len(STATUS.findall(received)) < until or not complete(received):
                    try:
                        read = await loop.sock_recv(sock, 65536)
                    except ConnectionResetError:
                        break
                    if not read:
                        break
                    received += read
        finally:
            sock.close()
        return received

    async def block(self, wait: str = "60s") -> bytes:
        """A blocking read of shop/web as it is now, ready to be sent."""
        received = await self.say(b"GET /v1/services/shop/web HTTP/1.1\r\nHost: t\r\n\r\n", until=1)
        cursor = answers(received)[0][1]["etag"].removeprefix('W/"').strip('"')
        return f"GET /v1/services/shop/web?after={cursor}&wait={wait} HTTP/1.1\r\nHost: t\r\n\r\n".encode()

    async def waiting(self, count: int = 1) -> None:
        """Until so many reads are blocked."""
        async with asyncio.timeout(5.0):
            while self.server.waits.blocked < count:  # noqa: ASYNC110  # no event tells it
                await asyncio.sleep(0.01)

    async def alive(self) -> bool:
        """Whether it still answers others."""
        return statuses(await self.say(GET, until=1)) == [200]


def answers(received: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers in what was received, by their own Content-Length."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        match = STATUS.match(line.encode() + b" ")
        assert match, f"no status line: {line!r}"
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        length = int(headers.get("content-length", 0)) if match[1] != b"304" else 0
        found.append((int(match[1]), headers, rest[:length]))
        received = rest[length:]
    return found


def statuses(received: bytes) -> list[int]:
    return [status for status, _, _ in answers(received)]


def complete(received: bytes) -> bool:
    return all(len(body) == int(headers.get("content-length", 0)) for _, headers, body in answers(received))


@contextlib.asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    _, bench.port = await bench.server.listen("127.0.0.1", 0)
    task = asyncio.create_task(bench.server.run())
    try:
        yield bench
        assert await bench.alive()
    finally:
        task.cancel()
        await bench.server.stop()
        for connection in list(bench.server.connections):
            if connection.transport is not None:
                connection.transport.abort()


async def until(what: str, probe: Callable[[], bool], within: float = 10.0) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not probe():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)


class Wire(asyncio.Transport):
    """A transport from elsewhere that keeps what was written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 4711)})
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


async def ask(request: bytes, **options: Any) -> tuple[int, dict[str, str], bytes]:
    connection, wire = Connection(Bench(**options).server), Wire()
    connection.connection_made(wire)
    assert not connection.loopback
    connection.data_received(request)
    [answer] = answers(wire.written)
    return answer
