"""What the tests of the store share: a clock, rows, and a way to stop a store as a crash would."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.aio import SystemClock
from bridge.model import Port, ServiceInstance, ServiceName
from bridge.sync.store import Batch, Snapshot, Store, StoredGroup, StoredPart, StoredRecord, StoredService, StoredSource

NOW = 1_800_000_000.0


class WallClock(SystemClock):
    """A clock whose wall time is set by hand."""

    def __init__(self, wall: float = NOW) -> None:
        self.now = wall

    def wall(self) -> float:
        return self.now


def record(number: int, version: int = 0, *, source: str = "main") -> StoredRecord:
    """A record whose content tells its ``version``."""
    id_ = f"shop/web-{number % 7}/{number:06d}"
    instance = ServiceInstance(
        environment="eu",
        source=source,
        id=id_,
        namespace="shop",
        service=f"web-{number % 7}",
        addresses=(f"10.0.{number // 256}.{number % 256}",),
        ports=(Port("http", 8080),),
        weight=version,
        zone="eu-west-1a",
        tags=("v2",),
        meta={"team": "checkout"},
    )
    return StoredRecord(source, id_, (StoredPart(f"shop/web-{number % 7}-abc", instance),), NOW + number)


def open_store(directory: Path, *, environment: str = "eu", uid: str | None = None, wall: float = NOW) -> tuple[Store, Snapshot]:
    return Store.open(directory, environment=environment, environment_uid=uid, clock=WallClock(wall))


@asynccontextmanager
async def opened(
    directory: Path, *, environment: str = "eu", uid: str | None = None, wall: float = NOW
) -> AsyncIterator[tuple[Store, Snapshot]]:
    """An open store and what it held; closed in order at the end."""
    store, snapshot = open_store(directory, environment=environment, uid=uid, wall=wall)
    try:
        yield store, snapshot
    finally:
        await store.close()


async def snapshot_of(directory: Path, *, uid: str | None = None, wall: float = NOW) -> Snapshot:
    """What a directory holds; opened and closed in order."""
    async with opened(directory, uid=uid, wall=wall) as (_, snapshot):
        return snapshot


def names(directory: Path, pattern: str = "*") -> list[str]:
    """The names of the files in a directory, sorted."""
    return sorted(path.name for path in directory.glob(pattern))


def crashed_copy(directory: Path, target: Path) -> Path:
    """The files of an open store as a crash at this moment would leave them."""
    return Path(shutil.copytree(directory, target))


def full_batch(index: int = 1) -> Batch:
    """A batch with rows in every table."""
    return Batch(
        index=index,
        revision=index,
        put_records=tuple(record(number) for number in range(20)),
        put_groups=tuple(StoredGroup("main", f"shop/web-{n}-abc", (ServiceName("shop", f"web-{n}"),)) for n in range(7)),
        put_sources=(StoredSource("main", "file", NOW, ("shop",), None), StoredSource("old", "kubernetes", None, (), NOW)),
        put_services=tuple(StoredService("shop", f"web-{n}", index, NOW if n == 0 else None) for n in range(7)),
    )


def contents(snapshot: Snapshot) -> tuple[frozenset[object], ...]:
    """The rows of a snapshot, without order; records by their text, since meta dicts have no hash."""
    return (
        frozenset(repr(row) for row in snapshot.records),
        frozenset(snapshot.groups),
        frozenset(snapshot.sources),
        frozenset(snapshot.services),
    )


def batch_contents(batch: Batch) -> tuple[frozenset[object], ...]:
    """The same of a batch that fills an empty store."""
    return (
        frozenset(repr(row) for row in batch.put_records),
        frozenset(batch.put_groups),
        frozenset(batch.put_sources),
        frozenset(batch.put_services),
    )
