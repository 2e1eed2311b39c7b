"""What is written is what is read, row by row."""

from __future__ import annotations

import logging
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from store_kit import NOW, WallClock, batch_contents, contents, full_batch, open_store, opened, record, snapshot_of

from bridge.errors import StoreError
from bridge.intern import Interner
from bridge.model import Port, ServiceInstance, ServiceName
from bridge.sync.store import Batch, Store, StoredGroup, StoredPart, StoredRecord, StoredService, StoredSource

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
maybe = st.none() | text
instances = st.builds(
    ServiceInstance,
    environment=st.just("eu"),
    source=st.just("main"),
    id=st.just("shop/web/1"),
    namespace=text,
    service=text,
    addresses=st.lists(text, max_size=3).map(tuple),
    hostname=maybe,
    ports=st.lists(st.builds(Port, maybe, st.integers(0, 65535), text, maybe), max_size=3).map(tuple),
    health=st.sampled_from(["ready", "unready", "unknown"]),
    lifecycle=st.sampled_from(["active", "draining"]),
    state=st.sampled_from(["listed", "down", "expired"]),
    weight=st.integers(0, 2**63),
    region=maybe,
    zone=maybe,
    node=maybe,
    tags=st.lists(text, max_size=3).map(tuple),
    meta=st.dictionaries(text, text, max_size=3),
)


def test_the_generated_instances_have_every_field() -> None:
    assert len(structs.fields(ServiceInstance)) == 17, "a new field needs a place in the rows, a migration, and one above"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(parts=st.lists(st.tuples(text, instances), min_size=1, max_size=3), since=st.floats(0, 4e9))
async def test_every_field_of_an_instance_survives(parts: list[tuple[str, ServiceInstance]], since: float) -> None:
    stored = StoredRecord("main", "shop/web/1", tuple(StoredPart(*part) for part in parts), since)
    with tempfile.TemporaryDirectory() as directory:
        async with opened(Path(directory)) as (store, _):
            await store.write(Batch(1, 1, put_records=(stored,)))
        snapshot = await snapshot_of(Path(directory))
    assert snapshot.records == (stored,)
    assert snapshot.rebuilt is None


async def test_rows_of_every_table_survive(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, empty):
        assert contents(empty) == (frozenset(),) * 4
        await store.write(full_batch(3))
    snapshot = await snapshot_of(tmp_path)
    assert contents(snapshot) == batch_contents(full_batch(3))
    assert (snapshot.index, snapshot.revision, snapshot.rebuilt) == (3, 3, None)


async def test_final_states_replace_and_remove(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch())
        await store.write(
            Batch(
                2,
                5,
                put_records=(record(1, version=9),),
                removed_records=tuple((row.source, row.id) for row in full_batch().put_records if row != record(1)),
                put_groups=(StoredGroup("main", "shop/web-0-abc", ()),),
                removed_groups=tuple(("main", f"shop/web-{n}-abc") for n in range(1, 7)),
                put_sources=(StoredSource("old", "kubernetes", NOW, ("a", "b"), None),),
                removed_sources=("main", "never there"),
                put_services=(StoredService("shop", "web-1", 2),),
                removed_services=tuple(("shop", f"web-{n}") for n in (0, 2, 3, 4, 5, 6)),
            )
        )
    snapshot = await snapshot_of(tmp_path)
    assert snapshot.records == (record(1, version=9),)
    assert snapshot.groups == (StoredGroup("main", "shop/web-0-abc", ()),)
    assert snapshot.sources == (StoredSource("old", "kubernetes", NOW, ("a", "b"), None),)
    assert snapshot.services == (StoredService("shop", "web-1", 2),)
    assert (snapshot.index, snapshot.revision) == (2, 5)


async def test_what_repeats_is_read_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(full_batch())
    interner = Interner()
    store, snapshot = Store.open(tmp_path, environment="eu", environment_uid=None, clock=WallClock(), interner=interner)
    await store.close()
    first, second = (row.parts[0].instance for row in (snapshot.records[0], snapshot.records[1]))
    for field in ("environment", "source", "namespace", "zone", "ports", "tags", "meta"):
        assert getattr(first, field) is getattr(second, field), field
    assert isinstance(snapshot.groups[0].services[0], ServiceName)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(lambda row: structs.replace(row, id="\ud800"), id="text that no encoding carries"),
        pytest.param(lambda row: structs.replace(row, since=object()), id="a value msgpack does not know"),
        pytest.param(lambda row: structs.replace(row, parts=()), id="a record without parts"),
        pytest.param(lambda row: structs.replace(row, id="another"), id="a part of another instance"),
        pytest.param(lambda row: structs.replace(row, source="another"), id="a part of another source"),
    ],
)
async def test_a_row_that_cannot_be_stored_costs_no_other(bad, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "bridge.store"):
        async with opened(tmp_path) as (store, _):
            await store.write(Batch(1, 1, put_records=(record(1), bad(record(2)), record(3))))
    snapshot = await snapshot_of(tmp_path)
    assert (snapshot.records, snapshot.index) == ((record(1), record(3)), 1)
    assert [message.getMessage() for message in caplog.records] == ["row cannot be stored"]


async def test_only_the_owner_can_look(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "data"
    async with opened(directory) as (store, _):
        await store.write(full_batch())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes == {"envbridge.db": 0o600, "envbridge.db-wal": 0o600, "envbridge.lock": 0o600}


async def test_a_looser_mode_is_tightened(tmp_path: Path) -> None:
    await snapshot_of(tmp_path)
    (tmp_path / "envbridge.db").chmod(0o644)
    await snapshot_of(tmp_path)
    assert stat.S_IMODE((tmp_path / "envbridge.db").stat().st_mode) == 0o600


async def test_an_index_that_goes_back_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(Batch(5, 1))
        await store.write(Batch(5, 2))
        with pytest.raises(ValueError, match="index 4 is below 5"):
            await store.write(Batch(4, 3))


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store, _ = open_store(tmp_path)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.write(Batch(1, 1))
