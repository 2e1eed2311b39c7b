"""Requests to a bridge, and every way in which they fail."""

from __future__ import annotations

import threading
import time

import pytest
from scripted_bridge import Reply, ScriptedBridge, problem

from bridge.client.http import Client, path_of
from bridge.errors import ApiError


def test_a_document_comes_with_what_its_headers_tell(bridge: ScriptedBridge) -> None:
    bridge.on("/v1/services", Reply({"services": []}, headers={"Envbridge-Stale": "eu, a%2Cb", "Envbridge-Incomplete": "us"}))
    answer = Client(bridge.url).get("/v1/services", {"tag": "a b"})
    assert answer.body == {"services": []}
    assert answer.stale == ("eu", "a,b")
    assert answer.incomplete == ("us",)
    assert bridge.asked[0].query == {"tag": "a b"}


@pytest.mark.parametrize("token", [None, "cpb_1_x"])
def test_a_token_is_sent_and_never_shown(bridge: ScriptedBridge, token: str | None) -> None:
    bridge.on("/v1/status", {})
    client = Client(bridge.url, token=token)
    client.get_json("/v1/status")
    assert bridge.asked[0].headers.get("Authorization") == (f"Bearer {token}" if token else None)
    assert "cpb_1_x" not in repr(client)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ftp://x", None),
        ("127.0.0.1:7400", None),
        ("http://", None),
        ("http://h:port", None),
        ("http://h/?x=1", None),
        ("http://user:secret@h", None),
        ("http://h", "two words"),
        ("http://h", "line\r\nend"),
        ("http://h", ""),
        ("http://h", "é"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_request(url: str, token: str | None) -> None:
    with pytest.raises(ValueError) as refused:
        Client(url, token=token)
    assert token is None or not token or token not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_missing_ca_file_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.pem"):
        Client("https://h", ca_file=tmp_path / "nowhere.pem")


def test_a_path_before_the_api_is_kept(bridge: ScriptedBridge) -> None:
    bridge.on("/behind/v1/status", {"version": "1"})
    assert Client(f"{bridge.url}/behind/").get_json("/v1/status") == {"version": "1"}


@pytest.mark.parametrize(
    ("reply", "message", "status"),
    [
        (
            problem(400, "Bad Request", "unknown parameter helth; near: health"),
            "Bad Request: unknown parameter helth; near: health",
            400,
        ),
        (Reply({"title": 3}, 500, type="application/problem+json"), "HTTP 500 Internal Server Error", 500),
        (Reply(b"<html>", 502, type="text/html"), "HTTP 502 Bad Gateway", 502),
        (Reply(b"{", 503, type="application/problem+json"), "HTTP 503 Service Unavailable", 503),
        (Reply(b"", 302, {"Location": "http://example.org"}), "HTTP 302 Found", 302),
        (Reply(b"<html>", 200), "something else than JSON", 0),
        (Reply(b"[" * 100_000, 200), "something else than JSON", 0),
    ],
)
def test_other_answers_are_errors_with_title_and_detail(bridge: ScriptedBridge, reply: Reply, message: str, status: int) -> None:
    bridge.on("/v1/services", reply)
    with pytest.raises(ApiError, match=message.split(";")[0]) as raised:
        Client(bridge.url).get_json("/v1/services")
    assert raised.value.status == status


def test_nobody_there_is_an_error_that_names_the_url() -> None:
    with ScriptedBridge() as gone:
        url = gone.url
    with pytest.raises(ApiError, match=f"{url}.*refused") as raised:
        Client(url).get_json("/v1/services")
    assert raised.value.status == 0


def test_an_answer_that_breaks_off_is_an_error(bridge: ScriptedBridge) -> None:
    bridge.on("/v1/services", Reply(headers={"Content-Length": "100"}, stream=lambda write: write(b'{"services":')))
    with pytest.raises(ApiError, match="broke off"):
        Client(bridge.url).get_json("/v1/services")


def test_silence_and_endless_trickle_both_end(bridge: ScriptedBridge) -> None:
    stop = threading.Event()

    def trickle(write) -> None:
        while not stop.wait(0.02):
            write(b" ")

    bridge.on("/silent", Reply(stream=lambda write: stop.wait(10)))
    bridge.on("/trickle", Reply(stream=trickle))
    began = time.monotonic()
    try:
        for path in ("/silent", "/trickle"):
            with pytest.raises(ApiError, match=r"timed out|no whole answer"):
                Client(bridge.url, timeout=0.2, deadline=0.2).get_json(path)
    finally:
        stop.set()
    assert time.monotonic() - began < 5


def test_pages_are_followed_to_the_end(bridge: ScriptedBridge) -> None:
    bridge.on("/v1/instances", {"instances": [{"id": "1"}], "next": "p2"}, {"instances": [{"id": "2"}], "next": None})
    assert [entry["id"] for entry in Client(bridge.url).pages("/v1/instances", "instances", {"health": "any"})] == ["1", "2"]
    assert [asked.query.get("page") for asked in bridge.asked] == [None, "p2"]
    assert all(asked.query["health"] == "any" and asked.query["limit"] for asked in bridge.asked)


def test_a_page_that_names_itself_as_the_next_ends(bridge: ScriptedBridge) -> None:
    bridge.on("/v1/instances", {"instances": [{}], "next": "p"})
    assert len(list(Client(bridge.url).pages("/v1/instances", "instances"))) == 2


def test_a_name_cannot_leave_its_segment() -> None:
    assert path_of("services", "a/b", "c?d#e") == "/v1/services/a%2Fb/c%3Fd%23e"
