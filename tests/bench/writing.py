"""The write-behind store in this process's own event loop, and `sqlite3` with the same rows (called `apart`)."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bridge.aio import SystemClock
from bridge.catalog.log import Change
from bridge.catalog.record import Changes
from bridge.host.app import SWITCH_INTERVAL
from bridge.model import Listing
from bridge.sync.store import Store
from bridge.sync.store.database import CHECKPOINT_BYTES
from bridge.sync.writeback import Writeback
from tests.bench import cluster, writer
from tests.bench.lag import LoopLag, percentile
from tests.bench.session import Figures

DATABASE = "envbridge.db"
TRANSACTION = 100
"""Rows in a transaction of the reference."""

_CHECKPOINT_PAGES = CHECKPOINT_BYTES // 4096
"""As rarely as our store checkpoints."""

_FASTEST = 400_000
_STEADY = 10_000
"""Rows per second that come in: more than can be written, and what can be kept up with."""

T = TypeVar("T")
Mark = tuple[str, Changes, Change | None]


class Written:
    """A catalog of ``instances`` whose every row is on disk in ``folder``; ``marks`` says again what changed, by group."""

    def __init__(self, folder: Path, instances: int) -> None:
        clock = SystemClock()
        self._store, _ = Store.open(folder, environment=writer.ENVIRONMENT, environment_uid=None, clock=clock)
        self._ingest = writer.ingest()
        self._instances = instances
        self.writeback = Writeback(self._ingest.catalog, self._ingest.partition, self._store, clock)
        self.marks: list[Mark] = []

    async def fill(self) -> None:
        """Fill and write."""
        self._ingest.accept(writer.SOURCE, Listing())
        self._ingest.on_changes = self._note
        for group in cluster.groups(self._instances):
            self._ingest.accept(writer.SOURCE, group)
        await self.writeback.flush()

    async def rewrite(self, per_second: int, groups: int) -> tuple[float, list[float]]:
        """Let changes of whole groups come in, and wait until they are on disk: rows per second, and how late the loop was."""
        before = self.writeback.written
        writing = asyncio.create_task(self.writeback.run())
        async with LoopLag() as lag:
            began, told = time.perf_counter(), 0
            while told < groups:
                due = min(groups, int((time.perf_counter() - began) * per_second / cluster.SLICE) + 1)
                for mark in self.marks[told:due]:
                    self.writeback.mark(*mark)
                told = due
                await asyncio.sleep(0.001)
            while self.writeback.depth:  # noqa: ASYNC110  # the daemon has no event for it
                await asyncio.sleep(0.001)
            seconds = time.perf_counter() - began
        writing.cancel()
        await asyncio.wait([writing])
        return (self.writeback.written - before) / seconds, lag.late

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    def _note(self, source: str, changes: Changes, change: Change | None) -> None:
        self.marks.append((source, changes, change))
        self.writeback.mark(source, changes, change)


def prepare(folder: Path, instances: int) -> int:
    """Write a database once; its bytes."""

    async def write() -> None:
        written = Written(folder, instances)
        await written.fill()
        await written.close()

    _run(write())
    return (folder / DATABASE).stat().st_size


def ours(folder: Path, instances: int, cores: Sequence[int]) -> Figures:
    """Every row is changed once, as fast as can be; then some, steadily. rate: rows/s. lag, steady: p99 of the loop, seconds."""
    os.sched_setaffinity(0, cores)
    sys.setswitchinterval(SWITCH_INTERVAL)  # as the daemon does

    async def measure() -> Figures:
        written = Written(folder, instances)
        await written.fill()
        gc.collect()
        gc.freeze()  # as the daemon does once it has started
        rate, late = await written.rewrite(_FASTEST, len(written.marks))
        _, steady = await written.rewrite(_STEADY, min(len(written.marks), 2 * _STEADY // cluster.SLICE))
        await written.close()
        return {"rate": rate, "lag": percentile(late, 0.99), "worst": max(late), "steady": percentile(steady, 0.99)}

    return _run(measure())


def theirs(prepared: Path, folder: Path, cores: Sequence[int]) -> Figures:
    """Every row of a prepared database is written once more in transactions of 100, with `executemany`: rows per second.

    lag, worst: of an event loop that does nothing, while a thread beside it does so once more, seconds.
    """
    os.sched_setaffinity(0, cores)
    sys.setswitchinterval(SWITCH_INTERVAL)
    shutil.copy(prepared / DATABASE, folder / DATABASE)
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"wal_autocheckpoint = {_CHECKPOINT_PAGES}"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    rows = connection.execute("SELECT source, id, value, checksum FROM records").fetchall()

    def rewrite() -> float:
        began = time.perf_counter()
        for first in range(0, len(rows), TRANSACTION):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", rows[first : first + TRANSACTION])
            connection.execute("COMMIT")
        return len(rows) / (time.perf_counter() - began)

    async def beside() -> list[float]:
        async with LoopLag() as lag:
            await asyncio.to_thread(rewrite)
        return lag.late

    rate, late = rewrite(), _run(beside())
    connection.close()
    return {"rate": rate, "lag": percentile(late, 0.99), "worst": max(late)}


def _run(work: Coroutine[Any, Any, T]) -> T:
    """In the event loop that the daemon has."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
