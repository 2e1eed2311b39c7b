"""The mass-removal guard, row by row."""

from __future__ import annotations

import pytest

from bridge.catalog.guard import WINDOW, GuardPolicy, Hold, Window, services_to_hold
from bridge.model import ServiceName

WEB, API, DB = ServiceName("shop", "web"), ServiceName("shop", "api"), ServiceName("shop", "db")
Table = dict[ServiceName, int]
NOTHING: Table = {}

ROWS: dict[str, tuple[Table, Table, int, Table, Table, set[ServiceName]]] = {
    "nothing is absent": (NOTHING, NOTHING, 100, NOTHING, NOTHING, set()),
    "up to the floor goes": ({WEB: 3}, {WEB: 4}, 5, NOTHING, NOTHING, set()),
    "beyond the floor of a small source is held": ({WEB: 4}, {WEB: 5}, 5, NOTHING, NOTHING, {WEB}),
    "the share goes": ({WEB: 30}, {WEB: 50}, 100, NOTHING, NOTHING, set()),
    "beyond the share is held": ({WEB: 31}, {WEB: 50}, 100, NOTHING, NOTHING, {WEB}),
    "beyond the share over several services": ({WEB: 20, API: 11}, {WEB: 50, API: 50}, 100, NOTHING, NOTHING, {WEB, API}),
    "what absence took before counts": ({WEB: 21}, {WEB: 40}, 90, {API: 10}, NOTHING, {WEB}),
    "what absence took before, and little now": ({WEB: 2}, {WEB: 40}, 90, {API: 10}, NOTHING, set()),
    "replacement in the same service is none": ({WEB: 50}, {WEB: 100}, 150, NOTHING, {WEB: 50}, set()),
    "additions elsewhere make up for nothing": ({WEB: 50}, {WEB: 60}, 150, NOTHING, {API: 50}, {WEB}),
    "half replaced, little lost": ({WEB: 50, API: 1}, {WEB: 80, API: 3}, 100, NOTHING, {WEB: 40}, set()),
    "a replaced service is not held with the others": ({WEB: 40, API: 9}, {WEB: 50, API: 20}, 100, NOTHING, {API: 9}, {WEB}),
    "a service of two that would have none": ({WEB: 2}, {WEB: 2}, 100, NOTHING, NOTHING, {WEB}),
    "a service of one that would have none": ({WEB: 1}, {WEB: 1}, 100, NOTHING, NOTHING, set()),
    "two services that would have none": ({WEB: 2, API: 2, DB: 1}, {WEB: 2, API: 2, DB: 5}, 100, NOTHING, NOTHING, {WEB, API}),
    "a service emptied in two steps": ({WEB: 1}, {WEB: 1}, 100, {WEB: 1}, NOTHING, {WEB}),
}


@pytest.mark.parametrize(("absent", "sizes", "total", "lost", "added", "held"), ROWS.values(), ids=ROWS)
def test_what_is_held(absent: Table, sizes: Table, total: int, lost: Table, added: Table, held: set[ServiceName]) -> None:
    services, reason = services_to_hold(GuardPolicy(), absent=absent, sizes=sizes, total=total, lost=lost, added=added)
    assert services == held
    assert (reason is not None) is bool(held)


EMPTYING: dict[str, tuple[Table, int, bool]] = {
    "nothing is absent": (NOTHING, 10, False),
    "all but one": ({WEB: 9}, 10, False),
    "all": ({WEB: 6, API: 4}, 10, True),
    "the only one": ({WEB: 1}, 1, True),
}


@pytest.mark.parametrize(("absent", "total", "held"), EMPTYING.values(), ids=EMPTYING)
def test_a_guard_against_emptying_holds_nothing_else(absent: Table, total: int, held: bool) -> None:
    policy = GuardPolicy(only_when_emptied=True)
    services, _ = services_to_hold(policy, absent=absent, sizes=absent, total=total, lost={}, added={})
    assert services == (set(absent) if held else set())


def test_the_reason_names_three_services_at_most() -> None:
    names = {ServiceName("shop", f"s{n}"): 2 for n in range(5)}
    _, reason = services_to_hold(GuardPolicy(), absent=names, sizes=names, total=1000, lost={}, added={})
    assert reason == "listings lack every instance of shop/s0, shop/s1, shop/s2 and others"


@pytest.mark.parametrize(("listings", "age", "over"), [(1, 900, False), (2, 299, False), (2, 300, True), (9, 301, True)])
def test_a_hold_ends_after_two_further_listings_and_five_minutes(listings: int, age: float, over: bool) -> None:
    assert Hold(1000.0, listings).is_over(GuardPolicy(), 1000.0 + age) is over


def test_the_window_forgets_after_a_minute() -> None:
    window = Window()
    window.lose(1000.0, WEB)
    window.lose(1010.0, WEB)
    window.add(1020.0, API)
    window.trim(1000.0 + WINDOW)
    assert (dict(window.lost), dict(window.added)) == ({WEB: 2}, {API: 1})
    window.trim(1000.1 + WINDOW)
    assert (dict(window.lost), dict(window.added)) == ({WEB: 1}, {API: 1})
    window.trim(1020.1 + WINDOW)
    assert (dict(window.lost), dict(window.added)) == ({}, {})
