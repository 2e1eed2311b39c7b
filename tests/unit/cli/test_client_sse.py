"""The parser of Server-Sent Events, and streams that go on."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_bridge import Reply, ScriptedBridge, event, events, problem

from bridge.client.http import Client
from bridge.client.sse import Event, EventParser, follow
from bridge.errors import ApiError

# ------------------------------------------------------------- the parser


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: x\n\n", [("message", "x", "")]),
        (b"data:x\r\rdata: y\r\n\r\n", [("message", "x", ""), ("message", "y", "")]),
        (b"\xef\xbb\xbfdata: x\n\n", [("message", "x", "")]),
        (b": comment\n\ndata: x\n\n", [("message", "x", "")]),
        (b"event: change\ndata: a\ndata: b\nid: 7\n\n", [("change", "a\nb", "7")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [("message", "a", "7"), ("message", "b", "7")]),
        (b"id: 7\n\ndata: b\n\n", [("message", "b", "7")]),
        (b"event: lost\n\ndata: b\n\n", [("message", "b", "")]),
        (b"id: a\0b\ndata: x\n\n", [("message", "x", "")]),
        (b"data\n\n", [("message", "", "")]),
        (b"data:  two\n\n", [("message", " two", "")]),
        (b"unknown: y\ndata: x\n\n", [("message", "x", "")]),
        (b"data: \xff\n\n", [("message", "�", "")]),
        (b"data: unfinished\n", []),
        (b"id: 9\ndata: unfinished", []),
    ],
)  # fmt: skip
def test_the_rules_of_the_standard(stream: bytes, expected: list[tuple[str, str, str]]) -> None:
    assert EventParser().feed(stream) == [Event(*one) for one in expected]


LINES = st.sampled_from(["data: é漢", "data", "event: change", "id: 5", "id:", ": note", "retry: 3", "data:\ufeff", "x", ""])


@given(st.lists(st.tuples(LINES, st.sampled_from(["\n", "\r", "\r\n"]))), st.data())
def test_cutting_a_stream_anywhere_changes_nothing(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    stream = "".join(line + end for line, end in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parser = EventParser()
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert [one for piece in pieces for one in parser.feed(piece)] == EventParser().feed(stream)


@given(st.lists(st.tuples(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), st.integers(0, 99))))
def test_what_is_written_is_read(written: list[tuple[str, int]]) -> None:
    stream = "".join(f"id: {at}\ndata: {text}\n\n" for text, at in written).encode()
    parser = EventParser()
    read = [one for at in range(len(stream)) for one in parser.feed(stream[at : at + 1])]
    assert [(one.data, one.id) for one in read] == [(text, str(at)) for text, at in written]


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.client.sse._MAX_EVENT", 1000)
    parser = EventParser()
    for _ in range(15):
        parser.feed(b"data: " + b"x" * 50 + b"\n")
    with pytest.raises(ApiError, match="event of more than"):
        parser.feed(b"x" * 200)


# ------------------------------------------------------------- the stream


def collect(bridge: ScriptedBridge, amount: int, **settings) -> tuple[list[Event], list[tuple[str, float]]]:
    lost: list[tuple[str, float]] = []
    stream = follow(
        Client(bridge.url), "/s", on_lost=lambda error, delay: lost.append((str(error), delay)), sleep=lambda _: None, **settings
    )
    with closing(stream):
        return list(islice(stream, amount)), lost


def test_a_stream_that_ends_goes_on_where_it_was(bridge: ScriptedBridge) -> None:
    bridge.on("/s", events(event("snapshot", {}, "c1"), event("change", {})), events(event("change", {"n": 2}, "c2")))
    seen, lost = collect(bridge, 5)
    assert [one.type for one in seen] == ["open", "snapshot", "change", "open", "change"]
    assert [asked.headers.get("Last-Event-ID") for asked in bridge.asked] == [None, "c1"]
    assert [asked.headers["Accept"] for asked in bridge.asked] == ["text/event-stream"] * 2
    assert len(lost) == 1


def test_an_unfinished_event_is_neither_shown_nor_resumed_from(bridge: ScriptedBridge) -> None:
    bridge.on(
        "/s", events(event("snapshot", {}, "c1"), b"id: c2\nevent: change\ndata: {}\n"), events(event("bookmark", {}, "c3"))
    )
    seen, _ = collect(bridge, 4)
    assert [one.type for one in seen] == ["open", "snapshot", "open", "bookmark"]
    assert bridge.asked[1].headers["Last-Event-ID"] == "c1"


def test_a_silent_stream_is_opened_again(bridge: ScriptedBridge) -> None:
    stop = threading.Event()
    bridge.on("/s", events(event("snapshot", {}, "c1"), then=lambda: stop.wait(10)), events(event("bookmark", {}, "c1")))
    try:
        seen, lost = collect(bridge, 4, silence=0.2)
    finally:
        stop.set()
    assert [one.type for one in seen] == ["open", "snapshot", "open", "bookmark"]
    assert "timed out" in lost[0][0]


def test_a_bridge_that_starts_is_waited_for_as_it_asks(bridge: ScriptedBridge) -> None:
    bridge.on("/s", problem(503, "Not read yet", "main was never read", Retry_After="3"), events(event("snapshot", {}, "c1")))
    seen, lost = collect(bridge, 2)
    assert [one.type for one in seen] == ["open", "snapshot"]
    assert lost == [("Not read yet: main was never read", 3.0)]


@pytest.mark.parametrize(
    ("asked", "waited"), [("0", 1.0), ("99999999", 60.0), ("Fri, 31 Dec 1999 23:59:59 GMT", None), ("-1", None)]
)
def test_what_a_bridge_asks_for_is_bounded(bridge: ScriptedBridge, asked: str, waited: float | None) -> None:
    bridge.on("/s", problem(503, "t", "d", Retry_After=asked), events(event("bookmark", {})))
    _, ((_, delay),) = collect(bridge, 1)
    assert delay == waited if waited is not None else 0 <= delay <= 0.5


def test_delays_grow_with_failures_and_stay_bounded(bridge: ScriptedBridge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.client.sse.random.uniform", lambda low, high: high)
    bridge.on("/s", *[problem(503, "t", "d")] * 8, events(event("bookmark", {})))
    _, lost = collect(bridge, 1)
    assert [delay for _, delay in lost] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_a_first_refusal_that_will_not_pass_is_raised(bridge: ScriptedBridge, status: int) -> None:
    bridge.on("/s", problem(status, "Refused", "because"))
    with pytest.raises(ApiError, match="Refused: because") as raised:
        collect(bridge, 1)
    assert raised.value.status == status
    assert len(bridge.asked) == 1


def test_nobody_there_at_first_is_raised() -> None:
    with ScriptedBridge() as gone:
        pass
    with pytest.raises(ApiError, match="refused"):
        collect(gone, 1)


def test_a_service_that_vanishes_later_is_waited_for(bridge: ScriptedBridge) -> None:
    bridge.on("/s", events(event("snapshot", {}, "c1")), problem(404, "t", "d"), events(event("snapshot", {}, "c2")))
    seen, lost = collect(bridge, 4)
    assert [one.id for one in seen] == ["", "c1", "c1", "c2"]
    assert [error for error, _ in lost] == ["the bridge ended the stream", "t: d"]


def test_a_revoked_token_ends_the_stream(bridge: ScriptedBridge) -> None:
    bridge.on("/s", events(event("snapshot", {}, "c1")), problem(401, "Unauthorized", "revoked"))
    with pytest.raises(ApiError, match="revoked"):
        collect(bridge, 9)


def test_what_is_no_stream_is_no_bridge(bridge: ScriptedBridge) -> None:
    bridge.on("/s", Reply(b"<html>", type="text/html"))
    with pytest.raises(ApiError, match="is it a bridge"):
        collect(bridge, 1)
