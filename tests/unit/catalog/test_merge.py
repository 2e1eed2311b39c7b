"""One instance out of several groups: what wins, whatever their order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.catalog.merge import address_order, merge
from bridge.model import Port, ServiceInstance

words = st.sampled_from(["a", "b", "c"])
parts = st.lists(
    st.builds(
        ServiceInstance,
        id=st.just("1"),
        namespace=words,
        service=words,
        addresses=st.lists(st.sampled_from(["10.0.0.1", "9.0.0.1", "fd00::1", "::1", "odd"]), max_size=3).map(tuple),
        hostname=st.none() | words,
        ports=st.lists(st.builds(Port, st.none() | words, st.integers(1, 2)), max_size=3).map(tuple),
        health=st.sampled_from(["ready", "unready", "unknown"]),
        lifecycle=st.sampled_from(["active", "draining"]),
        state=st.sampled_from(["listed", "down", "expired"]),
        weight=st.integers(0, 2),
        region=st.none() | words,
        zone=st.none() | words,
        node=st.none() | words,
        tags=st.lists(words, max_size=3).map(tuple),
        meta=st.dictionaries(words, words, max_size=3),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(parts, st.randoms(use_true_random=False))
def test_the_order_of_parts_does_not_matter(parts: list[ServiceInstance], random: Any) -> None:
    shuffled = parts.copy()
    random.shuffle(shuffled)
    if len(parts) > 1:
        assert merge(shuffled) == merge(parts)
        assert list(merge(shuffled).meta) == list(merge(parts).meta)


@settings(max_examples=40, deadline=None)
@given(parts)
def test_a_part_twice_changes_nothing(parts: list[ServiceInstance]) -> None:
    assert merge([*parts, *parts]) == merge([*parts, parts[0]])


def part(**fields: Any) -> ServiceInstance:
    return ServiceInstance(id="1", namespace="shop", service="web", **fields)


WINS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "ready over unready": ({"health": "unready"}, {"health": "ready"}, {"health": "ready"}),
    "unknown over unready": ({"health": "unready"}, {"health": "unknown"}, {"health": "unknown"}),
    "active over draining": ({"lifecycle": "draining"}, {}, {"lifecycle": "active"}),
    "listed over expired": ({"state": "expired"}, {}, {"state": "listed"}),
    "the larger weight": ({"weight": 0}, {"weight": 5}, {"weight": 5}),
    "what is known": ({"zone": None}, {"zone": "z"}, {"zone": "z"}),
    "the first by text": ({"node": "b"}, {"node": "a"}, {"node": "a"}),
    "IPv4 first": ({"addresses": ("fd00::1",)}, {"addresses": ("10.0.0.1",)}, {"addresses": ("10.0.0.1", "fd00::1")}),
    "all ports": ({"ports": (Port("b", 2),)}, {"ports": (Port("a", 1),)}, {"ports": (Port("a", 1), Port("b", 2))}),
    "all tags": ({"tags": ("b",)}, {"tags": ("a", "b")}, {"tags": ("a", "b")}),
    "all meta": ({"meta": {"x": "2"}}, {"meta": {"x": "1", "y": "3"}}, {"meta": {"x": "1", "y": "3"}}),
}


@pytest.mark.parametrize(("one", "other", "wins"), WINS.values(), ids=WINS)
def test_what_wins(one: dict[str, Any], other: dict[str, Any], wins: dict[str, Any]) -> None:
    merged = merge([part(**one), part(**other)])
    assert {name: getattr(merged, name) for name in wins} == wins


def test_addresses_by_value_and_what_is_none_last() -> None:
    addresses = ["odd", "fd00::1", "10.0.0.1", "9.0.0.1", "::1"]
    assert sorted(addresses, key=address_order) == ["9.0.0.1", "10.0.0.1", "::1", "fd00::1", "odd"]
