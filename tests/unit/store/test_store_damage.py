"""Whatever happens to the files: what is served was written, and belongs together, or the store says that it was made anew."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
from pathlib import Path
from zlib import crc32

import pytest
from store_kit import NOW, batch_contents, contents, crashed_copy, full_batch, names, open_store, opened, record, snapshot_of

from bridge.errors import StoreError
from bridge.sync.store import Batch, Snapshot

STEPS = 12
ROWS = 60
DATABASE = "envbridge.db"
ALIKE_IS_NONE = b"\x97\xc0\x90\xc0\xc0\x80\x01\x90"
UID = "7d0c2c5e-0000-4000-8000-000000000001"


def expected(index: int) -> frozenset[str]:
    """The records at ``index``: each step rewrites all of them."""
    return frozenset(repr(record(number, version=index)) for number in range(ROWS)) if index else frozenset()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory after a clean stop, and one after a crash with most of its rows in the log only."""
    base = tmp_path_factory.mktemp("samples")
    return {"clean": base / "data", "crashed": asyncio.run(make_samples(base / "data", base / "crashed"))}


async def make_samples(clean: Path, crashed: Path) -> Path:
    async with opened(clean, uid=UID) as (store, _):
        for index in range(1, STEPS + 1):
            await store.write(Batch(index, index, put_records=tuple(record(n, version=index) for n in range(ROWS))))
        return crashed_copy(clean, crashed)


def flip(path: Path, generator: random.Random) -> None:
    """Flip 1-4 bits."""
    data = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 4)):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, generator: random.Random) -> None:
    os.truncate(path, generator.randrange(path.stat().st_size))


def zero_a_page(path: Path, generator: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = generator.randrange(len(data) // 4096) * 4096
    data[start : start + 4096] = bytes(4096)
    path.write_bytes(data)


def garbage(path: Path, generator: random.Random) -> None:
    path.write_bytes(generator.randbytes(path.stat().st_size))


def overwrite(path: Path, generator: random.Random) -> None:
    """Other bytes somewhere in the middle, as from another file."""
    data = bytearray(path.read_bytes())
    start = generator.randrange(len(data))
    data[start : start + 64] = generator.randbytes(len(data[start : start + 64]))
    path.write_bytes(data)


async def assert_nothing_silently_wrong(directory: Path, sample: Path) -> Snapshot:
    """Open a damaged copy of ``sample`` and compare what it serves with what was written."""
    undamaged = await snapshot_of(Path(shutil.copytree(sample, directory.with_name("undamaged"))))
    snapshot = await snapshot_of(directory)
    served = frozenset(repr(row) for row in snapshot.records)
    assert len(served) == len(snapshot.records)
    if snapshot.rebuilt is None:
        assert served == expected(snapshot.index)
        assert snapshot.revision == snapshot.index
        assert (snapshot.identity.uid, snapshot.identity.lineage) == (UID, undamaged.identity.lineage)
        # Indexes up to STEPS were handed out: none may be handed out again, and the lost ones are known.
        assert snapshot.floor >= STEPS
        assert snapshot.index == STEPS or (snapshot.index, snapshot.floor) in snapshot.gaps
    else:
        assert snapshot.identity.lineage != undamaged.identity.lineage
        assert served <= frozenset().union(*(expected(index) for index in range(STEPS + 1)))
        assert names(directory, f"{DATABASE}.corrupt-*")
    # Either way it is a good database from now on.
    again = await snapshot_of(directory)
    assert again.rebuilt is None
    assert frozenset(repr(row) for row in again.records) == served
    return snapshot


@pytest.mark.parametrize("harm", [flip, truncate, zero_a_page, garbage, overwrite], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize(
    ("sample", "file"), [("clean", DATABASE), ("crashed", DATABASE), ("crashed", f"{DATABASE}-wal")], ids=lambda text: text
)
async def test_damaged_files_are_never_served_silently(sample: str, file: str, harm, samples, tmp_path: Path) -> None:
    for seed in range(int(os.environ.get("ENVBRIDGE_TEST_DAMAGE_SEEDS", "8"))):
        directory = Path(shutil.copytree(samples[sample], tmp_path / str(seed) / "data"))
        harm(directory / file, random.Random(f"{sample} {file} {seed}"))
        await assert_nothing_silently_wrong(directory, samples[sample])
        shutil.rmtree(tmp_path / str(seed))


async def test_a_lost_log_loses_the_tail_but_tells_it(samples, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(samples["crashed"], tmp_path / "data"))
    (directory / f"{DATABASE}-wal").unlink()
    snapshot = await assert_nothing_silently_wrong(directory, samples["crashed"])
    assert (snapshot.index, snapshot.gaps, snapshot.rebuilt) == (0, ((0, 10_000),), None)


async def test_a_log_without_its_database_is_not_replayed_into_a_new_one(samples, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(samples["crashed"], tmp_path / "data"))
    (directory / DATABASE).unlink()
    snapshot = await snapshot_of(directory)
    assert (snapshot.records, snapshot.rebuilt) == ((), None)
    assert snapshot.identity.uid != UID
    again = await snapshot_of(directory)
    assert (again.records, again.rebuilt, again.identity.uid) == ((), None, snapshot.identity.uid)


async def test_rows_that_vanish_without_a_trace_in_any_row_are_missed(samples, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(samples["clean"], tmp_path / "data"))
    data = bytearray((directory / DATABASE).read_bytes())
    # A leaf of a table without rowid begins with 0x0a; its number of cells lies at 3 (SQLite file format, 1.6).
    page = next(at for at in range(4096, len(data), 4096) if data[at] == 0x0A and data[at + 4] > 5)
    data[page + 4] -= 1
    (directory / DATABASE).write_bytes(data)
    assert (await snapshot_of(directory)).rebuilt == "its structure is damaged"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "its file is empty", id="an empty file"),
        pytest.param(lambda path: path.write_bytes(b"no database" * 999), "it cannot be read", id="another file"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "it is no file", id="a directory"),
        pytest.param(lambda path: execute(path, "DROP TABLE services"), "its description is damaged", id="a table less"),
        pytest.param(lambda path: execute(path, "DROP TABLE meta"), "it cannot be read", id="no word about itself"),
        pytest.param(lambda path: execute(path, "PRAGMA user_version = 1"), "its description is damaged", id="a wrong version"),
        pytest.param(lambda path: execute(path, "DELETE FROM meta WHERE key = 'identity'"), "its identity", id="no identity"),
    ],
)
async def test_what_is_no_sound_database_is_moved_aside(harm, reason: str, samples, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(samples["clean"], tmp_path / "data"))
    harm(directory / DATABASE)
    snapshot = await snapshot_of(directory)
    assert snapshot.rebuilt is not None
    assert snapshot.rebuilt.startswith(reason)
    assert (snapshot.records, snapshot.index, snapshot.floor) == ((), 0, 0)
    assert (directory / f"{DATABASE}.corrupt-{int(NOW)}").exists()
    async with opened(directory) as (store, _):
        await store.write(full_batch())
    assert contents(await snapshot_of(directory)) == batch_contents(full_batch())


async def test_the_uid_outlives_damaged_tables(samples, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(samples["clean"], tmp_path / "data"))
    execute(directory / DATABASE, "DROP TABLE records")
    before = (await snapshot_of(Path(shutil.copytree(samples["clean"], tmp_path / "undamaged")))).identity
    after = await snapshot_of(directory, wall=NOW - 3600)
    assert after.rebuilt is not None
    assert after.identity.uid == UID
    assert after.identity.lineage != before.lineage
    assert after.identity.epoch >= before.epoch


async def test_bad_rows_are_dropped_and_counted_and_the_good_ones_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, before):
        await store.write(full_batch(7))
    execute(
        tmp_path / DATABASE,
        f"UPDATE records SET value = zeroblob(9) WHERE id = '{record(3).id}'",
        f"UPDATE records SET id = 'moved' WHERE id = '{record(4).id}'",
        "UPDATE services SET checksum = 12 WHERE name = 'web-2'",
        f"UPDATE sources SET retired_at = {NOW + 1} WHERE name = 'old'",
    )
    snapshot = await snapshot_of(tmp_path)
    assert snapshot.rebuilt is not None
    assert set(snapshot.rebuilt.split("; ")) == {
        "2 of its records were bad and were dropped",
        "1 of its services were bad and were dropped",
        "1 of its sources were bad and were dropped",
    }
    assert {row.id for row in snapshot.records} == {row.id for row in full_batch().put_records} - {record(3).id, record(4).id}
    assert {row.name for row in snapshot.services} == {f"web-{n}" for n in range(7) if n != 2}
    assert [row.name for row in snapshot.sources] == ["main"]
    assert (snapshot.index, snapshot.revision, snapshot.gaps) == (7, 7, ())
    assert snapshot.floor >= 7
    assert snapshot.identity.uid == before.identity.uid
    assert snapshot.identity.lineage != before.identity.lineage


async def test_a_row_with_a_good_checksum_that_cannot_be_decoded_counts_as_bad(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch())
    for number, poison in enumerate(
        (b"", b"\xc1", b"\x97\xc0\x90\xc0\xc0\x80\x01", b"\x92\xc0\xc0", b"\x91" * 5_000, ALIKE_IS_NONE)
    ):
        key = (b"main", b"poison %d" % number)
        sum_ = crc32(poison + key[1], crc32(b"records\0" + key[0]))
        conn = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
        conn.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (key[0].decode(), key[1].decode(), poison, sum_))
        conn.close()
    snapshot = await snapshot_of(tmp_path)
    assert snapshot.rebuilt == "6 of its records were bad and were dropped"
    assert contents(snapshot) == batch_contents(full_batch())


async def test_bad_counters_start_a_lineage_above_every_index_on_record(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch(321))
    execute(tmp_path / DATABASE, "UPDATE meta SET value = zeroblob(3) WHERE key = 'counters'")
    snapshot = await snapshot_of(tmp_path)
    assert snapshot.rebuilt == "its counters were bad"
    assert (contents(snapshot), snapshot.floor) == (batch_contents(full_batch(321)), 321)


async def test_damage_does_not_open_the_database_of_another_environment(samples, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(samples["clean"], tmp_path / "data"))
    execute(directory / DATABASE, "DROP TABLE services")
    with pytest.raises(StoreError, match="belongs to the environment `eu`"):
        open_store(directory, environment="us")


async def test_only_the_latest_damaged_databases_are_kept(tmp_path: Path) -> None:
    for number in range(8):
        await snapshot_of(tmp_path)
        (tmp_path / DATABASE).write_bytes(b"no database")
        await snapshot_of(tmp_path, wall=NOW + number // 2)
    assert names(tmp_path, "*.corrupt-*") == [
        f"{DATABASE}.corrupt-{int(NOW) + number // 2}{'.1' if number % 2 else ''}" for number in range(3, 8)
    ]


@pytest.mark.parametrize("foreign", [DATABASE, f"{DATABASE}-wal"])
async def test_files_of_another_user_are_moved_aside(
    foreign: str, samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(shutil.copytree(samples["crashed"], tmp_path / "data"))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != foreign)
    snapshot = await snapshot_of(directory)
    assert (snapshot.rebuilt, snapshot.records) == (f"{foreign} belongs to another user", ())
    assert (directory / f"{foreign.replace(DATABASE, f'{DATABASE}.corrupt-{int(NOW)}')}").exists()


def execute(path: Path, *statements: str) -> None:
    """Change a closed database behind its back."""
    conn = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        conn.execute(statement)
    conn.close()
