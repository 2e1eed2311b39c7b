"""A disk that is full, slow, or loses its process in the middle."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_child import ROWS, batch
from store_kit import open_store, opened, record, snapshot_of

from bridge.errors import StoreError
from bridge.sync.store import Batch, Store, store
from bridge.sync.store.writer import WAITING, Writer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(mounted)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def grow(disk: Path) -> None:
    """Give a small disk space."""
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)


async def write_until_full(store: Store) -> int:
    """Write batches until the disk refuses; the index of the last one stored."""
    for index in range(1, 400):
        try:
            await store.write(batch(index))
        except StoreError:
            with pytest.raises(StoreError, match=r"full\. Free space there"):
                await store.write(batch(index))
            return index - 1
    raise AssertionError("the disk never became full")


def start_child(task: str, directory: Path) -> subprocess.Popen[str]:
    """`disk_child` in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("disk_child.py")), task, str(directory)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


async def test_a_full_disk_is_told_and_writing_goes_on_when_there_is_space(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    async with opened(small_disk / "data") as (store, _):
        stored = await write_until_full(store)
        for _ in range(3):
            with pytest.raises(StoreError):
                await store.write(batch(stored + 1))
        ballast.unlink()
        await store.write(batch(stored + 1))
    snapshot = await snapshot_of(small_disk / "data")
    assert (snapshot.index, snapshot.rebuilt, snapshot.gaps) == (stored + 1, None, ())
    assert len(snapshot.records) == (stored + 1) * ROWS


async def test_a_stop_while_the_disk_is_full_loses_nothing_that_was_stored(small_disk: Path) -> None:
    store, _ = open_store(small_disk / "data")
    stored = await write_until_full(store)
    await store.close()
    grow(small_disk)
    snapshot = await snapshot_of(small_disk / "data")
    assert (snapshot.index, snapshot.rebuilt) == (stored, None)
    assert snapshot.floor == 10_000, "indexes were handed out that could not be stored"
    assert len(snapshot.records) == stored * ROWS


async def test_a_limit_of_file_sizes_is_told_and_writing_goes_on_when_it_is_lifted(tmp_path: Path) -> None:
    with start_child("limit", tmp_path) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    *errors, last = output.splitlines()
    stored = int(last.split()[1])
    assert last == f"stored {stored} refusals 3"
    assert all("Look at the disk, its quota and its limits" in error for error in errors)
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.index, snapshot.floor, len(snapshot.records)) == (stored + 1, stored + 1, (stored + 1) * ROWS)
    assert snapshot.rebuilt is None


async def test_kill_at_any_moment_leaves_index_and_data_as_one(tmp_path: Path) -> None:
    generator = random.Random(4)
    handed_out = 0
    for _ in range(int(os.environ.get("ENVBRIDGE_TEST_KILLS", "6"))):
        with start_child("kill", tmp_path) as child:
            assert child.stdout is not None
            first = int(child.stdout.readline())
            assert first > handed_out, "an index was handed out twice"
            await asyncio.sleep(generator.uniform(0, 0.15))
            child.kill()
            acknowledged = [first, *(int(line) for line in child.stdout.read().splitlines())][-1]
        store, snapshot = open_store(tmp_path)
        try:
            assert snapshot.rebuilt is None
            assert snapshot.index in (acknowledged, acknowledged + 1), "what was acknowledged is stored"
            assert {row.parts[0].instance.weight for row in snapshot.records} == {snapshot.index}
            assert len(snapshot.records) == ROWS
            assert snapshot.revision == snapshot.index
            assert (snapshot.index, snapshot.floor) in snapshot.gaps
            handed_out = snapshot.floor
        finally:
            await store.close()


async def test_a_disk_that_hangs_costs_a_deadline_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WRITE_DEADLINE", 0.05)
    async with opened(tmp_path) as (opened_store, _):
        release = threading.Event()
        apply = opened_store._database.apply
        monkeypatch.setattr(opened_store._database, "apply", lambda batch: (release.wait(10), apply(batch)))
        for _ in range(WAITING + 3):
            with pytest.raises(StoreError, match="not answered"):
                await opened_store.write(Batch(1, 1, put_records=(record(1),)))
        release.set()
        monkeypatch.setattr(store, "WRITE_DEADLINE", 10.0)
        await until_written(opened_store, Batch(2, 2, put_records=(record(2),)))
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.records, snapshot.index, snapshot.floor) == ((record(1), record(2)), 2, 2)


async def until_written(opened_store: Store, batch: Batch) -> None:
    """Write as soon as the thread takes calls again."""
    deadline = time.monotonic() + 5
    while True:
        try:
            await opened_store.write(batch)
        except StoreError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        else:
            return


async def test_what_was_committed_is_on_the_disk_a_second_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[float] = []
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def sync(fd: int) -> None:
        synced.append(time.monotonic())
        loop.call_soon_threadsafe(told.set)

    monkeypatch.setattr(os, "fdatasync", sync)
    async with opened(tmp_path) as (opened_store, _):
        started = time.monotonic()
        for index in (1, 2, 3):
            await opened_store.write(Batch(index, index, put_records=(record(index),)))
        await asyncio.wait_for(told.wait(), 5)
        assert synced[0] - started >= 1.0
    assert len(synced) == 1


async def test_the_thread_runs_calls_in_order_and_drops_those_given_up() -> None:
    writer = Writer("test")
    release, ran = threading.Event(), []
    writer.submit(lambda: release.wait(10))
    with pytest.raises(StoreError, match="not answered"):
        await writer.call(lambda: ran.append("given up"), deadline=0.01)
    later = [writer.submit(lambda number=number: ran.append(number)) for number in range(2)]
    release.set()
    for future in later:
        await asyncio.wait_for(asyncio.wrap_future(future), 5)
    assert ran == [0, 1]
    writer.stop()
