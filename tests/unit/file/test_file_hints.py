"""Notifications of a real file system: that they come, and come soon."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from watchfiles import Change

from bridge.aio import SystemClock
from bridge.model import Observation
from tests.unit.file.kit import Reader, document, replace, write


class Follower(Reader):
    """Lists when a hint says so, as the core does; never by an interval."""

    def __init__(self, *patterns: Path | str) -> None:
        super().__init__(*patterns)
        self.source._clock = SystemClock()
        self.hints: list[float] = []
        self._listing = asyncio.Lock()

    async def list(self) -> Observation:
        async with self._listing:
            return await super().list()

    async def follow(self) -> None:
        await self.list()
        async with aclosing(self.source.hints()) as hints:
            async for seconds in hints:
                self.hints.append(seconds)
                await asyncio.sleep(seconds)
                await self.list()

    async def until(self, condition: Callable[[], bool], deadline: float = 3.0) -> float:
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < deadline, f"not within {deadline} s; {self.ids}, {self.unknown}"
            await asyncio.sleep(0.01)
        return time.monotonic() - begin


@asynccontextmanager
async def following(*patterns: Path) -> AsyncIterator[Follower]:
    follower = Follower(*patterns)
    task = asyncio.create_task(follower.follow())
    try:
        watches = any(path.parent.is_dir() for path in patterns)
        # The first look hints at a second one; to look at once is hinted when the system is listened to.
        await follower.until(lambda: 0.0 in follower.hints if watches else bool(follower.lists))
        yield follower
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def rewrite(path: Path, value: Any) -> None:
    """A new file under the same name, not renamed."""
    path.unlink()
    write(path, value)


@pytest.mark.parametrize("how", [write, replace, rewrite])
async def test_a_change_is_noticed(tmp_path: Path, how: Callable[[Path, Any], None]) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    async with following(file) as follower:
        for number in (2, 3, 4):
            how(file, document(number))
            took = await follower.until(lambda n=number: follower.ids == {f"w{n}"})  # type: ignore[misc]
            assert took < 1.0 or how is not replace
        assert not follower.unknown


async def test_a_rename_into_place_needs_no_stillness(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    async with following(file) as follower:
        await follower.until(lambda: follower.lists >= 2)
        before = len(follower.hints)
        replace(file, document(2))
        await follower.until(lambda: follower.ids == {"w2"})
        assert follower.hints[before:][-1] == 0.0  # what comes before it may still be of the first writing


async def test_a_slow_writer_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1, 2))
    seen: set[frozenset[str]] = set()
    async with following(file) as follower:
        with file.open("w") as out:
            for piece in (
                "services:\n- name: web\n  namespace: shop\n  instances:\n",
                "  - {id: w1, address: 10.0.0.1}\n",
                "  - {id: w3, address: 10.0.0.3}\n",
            ):
                out.write(piece)
                out.flush()
                await asyncio.sleep(0.15)
                seen.add(frozenset(follower.ids))
        await follower.until(lambda: follower.ids == {"w1", "w3"})
        assert seen == {frozenset({"w1", "w2"})}


async def test_a_new_file_and_a_deleted_one_are_noticed(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1))
    async with following(tmp_path / "*.yaml") as follower:
        write(tmp_path / "b.yaml", document(2, name="api"))
        await follower.until(lambda: follower.ids == {"w1", "w2"})
        (tmp_path / "b.yaml").unlink()
        await follower.until(lambda: bool(follower.unknown))
        assert follower.ids == {"w1", "w2"}


async def test_a_directory_made_later_is_watched_once_a_list_has_seen_it(tmp_path: Path) -> None:
    directory = tmp_path / "later"
    async with following(directory / "a.yaml") as follower:
        assert follower.unknown
        directory.mkdir()
        write(directory / "a.yaml", document(1))
        await follower.list()  # the poll
        await follower.until(lambda: follower.ids == {"w1"})
        replace(directory / "a.yaml", document(2))
        await follower.until(lambda: follower.ids == {"w2"})


async def test_a_directory_put_in_anothers_place_is_watched(tmp_path: Path) -> None:
    directory = tmp_path / "files"
    directory.mkdir()
    write(directory / "a.yaml", document(1))
    async with following(directory / "a.yaml") as follower:
        shutil.rmtree(directory)
        await follower.until(lambda: bool(follower.unknown))
        directory.mkdir()
        write(directory / "a.yaml", document(2))
        await follower.list()  # the poll
        await follower.until(lambda: follower.ids == {"w2"})
        write(directory / "a.yaml", document(3))
        await follower.until(lambda: follower.ids == {"w3"})


async def test_a_link_switched_and_its_target_edited_are_noticed(tmp_path: Path) -> None:
    mounted, elsewhere = tmp_path / "mounted", tmp_path / "elsewhere"
    mounted.mkdir()
    elsewhere.mkdir()
    write(elsewhere / "1.yaml", document(1))
    write(elsewhere / "2.yaml", document(2))
    (mounted / "a.yaml").symlink_to(elsewhere / "1.yaml")
    async with following(mounted / "a.yaml") as follower:
        write(elsewhere / "1.yaml", document(3))
        await follower.until(lambda: follower.ids == {"w3"})
        (mounted / ".new").symlink_to(elsewhere / "2.yaml")
        (mounted / ".new").replace(mounted / "a.yaml")
        await follower.until(lambda: follower.ids == {"w2"})


async def test_hints_can_be_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    follower = Follower(file)
    for number in (2, 3):
        task = asyncio.create_task(follower.follow())
        await follower.until(lambda: 0.0 in follower.hints)
        follower.hints.clear()
        write(file, document(number))
        await follower.until(lambda n=number: follower.ids == {f"w{n}"})  # type: ignore[misc]
        task.cancel()
        await asyncio.wait([task])


async def test_a_name_that_is_not_unicode_costs_no_other_file_its_notice(tmp_path: Path) -> None:
    """The library cannot tell of it, and loses whatever else happened at that moment."""
    file, odd = tmp_path / "a.yaml", tmp_path / os.fsdecode(b"\xff.yaml")
    write(file, document(1))
    async with following(tmp_path / "*.yaml") as follower:
        for number in (2, 4, 6):
            write(odd, document(number, name="api"))
            replace(file, document(number + 1))
            await follower.until(lambda n=number: follower.ids == {f"w{n}", f"w{n + 1}"})  # type: ignore[misc]
        assert not follower.unknown


async def test_after_what_was_not_told_a_new_file_must_be_still(tmp_path: Path) -> None:
    """That it was deleted, and is made anew, may be what was not told: so it was not surely renamed into place."""
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = Reader(file)
    await reader.list()
    notifications = reader.source._notifications
    notifications._miss()
    notifications._fresh = {str(file): {Change.added}}
    replace(file, document(2))
    await reader.list()
    assert reader.ids == {"w1"}
    await reader.settled()
    assert reader.ids == {"w2"}
    replace(file, document(3))
    notifications._fresh = {str(file): {Change.added}}
    await reader.list()
    assert reader.ids == {"w3"}, "it was read since"


async def test_a_directory_whose_name_is_not_unicode_is_left_to_the_polls(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xfe")
    odd.mkdir()
    write(tmp_path / "a.yaml", document(1))
    write(odd / "b.yaml", document(2, name="api"))
    async with following(tmp_path / "**" / "*.yaml") as follower:
        await follower.until(lambda: follower.ids == {"w1", "w2"})
        write(tmp_path / "a.yaml", document(3))
        await follower.until(lambda: follower.ids == {"w2", "w3"})
        write(odd / "b.yaml", document(4, name="api"))
        await follower.list()  # the poll
        await follower.until(lambda: follower.ids == {"w3", "w4"})
