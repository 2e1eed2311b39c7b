"""What RFC 9110 and RFC 9112 ask of a server, over a socket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import parsedate_to_datetime

import pytest

from tests.unit.http.http_bench import GET, Bench, answers, complete, running, statuses, until


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running(Bench()) as bench:
        yield bench


class Talk:
    """One connection, talked to step by step."""

    def __init__(self, bench: Bench) -> None:
        self._sock = bench.connect()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def read(self, *, until: bytes | None = None, count: int = 1) -> bytes:
        """What comes, up to ``count`` whole answers, or until it ends with ``until``."""
        received = b""
        async with asyncio.timeout(5):
            while not (received.endswith(until) if until else statuses(received)[count - 1 :] and complete(received)):
                read = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
                assert read, f"closed after {received!r}"
                received += read
        return received

    async def silent(self, seconds: float = 0.1) -> bool:
        """Whether nothing comes for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return not await asyncio.get_running_loop().sock_recv(self._sock, 65536)
        return True

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
async def talk(bench: Bench) -> AsyncIterator[Talk]:
    talk = Talk(bench)
    yield talk
    talk.close()


async def cursor(bench: Bench) -> bytes:
    received = await bench.say(b"GET /v1/instances HTTP/1.1\r\nHost: a\r\n\r\n", until=1)
    return answers(received)[0][1]["etag"][3:-1].encode()


# -- trailers

TRAILERS = b"Authorization: Bearer wrong\r\nAccept: text/event-stream\r\nIf-None-Match: *\r\nHost: b\r\nUpgrade: h2c\r\n"


async def test_trailer_fields_are_refused(bench: Bench) -> None:
    head = b"GET /v1/services HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = await bench.say(head + b"3\r\nabc\r\n0\r\n" + TRAILERS + b"\r\n" + GET)
    [(status, headers, _)] = answers(received)
    assert (status, headers["connection"]) == (400, "close")


@pytest.mark.parametrize("field", [b"Connection: close", b"Content-Length: 5"])
async def test_a_trailer_that_speaks_of_the_connection_ends_it_at_most(bench: Bench, field: bytes) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    [(status, headers, _)] = answers(
        await bench.say(head + field + b"\r\n\r\n" + b"GET /v1/services HTTP/1.1\r\nHost: b\r\n\r\n")
    )
    assert status in (200, 400)
    assert headers["connection"] == "close"


async def test_many_trailer_fields_are_refused_at_the_first(bench: Bench) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert statuses(await bench.say(head + b"X: %s\r\n" % (b"a" * 400) * 60 + b"\r\n")) == [400]


# -- expectations

POST = b"POST /v1/services HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 3", b"abc"), (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n")],
    ids=["length", "chunks"],
)
async def test_the_body_is_asked_for(talk: Talk, framing: bytes, body: bytes) -> None:
    await talk.send(POST + framing + b"\r\n\r\n")
    assert await talk.read(until=CONTINUE) == CONTINUE
    await talk.send(body)
    assert statuses(await talk.read()) == [405]
    await talk.send(GET)
    assert statuses(await talk.read()) == [200]


async def test_a_body_that_comes_unasked_is_not_asked_for(bench: Bench) -> None:
    assert statuses(await bench.say(POST + b"Content-Length: 3\r\n\r\nabc" + GET, until=2)) == [405, 200]


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
async def test_no_body_is_not_asked_for(bench: Bench, length: bytes) -> None:
    assert statuses(await bench.say(POST + length + b"\r\n" + GET, until=2)) == [405, 200]


async def test_http_1_0_is_not_asked(bench: Bench) -> None:
    request = POST.replace(b"1.1", b"1.0") + b"Content-Length: 3\r\n\r\n"
    assert statuses(await bench.say(request, b"abc")) == [405]


async def test_too_long_a_body_is_refused_and_not_asked_for(bench: Bench) -> None:
    assert statuses(await bench.say(POST + b"Content-Length: 2000000\r\n\r\n")) == [413]


@pytest.mark.parametrize("expectation", [b"magic", b"100-continue, magic", b"200-ok"])
async def test_other_expectations_fail(bench: Bench, expectation: bytes) -> None:
    received = await bench.say(b"GET /v1/services HTTP/1.1\r\nHost: a\r\nExpect: " + expectation + b"\r\n\r\n")
    [(status, headers, _)] = answers(received)
    assert (status, headers["connection"]) == (417, "close")


async def test_a_body_behind_a_blocked_read_is_asked_for_in_its_turn(bench: Bench, talk: Talk) -> None:
    bench.server.limits = replace(bench.server.limits, request=0.5)
    blocked = b"GET /v1/instances?wait=1s&after=" + await cursor(bench) + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    await talk.send(blocked + POST + b"Content-Length: 3\r\n\r\n")
    received = await talk.read(until=CONTINUE)
    assert received.startswith(b"HTTP/1.1 304 ")
    assert await talk.silent(), "its own deadline begins with the invitation"
    await talk.send(b"abc")
    assert statuses(await talk.read()) == [405]


# -- targets, hosts, codings


@pytest.mark.parametrize(
    "target", [b"http://a/v1/services", b"HTTP://127.0.0.1:1/v1/services?tag=x", b"https://[::1]/v1/services"]
)
async def test_a_target_in_absolute_form_is_answered(bench: Bench, target: bytes) -> None:
    [(status, _, body), _] = answers(await bench.say(b"GET " + target + b" HTTP/1.1\r\nHost: other\r\n\r\n" + GET, until=2))
    assert status == 200
    assert body.startswith(b'{"services":')


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a\r\nHost: b\r\n",
        b"Host:\r\nhost:\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: u@a\r\n",
    ],
)
@pytest.mark.parametrize("target", [b"/healthz", b"http://a/healthz"])
async def test_http_1_1_needs_one_sound_host(bench: Bench, fields: bytes, target: bytes) -> None:
    [(status, headers, _)] = answers(await bench.say(b"GET " + target + b" HTTP/1.1\r\n" + fields + b"\r\n" + GET))
    assert (status, headers["connection"]) == (400, "close")


@pytest.mark.parametrize("host", [b"", b"a", b"a:1", b"[::1]:8500", b"a \t"])
async def test_sound_hosts(bench: Bench, host: bytes) -> None:
    assert statuses(await bench.say(b"GET /healthz HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", until=1)) == [200]


@pytest.mark.parametrize(
    ("codings", "expected"),
    [
        (b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
        (b"Transfer-Encoding: chunked, gzip\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 400),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_bodies_of_unclear_length_close(bench: Bench, method: bytes, codings: bytes, expected: int) -> None:
    received = await bench.say(method + b" / HTTP/1.1\r\nHost: a\r\n" + codings + b"\r\n0\r\n\r\n" + GET)
    [(status, headers, _)] = answers(received)
    assert (status, headers["connection"]) == (expected, "close")


async def test_a_refusal_of_head_has_no_content(bench: Bench) -> None:
    received = await bench.say(b"HEAD / HTTP/1.1\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.endswith(b"\r\n\r\n")


async def test_another_version_is_refused(bench: Bench) -> None:
    assert statuses(await bench.say(b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n" + GET)) == [505]


# -- fields of every answer


@pytest.mark.parametrize("path", ["/v1/services", "/v1/instances", "/v1/services/shop/web", "/v1/environments"])
async def test_304_has_the_fields_of_200(bench: Bench, path: str) -> None:
    line = f"GET {path} HTTP/1.1\r\nHost: a\r\n".encode()
    [(_, ok, _)] = answers(await bench.say(line + b"\r\n", until=1))
    for condition in (b"If-None-Match: " + ok["etag"].encode() + b"\r\n", b"If-None-Match: *\r\n"):
        [(status, headers, _)] = answers(await bench.say(line + condition + b"\r\n", until=1))
        assert status == 304
        for name in ("etag", "vary", "cache-control"):
            assert headers[name] == ok[name]
        assert "date" in headers


async def test_a_304_at_the_deadline_has_the_fields_of_200(bench: Bench) -> None:
    seen = await cursor(bench)
    request = b"GET /v1/instances?wait=10ms&after=" + seen + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    [(status, headers, _)] = answers(await bench.say(request, until=1))
    assert (status, headers["vary"], headers["etag"]) == (304, "Accept, Accept-Encoding", f'W/"{seen.decode()}"')


DATED = {
    "200": GET,
    "404": b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
    "405": b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "400": b"GET /\r\n\n",
    "431": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    "a stream": b"GET /v1/services HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n",
}


@pytest.mark.parametrize("request_", DATED.values(), ids=DATED)
async def test_every_answer_has_its_date(bench: Bench, talk: Talk, request_: bytes) -> None:
    await talk.send(request_)
    head = b""
    async with asyncio.timeout(5):
        while b"\r\n\r\n" not in head:
            head += await asyncio.get_running_loop().sock_recv(talk._sock, 65536)
    [date] = [line[6:] for line in head.partition(b"\r\n\r\n")[0].decode().split("\r\n") if line.startswith("Date: ")]
    assert date.endswith(" GMT")
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 3


def test_the_date_is_made_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Bench().server
    now = 784111777.9
    monkeypatch.setattr(server.clock, "wall", lambda: now)
    first = server.date_field()
    assert first == "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert server.date_field() is first
    now += 0.2
    assert server.date_field() == "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n"


async def test_an_empty_line_before_the_first_request_is_passed_over(bench: Bench) -> None:
    assert statuses(await bench.say(b"\r\n" + GET + b"\r\n" + GET, until=2)) == [200, 200]
    await until("nothing is left", lambda: not bench.server.connections)
