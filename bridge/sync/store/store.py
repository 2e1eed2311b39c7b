"""The face of the store: what the event loop sees of a database that lives in a thread."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
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
    """The last known good of one environment, in one directory. All calls from one event loop; each waits for the one before."""

    def __init__(self, writer: Writer, database: Database, lock: DirectoryLock) -> None:
        self._writer = writer
        self._database = database
        self._lock = lock
        self._ceiling = database.counters.ceiling
        self._index = max(database.counters.index, database.counters.floor)
        self._settled = True
        self._begun = False
        self._closed = False
        self._turn = asyncio.Lock()  # between the pieces of a write, no other call may come; but closing ends it

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
        await self.write_pieces((batch,))

    async def write_pieces(self, pieces: Iterable[Batch]) -> None:
        """As `write`, with a batch in pieces: one transaction for all of them, index and revision are those of the last.

        A piece is asked for when the one before the last is stored: a batch of any size takes the memory of two of its pieces,
        and the event loop has its turns between them.
        """
        async with self._turn:
            self._abandon()
            held: Batch | None = None
            try:
                for piece in pieces:
                    if held is not None:
                        self._begun = True
                        await self._put(held, self._database.put)
                    held = piece
                if held is not None:
                    await self._put(held, self._database.apply)
                    self._settled, self._begun, self._index = True, False, held.index
            except BaseException:
                with suppress(StoreError):  # the thread hangs: the next call abandons what was begun
                    self._abandon()
                raise

    def ceiling(self) -> int:
        """Indexes up to this one may be handed out."""
        return self._ceiling

    async def reserve(self, index: int) -> None:
        """Raise the ceiling to 10,000 above ``index``; on the disk itself on return. Raises StoreError as `write` does."""
        async with self._turn:
            await self._call(lambda: self._database.reserve(index), deadline=WRITE_DEADLINE)
        self._ceiling = max(self._ceiling, self._database.counters.ceiling)

    async def compact(self) -> None:
        """Take the write-ahead log into the database and give its room back. Raises StoreError as `write` does."""
        async with self._turn:
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

    async def _put(self, piece: Batch, put: Callable[[Batch], None]) -> None:
        self._check_open()
        if piece.index < self._index:
            raise ValueError(f"index {piece.index} is below {self._index}, which is stored already")
        self._settled = False  # also when cancelled: what was handed out may then not be stored
        job = _telling(self._database.path, partial(put, piece))
        await self._writer.call(job, deadline=WRITE_DEADLINE + ROW_DEADLINE * piece.size)

    def _abandon(self) -> None:
        """Undo, before the thread does anything else, what a write began and gave up. Raises StoreError when the thread hangs."""
        if self._begun:
            self._writer.submit(self._database.abandon)
            self._begun = False

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self._database.path} is closed. Open the store again.")

    async def _call(self, job: Callable[[], T], *, deadline: float) -> T:
        self._check_open()
        self._abandon()
        return await self._writer.call(_telling(self._database.path, job), deadline=deadline)


def _telling(path: Path, job: Callable[[], T]) -> Callable[[], T]:
    """``job``, with the errors of SQLite and of the operating system told as StoreError."""

    def run() -> T:
        try:
            return job()
        except (sqlite3.Error, OSError) as error:
            raise store_error(path, error) from error

    return run
