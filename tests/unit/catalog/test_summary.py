"""Running counts are what counting anew gives."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.catalog.summary import Tally
from bridge.model import Port, ServiceInstance, ServiceName

WEB = ServiceName("shop", "web")
instances = st.builds(
    ServiceInstance,
    environment=st.sampled_from(["eu", "us"]),
    id=st.just("1"),
    namespace=st.just("shop"),
    service=st.just("web"),
    health=st.sampled_from(["ready", "unready", "unknown"]),
    lifecycle=st.sampled_from(["active", "draining"]),
    ports=st.lists(st.builds(Port, st.none() | st.sampled_from(["http", "grpc"]), st.just(80)), max_size=3).map(tuple),
    tags=st.lists(st.sampled_from(["a", "b"]), max_size=3).map(tuple),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(instances, max_size=6), st.lists(instances, max_size=6))
def test_taking_out_undoes_putting_in(stay: list[ServiceInstance], leave: list[ServiceInstance]) -> None:
    tally = Tally([*leave, *stay])
    for instance in leave:
        tally.add(instance, -1)
    assert tally.summary(WEB, (), None) == Tally(stay).summary(WEB, (), None)
    assert bool(tally) is bool(stay)
    assert tally.count("eu") == sum(instance.environment == "eu" for instance in stay)


BUCKETS: dict[str, tuple[dict[str, Any], str]] = {
    "ready": ({}, "ready"),
    "unready": ({"health": "unready"}, "unready"),
    "unknown counts as unready": ({"health": "unknown"}, "unready"),
    "draining though ready": ({"lifecycle": "draining"}, "draining"),
    "draining and unready": ({"lifecycle": "draining", "health": "unready"}, "draining"),
}


@pytest.mark.parametrize(("fields", "bucket"), BUCKETS.values(), ids=BUCKETS)
def test_what_counts_as_what(fields: dict[str, Any], bucket: str) -> None:
    tally = Tally([ServiceInstance(environment="eu", id="1", namespace="shop", service="web", **fields)])
    counts = msgspec.to_builtins(tally.summary(WEB, (), None))["environments"]["eu"]
    assert counts == {"ready": 0, "unready": 0, "draining": 0} | {bucket: 1}


def test_an_environment_that_only_knows_it_has_zeros() -> None:
    document = msgspec.to_builtins(Tally().summary(WEB, ("us", "eu"), None))
    zeros = {"ready": 0, "unready": 0, "draining": 0}
    assert document["environments"] == {"eu": zeros, "us": zeros}
    assert "degraded" not in document


def test_a_shown_summary_does_not_change_with_the_counts() -> None:
    instance = ServiceInstance(environment="eu", id="1", namespace="shop", service="web")
    tally = Tally([instance])
    shown = tally.summary(WEB, (), None)
    tally.add(instance, 1)
    assert shown.environments["eu"].ready == 1
