"""What is done to an open database; everything here blocks and runs in the store's thread."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path
from sqlite3 import Connection

from msgspec import Struct
from msgspec.structs import replace

from bridge.errors import StoreError
from bridge.sync.store import rows
from bridge.sync.store.records import Batch
from bridge.sync.store.schema import transaction, unfinished

RESERVE = 10_000
"""Indexes that one reservation covers."""

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""Size of the write-ahead log at which it is moved into the database: large enough to gather writes to the same pages."""

SYNC_AFTER = 1.0
"""Seconds a commit may wait for the disk. With synchronous=NORMAL SQLite itself waits only when it checkpoints."""

_logger = logging.getLogger("bridge.store")


class Counters(Struct, frozen=True, gc=False):
    """Where counting stands (semantics 4.6, W2); written with every transaction.

    index: of the last data stored. floor: where counting began at the last opening. ceiling: the highest index that may have
    been handed out. clean: nothing was handed out beyond ``index`` and ``floor``, since the database was closed in order.
    """

    index: int = 0
    revision: int = 0
    floor: int = 0
    ceiling: int = 0
    clean: bool = True


def open_connection(path: Path) -> Connection:
    """Connect, and set the connection up. Raises sqlite3.Error.

    The lock is exclusive, which also spares the shared-memory file beside the database. The log is checkpointed by us, as a
    whole and truncated: what stays of a log that was already moved could bring old pages back if it is damaged.
    """
    conn = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        conn.text_factory = bytes
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "cell_size_check = ON",
            "trusted_schema = OFF",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 0",
            "cache_size = -8000",
        ):
            conn.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        conn.close()
        raise
    return conn


def checkpoint(conn: Connection) -> None:
    """Move the log into the database and wait for the disk. Raises sqlite3.Error."""
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class Database:
    """An open database: ``path`` is its file, ``counters`` what is on disk."""

    def __init__(self, conn: Connection, path: Path, counters: Counters) -> None:
        self.path = path
        self.counters = counters
        self._conn = conn
        self._log = path.with_name(path.name + "-wal")
        self._log_fd = os.open(self._log, os.O_RDONLY)
        self._unsynced_since: float | None = None

    def put(self, batch: Batch) -> None:
        """Take the rows of a batch into a transaction that `apply` ends. Raises sqlite3.Error; then nothing of it was stored."""
        with unfinished(self._conn):
            self._put(batch)

    def apply(self, batch: Batch) -> None:
        """Store a batch, and what was `put` before it, in one transaction. Raises as `put` does."""
        counters = replace(
            self.counters, index=batch.index, revision=batch.revision, ceiling=max(self.counters.ceiling, batch.index)
        )
        with transaction(self._conn):
            self._put(batch)
            rows.put_meta(self._conn, "counters", counters)
        self.counters = counters
        if self._unsynced_since is None:
            self._unsynced_since = time.monotonic()
        if os.fstat(self._log_fd).st_size > CHECKPOINT_BYTES:
            self._checkpoint_or_warn()

    def abandon(self) -> None:
        """Undo what was `put` and will not be applied."""
        try:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
        except sqlite3.Error as error:  # what is written next contains it
            _logger.warning("write cannot be undone", extra={"path": str(self.path), "error": str(error)})

    def reserve(self, index: int) -> None:
        """Raise the ceiling to 10,000 above ``index``; it is on the disk itself on return. Raises sqlite3.Error."""
        self._count(replace(self.counters, ceiling=max(self.counters.ceiling, index + RESERVE)))

    def tend(self) -> float | None:
        """Wait for the disk when the oldest commit it may lack is a second old; seconds until the next is due, else None."""
        if self._unsynced_since is None:
            return None
        due = self._unsynced_since + SYNC_AFTER - time.monotonic()
        if due > 0:
            return due
        self._unsynced_since = None
        try:
            os.fdatasync(self._log_fd)
        except OSError as error:
            _logger.error("disk does not confirm writes", extra={"path": str(self._log), "error": str(error.strerror)})
        return None

    def compact(self) -> None:
        """Refresh the planner's statistics, take the log into the database and truncate it. Raises sqlite3.Error."""
        self._conn.execute("PRAGMA optimize")
        self._conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self, *, clean: bool) -> None:
        """Close. clean: record that nothing was handed out that is not stored. Raises sqlite3.Error, closed nonetheless."""
        try:
            if clean:
                self._count(replace(self.counters, clean=True))
        finally:
            os.close(self._log_fd)
            self._conn.close()

    def _put(self, batch: Batch) -> None:
        conn = self._conn
        conn.executemany("DELETE FROM records WHERE source = ? AND id = ?", batch.removed_records)
        conn.executemany("DELETE FROM instance_groups WHERE source = ? AND key = ?", batch.removed_groups)
        conn.executemany("DELETE FROM sources WHERE name = ?", ((name,) for name in batch.removed_sources))
        conn.executemany("DELETE FROM services WHERE namespace = ? AND name = ?", batch.removed_services)
        rows.put_records(conn, batch.put_records)
        rows.put_groups(conn, batch.put_groups)
        rows.put_sources(conn, batch.put_sources)
        rows.put_services(conn, batch.put_services)

    def _count(self, counters: Counters) -> None:
        """Store counters so that not even the loss of the log can bring the former ones back."""
        with transaction(self._conn):
            rows.put_meta(self._conn, "counters", counters)
        checkpoint(self._conn)
        self.counters = counters
        self._unsynced_since = None

    def _checkpoint_or_warn(self) -> None:
        """The batch is committed already: a log that grows on for a while is no failure of it."""
        try:
            checkpoint(self._conn)
        except sqlite3.Error as error:
            _logger.warning("log cannot be moved into the database", extra={"path": str(self.path), "error": str(error)})
        else:
            self._unsynced_since = None


_REMEDIES = {
    "SQLITE_FULL": "Free space there",
    "SQLITE_IOERR": "Look at the disk, its quota and its limits",
    "SQLITE_BUSY": "Close the other program that has the database open",
    "SQLITE_READONLY": "Make the directory and its files writable for this process",
    "SQLITE_CANTOPEN": "Make the directory and its files writable for this process",
    "SQLITE_PERM": "Make the directory and its files writable for this process",
    "SQLITE_CORRUPT": "Restart the bridge: it moves the damaged database aside and builds another",
}


def store_error(path: Path, error: Exception) -> StoreError:
    """The error for operators that stands for one of SQLite or of the operating system."""
    name = str(getattr(error, "sqlite_errorname", ""))
    family = "_".join(name.split("_")[:2])
    remedy = _REMEDIES.get(family, "Look at the disk and at the rights of the directory")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StoreError(f"{path}: {reason}. {remedy}.")
