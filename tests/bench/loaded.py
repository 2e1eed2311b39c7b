"""The daemon's parts from ingest to connection, in this process: a catalog of any size, and a reader blocked on one service.

Nothing is put between them, and nothing is left out but the socket: a connection writes into a transport that notes when.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import perf_counter_ns, sleep
from types import TracebackType
from typing import Any, Self, cast

import uvloop

from bridge.aio import SystemClock
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.catalog.view import View
from bridge.model import Listing
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.protocol import Connection
from bridge.serve.http.server import HttpServer
from bridge.sync.ingest import Ingest
from bridge.sync.store import Store
from bridge.sync.writeback import Writeback
from bridge_plugins.sources.kubernetes.config import KubernetesConfig
from tests.bench import cluster

SOURCE = "cluster"
_QUIET = 2 * View.min_gap
"""Seconds after which a view that was answered is answered at once again: changes in between are paced."""


class Loaded:
    """A bridge whose one source showed ``instances`` instances.

    store: never written to; what changes is noted for it, as in the daemon.
    """

    def __init__(self, instances: int, store: Store) -> None:
        clock = SystemClock()
        self.services = instances // cluster.SLICE
        self.catalog = Catalog(Indexes("bench", 1, 1_000_000_000))
        partition = self.catalog.partitions["test"] = Partition("test", "uid", 1)
        self.ingest = Ingest(self.catalog, partition, clock, logging.getLogger("bench"))
        self._server = HttpServer(self.catalog, [NativeSurface(self.catalog, clock)], clock)
        self._transport = _Transport()
        self._reader = Connection(self._server)
        self._reader.connection_made(cast(asyncio.Transport, self._transport))
        self._woken_at: dict[int, int] = {}
        self._turn = 0
        config = KubernetesConfig(type="kubernetes", max_instances=max(instances, 1))
        self.ingest.add(SOURCE, config, scopes=("",), polled=False)
        self.ingest.accept(SOURCE, Listing("", tuple(cluster.groups(instances))))
        self.ingest.on_changes = Writeback(self.catalog, partition, store, clock).mark  # what was listed is on disk

    def change(self, number: int, *, read: bool = True) -> float:
        """Change one instance of a service: seconds from its group to the answer of the reader that waits for it.

        read: where False nobody waits, and the seconds are those until all is applied.
        """
        self._turn += 1
        told = cluster.group(number, self._turn)
        if read:
            self._block(number)
        began = perf_counter_ns()
        self.ingest.accept(SOURCE, (told,))
        ended = perf_counter_ns()
        if read:
            self._woken_at[number] = ended
            ended = self._transport.written_at
            answer = self._transport.take()
            assert answer.startswith(b"HTTP/1.1 200 OK"), answer
            assert b"moved-%d" % self._turn in answer, answer
        assert ended > began, "it was answered before the change"
        return (ended - began) / 1e9

    def _block(self, number: int) -> None:
        """Have the reader read a service, and wait for a change of it that will be answered at once."""
        path = f"/v1/services/{cluster.NAMESPACE}/{cluster.name(number)}"
        cursor = self._ask(path).partition(b'ETag: W/"')[2].partition(b'"')[0].decode()
        assert not self._ask(f"{path}?after={cursor}&wait=60s"), "the reader does not wait"
        since = (perf_counter_ns() - self._woken_at.get(number, 0)) / 1e9
        if since < _QUIET:
            sleep(_QUIET - since)

    def _ask(self, target: str) -> bytes:
        """What the reader is answered at once; empty where it waits."""
        self._transport.take()
        self._reader.data_received(
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n"
            "Accept-Encoding: identity\r\n\r\n".encode()
        )
        return self._transport.take()


class _Transport:
    """What a connection writes into: of asyncio's transports as much as it uses."""

    def __init__(self) -> None:
        self.written_at = 0
        self._written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written_at = perf_counter_ns()
        self._written.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.written_at = perf_counter_ns()
        self._written += parts

    def take(self) -> bytes:
        """What was written since, forgotten from now on."""
        written, self._written = b"".join(self._written), []
        return written

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Bridges:
    """Bridges side by side, and the event loop they run in. ``sizes``: instances of each."""

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        self._folder, self._sizes = folder, sizes

    def __enter__(self) -> Self:
        store, _ = Store.open(self._folder, environment="bench", environment_uid=None, clock=SystemClock())
        with ExitStack() as stack:
            self._runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
            stack.callback(lambda: self._runner.run(store.close()))
            self._bridges = [Loaded(size, store) for size in self._sizes]
            gc.collect()
            gc.freeze()  # as the daemon does with what it restored
            stack.callback(gc.unfreeze)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bridges.clear()
        self._stack.close()

    def changes(self, count: int, seed: int, *, read: bool = True) -> list[list[float]]:
        """Change random services, in each bridge as many, in turns: the seconds of each change (`Loaded.change`), by bridge."""
        return self._runner.run(self._changes(count, Random(seed), read))

    async def _changes(self, count: int, random: Random, read: bool) -> list[list[float]]:
        orders = [_order(bridge.services, count, random) for bridge in self._bridges]
        seconds: list[list[float]] = [[] for _ in self._bridges]
        for turn in range(count):
            for bridge, order, taken in zip(self._bridges, orders, seconds, strict=True):
                taken.append(bridge.change(order[turn], read=read))
            await asyncio.sleep(0)
        return seconds


def _order(services: int, count: int, random: Random) -> list[int]:
    """``count`` services at random, each as often as any other."""
    chosen: list[int] = []
    while len(chosen) < count:
        chosen += random.sample(range(services), min(services, count - len(chosen)))
    return chosen
