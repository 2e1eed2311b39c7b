"""The face of the store: what the event loop sees of a database that lives in a thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bridge.aio import Clock
from bridge.errors import StoreError
from bridge.intern import Interner
from bridge.sync.store.database import Database, store_error
from bridge.sync.store.directory import DirectoryLock
from bridge.sync.store.opening import open_database
from bridge.sync.store.records import Batch, Snapshot
from bridge.sync.store.writer import Writer

WRITE_DEADLINE = 30.0
"""Seconds a call may wait for the disk; a batch has `ROW_DEADLINE` more for each of its rows."""

ROW_DEADLINE = 0.001
CLOSE_DEADLINE = 5.0

T = TypeVar("T")


class Store:
    """The last known good of one environment, in one directory. One caller, one call at a time; all from one event loop."""

    def __init__(self, writer: Writer, database: Database, lock: DirectoryLock) -> None:
        self._writer = writer
        self._database = database
        self._lock = lock
        self._ceiling = database.counters.ceiling
        self._index = max(database.counters.index, database.counters.floor)
        self._settled = True
        self._closed = False

    @classmethod
    def open(
        cls, data_dir: Path, *, environment: str, environment_uid: str | None, clock: Clock, interner: Interner | None = None
    ) -> tuple[Store, Snapshot]:
        """Lock the directory, open its database or make one, and read it whole. Blocks.

        data_dir: made with mode 0700 where there is none. environment_uid: the configured one; None takes the database's, or a
        random one for a new database. interner: shares the strings, tuples and dicts of what is read.

        A damaged database is moved aside (``envbridge.db.corrupt-<unix seconds>``) and made anew: `Snapshot.rebuilt`.
        Raises StoreError, which names the remedy, when another process has the directory, when the database is of another
        environment or of a newer version, and when the disk cannot be read or written.
        """
        lock = DirectoryLock(data_dir)
        writer = Writer("store")

        def load() -> tuple[Database, Snapshot]:
            return open_database(
                data_dir,
                environment=environment,
                environment_uid=environment_uid,
                now=clock.wall(),
                interner=interner if interner is not None else Interner(),
            )

        try:
            database, snapshot = writer.submit(_telling(data_dir, load)).result()
        except BaseException:
            writer.stop()
            lock.release()
            raise
        writer.tend = database.tend
        return cls(writer, database, lock), snapshot

    async def write(self, batch: Batch) -> None:
        """Store a batch: its data, index and revision in one transaction. Returns when it is committed.

        A row that cannot be encoded is logged and left out. Raises StoreError where the disk refuses or does not answer in time:
        the caller keeps what it wanted to store and tries again later. Raises ValueError for an index that goes back.
        """
        if batch.index < self._index:
            raise ValueError(f"index {batch.index} is below {self._index}, which is stored already")
        deadline = WRITE_DEADLINE + ROW_DEADLINE * batch.size
        self._settled = False  # also when cancelled: what was handed out may then not be stored
        await self._call(lambda: self._database.apply(batch), deadline=deadline)
        self._settled = True
        self._index = batch.index

    def ceiling(self) -> int:
        """Indexes up to this one may be handed out."""
        return self._ceiling

    async def reserve(self, index: int) -> None:
        """Raise the ceiling to 10,000 above ``index``; on the disk itself on return. Raises StoreError as `write` does."""
        await self._call(lambda: self._database.reserve(index), deadline=WRITE_DEADLINE)
        self._ceiling = max(self._ceiling, self._database.counters.ceiling)

    async def compact(self) -> None:
        """Take the write-ahead log into the database and give its room back. Raises StoreError as `write` does."""
        await self._call(self._database.compact, deadline=WRITE_DEADLINE)

    async def close(self) -> None:
        """Close in order: the next opening counts on from the last index stored.

        After a failed `write` it does not, and the next opening counts on from the ceiling. Once closed, closing does nothing.
        Raises StoreError where the disk refuses; the store is closed nonetheless.
        """
        if self._closed:
            return
        settled = self._settled

        def close() -> None:
            try:
                self._writer.tend = lambda: None
                self._database.close(clean=settled)
            finally:
                self._lock.release()

        try:
            await self._call(close, deadline=CLOSE_DEADLINE)
        finally:
            self._closed = True
            self._writer.stop()

    async def _call(self, job: Callable[[], T], *, deadline: float) -> T:
        if self._closed:
            raise StoreError(f"{self._database.path} is closed. Open the store again.")
        return await self._writer.call(_telling(self._database.path, job), deadline=deadline)


def _telling(path: Path, job: Callable[[], T]) -> Callable[[], T]:
    """``job``, with the errors of SQLite and of the operating system told as StoreError."""

    def run() -> T:
        try:
            return job()
        except (sqlite3.Error, OSError) as error:
            raise store_error(path, error) from error

    return run
