"""Databases that former versions left: their rows come along, and what was bad stays bad."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest
from store_kit import NOW, snapshot_of

from bridge.model import Port, ServiceInstance
from bridge.sync.store import StoredPart, StoredRecord

# Spelled out, so that no later code can change what it was.
TABLES = {
    "meta": "key TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL",
    "records": "source TEXT NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (source, id)",
    "instance_groups": "source TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL,"
    " PRIMARY KEY (source, key)",
    "sources": "name TEXT NOT NULL PRIMARY KEY, value BLOB NOT NULL, checksum BLOB NOT NULL",
    "services": "namespace TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL,"
    " PRIMARY KEY (namespace, name)",
}
SINCE_2 = {
    "sources": f"{TABLES['sources']}, retired_at REAL",
    "gaps": "low INTEGER NOT NULL PRIMARY KEY, high INTEGER NOT NULL, checksum BLOB NOT NULL",
}
PORT = {"name": "http", "port": 8080, "protocol": "TCP", "app_protocol": None}
PLAIN = ("g1", "shop", "web", ("10.0.0.1",), None, "ready", "active", "listed", 1, None, "a", "n1", [[PORT], ["v2"], {"k": "v"}])
OTHER: tuple[Any, ...] = (
    "g2",
    "shop",
    "web",
    (),
    "web.example.org",
    "unready",
    "draining",
    "expired",
    0,
    "eu",
    None,
    None,
    [[], [], {}],
)
Row = tuple[str, bytes, bytes]


def row(id_: str, *parts: Sequence[Any]) -> Row:
    """A sound row of ``records`` up to version 2."""
    value = msgspec.msgpack.encode((NOW, parts))
    return id_, value, row_sum("records", b"main", id_.encode(), value)


def row_sum(table: str, *columns: bytes) -> bytes:
    return blake2b(b"\0".join((table.encode(), *columns)), digest_size=8).digest()


def build(directory: Path, version: int, records: Sequence[Row]) -> None:
    """A database of version 1 or 2."""
    conn = sqlite3.connect(directory / "envbridge.db", isolation_level=None)
    for name, columns in (TABLES if version == 1 else TABLES | SINCE_2).items():
        conn.execute(f"CREATE TABLE {name} ({columns}) WITHOUT ROWID")
    conn.execute(f"PRAGMA user_version = {version}")
    tables = conn.execute("SELECT name, sql FROM sqlite_schema ORDER BY name").fetchall()
    meta = {
        "schema": (version, row_sum("sqlite_schema", *(text.encode() for table in tables for text in table))),
        "identity": {"environment": "eu", "uid": "uid-1", "lineage": "lineage1", "epoch": 7},
        "counters": {"index": 40, "revision": 30, "floor": 0, "ceiling": 10_000, "clean": True},
    }
    for key, value in meta.items():
        blob = msgspec.msgpack.encode(value)
        conn.execute("INSERT INTO meta VALUES (?, ?, ?)", (key, blob, row_sum("meta", key.encode(), blob)))
    conn.executemany("INSERT INTO records VALUES ('main', ?, ?, ?)", records)
    conn.close()


def instance(id_: str, **fields: Any) -> ServiceInstance:
    return ServiceInstance(environment="eu", source="main", id=id_, namespace="shop", service="web", **fields)


@pytest.mark.parametrize("version", [1, 2])
async def test_every_field_of_a_record_comes_along(version: int, tmp_path: Path) -> None:
    build(tmp_path, version, [row("web/1", PLAIN), row("web/2", PLAIN, OTHER)])
    plain = {
        "addresses": ("10.0.0.1",),
        "ports": (Port("http", 8080),),
        "zone": "a",
        "node": "n1",
        "tags": ("v2",),
        "meta": {"k": "v"},
    }
    other = instance(
        "web/2", hostname="web.example.org", health="unready", lifecycle="draining", state="expired", weight=0, region="eu"
    )
    for _ in range(2):
        snapshot = await snapshot_of(tmp_path)
        assert (snapshot.rebuilt, snapshot.identity.lineage, snapshot.index) == (None, "lineage1", 40)
        assert snapshot.records == (
            StoredRecord("main", "web/1", (StoredPart("g1", instance("web/1", **plain)),), NOW),
            StoredRecord("main", "web/2", (StoredPart("g1", instance("web/2", **plain)), StoredPart("g2", other)), NOW),
        )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda id_, value, sum_: (id_, value[:-1] + b"x", sum_), id="another value"),
        pytest.param(lambda id_, value, sum_: ("moved", value, sum_), id="another id"),
        pytest.param(lambda id_, value, _: (id_, value, 12), id="a number for a checksum"),
        pytest.param(lambda id_, *_: row(id_), id="no part"),
        pytest.param(lambda id_, *_: row(id_, PLAIN[:-1]), id="a field less"),
        pytest.param(lambda *_: ("moved", b"\xc1", row_sum("records", b"main", b"moved", b"\xc1")), id="no msgpack"),
    ],
)
async def test_a_bad_record_does_not_become_good(spoil: Callable[..., Row], version: int, tmp_path: Path) -> None:
    build(tmp_path, version, [row("web/1", PLAIN), spoil(*row("web/2", PLAIN))])
    snapshot = await snapshot_of(tmp_path)
    assert [record.id for record in snapshot.records] == ["web/1"]
    assert snapshot.rebuilt == "1 of its records were bad and were dropped"
    assert snapshot.identity.lineage != "lineage1"
