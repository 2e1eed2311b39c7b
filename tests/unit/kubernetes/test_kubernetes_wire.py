"""The API server's JSON, whole, broken and made up."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from bridge.errors import ForbiddenError, TransientError
from bridge_plugins.sources.kubernetes import wire
from bridge_plugins.sources.kubernetes.requests import NODES, SERVICES, SLICES, Selection, StatusError, refusal
from bridge_plugins.sources.kubernetes.wire import BrokenError, Status
from tests.kit.fakes import kubeobjects as objects
from tests.kit.strategies import JSON


def page(**more: Any) -> bytes:
    made = {"kind": "ServiceList", "metadata": {"resourceVersion": "7"}, "items": []} | more
    return json.dumps({key: value for key, value in made.items() if value != "absent"}).encode()


def test_a_page_has_items_version_and_the_next_token() -> None:
    read = wire.read_page(page(items=[{"a": 1}, 2], metadata={"resourceVersion": "7", "continue": "c"}), "Service")
    assert ([bytes(item) for item in read.items], read.version, read.next) == ([b'{"a": 1}', b"2"], "7", "c")


def test_null_items_are_an_empty_list() -> None:
    assert wire.read_page(page(items=None), "Service").items == []


@pytest.mark.parametrize("token", ["", None])
def test_an_empty_token_ends_the_list(token: Any) -> None:
    assert wire.read_page(page(metadata={"resourceVersion": "7", "continue": token}), "Service").next is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b"{}",
        page()[:-3],
        page(kind="PodList"),
        page(kind="Status"),
        page(kind=None),
        page(items="absent"),
        page(items={}),
        page(metadata={}),
        page(metadata=None),
        page(metadata={"resourceVersion": ""}),
        page(metadata={"resourceVersion": 7}),
        b"[" * 100_000,
        b'{"kind":"ServiceList","x":' + b"[" * 100_000,
    ],
)
def test_anything_else_is_no_empty_list(body: bytes) -> None:
    with pytest.raises(TransientError):
        wire.read_page(body, "Service")


HALVES = [
    (rb"\ud800", "\ufffd"),
    (rb"\uDC00x", "\ufffdx"),
    (rb"\ud800\ud800\udc00", "\ufffd\U00010000"),
    (rb"\udc00\ud800", "\ufffd\ufffd"),
    (rb"\\\ud800", "\\\ufffd"),
    (rb"\ud800 \\ud800\udc00", "\ufffd \\ud800\ufffd"),
    (rb"\ud800 \ud83d\ude00 \\ud800", "\ufffd \U0001f600 \\ud800"),
]


@pytest.mark.parametrize(("text", "read"), HALVES)
def test_half_a_surrogate_pair_costs_neither_its_neighbours_nor_its_object(text: bytes, read: str) -> None:
    made = b'{"metadata":{"name":"b","namespace":"shop","annotations":{"note":"%s"}}}' % text
    body = page(items=[1, "HERE", 3]).replace(b'"HERE"', made)
    items = wire.read_page(body, "Service").items
    assert [bytes(items[0]), bytes(items[2])] == [b"1", b"3"]
    assert wire.read_service(items[1]).metadata.annotations == {"note": read}
    event = wire.read_event(b'{"type":"ADDED","object":%s}' % made, "Service")
    assert wire.read_service(event.object).metadata.annotations == {"note": read}


def test_what_can_be_decoded_is_not_looked_at_for_surrogates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_SURROGATE", None)
    made = objects.service("web", annotations={"note": "\U0001f600 \\ud800"})
    (item,) = wire.read_page(page(items=[made]), "Service").items
    assert wire.read_service(item).metadata.annotations == {"note": "\U0001f600 \\ud800"}


def test_a_run_of_backslashes_takes_no_longer_than_its_length() -> None:
    with pytest.raises(TransientError):
        wire.read_page(b'{"x":"' + b"\\" * 2_000_000 + b"x", "Service")


@given(st.lists(st.sampled_from(["\ud800", "\udbff", "\udc00", "\udfff", "\\", "u", '"', "d800", "a"]), max_size=20))
def test_any_text_is_read_as_another_reader_would_with_halves_replaced(parts: list[str]) -> None:
    text = "".join(parts)
    body = page(items=[{"metadata": {"name": "b", "annotations": {"note": text}}}])
    (item,) = wire.read_page(body, "Service").items
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert wire.read_service(item).metadata.annotations == {"note": expected}


@pytest.mark.parametrize("line", [b"{}", b'{"type":"ADDED"}', b'{"type":"NEW","object":{}}', b"x", b'{"type":"ADDED","object":'])
def test_a_line_that_is_no_event_is_unknown(line: bytes) -> None:
    with pytest.raises(TransientError):
        wire.read_event(line, "Service")


def test_a_bookmark_may_mark_the_end_of_what_was_there() -> None:
    plain = {"metadata": {"resourceVersion": "9", "annotations": None}}
    marked = {"metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}}
    assert not wire.read_bookmark(Raw(json.dumps(plain).encode()), "Service").initial_end
    assert wire.read_bookmark(Raw(json.dumps(marked).encode()), "Service").initial_end


@pytest.mark.parametrize(
    ("made", "name"),
    [
        ({"metadata": {"name": "web", "namespace": "shop"}, "endpoints": "nine"}, "web"),
        ({"metadata": {"name": "web", "namespace": "shop", "labels": [1]}}, "web"),
        ({"metadata": {"name": "web", "namespace": "shop"}, "ports": [{"port": 70000}]}, "web"),
        ({"metadata": {"name": "web", "namespace": "shop"}, "ports": [{"port": 0}]}, "web"),
        ({"metadata": {"name": "web", "namespace": "shop"}, "ports": [{"port": 80, "protocol": "HTTP"}]}, "web"),
        ({"metadata": {"name": "web", "namespace": "shop"}, "addressType": "IPX"}, "web"),
        ({"metadata": {"name": 7, "namespace": "shop"}}, None),
        ({"metadata": {}}, None),
        ({"metadata": {"name": "a/b", "namespace": "shop"}, "endpoints": 1}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_broken_object_says_its_name_where_it_has_one(made: Any, name: str | None) -> None:
    with pytest.raises(BrokenError) as broken:
        wire.read_slice(Raw(json.dumps(made).encode()))
    assert broken.value.name == name


def test_endpoints_that_cannot_be_read_are_broken_each_on_its_own() -> None:
    good = objects.endpoint("10.0.0.1", "a")
    endpoints: list[Any] = [objects.endpoint("10.0.0.2", "b") | {"addresses": 1}, good, 7, good | {"targetRef": {"uid": 1}}]
    read = wire.read_slice(Raw(json.dumps(objects.endpointslice("web-1", "web", endpoints)).encode()))
    assert read.broken is not None
    assert {position: reason.partition(" - at ")[2] for position, reason in read.broken.items()} == {
        0: "`$.addresses`",
        2: "",
        3: "`$.targetRef.uid`",
    }
    assert read.endpoints is not None
    uids = [endpoint.target_ref and endpoint.target_ref.uid for endpoint in read.endpoints]
    assert uids == ["uid-b", "uid-a", None, None]


@given(st.binary() | JSON.map(lambda made: json.dumps(made).encode()))
def test_no_bytes_crash_the_reader(body: bytes) -> None:
    for read in (wire.read_page, wire.read_event):
        with suppress(TransientError):
            read(body, "Service")
    with suppress(TransientError):
        wire.read_bookmark(Raw(body), "Service")
    for decode in (wire.read_slice, wire.read_service, wire.read_node, wire.read_name):
        with suppress(BrokenError):
            decode(Raw(body))
    assert isinstance(wire.read_status(body), Status)


@given(st.sampled_from(["endpoints", "ports", "addressType", "metadata"]), JSON)
def test_any_field_may_hold_anything(name: str, value: Any) -> None:
    made = objects.endpointslice("web-1", "web", [objects.endpoint("10.0.0.1")]) | {name: value}
    with suppress(BrokenError):
        wire.read_slice(Raw(json.dumps(made).encode()))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("web", True),
        ("", False),
        (None, False),
        ("a/b", False),
        ("a\n", False),
        ("x" * 255, True),
        ("x" * 256, False),
        ("ü" * 200, False),
    ],
)
def test_what_can_be_part_of_a_key(text: str | None, good: bool) -> None:
    assert wire.is_name(text) is good


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (401, ForbiddenError, "credentials"),
        (403, ForbiddenError, 'watch endpointslices.discovery.k8s.io in namespace "shop"'),
        (404, StatusError, "does not offer /apis/discovery.k8s.io/v1 endpointslices"),
        (302, StatusError, "redirect"),
        (429, StatusError, "429"),
        (500, StatusError, "500"),
    ],
)
def test_a_refusal_says_what_is_missing(code: int, kind: type[Exception], says: str) -> None:
    error = refusal(Selection("shop").watch(SLICES, "7"), code, Status(), "9")
    assert isinstance(error, kind)
    assert says in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (None, None), ("Wed, 21 Oct", None), ("-1", None), ("9" * 9, 3600.0)]
)
def test_retry_after_is_carried(header: str | None, seconds: float | None) -> None:
    assert refusal(Selection().page(SERVICES, None), 429, Status(), header).retry_after == seconds


def test_requests_are_as_the_api_wants_them() -> None:
    selection = Selection("shop", "app=web", "metadata.name!=x")
    listed = selection.page(SLICES, "t/k=").target
    assert listed.startswith("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices?limit=500&continue=t%2Fk%3D")
    assert "resourceVersion" not in listed
    assert "labelSelector=app%3Dweb" in listed
    assert "fieldSelector=metadata.name%21%3Dx" in listed
    watched = selection.watch(SERVICES, "77").target
    assert "resourceVersion=77" in watched
    assert "allowWatchBookmarks=true" in watched
    assert 240 <= int(watched.partition("timeoutSeconds=")[2].partition("&")[0]) <= 480
    assert Selection("shop", "app=web").page(NODES, None).target == "/api/v1/nodes?limit=500"
    assert Selection().page(SERVICES, None).target == "/api/v1/services?limit=500"
