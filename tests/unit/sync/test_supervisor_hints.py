"""Hints of a source, one after the other: the soonest counts, and none waits behind another."""

from __future__ import annotations

import pytest

from bridge.model import Confirmed
from tests.unit.sync.scripted import END, Backend, Rig, group, listing

LISTED = listing(group("shop/a", "a1", "a2"))


async def hinted(rig: Rig, *hints: float | str) -> None:
    """Polled once; then these hints come, and the next poll may confirm."""
    await rig.has("a1", "a2")
    for hint in hints:
        rig.backend.hinted.put_nowait(hint)
    await rig.rest()
    rig.backend.do(Confirmed())


async def test_a_sooner_hint_does_not_wait_for_a_later_one() -> None:
    """Docker hints at one second while something is under way; what happens meanwhile hints at now."""
    backend = Backend("hinting")
    backend.do(LISTED)
    async with Rig(backend) as rig:
        await hinted(rig, 1.0, 0.05)
        assert await rig.pause() == pytest.approx(0.05)
        await rig.until("a second poll", lambda: backend.asked[""] == 2)


async def test_a_later_hint_does_not_put_off_a_sooner_one() -> None:
    backend = Backend("hinting")
    backend.do(LISTED)
    async with Rig(backend) as rig:
        await hinted(rig, 0.05, 1.0)
        assert await rig.pause() == pytest.approx(0.05)
        await rig.until("a second poll", lambda: backend.asked[""] == 2)


async def test_a_hint_counts_though_the_hints_end_after_it() -> None:
    backend = Backend("hinting")
    backend.do(LISTED)
    async with Rig(backend) as rig:
        await hinted(rig, 1.0, END)
        while backend.asked[""] == 1:
            assert await rig.pause() <= 1.0
        assert backend.asked[""] == 2
