"""What no surface knows goes to an ASGI application on the same connection."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import QueryError
from bridge.serve.http import client
from bridge.serve.http.message import Request
from tests.kit.certificates import self_signed
from tests.unit.http.asgi_bench import ASK, CHUNKED, CHUNKS, READ, Served, post
from tests.unit.http.http_bench import GET, Bench, answers, running, statuses, until

TOKEN = "correct horse"
DIGEST = hashlib.sha256(TOKEN.encode()).digest()


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(client, "LINGER", 0.05)
    async with running(Served()) as bench:
        yield bench  # type: ignore[misc]


# -- what is asked


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "PATCH"])
async def test_a_request_that_no_surface_knows_is_for_the_application(bench: Served, method: str) -> None:
    request = f"{method} /admin/a%20b?x=1&y=%20 HTTP/1.1\r\nHost: a\r\nX-More: 1\r\nx-more: 2\r\n\r\n"
    [told] = await bench.told(request.encode())
    assert (told["method"], told["path"], told["query"], told["scheme"]) == (method, "/admin/a b", "x=1&y=%20", "http")
    assert told["headers"] == {"host": "a", "x-more": "1, 2"}
    assert told["caller"] == ["127.0.0.1", True, None]
    assert bench.handed_over() == 1
    assert bench.server.counts["answered", 404] == 0


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("fields", "sent", "body"),
    [
        (["Content-Length: 5"], b"abcde", "abcde"),
        (["Content-Length: 8"], b"a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n"),
        (["Transfer-Encoding: chunked"], CHUNKS, "abcde"),
        (["Transfer-Encoding: chunked"], b"4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
        (["Content-Length: 0"], b"", ""),
        ([], b"", ""),
    ],
)
async def test_its_body_comes_whole_however_it_was_sent(
    bench: Served, fields: list[str], sent: bytes, body: str, size: int
) -> None:
    data = (post("/admin", *fields) + sent) * 2 + READ + ASK
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    first, second, read, last = await bench.told(*pieces, count=4)
    assert first == second
    assert (first["method"], first["body"]) == ("POST", body)
    assert "services" in read
    assert last["body"] == ""


async def test_a_large_body_comes_whole(bench: Served) -> None:
    [told] = await bench.told(post("/admin", "Content-Length: 1048576") + b"a" * 1_048_576)
    assert told["body"] == "a" * 1_048_576


async def test_head_has_no_body(bench: Served) -> None:
    received = await bench.say(b"HEAD /admin HTTP/1.0\r\n\r\n")
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert rest == b""


async def test_the_body_that_is_expected_is_invited_by_the_application(bench: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    async with asyncio.timeout(5):
        writer.write(post("/admin", "Content-Length: 3", "Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert b" 200 " in await reader.readline()
        writer.write(post("/early", "Content-Length: 3", "Expect: 100-continue"))
        assert b'"body": "abc"' in await reader.readuntil(b"HTTP/1.1 200 ")
    writer.close()


async def test_answers_have_a_date_and_no_other_name(bench: Served) -> None:
    [(_, headers, _)] = answers(await bench.say(ASK, until=1))
    assert headers["date"].endswith(" GMT")
    assert "server" not in headers


# -- in order


@pytest.mark.parametrize("size", [1, 11, 10_000])
async def test_known_and_unknown_requests_are_answered_in_order(bench: Served, size: int) -> None:
    requests = [
        READ,
        ASK,
        ASK,
        GET,
        READ,
        post("/admin", "Content-Length: 2", body=b"ab"),
        GET,
        post("/x", *CHUNKED, body=CHUNKS),
    ]
    data = b"".join(requests * 3)
    told = await bench.told(*(data[start : start + size] for start in range(0, len(data), size)), count=len(requests) * 3)
    kinds = ["read" if "services" in one else "health" if "status" in one else one["path"] for one in told]
    assert kinds == ["read", "/admin", "/admin", "health", "read", "/admin", "health", "/x"] * 3
    assert len(bench.app.asked) == 12


async def test_a_thousand_at_once_are_not_taken_in_at_once(bench: Served) -> None:
    told = await bench.told(ASK * 1000, count=1000)
    assert len(told) == 1000
    assert bench.server.limited["pipelining"] > 0


async def test_what_comes_behind_a_blocked_read_waits_for_it(bench: Served) -> None:
    cursor = answers(await bench.say(READ, until=1))[0][1]["etag"][3:-1]
    blocked = f"GET /v1/services?wait=10s&after={cursor} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    saying = asyncio.create_task(bench.told(blocked + ASK, GET, READ, count=4))
    await until("it blocks", lambda: bench.server.waits.blocked == 1)
    await asyncio.sleep(0.05)
    assert bench.app.asked == []
    bench.show(0)
    read, admin, health, last = await saying
    assert ("services" in read, admin["path"], health["status"], "services" in last) == (True, "/admin", "ok", True)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
async def test_who_leaves_with_a_request_behind_another_is_forgotten(bench: Served, accept: str) -> None:
    cursor = answers(await bench.say(READ, until=1))[0][1]["etag"][3:-1]
    first = f"GET /v1/services?after={cursor} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n".encode()
    assert statuses(await bench.say(first + post("/admin"), half_close=True))[:1] in ([], [200])
    await until("nothing is left", lambda: not bench.server.connections)
    assert bench.app.asked == []


async def test_much_behind_a_request_that_takes_long_is_not_taken_in(bench: Served) -> None:
    padded = READ[:-2] + b"X-Pad: " + b"x" * 4000 + b"\r\n\r\n"
    saying = asyncio.create_task(bench.told(post("/waits") + padded * 500, count=501))
    await until("it is asked", lambda: bench.app.asked == ["/waits"])
    await asyncio.sleep(0.1)
    [connection] = bench.server.connections
    assert connection._rest is not None
    assert len(connection._rest) < 500_000
    bench.app.go.set()
    assert len(await saying) == 501


async def test_a_read_behind_a_request_that_takes_long_waits_for_it(bench: Served) -> None:
    saying = asyncio.create_task(bench.told(post("/waits"), READ, ASK, count=3))
    await until("it is asked", lambda: bench.app.asked == ["/waits"])
    await asyncio.sleep(0.05)
    bench.app.go.set()
    waits, read, last = await saying
    assert (waits["path"], "services" in read, last["path"]) == ("/waits", True, "/admin")


async def test_a_half_closed_client_gets_its_answers(bench: Served) -> None:
    bench.app.go.set()
    assert statuses(await bench.say(READ + post("/waits") + ASK + READ, half_close=True)) == [200] * 4
    await until("nothing is left", lambda: not bench.server.connections)


@pytest.mark.parametrize("end", [b"GET /admin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"GET /admin HTTP/1.0\r\n\r\n"])
async def test_a_client_that_is_done_is_answered_and_closed(bench: Served, end: bytes) -> None:
    assert statuses(await bench.say(ASK + end + READ)) == [200, 200]


@pytest.mark.parametrize(
    "first", [post("/waits"), post("/waits", "Content-Length: 1", "Expect: 100-continue"), ASK + post("/waits")]
)
async def test_garbage_behind_a_request_ends_it_quietly(bench: Served, first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert b"100 Continue" not in await bench.say(first + b"\x00" * 10)
    await until("nothing is left", lambda: not bench.server.connections)
    bench.app.go.set()
    await until("nothing is being done", lambda: not bench.server.application.is_busy)  # type: ignore[union-attr]
    assert not caplog.records
    assert bench.server.limited["malformed"] == 1


# -- whose it is


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/services", "/v1/instances/eu/main/shop/web/0", "/healthz", "/", "/v1/services/a/%ff"])
async def test_what_a_surface_knows_stays_its_own(bench: Served, method: str, path: str) -> None:
    line = f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    for received in (await bench.say(line, until=1), (await bench.say(ASK + line, until=2))):
        status, headers, _ = answers(received)[-1]
        assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"GET /admin HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_the_application_could_not_be_told_is_not_found(bench: Served, request_: bytes) -> None:
    assert statuses(await bench.say(request_, until=1)) == [404]
    assert bench.app.asked == []


PATHS = st.lists(st.sampled_from(["v1", "services", "instances", "environments", "status", "a", "", "%2F", "%ff"]), max_size=6)


@given(PATHS.map(lambda parts: "/" + "/".join(parts)))
@settings(deadline=None)
def test_a_surface_knows_what_it_has_a_reply_to(path: str) -> None:
    for surface in Bench().server._surfaces:
        try:
            known = surface.answer(Request("GET", path, "", {})) is not None
        except QueryError:
            known = True
        assert surface.knows(path) is known


@pytest.mark.parametrize("token", [None, "wrong", TOKEN])
async def test_who_may_not_read_asks_nothing(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.Client, "loopback", property(lambda self: False, lambda self, value: None))
    async with running(Served(tokens=frozenset({DIGEST}))) as bench:
        assert isinstance(bench, Served)
        field = f"Authorization: Bearer {token}\r\n" if token else ""
        request = f"GET /admin HTTP/1.1\r\nHost: a\r\n{field}\r\n".encode()
        allowed = f"GET /admin HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        first, second = answers(await bench.say(allowed + request, until=2))
        assert json.loads(first[2])["caller"] == ["127.0.0.1", False, DIGEST.hex()]
        assert second[0] == (200 if token == TOKEN else 401)
        assert len(bench.app.asked) == (2 if token == TOKEN else 1)


async def test_an_answer_to_a_revoked_token_ends() -> None:
    async with running(Served(tokens=frozenset({DIGEST}))) as bench:
        assert isinstance(bench, Served)
        request = f"GET /streams HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        saying = asyncio.create_task(bench.say(request))
        await until("it streams", lambda: bench.app.asked == ["/streams"])
        bench.server.replace_tokens(frozenset())
        assert (await saying).startswith(b"HTTP/1.1 200 ")
        await until("the application knows", lambda: bench.app.gone == 1)


async def test_over_tls(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path).values())
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    bench = Served()
    _, bench.port = await bench.server.listen("127.0.0.1", 0, context)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=trusting)
    async with asyncio.timeout(5):
        writer.write(READ + ASK + READ + ASK)
        for _ in range(4):
            head = await reader.readuntil(b"\r\n\r\n")
            [(_, headers, _)] = answers(head)
            body = await reader.readexactly(int(headers["content-length"]))
        assert json.loads(body)["scheme"] == "https"
    writer.close()
    await bench.server.stop()


def test_on_uvloop() -> None:
    """Whose transports are others."""

    async def play() -> None:
        async with running(Served()) as bench:
            assert isinstance(bench, Served)
            told = await bench.told((READ + ASK + post("/x", *CHUNKED, body=CHUNKS)) * 20, count=60)
            assert [one.get("path") for one in told] == [None, "/admin", "/x"] * 20

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(play())


# -- who has none does not pay


def test_without_an_application_nothing_of_it_is_imported() -> None:
    script = "import sys, bridge.serve.http.server; print([name for name in ('uvicorn', 'starlette') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


async def test_without_an_application_the_unknown_is_not_found() -> None:
    async with running(Bench()) as bench:
        assert statuses(await bench.say(ASK + post("/admin"), until=2)) == [404, 404]
