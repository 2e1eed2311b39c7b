"""What is read only in part, or used again, is the same as if it were read and rendered as a whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from bridge.errors import TransientError
from bridge.model import NOWHERE, InstanceGroup, ServiceName
from bridge_plugins.sources.kubernetes import wire
from bridge_plugins.sources.kubernetes.checks import are_usable, is_ip, row_fault
from bridge_plugins.sources.kubernetes.cut import cut_line, cut_list, cut_slice
from bridge_plugins.sources.kubernetes.difference import difference
from bridge_plugins.sources.kubernetes.feed import Deadlines, Feed
from bridge_plugins.sources.kubernetes.policy import Policy
from bridge_plugins.sources.kubernetes.requests import SERVICES, Selection
from bridge_plugins.sources.kubernetes.rows import Row, pack, rows_of, unpack
from bridge_plugins.sources.kubernetes.slices import Renderer, SliceInput
from bridge_plugins.sources.kubernetes.state import ScopeState
from bridge_plugins.sources.kubernetes.transport import Api
from bridge_plugins.sources.kubernetes.wire import Event, UnreadableError
from tests.kit.fakes import kubeobjects as objects


def text_of(made: Any) -> bytes:
    """As Go's encoder writes it."""
    return json.dumps(made, separators=(",", ":"), ensure_ascii=False).encode()


def new_state(before: ScopeState | None = None) -> ScopeState:
    return ScopeState("", "pod", nodes=True, count=lambda *_: None, complain=lambda *_: None, before=before)


def told(state: ScopeState, key: str) -> Any:
    events, made_from = state.event(key)
    state.clean()
    return events, made_from


ENDPOINTS = st.lists(
    st.builds(
        lambda number, more: objects.endpoint(f"10.0.0.{number}", f"p{number}") | more,
        st.integers(1, 9),
        st.sampled_from(
            [
                *[{}] * 6,
                {"zone": "z2"},
                {"conditions": {"ready": False, "serving": True, "terminating": True}},
                {"conditions": {}},
                {"hostname": "db-0"},
                {"targetRef": None},
                {"nodeName": '"},{"addresses":["10.9.9.9"]},{'},
                {"zone": "z\ud83d"},
                {"addresses": ["nonsense"]},
                {"addresses": []},
                {"addresses": 7},
                {"nested": [{"addresses": ["10.0.0.8"]}, {"addresses": ["10.0.0.9"]}]},
                {"deprecatedTopology": {"a": "b"}},
            ]
        ),
    ),
    max_size=6,
)
SLICES = st.builds(
    lambda endpoints, ports, annotation: (
        objects.endpointslice("web-1", "web", endpoints, ports=ports)
        | {
            "metadata": {
                **objects.metadata("web-1", "shop", {"kubernetes.io/service-name": "web"}),
                "annotations": {"a": annotation},
            }
        }
    ),
    ENDPOINTS,
    st.sampled_from([*[[{"name": "http", "port": 8080}]] * 5, [], [{"port": 80}], None]),
    st.sampled_from(["", '"endpoints":[]', '],"ports":']),
)


def test_of_endpoints_told_twice_each_change_is_the_slice_read_at_once() -> None:
    told_by = [("p1", "p3", "p1"), ("p2", "p1"), ("p2", "p2", "p1"), ("p1",)]
    texts = [
        text_of(objects.endpointslice("web-1", "web", [objects.endpoint(f"10.0.0.{name[1]}", name) for name in names]))
        for names in told_by
    ]
    state = new_state()
    state.put("EndpointSlice", Raw(texts[0]))
    state.settle()
    told(state, "shop/slice/web-1")
    for text in texts[1:]:
        state.put("EndpointSlice", Raw(text))
        fresh = new_state()
        fresh.put("EndpointSlice", Raw(text))
        assert told(state, "shop/slice/web-1") == told(fresh, "shop/slice/web-1")


@settings(max_examples=400, deadline=None)
@given(st.lists(SLICES, min_size=1, max_size=5), st.data())
def test_a_slice_that_changes_step_by_step_is_the_slice_that_is_read_at_once(versions: list[Any], data: st.DataObject) -> None:
    texts = [json.dumps(made, separators=(",", ":")).encode() for made in versions]
    state = new_state()
    state.put("Node", Raw(text_of(objects.node("n1"))))
    state.put("EndpointSlice", Raw(texts[0]))
    state.settle()
    now = told(state, "shop/slice/web-1")
    for text in texts[1:]:
        state.put("EndpointSlice", Raw(text))
        touched = list(state.dirty)
        fresh = new_state()
        fresh.put("Node", Raw(text_of(objects.node("n1"))))
        fresh.put("EndpointSlice", Raw(text))
        before, now = now, told(state, "shop/slice/web-1")
        assert now == told(fresh, "shop/slice/web-1")
        assert bool(touched) or now == before


def slice_text(*pods: int, zone: str = "z1", **more: Any) -> bytes:
    endpoints = [objects.endpoint(f"10.0.0.{pod}", f"p{pod}", zone=zone if pod == 2 else "z1") for pod in pods]
    return text_of(objects.endpointslice("web-1", "web", endpoints, **more))


def instances_after(*texts: bytes) -> list[dict[str, Any]]:
    """The instances of a slice by id, after each of its versions."""
    state = new_state()
    shown: list[dict[str, Any]] = []
    for text in texts:
        state.put("EndpointSlice", Raw(text))
        if not shown:
            state.settle()
        (group, *_), _ = told(state, "shop/slice/web-1")
        assert isinstance(group, InstanceGroup)
        shown.append({instance.id: instance for instance in group.instances})
    return shown


@pytest.mark.parametrize(
    ("pods", "zone", "reused"),
    [
        ((1, 2, 3, 4, 5), "z9", {1, 3, 4, 5}),
        ((1, 3, 4, 5), "z1", {1, 4, 5}),
        ((1, 2, 3, 4), "z1", {1, 2, 3}),
        ((1, 2, 3, 4, 5, 6), "z1", {1, 2, 3, 4}),
        ((6, 1, 2, 3, 4, 5), "z1", {2, 3, 4, 5}),
        ((), "z1", set()),
    ],
)
def test_an_instance_whose_endpoint_did_not_change_is_the_same_object(pods: tuple[int, ...], zone: str, reused: set[int]) -> None:
    before, after = instances_after(slice_text(1, 2, 3, 4, 5), slice_text(*pods, zone=zone))
    assert list(after) == [f"shop/web/uid-p{pod}" for pod in pods]
    assert reused <= {pod for pod in pods if after[f"shop/web/uid-p{pod}"] is before.get(f"shop/web/uid-p{pod}")}


def test_other_ports_of_a_slice_are_those_of_all_its_instances() -> None:
    _, after = instances_after(slice_text(1, 2), slice_text(1, 2, zone="z2", ports=[{"port": 9}]))
    assert [instance.ports[0].port for instance in after.values()] == [9, 9]


def test_only_so_much_is_remembered_and_the_rest_is_rendered_the_same() -> None:
    rows = rows_of(wire.read_slice(Raw(slice_text(1, 2, 3))))
    name, policy, text = ServiceName("shop", "web"), Policy(), slice_text(1, 2, 3)
    made_from = SliceInput(pack(rows), name, policy, b"")
    renderer = Renderer(most=3 * len(text))
    first = {key: renderer.render(key, made_from, {}, NOWHERE, rows, text) for key in "abcd"}
    again = {key: renderer.render(key, made_from, {}, NOWHERE) for key in "dcba"}
    assert first == again
    assert first["d"] is again["d"]
    assert first["a"] is not again["a"]


def test_rows_are_packed_and_unpacked() -> None:
    rows = rows_of(wire.read_slice(Raw(slice_text(1, 2, 3))))
    assert unpack(pack(rows)) == rows


@given(st.lists(st.sampled_from(["1", "2", "3", "22", "}", '},{"addresses":', '"'])), st.lists(st.sampled_from(["1", "2", "22"])))
def test_a_difference_is_all_that_two_lists_differ_in(first: list[str], second: list[str]) -> None:
    before, now = ([{"addresses": [text]} for text in texts] for texts in (first, second))
    found = difference(text_of(before), text_of(now), len(before))
    if found is not None:
        assert before[: found.head] + json.loads(found.text) + before[len(before) - found.tail :] == now


@pytest.mark.parametrize(
    "before", [b"[]", b'[{"zone":"a"}]', b'[{"addresses":[]},{"zone":"a"}]', b"null", b"", b'[{"addresses":[]}, {}]']
)
def test_lists_that_are_written_otherwise_are_read_whole(before: bytes) -> None:
    for count in (0, 2):
        assert difference(before, b'[{"addresses":[]}]', count) is None


NESTED = {"metadata": {"name": "a", "namespace": "s"}, "list": [{"metadata": {"name": "b"}}, {"metadata": {"name": "c"}}]}
PLAIN = {"metadata": {"name": "d", "namespace": "s", "annotations": {"a": '},{"metadata":{"name":"e"}}'}}}


def page(*items: Any, **more: Any) -> bytes:
    return text_of({"kind": "ServiceList", "metadata": {"resourceVersion": "7"}, "items": list(items)} | more)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_list_is_cut_into_its_objects(end: bytes) -> None:
    body = page(PLAIN, {"metadata": {}}, PLAIN) + end
    assert cut_list(body) is not None
    for cut in (True, False):
        read = wire.read_page(body, "Service", cut=cut)
        assert [json.loads(bytes(item)) for item in read.items] == [PLAIN, {"metadata": {}}, PLAIN]


@pytest.mark.parametrize(
    "body", [page(1, 2), page(), page(more=1), page(more=[1]), page() + b" x", b'{"items":[', b"]}", page(PLAIN)[:-3]]
)
def test_a_list_that_is_written_otherwise_is_read_as_ever(body: bytes) -> None:
    def read(cut: bool) -> Any:
        try:
            return [bytes(item) for item in wire.read_page(body, "Service", cut=cut).items]
        except TransientError as error:
            return str(error)

    assert read(True) == read(False)


@given(st.lists(st.sampled_from([NESTED, PLAIN, {}, {"metadata": {"metadata": {}}}, {"kind": "Service"}]), max_size=6))
def test_before_the_first_piece_that_is_no_json_all_are_objects_of_the_list(items: list[Any]) -> None:
    cut = cut_list(page(*items))
    for piece, item in zip([] if cut is None else cut[1], items, strict=False):
        try:
            assert json.loads(bytes(piece)) == item
        except json.JSONDecodeError:
            break


@pytest.mark.parametrize("damage", [b"", b"x"])
async def test_a_list_that_was_cut_wrongly_is_read_whole(damage: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    body = page(PLAIN, NESTED, PLAIN).replace(b'"name":"c"', b'"name":"c"' + damage)
    feed = Feed(Api(lambda: None), SERVICES, Selection(), Deadlines(5.0, 5.0), {"services"})
    taken: list[Any] = []

    async def ask(question: object) -> Any:
        return body, wire.read_page(body, "Service")

    async def take(event: Event) -> None:
        wire.read_service(event.object)
        taken.append(json.loads(bytes(event.object)))

    monkeypatch.setattr(feed, "_ask", ask)
    if damage:
        with pytest.raises(TransientError, match="cannot be read"):
            await feed.fill(take, lambda: None)
        assert taken == [PLAIN]
    else:
        await feed.fill(take, lambda: None)
        assert taken == [PLAIN, PLAIN, NESTED, PLAIN]


async def test_a_page_may_be_empty_and_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [page(metadata={"resourceVersion": "7", "continue": "c"}), page(PLAIN)]
    feed = Feed(Api(lambda: None), SERVICES, Selection(), Deadlines(5.0, 5.0), {"services"})
    taken: list[Any] = []

    async def ask(question: object) -> Any:
        body = bodies.pop(0)
        return body, wire.read_page(body, "Service")

    async def take(event: Event) -> None:
        taken.append(json.loads(bytes(event.object)))

    monkeypatch.setattr(feed, "_ask", ask)
    await feed.fill(take, lambda: None)
    assert taken == [PLAIN]


@pytest.mark.parametrize("name", ["ADDED", "MODIFIED", "DELETED"])
def test_a_line_is_cut_into_type_and_object(name: str) -> None:
    line = text_of({"type": name, "object": PLAIN})
    assert cut_line(line) is not None
    event = wire.read_event(line, "Service")
    assert (event.type, json.loads(bytes(event.object))) == (name, PLAIN)


@pytest.mark.parametrize("rest", [b'{"a":1},"b":{}}', b'{"a":}}', b"{" * 100_000 + b"}}"])
def test_a_line_whose_object_is_no_json_is_told_when_that_is_read(rest: bytes) -> None:
    event = wire.read_event(b'{"type":"ADDED","object":' + rest, "Service")
    for read in (wire.read_slice, wire.read_service, wire.read_node, wire.read_name):
        with pytest.raises(UnreadableError):
            read(event.object)
    with pytest.raises(UnreadableError):
        new_state().put("Service", event.object, cut=True)
    with pytest.raises(UnreadableError):
        new_state().drop("Service", event.object, cut=True)
    with pytest.raises(TransientError):
        wire.read_bookmark(event.object, "Service")


def test_half_a_surrogate_pair_in_an_object_that_was_cut_out_reads_as_elsewhere() -> None:
    text = slice_text(1, 2).replace(b'"name":"p2"', rb'"name":"\ud800"').replace(b'"z1"}]', rb'"z\udc00"}]')
    (item,) = wire.read_page(page("HERE").replace(b'"HERE"', text), "Service").items
    line = wire.read_event(b'{"type":"ADDED","object":%s}' % text, "EndpointSlice").object
    for raw in (item, line):
        endpoints = wire.read_slice(raw).endpoints
        assert endpoints is not None
        assert [endpoint.zone for endpoint in endpoints] == ["z1", "z\ufffd"]


@pytest.mark.parametrize(
    "made",
    [
        objects.endpointslice("a", "web", [objects.endpoint("10.0.0.1")]),
        objects.endpointslice("a", "web", []),
        objects.endpointslice("a", "web", [objects.endpoint("10.0.0.1", hostname='],"ports":')]),
    ],
)
def test_a_slice_is_cut_into_frame_and_endpoints(made: Any) -> None:
    frame = wire.read_frame(text_of(made))
    assert frame is not None
    assert json.loads(bytes(frame.endpoints)) == made["endpoints"]
    assert frame.metadata.name == "a"
    assert frame.ports is not None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"endpoints":[],"ports":[]}',
        text_of(objects.endpointslice("a", "web", None)),
        text_of(objects.endpointslice("a", "web", [], ports=None) | {"ports": 7}),
        text_of(objects.endpointslice("a", "web", [])) + b"x",
        text_of({"x": {"endpoints": [1]}} | objects.endpointslice("a", "web", [objects.endpoint("10.0.0.1")])),
    ],
)
def test_a_slice_that_is_written_otherwise_has_no_frame(text: bytes) -> None:
    assert wire.read_frame(text) is None


def test_what_is_between_endpoints_and_ports_is_no_endpoint() -> None:
    made = objects.endpointslice("a", "web", [objects.endpoint("10.0.0.1")])
    text = text_of(made).replace(b',"ports":', b',"more":[{"addresses":[]}],"ports":')
    cut = cut_slice(text)
    assert cut is not None
    assert wire.read_endpoints(cut[1]) is None


PARTS = st.sampled_from(
    ["0", "1", "10", "99", "100", "255", "256", "260", "300", "01", "00", "", "a", "1,1", "\u0661", " 1", "1\n"]
)
ADDRESSES = st.lists(PARTS, min_size=3, max_size=5).map(".".join) | st.sampled_from(["", "fd00::1", "10.0.0.1,10.0.0.2", None])


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(ADDRESSES, *[st.sampled_from(["a", "", None, "a/b", "a\n", "\u00e4", "x" * 300])] * 4, st.none()), max_size=3
    ),
    st.sampled_from(["IPv4", "IPv6", "FQDN", None]),
)
def test_rows_that_are_usable_together_are_usable_one_by_one(rows: list[Row], address_type: str | None) -> None:
    if are_usable(rows, address_type):
        assert [row_fault(row, address_type) for row in rows] == [None] * len(rows)


@given(ADDRESSES.filter(bool))
def test_an_ipv4_address_is_one_alone_and_among_others(address: str) -> None:
    row: Row = (address, None, None, None, None, None)
    assert are_usable([row], "IPv4") == is_ip(address, "IPv4")
    assert are_usable([("10.0.0.1", *row[1:]), row], "IPv4") == is_ip(address, "IPv4")


def test_a_service_whose_bytes_are_known_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    text = text_of(objects.service("web", annotations={"envbridge.io/weight": "3"}))
    state = new_state()
    state.put("Service", Raw(text))
    state.settle()
    monkeypatch.setattr(wire, "read_service", None)
    after = new_state(before=state)
    after.put("Service", Raw(text))
    after.put("EndpointSlice", Raw(slice_text(1)))
    after.settle()
    assert after.input("shop/service/web") == state.input("shop/service/web")
    (group,), _ = after.event("shop/slice/web-1")
    assert isinstance(group, InstanceGroup)
    assert group.instances[0].weight == 3
