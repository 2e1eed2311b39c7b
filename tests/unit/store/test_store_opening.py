"""Whose directory it is, and which version."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import uuid
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
from store_kit import NOW, batch_contents, contents, full_batch, names, open_store, opened, snapshot_of

from bridge.errors import StoreError
from bridge.model import ServiceName
from bridge.sync.store import Identity, StoredGroup, StoredService, StoredSource

VERSION_1 = (
    "CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE records (source TEXT NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL,"
    " PRIMARY KEY (source, id)) WITHOUT ROWID",
    "CREATE TABLE instance_groups (source TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL,"
    " PRIMARY KEY (source, key)) WITHOUT ROWID",
    "CREATE TABLE sources (name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE services (namespace TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL,"
    " PRIMARY KEY (namespace, name)) WITHOUT ROWID",
)
HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "r+")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def row_sum(table: str, *columns: bytes) -> bytes:
    return blake2b(b"\0".join((table.encode(), *columns)), digest_size=8).digest()


def build_version_1(directory: Path, *, clean: bool = True, spoil_source: bool = False) -> None:
    """A database as version 1 of the schema wrote it, spelled out, so that no later code can change what it was."""
    conn = sqlite3.connect(directory / "envbridge.db", isolation_level=None)
    for definition in VERSION_1:
        conn.execute(definition)
    conn.execute("PRAGMA user_version = 1")
    tables = conn.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    digest = row_sum("sqlite_schema", *(text.encode() for row in tables for text in row))
    meta = {
        "schema": (1, digest),
        "identity": {"environment": "eu", "uid": "uid-1", "lineage": "lineage1", "epoch": 7},
        "counters": {"index": 40, "revision": 30, "floor": 0, "ceiling": 10_000, "clean": clean},
    }
    for key, value in meta.items():
        blob = msgspec.msgpack.encode(value)
        conn.execute("INSERT INTO meta VALUES (?, ?, ?)", (key, blob, row_sum("meta", key.encode(), blob)))
    for table, first, second, value in (
        ("instance_groups", "main", "shop/web", [["shop", "web"]]),
        ("services", "shop", "web", [12, None]),
    ):
        blob = msgspec.msgpack.encode(value)
        sum_ = row_sum(table, first.encode(), second.encode(), blob)
        conn.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", (first, second, blob, sum_))
    for name in ("main", "spoiled") if spoil_source else ("main",):
        blob = msgspec.msgpack.encode(["file", NOW, ["shop"]])
        sum_ = row_sum("sources", name.encode(), blob) if name == "main" else b"8 bytes."
        conn.execute("INSERT INTO sources VALUES (?, ?, ?)", (name, blob, sum_))
    conn.close()


async def test_version_1_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    build_version_1(tmp_path)
    for _ in range(2):
        snapshot = await snapshot_of(tmp_path)
        assert snapshot.rebuilt is None
        assert (snapshot.identity.uid, snapshot.identity.lineage) == ("uid-1", "lineage1")
        assert (snapshot.index, snapshot.revision, snapshot.floor, snapshot.gaps) == (40, 30, 40, ())
        assert snapshot.sources == (StoredSource("main", "file", NOW, ("shop",), None),)
        assert snapshot.groups == (StoredGroup("main", "shop/web", (ServiceName("shop", "web"),)),)
        assert snapshot.services == (StoredService("shop", "web", 12, None),)
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch(41))
    retired = {source.name: source.retired_at for source in (await snapshot_of(tmp_path)).sources}
    assert retired == {"main": None, "old": NOW}


async def test_version_1_after_a_crash_gets_its_gap(tmp_path: Path) -> None:
    build_version_1(tmp_path, clean=False)
    assert (await snapshot_of(tmp_path)).gaps == ((40, 10_000),)


async def test_upgrading_does_not_make_a_bad_row_good(tmp_path: Path) -> None:
    build_version_1(tmp_path, spoil_source=True)
    snapshot = await snapshot_of(tmp_path)
    assert [source.name for source in snapshot.sources] == ["main"]
    assert snapshot.rebuilt == "1 of its sources were bad and were dropped"
    assert snapshot.identity.lineage != "lineage1"


async def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch())
    conn = sqlite3.connect(tmp_path / "envbridge.db", isolation_level=None)
    conn.execute("CREATE TABLE of_the_future (name TEXT)")
    conn.execute("PRAGMA user_version = 4")
    blob = msgspec.msgpack.encode((4, b"whatever"))
    conn.execute("UPDATE meta SET value = ?, checksum = ? WHERE key = 'schema'", (blob, row_sum("meta", b"schema", blob)))
    conn.close()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"has version 4.* up to 3\. Upgrade envbridge, or restore a backup"):
            open_store(tmp_path)
    assert names(tmp_path) == ["envbridge.db", "envbridge.lock"]


async def test_another_environment_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch())
    with pytest.raises(StoreError, match=r"`eu`, not to `us`\. Correct the configuration"):
        open_store(tmp_path, environment="us")
    assert contents(await snapshot_of(tmp_path)) == batch_contents(full_batch())


async def test_another_uid_is_refused(tmp_path: Path) -> None:
    await snapshot_of(tmp_path, uid="uid-1")
    with pytest.raises(StoreError, match=r"uid uid-1.*environment_uid uid-2\. Correct"):
        open_store(tmp_path, uid="uid-2")
    assert (await snapshot_of(tmp_path)).identity.uid == "uid-1"


async def test_identity_stays_and_the_epoch_grows(tmp_path: Path) -> None:
    first = (await snapshot_of(tmp_path)).identity
    assert first == Identity("eu", str(uuid.UUID(first.uid)), first.lineage, int(NOW * 1000))
    assert first.lineage.isalnum()
    assert first.lineage == first.lineage.lower()
    back = (await snapshot_of(tmp_path, wall=NOW - 3600)).identity
    assert back == Identity("eu", first.uid, first.lineage, first.epoch + 1)
    later = (await snapshot_of(tmp_path, wall=NOW + 60)).identity
    assert later.epoch == int((NOW + 60) * 1000)


async def test_statistics_of_sqlite_itself_are_no_damage(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch())
    conn = sqlite3.connect(tmp_path / "envbridge.db", isolation_level=None)
    conn.execute("ANALYZE")
    conn.close()
    snapshot = await snapshot_of(tmp_path)
    assert snapshot.rebuilt is None
    assert contents(snapshot) == batch_contents(full_batch())


def hold(lock: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock."""
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)


async def test_a_second_bridge_is_told_who_has_the_directory(tmp_path: Path) -> None:
    await snapshot_of(tmp_path)
    lock = tmp_path / "envbridge.lock"
    with hold(lock) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            lock.write_text(f"{holder.pid}\n")
            with pytest.raises(StoreError, match=rf"process {holder.pid}\)\. Stop that one, or give this one a data_dir"):
                open_store(tmp_path)
        finally:
            holder.kill()
    assert (await snapshot_of(tmp_path)).rebuilt is None


async def test_a_second_store_in_this_process_is_refused_until_the_first_is_closed(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(StoreError, match="in use"):
            open_store(tmp_path)
    await snapshot_of(tmp_path)


def test_a_directory_that_cannot_be_is_told_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Make it a directory that this process may write to"):
        open_store(tmp_path / "file")


async def test_a_program_that_reads_along_is_not_taken_for_damage(tmp_path: Path) -> None:
    await snapshot_of(tmp_path)
    other = sqlite3.connect(tmp_path / "envbridge.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StoreError, match="Close the other program that has the database open"):
            open_store(tmp_path)
    finally:
        other.close()
    assert (await snapshot_of(tmp_path)).rebuilt is None
