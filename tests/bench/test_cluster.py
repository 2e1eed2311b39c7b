"""What the benches of large catalogs measure is what they say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import cluster
from tests.bench.apart import apart
from tests.bench.benches import memory
from tests.bench.benches.change import Turns
from tests.bench.benches.resync import Plain, Relist, listed
from tests.bench.loaded import Bridges
from tests.bench.session import Figures


def test_every_instance_of_a_cluster_has_an_id_and_an_address_of_its_own() -> None:
    instances = [instance for group in cluster.groups(1_000) for instance in group.instances]
    assert len({instance.id for instance in instances}) == len({instance.addresses for instance in instances}) == 1_000


@pytest.mark.parametrize("number", [0, 7, 9_999])
def test_a_changed_group_differs_in_one_instance_and_always_the_same(number: int) -> None:
    before, once, again = (cluster.group(number, moved).instances for moved in (0, 1, 2))
    differing = [[old.id for old, new in zip(before, now, strict=True) if old != new] for now in (once, again)]
    assert differing[0] == differing[1]
    assert len(differing[0]) == 1


def test_changes_are_seen_by_the_reader_of_each_bridge(tmp_path: Path) -> None:
    with Bridges(tmp_path, [200, 1_000]) as bridges:
        read, unread = bridges.changes(12, seed=1), bridges.changes(3, seed=2, read=False)
    assert [len(seconds) for seconds in (*read, *unread)] == [12, 12, 3, 3]


def test_an_unchanged_listing_is_found_unchanged_by_both_sides() -> None:
    pages = listed(1_000)
    relist, plain = Relist(pages), Plain(pages)
    with asyncio.Runner() as runner:
        assert [runner.run(relist.list())["seconds"] > 0 for _ in range(3)] == [True] * 3
    assert [plain.list()["seconds"] > 0 for _ in range(2)] == [True] * 2


def test_a_figure_of_each_side_is_handed_out_once() -> None:
    values: Iterator[float] = iter(range(100))

    def measure() -> list[Figures]:
        return [{"t": next(values)}, {"t": next(values)}]

    turns = Turns(measure)
    assert [turns.figures(side)["t"] for side in (0, 1, 1, 0)] == [0, 1, 3, 2]


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    assert apart(memory.records, 20_000) < apart(memory.models, 20_000)
