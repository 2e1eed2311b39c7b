"""The versions of the database and the steps between them.

``PRAGMA user_version`` is the version. The row ``schema`` of ``meta`` holds it again, with a digest of the tables as SQLite
describes them, under a checksum: a damaged version number or table definition is told from a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sqlite3 import Connection

from bridge.sync.store.former import record_anew
from bridge.sync.store.reader import get_meta
from bridge.sync.store.rows import checksum, put_meta, source_sum


def _base_tables(conn: Connection) -> None:
    """Version 1: what the daemon knows, and one table about the database itself."""
    for definition in (
        "meta (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL)",
        "records (source TEXT NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (source, id))",
        "instance_groups (source TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL,"
        " PRIMARY KEY (source, key))",
        "sources (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL)",
        "services (namespace TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL,"
        " PRIMARY KEY (namespace, name))",
    ):
        conn.execute(f"CREATE TABLE {definition} WITHOUT ROWID")


def _gaps_and_retirement(conn: Connection) -> None:
    """Version 2: indexes that count as never handed out, and when a source was retired."""
    conn.execute(
        "CREATE TABLE gaps (low INTEGER NOT NULL PRIMARY KEY, high INTEGER NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID"
    )
    rows = conn.execute("SELECT name, value, checksum FROM sources").fetchall()
    conn.execute("ALTER TABLE sources ADD COLUMN retired_at REAL")
    for name, value, old in rows:
        if checksum(b"sources", name, value) == old:  # a bad row keeps its checksum, and so stays bad
            new = source_sum(name, value, None)
            conn.execute("UPDATE sources SET checksum = ? WHERE name = ?", (new, name.decode()))


def _records_anew(conn: Connection) -> None:
    """Version 3: records in another form, with another checksum. Bad rows stay, with none, and so stay bad."""
    conn.execute(
        "CREATE TABLE records_anew (source TEXT NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL,"
        " PRIMARY KEY (source, id)) WITHOUT ROWID"
    )
    conn.executemany(
        "INSERT INTO records_anew VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?, ?)",
        (record_anew(*row) for row in conn.execute("SELECT source, id, value, checksum FROM records")),
    )
    conn.execute("DROP TABLE records")
    conn.execute("ALTER TABLE records_anew RENAME TO records")


STEPS: tuple[Callable[[Connection], None], ...] = (_base_tables, _gaps_and_retirement, _records_anew)
"""The step to version n + 1 at n."""

CURRENT = len(STEPS)
"""The version this code writes."""


@contextmanager
def unfinished(conn: Connection) -> Iterator[None]:
    """A piece of a transaction that is to go on; the first one begins it, and whatever is raised inside rolls all of it back."""
    try:
        if not conn.in_transaction:
            conn.execute("BEGIN IMMEDIATE")
        yield
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


@contextmanager
def transaction(conn: Connection) -> Iterator[None]:
    """All or nothing, with the `unfinished` pieces before; whatever is raised inside, or by the commit itself, rolls back."""
    with unfinished(conn):
        yield
        conn.execute("COMMIT")


def version(conn: Connection) -> int:
    """The version that the database's header names; 0 for an empty one."""
    return int(conn.execute("PRAGMA user_version").fetchone()[0])


def recorded_version(conn: Connection) -> int | None:
    """The version in ``meta`` where it is sound and the tables are as that version left them, else None."""
    recorded = get_meta(conn, "schema", tuple[int, bytes])
    return recorded[0] if recorded is not None and recorded[1] == _digest(conn) else None


def migrate(conn: Connection) -> None:
    """Bring the database to the current version, each step in a transaction of its own. Raises sqlite3.Error."""
    for number in range(version(conn), CURRENT):
        with transaction(conn):
            STEPS[number](conn)
            conn.execute(f"PRAGMA user_version = {number + 1}")
            put_meta(conn, "schema", (number + 1, _digest(conn)))


def _digest(conn: Connection) -> bytes:
    # Without SQLite's own tables: it makes those of its statistics when it likes.
    rows = conn.execute("SELECT name, sql FROM sqlite_schema WHERE substr(name, 1, 7) <> 'sqlite_' ORDER BY name").fetchall()
    return checksum(b"sqlite_schema", *(column for name, sql in rows for column in (name, sql or b"")))
