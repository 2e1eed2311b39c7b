"""How a data directory becomes an open database: locked, of this environment, of this version, and sound, or made anew.

Whatever is found damaged is moved aside, and a database with a new lineage takes its place. Rows that are sound in a
database whose structure is sound are kept; nothing else is trusted.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace

from bridge.errors import StoreError
from bridge.intern import Interner
from bridge.sync.store import rows, schema
from bridge.sync.store.database import RESERVE, Counters, Database, checkpoint, open_connection
from bridge.sync.store.directory import companions, move_aside, remove, sync_directory
from bridge.sync.store.loading import collector_paused
from bridge.sync.store.reader import Reader, get_meta
from bridge.sync.store.records import Identity, Snapshot, StoredGroup, StoredRecord, StoredService, StoredSource

NAME = "envbridge.db"
MAX_GAPS = 1_000

_SURROUNDINGS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_NOMEM", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR")
_UNREADABLE = {"SQLITE_IOERR_READ", "SQLITE_IOERR_SHORT_READ", "SQLITE_IOERR_CORRUPTFS"}


class Contents(Struct):
    """What a database holds."""

    counters: Counters = Counters()
    gaps: tuple[tuple[int, int], ...] = ()
    sources: tuple[StoredSource, ...] = ()
    groups: tuple[StoredGroup, ...] = ()
    records: tuple[StoredRecord, ...] = ()
    services: tuple[StoredService, ...] = ()


class Damage(Exception):  # noqa: N818  # no failure of ours: it decides what is opened
    """The database cannot be served: why, whose it was if that is known, and what of it is sound."""

    def __init__(self, reason: str, identity: Identity | None = None, contents: Contents | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.identity = identity
        self.contents = contents if contents is not None else Contents()


def open_database(
    data_dir: Path, *, environment: str, environment_uid: str | None, now: float, interner: Interner
) -> tuple[Database, Snapshot]:
    """Open the database in a locked directory, or make one. ``now``: wall seconds.

    Raises StoreError for a database of another environment or of a newer version, and sqlite3.Error or OSError where the disk
    does not let us read or write.
    """
    path, fresh = data_dir / NAME, data_dir / f"{NAME}.new"
    rebuilt: str | None = None
    try:
        conn, identity, contents = _load(path, environment, environment_uid, interner)
    except Damage as damage:
        rebuilt = damage.reason if path.exists() else None
        uid = environment_uid or (damage.identity.uid if damage.identity is not None else str(uuid4()))
        epoch = damage.identity.epoch if damage.identity is not None else 0
        identity = Identity(environment, uid, secrets.token_hex(8), epoch)
        contents = damage.contents
        _build(fresh, identity, contents)
        if path.exists():
            move_aside(path, now)
        remove(path)  # a log without its database must not meet the next one
        fresh.replace(path)
        sync_directory(data_dir)
        conn = open_connection(path)
    try:
        return _begin(conn, path, identity, contents, now, rebuilt)
    except BaseException:
        conn.close()
        raise


def _load(
    path: Path, environment: str, environment_uid: str | None, interner: Interner
) -> tuple[sqlite3.Connection, Identity, Contents]:
    """Read an existing database. Raises Damage where there is none to be trusted, otherwise as `open_database`."""
    _check_file(path)
    identity: Identity | None = None
    try:
        conn = open_connection(path)
        try:
            identity = get_meta(conn, "identity", Identity)
            _check_environment(path, identity, environment, environment_uid)
            _check_version(path, conn, identity)
            identity = _check_structure(conn, identity)
            schema.migrate(conn)
            return conn, identity, _read(conn, identity, interner)
        except BaseException:
            conn.close()
            raise
    except sqlite3.Error as error:
        name = str(getattr(error, "sqlite_errorname", ""))
        if name.startswith(_SURROUNDINGS) and name not in _UNREADABLE:
            raise
        raise Damage(f"it cannot be read: {error}", identity) from None


def _check_file(path: Path) -> None:
    """Raise Damage where there is no file that we may use; give it mode 0600 where it has another."""
    if not path.exists():
        raise Damage("there is none")
    if not path.is_file():
        raise Damage("it is no file")
    status = path.stat()
    if status.st_size == 0:
        raise Damage("its file is empty")
    if status.st_uid == os.geteuid() and status.st_mode & 0o777 != 0o600:
        path.chmod(0o600)
    for part in companions(path):
        if part.exists() and not os.access(part, os.R_OK | os.W_OK):
            raise Damage(f"{part.name} belongs to another user")


def _check_environment(path: Path, identity: Identity | None, environment: str, environment_uid: str | None) -> None:
    if identity is None:
        return
    remedy = "Correct the configuration, or give this environment a data_dir of its own"
    if identity.environment != environment:
        raise StoreError(f"{path} belongs to the environment `{identity.environment}`, not to `{environment}`. {remedy}.")
    if environment_uid is not None and identity.uid != environment_uid:
        raise StoreError(
            f"{path} belongs to the environment `{environment}` with the uid {identity.uid}, the configuration says"
            f" `{environment}` with environment_uid {environment_uid}. {remedy}."
        )


def _check_version(path: Path, conn: sqlite3.Connection, identity: Identity | None) -> None:
    found, recorded = schema.version(conn), schema.recorded_version(conn)
    if found > schema.CURRENT and (recorded is None or recorded == found):
        raise StoreError(
            f"{path} has version {found}, this bridge knows up to {schema.CURRENT}. Upgrade envbridge, or restore a backup."
        )
    if found != recorded:
        raise Damage("its description is damaged", identity)


def _check_structure(conn: sqlite3.Connection, identity: Identity | None) -> Identity:
    if conn.execute("PRAGMA quick_check(1)").fetchone()[0] != b"ok":
        raise Damage("its structure is damaged", identity)
    if identity is None:
        raise Damage("its identity is damaged")
    return identity


def _read(conn: sqlite3.Connection, identity: Identity, interner: Interner) -> Contents:
    reader = Reader(conn, environment=identity.environment, interner=interner)
    counters = get_meta(conn, "counters", Counters)
    with collector_paused():
        contents = Contents(
            gaps=reader.gaps(),
            sources=reader.sources(),
            groups=reader.groups(),
            records=reader.records(),
            services=reader.services(),
        )
    if counters is not None and not reader.bad:
        contents.counters = counters
        return contents
    lost = [f"{count} of its {table} were bad and were dropped" for table, count in reader.bad.items()]
    if counters is None:
        lost.append("its counters were bad")
        highest = max((service.index for service in contents.services), default=0)
        counters = Counters(index=highest, ceiling=highest)
    contents.counters = replace(counters, floor=max(counters.index, counters.floor, counters.ceiling), clean=True)
    contents.gaps = ()  # they speak of cursors of a lineage that ends here
    raise Damage("; ".join(lost), identity, contents)


def _build(path: Path, identity: Identity, contents: Contents) -> None:
    """Make a complete database at ``path``, so that it can take its place in one step."""
    remove(path)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    conn = open_connection(path)
    try:
        schema.migrate(conn)
        with schema.transaction(conn):
            rows.put_records(conn, contents.records)
            rows.put_groups(conn, contents.groups)
            rows.put_sources(conn, contents.sources)
            rows.put_services(conn, contents.services)
            rows.put_meta(conn, "identity", identity)
            rows.put_meta(conn, "counters", contents.counters)
        checkpoint(conn)
    finally:
        conn.close()


def _begin(
    conn: sqlite3.Connection, path: Path, identity: Identity, contents: Contents, now: float, rebuilt: str | None
) -> tuple[Database, Snapshot]:
    """Take the database over: a new epoch, a floor to count from, and a ceiling to count to, before anything is handed out."""
    last = contents.counters
    floor, gaps = max(last.index, last.floor), contents.gaps
    if not last.clean:
        floor = max(floor, last.ceiling)
        gaps = add_gap(gaps, last.index, floor)
    identity = replace(identity, epoch=max(identity.epoch + 1, int(now * 1000)))
    counters = replace(last, floor=floor, ceiling=floor + RESERVE, clean=False)
    with schema.transaction(conn):
        rows.put_meta(conn, "identity", identity)
        rows.put_meta(conn, "counters", counters)
        rows.put_gaps(conn, gaps)
    checkpoint(conn)
    snapshot = Snapshot(
        identity=identity,
        revision=last.revision,
        index=last.index,
        floor=floor,
        gaps=gaps,
        sources=contents.sources,
        groups=contents.groups,
        records=contents.records,
        services=contents.services,
        rebuilt=rebuilt,
    )
    return Database(conn, path, counters), snapshot


def add_gap(gaps: tuple[tuple[int, int], ...], low: int, high: int) -> tuple[tuple[int, int], ...]:
    """The gaps with ``(low, high]``, which ends above them all; at most 1,000, the oldest joined with what lies between them."""
    if low >= high:
        return gaps
    kept = [gap for gap in gaps if gap[1] < low]
    joined = [gap for gap in gaps if gap[1] >= low]
    kept.append((min([low, *(gap[0] for gap in joined)]), high))
    surplus = len(kept) - MAX_GAPS
    if surplus > 0:
        kept[: surplus + 1] = [(kept[0][0], kept[surplus][1])]
    return tuple(kept)
