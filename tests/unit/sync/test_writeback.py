"""The disk follows the catalog, whatever the disk does; and a restart shows what was there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import pytest

from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.errors import StoreError
from bridge.model import Gone, InstanceGroup, ServiceInstance, ServiceName
from bridge.sync.ingest import Ingest
from bridge.sync.restore import restore
from bridge.sync.store import Batch, Snapshot, Store
from bridge.sync.writeback import DELAY, ENOUGH, PIECE, RETRY, Writeback
from bridge.testing import ManualClock, eventually
from tests.unit.sync.scripted import SOURCE, ScriptedConfig, group, instance, listing

OTHER = "other"


class World:
    """A catalog with two sources and a store that follows it; `again` is what a restart makes of the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.store, snapshot = self._open()
        self.catalog, self.partition = restored(snapshot, self.clock)
        self.catalog.indexes.ceiling = self.store.ceiling()
        self.ingest = Ingest(self.catalog, self.partition, self.clock, logging.getLogger("bridge.ingest"))
        for name in (SOURCE, OTHER):
            self.ingest.add(name, ScriptedConfig(), scopes=("",), polled=False)
        self.writeback = Writeback(self.catalog, self.partition, self.store, self.clock)
        self.ingest.on_changes = self.writeback.mark
        self.ingest.on_forgotten = self.writeback.mark_services

    async def again(self) -> tuple[Catalog, Partition]:
        await self.store.close()
        self.store, snapshot = self._open()
        return restored(snapshot, self.clock)

    def _open(self) -> tuple[Store, Snapshot]:
        return Store.open(self.folder, environment="test", environment_uid=None, clock=self.clock)


def restored(snapshot: Snapshot, clock: ManualClock) -> tuple[Catalog, Partition]:
    identity = snapshot.identity
    catalog = Catalog(Indexes(identity.lineage, max(1, snapshot.floor), 10_000))
    partition = catalog.partitions["test"] = Partition("test", identity.uid, identity.epoch, snapshot.revision)
    restore(catalog, partition, snapshot, clock)
    return catalog, partition


def shown(catalog: Catalog) -> dict[ServiceName, tuple[ServiceInstance, ...]]:
    return {name: tuple(entry.ordered()) for name, entry in catalog.services.items()}


def held(partition: Partition) -> dict[str, object]:
    """Who holds what, by source."""
    return {
        name: (
            {id_: (record.parts, record.since) for id_, record in records.records.items()},
            {key: (set(found.shown), found.services) for key, found in records.groups.items()},
            records.sizes,
        )
        for name, records in partition.sources.items()
    }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.store.close()


def many(count: int, key: str = "g", service: str = "web") -> InstanceGroup:
    return group(key, *(f"{key}/{number:05d}" for number in range(count)), service=service)


@pytest.mark.parametrize("count", [1, PIECE, PIECE + 1, 2 * PIECE + 1])
async def test_a_restart_shows_exactly_what_was_written(count: int, world: World) -> None:
    world.ingest.accept(SOURCE, listing(many(count), group("h", "x", "y", service="api"), group("i", "y", service="api")))
    world.ingest.accept(OTHER, listing(group("empty", service="none"), group("g", "x")))
    assert world.writeback.depth == count + 2 + 1 + 5 + 3  # records of both, groups, services
    await world.writeback.flush()
    assert (world.writeback.depth, world.writeback.written) == (0, count + 3)
    catalog, partition = await world.again()
    assert shown(catalog) == shown(world.catalog)
    assert held(partition) == held(world.partition)
    assert {name: entry.index for name, entry in catalog.services.items()} == {
        name: entry.index for name, entry in world.catalog.services.items()
    }
    assert partition.revision == world.partition.revision


async def test_what_went_is_gone_after_a_restart(world: World) -> None:
    world.ingest.accept(SOURCE, listing(group("g", "a", "b"), group("h", "c", service="api")))
    await world.writeback.flush()
    world.ingest.accept(SOURCE, (group("g", "a"), Gone("b"), Gone("h")))
    await world.writeback.flush()
    catalog, partition = await world.again()
    assert set(partition.sources[SOURCE].records) == {"a"}
    assert set(partition.sources[SOURCE].groups) == {"g"}
    assert catalog.services[ServiceName("shop", "api")].emptied_at == {"test": world.clock.wall()}


async def test_a_dropped_source_leaves_nothing(world: World) -> None:
    world.ingest.accept(SOURCE, listing(many(PIECE + 1)))
    world.ingest.accept(OTHER, listing(group("g", "x")))
    await world.writeback.mark_sources()
    await world.writeback.flush()
    world.ingest.retire(SOURCE, world.clock.monotonic())
    world.ingest.drop(SOURCE)
    await world.writeback.flush()
    _, partition = await world.again()
    assert set(partition.sources) == {OTHER}
    assert set(partition.sources[OTHER].records) == {"x"}


async def test_a_renamed_source_takes_its_rows_along(world: World) -> None:
    world.ingest.accept(SOURCE, listing(group("g", "a", "b")))
    await world.writeback.flush()
    world.ingest.rename(SOURCE, "renamed")
    await world.writeback.flush()
    _, partition = await world.again()
    assert set(partition.sources["renamed"].records) == {"a", "b"}
    assert SOURCE not in partition.sources


def meanwhile(world: World, act: Callable[[], None]) -> None:
    """Have something happen when the first piece of the next write was put together."""
    write = world.store.write_pieces
    acted = False

    async def write_with_interruption(pieces: Iterable[Batch]) -> None:
        def watched() -> Iterator[Batch]:
            nonlocal acted
            for piece in pieces:
                if not acted:
                    acted = True
                    act()
                yield piece

        await write(watched())

    world.store.write_pieces = write_with_interruption  # type: ignore[method-assign]


async def test_what_changes_while_a_batch_is_put_together_is_written_with_it_and_its_index(world: World) -> None:
    world.ingest.accept(SOURCE, listing(many(3 * PIECE), group("web", "old1", "old2", service="web")))
    await world.writeback.flush()
    world.ingest.accept(SOURCE, group("g", *(f"h{n}" for n in range(3 * PIECE))))

    def replace() -> None:
        world.ingest.accept(SOURCE, group("web", "new1", "new2", service="web"))
        world.clock.advance(1.0)
        world.ingest.settle()

    meanwhile(world, replace)
    await world.writeback.mark_sources()
    await world.writeback.flush()
    assert world.writeback.depth == 0
    index = world.catalog.indexes.index
    await world.store.close()
    world.store, snapshot = world._open()
    assert snapshot.index == index
    catalog, partition = restored(snapshot, world.clock)
    assert shown(catalog) == shown(world.catalog)
    assert held(partition) == held(world.partition)


async def test_a_write_waits_for_a_listing_that_begins_meanwhile_and_stores_it_whole(world: World) -> None:
    world.ingest.accept(SOURCE, listing(many(3 * PIECE)))
    meanwhile(world, lambda: world.writeback.hold(True))
    writing = asyncio.create_task(world.writeback.flush())
    await asyncio.sleep(0.1)
    world.ingest.accept(OTHER, listing(many(2 * PIECE, "first", "api")))
    await asyncio.sleep(0.1)
    assert not writing.done()
    world.ingest.accept(OTHER, group("second", "b", service="api"))
    world.writeback.hold(False)
    await writing
    assert world.writeback.depth == 0
    catalog, _ = await world.again()
    assert shown(catalog) == shown(world.catalog)


async def test_a_write_gives_way_where_a_listing_needs_more_indexes_than_there_are(world: World) -> None:
    world.ingest.accept(SOURCE, listing(many(3 * PIECE)))
    meanwhile(world, lambda: world.writeback.hold(True))
    running = asyncio.create_task(world.writeback.run())
    await eventually("it waits", lambda: world.writeback.depth and not world.clock.sleeping)
    ceiling = world.catalog.indexes.ceiling
    world.catalog.indexes.index = ceiling - 10
    await eventually("a new ceiling", lambda: world.catalog.indexes.ceiling > ceiling)
    assert world.writeback.written == 0
    world.writeback.hold(False)
    await eventually("it is written", lambda: world.writeback.depth == 0)
    running.cancel()
    await asyncio.wait([running])
    catalog, _ = await world.again()
    assert shown(catalog) == shown(world.catalog)


async def test_indexes_are_reserved_while_a_listing_keeps_the_disk_waiting(world: World) -> None:
    world.writeback.hold(True)
    running = asyncio.create_task(world.writeback.run())
    world.ingest.accept(SOURCE, listing(many(ENOUGH)))
    world.catalog.indexes.index = world.catalog.indexes.ceiling - 10
    ceiling = world.catalog.indexes.ceiling
    await eventually("a new ceiling", lambda: world.catalog.indexes.ceiling > ceiling)
    assert world.writeback.written == 0
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("error", [StoreError("full"), asyncio.CancelledError()], ids=["refused", "cancelled"])
async def test_what_could_not_be_written_stays_dirty(error: BaseException, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(pieces: Iterable[Batch]) -> None:
        assert len(list(pieces)) > 1
        world.ingest.accept(SOURCE, group("late", "late"))
        raise error

    world.ingest.accept(SOURCE, listing(group("g", "a"), group("late")))
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "write_pieces", refuse)
        with pytest.raises(type(error)):
            await world.writeback.flush()
    assert (world.writeback.depth, world.writeback.written) == (2 + 2 + 1, 0)
    await world.writeback.mark_sources()
    await world.writeback.flush()
    catalog, partition = await world.again()
    assert shown(catalog) == shown(world.catalog)
    assert held(partition) == held(world.partition)


async def test_a_few_changes_are_collected_and_many_are_written_at_once(world: World) -> None:
    running = asyncio.create_task(world.writeback.run())
    try:
        world.ingest.accept(SOURCE, listing(group("g", "a")))
        await eventually("the delay", lambda: world.clock.sleeping == [pytest.approx(DELAY)], deadline=5.0, every=0.001)
        assert world.writeback.depth
        world.clock.advance(DELAY)
        await eventually("the few on disk", lambda: not world.writeback.depth, deadline=5.0, every=0.001)
        world.ingest.accept(SOURCE, listing(many(ENOUGH)))
        await eventually("the many on disk", lambda: not world.writeback.depth, deadline=5.0, every=0.001)
        assert world.clock.sleeping == []
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_disk_that_refuses_is_told_once_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(pieces: Iterable[Batch]) -> None:
        raise StoreError("full")

    running = asyncio.create_task(world.writeback.run())
    try:
        with monkeypatch.context() as patched:
            patched.setattr(world.store, "write_pieces", refuse)
            world.ingest.accept(SOURCE, listing(many(ENOUGH)))
            for _ in range(3):
                await eventually("the pause", lambda: world.clock.sleeping == [pytest.approx(RETRY)], deadline=5.0, every=0.001)
                world.clock.advance(RETRY)
            assert world.writeback.error == "full"
        world.clock.advance(RETRY)
        await eventually("all on disk", lambda: not world.writeback.depth, deadline=5.0, every=0.001)
        await eventually("no error", lambda: world.writeback.error is None, deadline=5.0, every=0.001)
        assert [record.message for record in caplog.records if record.name == "bridge.writeback"] == ["state cannot be written"]
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_the_age_of_sources_is_written_without_changes(world: World) -> None:
    world.ingest.accept(SOURCE, listing(InstanceGroup("g", (instance("a"),))))
    await world.writeback.flush()
    world.clock.advance(60.0)
    await world.writeback.mark_sources()
    await world.writeback.flush()
    _, partition = await world.again()
    assert partition.statuses[SOURCE].confirmed_at() == world.clock.monotonic() - 60.0
