"""Parameters become a query, or an error that names what was probably meant."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.catalog.query import CHOICES, MAX_WAIT, SETS, Query, encode_page, nearest, parse
from bridge.errors import QueryError
from bridge.model import Port, ServiceInstance

POSITION = ("000000", "shop", "web", "eu", "main", "shop/web/1")

GIVEN: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{name}={name}1&{name}={name}0&{name}={name}1": ("instances", {name: (f"{name}0", f"{name}1")}) for name in SETS},
    "": ("instances", {"health": ("ready",), "lifecycle": ("active",), "state": ("listed",), "stale": True}),
    "meta.team=a&meta.team=b&meta.x=": ("instances", {"meta": (("team", ("a", "b")), ("x", ("",)))}),
    "meta.a.b=c": ("instances", {"meta": (("a.b", ("c",)),)}),
    "health=any": ("instances", {"health": ("ready", "unready", "unknown")}),
    "health=unknown&health=ready&health=unready": ("instances", {"health": ("ready", "unready", "unknown")}),
    "health=unready&health=any": ("instances", {"health": ("ready", "unready", "unknown")}),
    "lifecycle=draining": ("instances", {"lifecycle": ("draining",)}),
    "state=expired&state=listed": ("instances", {"state": ("listed", "expired")}),
    "stale=no": ("instances", {"stale": False}),
    "stale=yes": ("instances", {"stale": True}),
    "near=z2&near=eu&near=z2": ("instances", {"near": ("z2", "eu")}),
    "limit=1": ("instances", {"limit": 1}),
    "limit=999999999999999999999999999999": ("instances", {"limit": 10**30 - 1}),
    "environment=": ("instances", {"environment": ("",)}),
    f"page={encode_page(POSITION)}": ("instances", {"page": POSITION}),
    f"page={encode_page(('shop', 'wéb'))}": ("services", {"page": ("shop", "wéb")}),
}


def pairs(text: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (part.partition("=") for part in text.split("&") if part)]


@pytest.mark.parametrize(("text", "resource", "fields"), [(text, *rest) for text, rest in GIVEN.items()], ids=GIVEN)
def test_filters(text: str, resource: Any, fields: dict[str, Any]) -> None:
    query, _ = parse(resource, pairs(text))
    assert {name: getattr(query, name) for name in fields} == fields


def test_the_list_of_services_counts_whatever_the_health() -> None:
    query, _ = parse("services", [])
    assert query.health == ("ready", "unready", "unknown")
    assert query.lifecycle == ("active", "draining")
    assert query.state == ("listed",)


FILTERED = {
    "environment=a": False,
    "namespace=a": False,
    "limit=1": False,
    "near=a": False,
    "after=x&wait=1s": False,
} | dict.fromkeys(("tag=a", "source=a", "health=any", "stale=yes", "meta.a=b", "port=http"), True)


@pytest.mark.parametrize(("text", "filtered"), FILTERED.items())
def test_which_filters_leave_out_services_without_instances(text: str, filtered: bool) -> None:
    assert parse("services", pairs(text))[0].filtered is filtered


def test_order_and_repetition_make_no_other_query() -> None:
    one, _ = parse("instances", pairs("zone=b&tag=x&zone=a"))
    other, _ = parse("instances", pairs("tag=x&zone=a&zone=b&zone=a"))
    assert one == other
    assert hash(one) == hash(other)


READINGS = {
    "": (None, None),
    "after=x": ("x", 300.0),
    "after=x&wait=500ms": ("x", 0.5),
    "wait=1m30s": (None, 90.0),
    "wait=0s": (None, 0.0),
    "wait=2h": (None, MAX_WAIT),
    f"wait={'9' * 400}s": (None, MAX_WAIT),
}


@pytest.mark.parametrize(("text", "reading"), READINGS.items(), ids=[text[:30] for text in READINGS])
@pytest.mark.parametrize("resource", ["services", "service", "instances", "instance", "environments"])
def test_readings(text: str, reading: tuple[str | None, float | None], resource: Any) -> None:
    given = parse(resource, pairs(text))[1]
    assert (given.after, given.wait) == reading


WRONG = {
    "zoone=a": ("instances", "zoone", "'zone'"),
    "Tag=a": ("instances", "Tag", "'tag'"),
    "helth=any": ("services", "helth", "'health'"),
    "meta=a": ("instances", "meta", "'meta.<key>'"),
    "meta.=a": ("instances", "meta.", "'meta.<key>'"),
    "waits=1s": ("environments", "waits", "'wait'"),
    "zone=a": ("environments", "zone", "'wait', 'after'"),
    "meta.a=b": ("instance", "meta.a", "after, wait"),
    "limit=1": ("instance", "limit", "wait"),
    "=x": ("instances", "", "did you mean"),
    "health=redy": ("instances", "health", "'ready'"),
    "health=": ("instances", "health", "did you mean"),
    "lifecycle=drain": ("instances", "lifecycle", "'draining'"),
    "state=lost": ("instances", "state", "'listed'"),
    "stale=maybe": ("instances", "stale", "'yes'"),
    "stale=yes&stale=yes": ("instances", "stale", "more than once"),
    "limit=0": ("instances", "limit", "at least 1"),
    "limit=-1": ("instances", "limit", "at least 1"),
    "limit=1.5": ("instances", "limit", "at least 1"),
    "limit=²": ("instances", "limit", "at least 1"),
    "limit=": ("instances", "limit", "at least 1"),
    f"limit={'1' * 31}": ("instances", "limit", "at least 1"),
    "limit=1&limit=1": ("instances", "limit", "more than once"),
    "page=": ("instances", "page", "next"),
    "page=abc": ("instances", "page", "next"),
    "page=ä": ("instances", "page", "next"),
    "page=Af8": ("instances", "page", "next"),
    f"page={encode_page(('shop', 'web'))}": ("instances", "page", "next"),
    f"page={encode_page(POSITION)}": ("services", "page", "next"),
    "wait=5": ("instances", "wait", "duration"),
    "wait=": ("instances", "wait", "duration"),
    "wait=-1s": ("instances", "wait", "duration"),
    f"wait={'x' * 100}": ("instances", "wait", "duration"),
    "wait=1s&wait=1s": ("instances", "wait", "more than once"),
    "after=a&after=b": ("instances", "after", "more than once"),
}


@pytest.mark.parametrize(("text", "resource", "parameter", "says"), [(t, *rest) for t, rest in WRONG.items()], ids=WRONG)
def test_what_cannot_be_asked_names_the_parameter(text: str, resource: Any, parameter: str, says: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(resource, pairs(text))
    assert caught.value.parameter == parameter
    assert caught.value.status == 400
    assert any(word.strip() in caught.value.detail for word in says.split(", "))


@pytest.mark.parametrize("name", CHOICES)
def test_nearest_is_always_something_valid(name: str) -> None:
    for word in ("", "xyzzy", "💥", "a" * 1000, name):
        assert nearest(word, CHOICES[name]) in CHOICES[name]


INSTANCE = ServiceInstance(
    environment="eu",
    source="main",
    id="shop/web/1",
    namespace="shop",
    service="web",
    ports=(Port("http", 80), Port(None, 81)),
    zone="z1",
    node="n1",
    tags=("v1", "v2"),
    meta={"team": "a"},
)
FITS = ["environment=eu", "source=main", "namespace=shop", "zone=z0&zone=z1", "node=n1", "tag=v2", "port=http", "meta.team=a"]
FITS_NOT = ["environment=us", "source=x", "namespace=pay", "zone=z2", "node=n2", "tag=v3", "port=81", "meta.team=b", "meta.x=a"]
FITS_NOT += ["tag=v1&zone=z2", "health=unready", "lifecycle=draining", "state=expired", "meta.team="]


@pytest.mark.parametrize(("text", "fits"), [(t, True) for t in FITS] + [(t, False) for t in FITS_NOT])
def test_matching(text: str, fits: bool) -> None:
    assert parse("instances", pairs(text))[0].matches(INSTANCE) is fits


@pytest.mark.parametrize(("state", "degraded", "asked", "fits"), [
    ("listed", False, "listed", True),
    ("expired", False, "listed", False),
    ("expired", True, "listed", True),
    ("expired", True, "down", False),
    ("expired", False, "expired", True),
    ("down", True, "listed", False),
])  # fmt: skip
def test_expired_instances_stand_in_for_listed_ones_only(state: Any, degraded: bool, asked: str, fits: bool) -> None:
    instance = ServiceInstance(id="1", namespace="shop", service="web", state=state)
    assert Query(state=(asked,)).matches(instance, degraded=degraded) is fits


def test_distance_is_the_first_place_named() -> None:
    query = Query(near=("z9", "eu", "z1"))
    assert query.distance(INSTANCE) == 1
    assert Query(near=("z1", "eu")).distance(INSTANCE) == 0
    assert Query(near=("us",)).distance(INSTANCE) == 1
