"""A batch in pieces is one transaction: all of it is stored, or nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs
from store_kit import crashed_copy, open_store, opened, record, snapshot_of

from bridge.errors import StoreError
from bridge.sync.store import Batch, Store, store
from bridge.sync.store.rows import ROWS
from bridge.sync.store.writer import WAITING


def piece(index: int, *numbers: int) -> Batch:
    return Batch(index, index, put_records=tuple(record(number, version=index) for number in numbers))


async def test_pieces_are_stored_together_under_the_last_index(tmp_path: Path) -> None:
    async with opened(tmp_path) as (opened_store, _):
        await opened_store.write(piece(1, 1, 2))
        await opened_store.write_pieces(
            (piece(2, 1, 3), Batch(2, 2, removed_records=(("main", record(2).id),)), piece(3, 4), Batch(4, 5))
        )
    snapshot = await snapshot_of(tmp_path)
    assert {(row.id, row.parts[0].instance.weight) for row in snapshot.records} == {
        (record(1).id, 2),
        (record(3).id, 2),
        (record(4).id, 3),
    }
    assert (snapshot.index, snapshot.revision, snapshot.floor) == (4, 5, 4)


async def test_no_pieces_store_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (opened_store, _):
        await opened_store.write(piece(3, 1))
        await opened_store.write_pieces(())
    assert (await snapshot_of(tmp_path)).index == 3


async def test_a_piece_is_asked_for_when_the_one_before_the_last_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    stored: list[int] = []

    def pieces() -> Iterator[Batch]:
        for number in range(4):
            held.append(number - len(stored))
            yield piece(1, number)

    async with opened(tmp_path) as (opened_store, _):
        put = opened_store._database.put

        def counted(batch: Batch) -> None:
            put(batch)
            stored.append(batch.index)

        monkeypatch.setattr(opened_store._database, "put", counted)
        await opened_store.write_pieces(pieces())
    assert held == [0, 1, 1, 1]


async def test_a_crash_between_pieces_leaves_nothing_of_them(tmp_path: Path) -> None:
    copies: list[Path] = []

    def pieces() -> Iterator[Batch]:
        for number in range(3):
            yield piece(2, number)
            copies.append(crashed_copy(tmp_path / "data", tmp_path / f"copy-{number}"))

    async with opened(tmp_path / "data") as (opened_store, _):
        await opened_store.write(piece(1, 0, 1))
        await opened_store.write_pieces(pieces())
    for copy in copies:
        snapshot = await snapshot_of(copy)
        assert snapshot.records == (record(0, version=1), record(1, version=1))
        assert (snapshot.index, snapshot.rebuilt) == (1, None)


async def test_pieces_that_cannot_be_made_leave_nothing_and_the_next_write_is_whole(tmp_path: Path) -> None:
    def pieces() -> Iterator[Batch]:
        yield piece(1, 1)
        yield piece(1, 2)
        raise RuntimeError("no more")

    async with opened(tmp_path) as (opened_store, _):
        with pytest.raises(RuntimeError, match="no more"):
            await opened_store.write_pieces(pieces())
        await opened_store.reserve(5)
        await opened_store.write(piece(2, 3))
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.records, snapshot.index) == ((record(3, version=2),), 2)


async def test_an_index_that_goes_back_between_pieces_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as (opened_store, _):
        await opened_store.write(piece(2, 1))
        with pytest.raises(ValueError, match="index 1 is below 2"):
            await opened_store.write_pieces((piece(3, 2), piece(1, 3), piece(3, 4)))
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.records, snapshot.index) == ((record(1, version=2),), 2)


async def test_a_disk_that_refuses_a_piece_undoes_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as (opened_store, _):
        await opened_store.write(piece(1, 1))
        with monkeypatch.context() as patched:
            patched.setattr(opened_store._database, "apply", _no_space)
            with pytest.raises(StoreError):
                await opened_store.write_pieces((piece(2, 1), piece(2, 2), piece(2, 3)))
        await opened_store.write(piece(3, 4))
    snapshot = await snapshot_of(tmp_path)
    assert snapshot.records == (record(1, version=1), record(4, version=3))


def far_too_many(begun: asyncio.Event) -> Iterator[Batch]:
    """Pieces without end, as far as a test goes; ``begun``: some of them are stored."""
    for number in range(100_000):
        if number == 3:
            begun.set()
        yield piece(1, number % 50)


async def test_a_write_cancelled_between_pieces_leaves_nothing(tmp_path: Path) -> None:
    opened_store, _ = open_store(tmp_path)
    begun = asyncio.Event()

    writing = asyncio.create_task(opened_store.write_pieces(far_too_many(begun)))
    await asyncio.wait_for(begun.wait(), 5)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await opened_store.close()
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.records, snapshot.index) == ((), 0)
    assert snapshot.floor == 10_000, "indexes may have been handed out that were not stored"


async def test_other_calls_wait_for_the_last_piece(tmp_path: Path) -> None:
    others: list[asyncio.Task[None]] = []

    def pieces() -> Iterator[Batch]:
        for number in range(5):
            if number == 2:
                others.extend(
                    asyncio.create_task(call)
                    for call in (opened_store.compact(), opened_store.reserve(9), opened_store.write(late))
                )
            assert not any(other.done() for other in others)
            yield piece(2, number)

    late = piece(3, 9)
    async with opened(tmp_path) as (opened_store, _):
        await opened_store.write_pieces(pieces())
        await asyncio.gather(*others)
    snapshot = await snapshot_of(tmp_path)
    written = [*(record(number, version=2) for number in range(5)), late.put_records[0]]
    assert snapshot.records == tuple(sorted(written, key=lambda row: row.id))
    assert (snapshot.index, snapshot.rebuilt) == (3, None)


async def test_closing_ends_a_write_between_its_pieces(tmp_path: Path) -> None:
    opened_store, _ = open_store(tmp_path)
    begun = asyncio.Event()

    writing = asyncio.create_task(opened_store.write_pieces(far_too_many(begun)))
    await asyncio.wait_for(begun.wait(), 5)
    await opened_store.close()
    with pytest.raises(StoreError):
        await asyncio.wait_for(writing, 5)
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.records, snapshot.index, snapshot.floor) == ((), 0, 10_000)


async def test_what_a_hanging_disk_made_of_a_piece_is_undone_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WRITE_DEADLINE", 0.05)
    release = threading.Event()
    async with opened(tmp_path) as (opened_store, _):
        put = opened_store._database.put
        monkeypatch.setattr(opened_store._database, "put", lambda batch: (release.wait(10), put(batch)))
        for _ in range(WAITING + 3):
            with pytest.raises(StoreError, match="not answered"):
                await opened_store.write_pieces((piece(1, 1), piece(1, 2)))
        release.set()
        monkeypatch.setattr(store, "WRITE_DEADLINE", 10.0)
        await _until_written(opened_store, piece(2, 3))
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.records, snapshot.index) == ((record(3, version=2),), 2)


@pytest.mark.parametrize("count", [ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 1])
async def test_rows_of_several_sources_and_bad_ones_among_many_are_stored_one_by_one(count: int, tmp_path: Path) -> None:
    rows = [record(number, source="main" if number % 3 else "other") for number in range(count)]
    bad = {0, count // 2, count - 1}
    put = tuple(structs.replace(row, parts=()) if number in bad else row for number, row in enumerate(rows))
    async with opened(tmp_path) as (opened_store, _):
        await opened_store.write(Batch(1, 1, put_records=put))
    stored = (await snapshot_of(tmp_path)).records
    assert {repr(row) for row in stored} == {repr(row) for number, row in enumerate(rows) if number not in bad}


def _no_space(batch: Batch) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def _until_written(opened_store: Store, batch: Batch) -> None:
    """Write as soon as the thread takes calls again."""
    async with asyncio.timeout(5):
        while True:
            try:
                await opened_store.write(batch)
            except StoreError:
                await asyncio.sleep(0.01)
            else:
                return
