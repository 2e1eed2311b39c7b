"""Indexes never go back, and none that was lost counts as handed out (semantics 4.6, W2)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_kit import crashed_copy, opened, record, snapshot_of

from bridge.errors import StoreError
from bridge.sync.store import Batch
from bridge.sync.store.opening import MAX_GAPS, add_gap


async def test_a_new_database_counts_from_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, snapshot):
        assert (snapshot.index, snapshot.floor, snapshot.gaps, snapshot.revision) == (0, 0, (), 0)
        assert store.ceiling() == 10_000


async def test_after_a_clean_stop_counting_goes_on_exactly(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(Batch(123, 100, put_records=(record(1),)))
    async with opened(tmp_path) as (store, snapshot):
        assert (snapshot.index, snapshot.floor, snapshot.gaps, snapshot.revision) == (123, 123, (), 100)
        assert store.ceiling() == 10_123


async def test_after_a_crash_counting_goes_on_from_the_ceiling(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as (store, _):
        await store.write(Batch(123, 100))
        crashed = crashed_copy(tmp_path / "data", tmp_path / "crashed")
    async with opened(crashed) as (store, snapshot):
        assert (snapshot.index, snapshot.floor, snapshot.gaps) == (123, 10_000, ((123, 10_000),))
        assert store.ceiling() == 20_000
        await store.write(Batch(10_001, 101))
    snapshot = await snapshot_of(crashed)
    assert (snapshot.index, snapshot.floor, snapshot.gaps) == (10_001, 10_001, ((123, 10_000),))


async def test_crash_after_crash_joins_the_gaps(tmp_path: Path) -> None:
    directory = tmp_path / "0"
    async with opened(directory) as (store, _):
        await store.write(Batch(5, 5))
        directory = crashed_copy(directory, tmp_path / "1")
    for number in (2, 3):
        async with opened(directory):
            directory = crashed_copy(directory, tmp_path / str(number))
    snapshot = await snapshot_of(directory)
    assert (snapshot.index, snapshot.floor, snapshot.gaps) == (5, 30_000, ((5, 30_000),))


async def test_a_clean_stop_without_a_write_does_not_go_back_behind_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as (store, _):
        await store.write(Batch(5, 5))
        crashed = crashed_copy(tmp_path / "data", tmp_path / "crashed")
    for _ in range(2):
        assert (await snapshot_of(crashed)).floor == 10_000


async def test_a_reservation_is_on_disk_when_it_returns_even_if_the_log_is_lost(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as (store, _):
        await store.write(Batch(7_000, 1, put_records=(record(1),)))
        await store.reserve(7_000)
        assert store.ceiling() == 17_000
        await store.write(Batch(16_000, 2, put_records=(record(2),)))
        crashed = crashed_copy(tmp_path / "data", tmp_path / "crashed")
    (crashed / "envbridge.db-wal").unlink()
    snapshot = await snapshot_of(crashed)
    assert (snapshot.index, snapshot.floor, snapshot.gaps) == (7_000, 17_000, ((7_000, 17_000),))
    assert snapshot.records == (record(1),)
    assert snapshot.rebuilt is None


async def test_the_first_opening_is_on_disk_before_anything_is_handed_out(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as (store, _):
        await store.write(Batch(42, 1))
    async with opened(tmp_path / "data"):
        crashed = crashed_copy(tmp_path / "data", tmp_path / "crashed")
    (crashed / "envbridge.db-wal").unlink()
    assert (await snapshot_of(crashed)).gaps == ((42, 10_042),)


async def test_an_index_beyond_the_ceiling_is_not_lost_in_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "data") as (store, _):
        await store.write(Batch(50_000, 1))
        crashed = crashed_copy(tmp_path / "data", tmp_path / "crashed")
    assert (await snapshot_of(crashed)).floor == 50_000


async def test_a_close_after_a_failed_write_is_no_clean_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(Batch(5, 5))
        monkeypatch.setattr(store._database, "apply", _no_space)
        with pytest.raises(StoreError):
            await store.write(Batch(9, 9))
    assert (await snapshot_of(tmp_path)).floor == 10_000


async def test_a_write_that_works_again_makes_the_close_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as (store, _):
        with monkeypatch.context() as patched:
            patched.setattr(store._database, "apply", _no_space)
            with pytest.raises(StoreError):
                await store.write(Batch(9, 9))
        await store.write(Batch(9, 9))
    assert (await snapshot_of(tmp_path)).floor == 9


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_gaps_ascend_and_stay_apart(steps: list[tuple[int, int]]) -> None:
    gaps: tuple[tuple[int, int], ...] = ()
    lost: set[int] = set()
    high = 0
    for handed_out, reserved in steps:
        low = high + handed_out
        high = low + reserved
        gaps = add_gap(gaps, low, high)
        lost.update(range(low + 1, high + 1))
    assert {index for low, top in gaps for index in range(low + 1, top + 1)} == lost
    assert all(before[1] < after[0] for before, after in pairwise(gaps))


def test_too_many_gaps_are_joined_so_that_more_indexes_count_as_lost_never_fewer() -> None:
    gaps: tuple[tuple[int, int], ...] = ()
    added = [(number * 10, number * 10 + 5) for number in range(1, MAX_GAPS + 251)]
    for low, high in added:
        gaps = add_gap(gaps, low, high)
    assert len(gaps) == MAX_GAPS
    assert all(any(low <= gap[0] and gap[1] <= high for low, high in gaps) for gap in added)
    assert gaps[1:] == tuple(added[-MAX_GAPS + 1 :])


def _no_space(batch: Batch) -> None:
    raise OSError(28, "No space left on device")
