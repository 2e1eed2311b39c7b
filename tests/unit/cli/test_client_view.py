"""What a stream adds up to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scripted_bridge import instance

from bridge.client.sse import Event
from bridge.client.view import Difference, InstanceView
from bridge.errors import ApiError


def put(view: InstanceView, type: str, **document: Any) -> list[tuple[str, str]]:
    return [(one.change, one.key.rpartition("/")[2]) for one in view.apply(Event(type, json.dumps(document), "c"))]


@pytest.fixture
def view() -> InstanceView:
    """A view that knows the instances 1 and 2."""
    view = InstanceView()
    put(view, "snapshot", instances=[instance("shop/web/1"), instance("shop/web/2")], complete=True)
    return view


def test_a_snapshot_counts_when_its_last_piece_is_there() -> None:
    view = InstanceView()
    assert put(view, "snapshot", instances=[instance("shop/web/1")]) == []
    assert not view.complete
    assert put(view, "snapshot", instances=[instance("shop/web/2")], complete=True) == [("added", "1"), ("added", "2")]
    assert view.complete


@pytest.mark.parametrize("broken_off_by", ["open", "reset"])
def test_a_snapshot_that_broke_off_removes_nothing(view: InstanceView, broken_off_by: str) -> None:
    put(view, "reset")
    put(view, "snapshot", instances=[instance("shop/web/3")])
    put(view, broken_off_by)
    assert put(view, "snapshot", instances=[instance("shop/web/1"), instance("shop/web/2")], complete=True) == []


def test_a_second_snapshot_shows_only_what_differs(view: InstanceView) -> None:
    put(view, "reset")
    arrived = [instance("shop/web/2", health="unready"), instance("shop/web/3")]
    assert put(view, "snapshot", instances=arrived, complete=True) == [("removed", "1"), ("updated", "2"), ("added", "3")]


def test_added_and_updated_both_put(view: InstanceView) -> None:
    assert put(view, "change", added=[instance("shop/web/1", weight=5)], updated=[instance("shop/web/9")]) == [
        ("updated", "1"),
        ("added", "9"),
    ]


def test_what_is_known_or_was_never_known_makes_no_difference(view: InstanceView) -> None:
    assert put(view, "change", updated=[instance("shop/web/1")], removed=["eu/main/shop/web/never"]) == []


def test_a_removal_shows_what_was_last_known(view: InstanceView) -> None:
    (gone,) = view.apply(Event("change", json.dumps({"removed": ["eu/main/shop/web/1"]}), "c"))
    assert gone == Difference("removed", "eu/main/shop/web/1", instance("shop/web/1"), None)
    assert gone.instance["addresses"] == ["10.0.0.1"]


def test_an_update_names_its_fields(view: InstanceView) -> None:
    (changed,) = view.apply(Event("change", json.dumps({"updated": [instance("shop/web/1", health="unready", new=1)]}), "c"))
    assert changed.fields == {"health": ("ready", "unready"), "new": (None, 1)}


def test_bookmarks_tell_what_is_stale(view: InstanceView) -> None:
    assert put(view, "bookmark", age_ms=1, stale=["eu"]) == []
    assert view.stale == ("eu",)


@pytest.mark.parametrize(
    "event",
    [
        Event("change", "{", ""),
        Event("change", "[]", ""),
        Event("change", '{"added": [{}]}', ""),
        Event("change", '{"added": [3]}', ""),
        Event("change", '{"removed": [[]]}', ""),
        Event("snapshot", "{}", ""),
        Event("snapshot", '{"instances": 3}', ""),
        Event("bookmark", "3", ""),
        Event("change", "[" * 100_000, ""),
    ],
)
def test_what_is_not_as_promised_is_an_error(view: InstanceView, event: Event) -> None:
    with pytest.raises(ApiError, match="not as promised"):
        view.apply(event)


def test_unknown_events_are_passed_over(view: InstanceView) -> None:
    assert put(view, "of-a-later-version") == []
