"""What would go under another configuration."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.contracts import SourceConfig
from bridge.host.against import Verdict, judge
from bridge.host.connect import Outcome
from bridge.model import ServiceInstance


class Config(SourceConfig):
    type: str = "fake"

    def open(self, ctx: Any) -> Any:
        raise NotImplementedError


RULES: dict[str, Any] = {
    "exclude": ("*/hidden",),
    "relabel": ({"from": "{name}", "match": "(o)dd", "to": "weight", "value": r"\1"},),
}


def seen(*ids: str, **also: Any) -> Outcome:
    made = (ServiceInstance(id=own, namespace=own.split("/")[0], service=own.split("/")[1]) for own in ids)
    return Outcome("fake", "reachable", instances=tuple(made), **also)


def verdict(served: set[str], outcome: Outcome | None, **config: Any) -> Verdict:
    (judged,) = judge("eu", {"main": Config(**config)}, {"main": served}, {"main": outcome} if outcome else {})
    return judged


def test_a_source_no_longer_configured_loses_all() -> None:
    assert judge("eu", {}, {"main": {"a/b/2", "a/b/1"}}, {}) == [
        Verdict("main", 2, ("a/b/1", "a/b/2"), 0, "no longer configured")
    ]


def test_a_renamed_source_loses_nothing() -> None:
    (judged,) = judge("eu", {"new": Config(renamed_from="old")}, {"old": {"a/b/1"}}, {"new": seen("a/b/1", "a/b/2")})
    assert (judged.source, judged.served, judged.dropped, judged.new) == ("new", 1, (), 1)
    assert judged.reason.startswith("renamed from old; ")


@pytest.mark.parametrize(
    ("sources", "types", "told"),
    [
        ({"new": {}}, {"old": "fake"}, "if `new` is the same"),
        ({"b": {}, "a": {}}, {"old": "fake"}, "if one of `a`, `b` is the same"),
        ({"new": {}}, {"old": "other"}, None),
        ({"new": {}}, {}, None),
        ({"kept": {}}, {"old": "fake", "kept": "fake"}, None),
        ({"kept": {}, "new": {"renamed_from": "older"}}, {"old": "fake", "kept": "fake"}, None),
    ],
)
def test_a_new_source_of_the_type_of_one_that_goes_may_be_that_one(sources: Any, types: Any, told: str | None) -> None:
    served = {"old": {"a/b/1"}}
    first, *_ = judge("eu", {name: Config(**keys) for name, keys in sources.items()}, served, {}, types)
    assert (first.source, first.dropped) == ("old", ("a/b/1",))
    if told is None:
        assert first.reason == "no longer configured"
    else:
        assert told in first.reason
        assert "`renamed_from: old`" in first.reason


def test_a_former_name_that_is_long_gone_means_nothing() -> None:
    assert verdict({"a/b/1"}, seen("a/b/1"), renamed_from="old").reason == "nothing would go"


def test_a_former_name_of_two_present_sources_goes() -> None:
    judged = judge("eu", {"new": Config(renamed_from="old")}, {"old": {"a/b/1"}, "new": {"a/b/2"}}, {})
    assert [(one.source, one.dropped) for one in judged] == [("old", ("a/b/1",)), ("new", ())]


def test_rules_that_hide_and_absence_both_drop() -> None:
    judged = verdict({"a/b/1", "a/hidden/1", "a/b/gone"}, seen("a/b/1", "a/hidden/1", "a/b/new"), **RULES)
    assert (judged.dropped, judged.new) == (("a/b/gone", "a/hidden/1"), 1)


@pytest.mark.parametrize("state", ["failed", "forbidden"])
def test_what_could_not_be_asked_drops_nothing(state: Any) -> None:
    judged = verdict({"a/b/1"}, Outcome("fake", state, "refused"))
    assert (judged.dropped, judged.new) == ((), None)


def test_without_an_observation_nothing_is_said_of_instances() -> None:
    assert verdict({"a/b/1"}, None).dropped == ()


def test_what_is_unknown_rejected_or_refused_by_the_rules_is_kept() -> None:
    outcome = seen("a/b/1", "a/odd/1", unknown={"pay": "denied"}, rejected={"a/b/2": "broken"})
    judged = verdict({"a/b/1", "a/odd/1", "pay/x/1", "a/b/2", "a/b/3"}, outcome, **RULES)
    assert judged.dropped == ("a/b/3",)
    assert "at most these" in judged.reason
