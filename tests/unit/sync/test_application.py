"""Large listings are applied in pieces: others have their turn between them, and nobody ever sees half of one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.log import Change
from bridge.catalog.partition import Partition
from bridge.catalog.record import Changes
from bridge.errors import ContractError, TransientError
from bridge.model import InstanceGroup, Listing, ServiceName
from bridge.sync.application import PIECE, Pieces
from bridge.sync.ingest import Ingest
from bridge.testing import ManualClock
from tests.unit.sync.scripted import SOURCE, ScriptedConfig, group, instance, listing

SERVICES = [f"svc{number}" for number in range(6)]


def cluster(slices: int = 2, each: int = 60, *, services: Sequence[str] = SERVICES, first: int = 0) -> Listing:
    """Slices of every service, the first slice of each before the second of any."""
    return listing(
        *(
            group(f"shop/{service}-{number}", *(f"{service}-{number}-{first + n}" for n in range(each)), service=service)
            for number in range(slices)
            for service in services
        )
    )


class Bench:
    """An ingest with one source, and how many instances each service had after each change."""

    def __init__(self, **keys: object) -> None:
        self.partition = Partition("test", "uid", 1)
        self.catalog = Catalog(Indexes("test", 1, 1_000_000))
        self.catalog.partitions["test"] = self.partition
        self.ingest = Ingest(self.catalog, self.partition, ManualClock(), logging.getLogger("bridge.ingest"))
        self.ingest.on_changes = self._note
        self.begun: list[bool] = []
        self.ingest.on_listing = self.begun.append
        self.ingest.add(SOURCE, ScriptedConfig(**keys), scopes=("",), polled=False)
        self.indexes: list[int] = []
        self.sizes: list[dict[str, int]] = []

    def _note(self, source: str, changes: Changes, change: Change | None) -> None:
        if change is not None:
            self.indexes.append(change.index)
            self.sizes.append({name.name: self.size(name) for name in self.catalog.services})

    def size(self, name: ServiceName) -> int:
        return sum(map(len, self.catalog.services[name].members.values()))

    @property
    def ids(self) -> set[str]:
        return set(self.partition.sources[SOURCE].records)


async def test_each_service_appears_whole() -> None:
    bench = Bench()
    await bench.ingest.apply(SOURCE, cluster())
    assert len(bench.indexes) > 2
    assert {size for sizes in bench.sizes for size in sizes.values()} == {120}
    assert bench.sizes[-1].keys() == set(SERVICES)
    assert bench.begun == [True, False]


async def test_others_have_their_turn_between_the_pieces() -> None:
    bench = Bench()
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(len(bench.ids))
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await bench.ingest.apply(SOURCE, cluster(each=300))
    task.cancel()
    steps = [after - before for before, after in pairwise(turns)]
    assert max(steps) <= PIECE + 600  # a service is never cut
    assert 0 in turns


async def test_the_source_was_read_only_when_all_is_there() -> None:
    bench = Bench()
    seen: list[tuple[bool, int]] = []
    bench.ingest.on_changes = lambda *_: seen.append((bench.partition.statuses[SOURCE].read, len(bench.ids)))
    await bench.ingest.apply(SOURCE, cluster())
    assert {read for read, size in seen if size < 720} == {False}
    assert bench.partition.statuses[SOURCE].read


@pytest.mark.parametrize("turns", range(7))
async def test_cancelled_it_is_dropped_before_the_first_change_and_ended_after(turns: int) -> None:
    bench = Bench()
    task = asyncio.create_task(bench.ingest.apply(SOURCE, cluster()))
    for _ in range(turns):
        await asyncio.sleep(0)
    begun = bool(bench.ids)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(bench.ids) == (720 if begun else 0)
    assert bench.partition.statuses[SOURCE].read == begun
    assert bench.begun == [True, False] * begun


async def test_a_reload_in_the_middle_finds_it_done() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.ingest.apply(SOURCE, cluster()))
    while not bench.ids:  # noqa: ASYNC110  # turn by turn
        await asyncio.sleep(0)
    bench.ingest.retire(SOURCE, 0.0)
    assert len(bench.ids) == 720
    await task
    assert len(bench.ids) == 720


async def test_what_it_lacks_goes_last_and_what_it_is_refused_for_changes_nothing() -> None:
    bench = Bench(guard="off", max_instances=1000)
    await bench.ingest.apply(SOURCE, cluster())
    bench.sizes.clear()
    await bench.ingest.apply(SOURCE, cluster(first=10))
    assert min(size for sizes in bench.sizes for size in sizes.values()) == 120
    assert bench.sizes[-1] == dict.fromkeys(SERVICES, 120)
    known = set(bench.ids)
    with pytest.raises(TransientError, match="max_instances"):
        await bench.ingest.apply(SOURCE, cluster(each=100))
    with pytest.raises(ContractError):
        await bench.ingest.apply(SOURCE, Listing("", cluster().groups, ("shop/never-seen",)))
    assert bench.ids == known


async def test_records_are_never_ahead_of_what_is_published() -> None:
    bench = Bench(guard="off")
    await bench.ingest.apply(SOURCE, cluster())
    ahead: list[set[str]] = []

    async def other() -> None:
        while True:
            published = {id_ for entry in bench.catalog.services.values() for held in entry.members.values() for id_ in held}
            ahead.append(published ^ bench.ids)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await bench.ingest.apply(SOURCE, cluster(slices=1, each=120, first=30, services=SERVICES[:3]))
    task.cancel()
    assert len(ahead) > 6
    assert not any(ahead)


async def test_what_moves_between_groups_is_never_both_old_and_new_nor_gone_in_between() -> None:
    bench = Bench()
    rest = [group(f"shop/rest{n}", *(f"rest{n}-{k}" for k in range(150)), service=f"rest{n}") for n in range(4)]
    old = group("shop/a", "x", "y")
    await bench.ingest.apply(SOURCE, listing(*rest, old))
    seen: set[tuple[tuple[str, tuple[str, ...]], ...]] = set()

    def note(*_: object) -> None:
        members = bench.catalog.services[ServiceName("shop", "web")].members.values()
        seen.add(tuple(sorted((id_, instance.addresses) for held in members for id_, instance in held.items())))

    bench.ingest.on_changes = note
    moved = replace(instance("x"), addresses=("192.0.2.9",))
    new = InstanceGroup("shop/b", (moved, instance("y")), (ServiceName("shop", "web"),))
    await bench.ingest.apply(SOURCE, listing(*rest[:2], new, *rest[2:], gone=("shop/a",)))
    await bench.ingest.apply(SOURCE, listing(*rest, group("shop/c", "x", "y")))
    before, after = (("x", ("192.0.2.1",)), ("y", ("192.0.2.1",))), (("x", ("192.0.2.9",)), ("y", ("192.0.2.1",)))
    assert seen == {before, after}


names = st.sampled_from(SERVICES)
groups = st.lists(st.tuples(st.lists(names, max_size=4), st.lists(names, max_size=2)), max_size=12)


@given(groups, st.integers(1, 90))
def test_pieces_hold_every_group_once_and_each_service_in_one_of_them(told: list[tuple[list[str], list[str]]], each: int) -> None:
    made = [
        InstanceGroup(
            f"g{number}",
            tuple(instance(f"{number}-{position}", service) for service in services for position in range(each)),
            tuple(ServiceName("shop", service) for service in stands),
        )
        for number, (services, stands) in enumerate(told)
    ]
    pieces = Pieces()
    for one in made:
        pieces.add(one)
    cut = list(pieces.cut())
    assert sorted(one.key for piece in cut for one in piece) == sorted(one.key for one in made)
    where: dict[str, set[int]] = {}
    for number, piece in enumerate(cut):
        for one in piece:
            for service in {*(name.name for name in one.services), *(item.service for item in one.instances)}:
                where.setdefault(service, set()).add(number)
    assert all(len(found) == 1 for found in where.values())
