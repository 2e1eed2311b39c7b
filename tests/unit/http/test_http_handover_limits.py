"""The limits of the listener, and its end, where an ASGI application answers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import uvloop

from bridge.serve.http import client
from bridge.serve.http.handover import HandedOver
from tests.contract import test_http_raw
from tests.unit.http.asgi_bench import ASK, CHUNKED, CHUNKS, READ, Served, post
from tests.unit.http.http_bench import answers, running, statuses, until


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(client, "LINGER", 0.05)
    async with running(Served()) as bench:
        yield bench  # type: ignore[misc]


# -- limits


REFUSED = {
    "both length headers": (post("/admin", "Content-Length: 3", "Transfer-Encoding: chunked"), 400, "malformed"),
    "no chunk size": (post("/admin", *CHUNKED, body=b"zz\r\n"), 400, "malformed"),
    "trailers": (post("/admin", *CHUNKED, body=b"0\r\nX: y\r\n\r\n"), 400, "malformed"),
    "a bare line feed": (b"GET /admin HTTP/1.1\nHost: a\n\n", 400, "malformed"),
    "a long body": (post("/admin", "Content-Length: 2000000"), 413, "body_size"),
    "a long body in chunks": (
        post("/admin", *CHUNKED, body=(b"8000\r\n" + bytes(32768) + b"\r\n") * 40),
        413,
        "body_size",
    ),
    "a long header": (post("/admin", "X: " + "a" * 20_000), 431, "header_size"),
    "a long target": (post("/admin" + "a" * 9000), 414, "target_size"),
}


@pytest.mark.parametrize("before", [b"", ASK], ids=["first", "later"])
@pytest.mark.parametrize(("request_", "status", "limit"), REFUSED.values(), ids=REFUSED)
async def test_the_limits_are_the_same(bench: Served, before: bytes, request_: bytes, status: int, limit: str) -> None:
    loop = asyncio.get_running_loop()
    with bench.connect() as sock:
        async with asyncio.timeout(5):
            if before:
                await loop.sock_sendall(sock, before)
                assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")
            with contextlib.suppress(OSError):
                await loop.sock_sendall(sock, request_)
            received = b""
            with contextlib.suppress(ConnectionResetError):
                while read := await loop.sock_recv(sock, 65536):
                    received += read
    assert statuses(received) in ([status], []), "it may be lost where the request was still being sent"
    assert bench.server.limited[limit] == 1  # type: ignore[index]
    assert bench.server.counts["refused", status] == 1
    await until("nothing is left", lambda: not bench.server.connections)


@pytest.mark.parametrize("begun", [post("/admin", "Content-Length: 9") + b"abc", post("/admin", *CHUNKED), ASK + b"GET /ad"])
async def test_a_request_that_trickles_is_given_up(bench: Served, begun: bytes) -> None:
    bench.server.limits = replace(bench.server.limits, request=0.2)
    assert statuses(await bench.say(begun))[-1] == 408
    assert bench.server.limited["slow_request"] == 1
    await until("nothing is left", lambda: not bench.server.connections)


async def test_an_application_that_takes_long_to_read_is_not_the_clients_fault(bench: Served) -> None:
    bench.server.limits = replace(bench.server.limits, request=0.2)
    saying = asyncio.create_task(bench.told(post("/waits-unread", "Content-Length: 200000"), b"a" * 100_000, b"a" * 100_000))
    await until("it is asked", lambda: bench.app.asked == ["/waits-unread"])
    await asyncio.sleep(0.5)
    bench.app.go.set()
    [told] = await saying
    assert len(told["body"]) == 200_000


async def test_an_application_that_takes_long_to_answer_is_waited_for(bench: Served) -> None:
    bench.server.limits = replace(bench.server.limits, request=0.1, idle=0.1, reader=0.1)
    saying = asyncio.create_task(bench.say(post("/waits"), until=1))
    await asyncio.sleep(0.5)
    bench.app.go.set()
    assert statuses(await saying) == [200]


async def test_an_idle_connection_is_closed(bench: Served) -> None:
    bench.server.limits = replace(bench.server.limits, idle=0.2)
    assert statuses(await bench.say(ASK)) == [200]
    assert bench.server.limited["idle"] == 1


async def test_a_connection_is_not_closed_before_its_time(bench: Served) -> None:
    """Uvicorn would close it, and forget that it is not its own any more."""
    loop = asyncio.get_running_loop()
    with bench.connect() as sock:
        async with asyncio.timeout(5):
            for request in (ASK, READ):
                await loop.sock_sendall(sock, request)
                assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(1.3)
            await loop.sock_sendall(sock, ASK)
            assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")


async def test_a_reader_that_takes_nothing_is_let_go(bench: Served) -> None:
    bench.server.limits = replace(bench.server.limits, reader=0.3)
    loop = asyncio.get_running_loop()
    with bench.connect(receive_buffer=2048) as sock:
        await loop.sock_sendall(sock, b"GET /floods HTTP/1.1\r\nHost: a\r\n\r\n")
        await until("it is connected", lambda: len(bench.server.connections) == 1)
        await until("it is let go", lambda: not bench.server.connections)
    assert bench.server.limited["slow_reader"] == 1


async def test_connections_are_counted_once(bench: Served) -> None:
    loop = asyncio.get_running_loop()
    with bench.connect() as sock:
        async with asyncio.timeout(5):
            for request, kind in ((ASK, HandedOver), (READ, object), (ASK, HandedOver)):
                await loop.sock_sendall(sock, request)
                assert await loop.sock_recv(sock, 65536)
                [connection] = bench.server.connections
                assert isinstance(connection, kind)
                assert bench.server.admission._per_address == {"127.0.0.1": 1}
    await until("it is gone", lambda: not bench.server.connections)
    assert bench.server.admission._per_address == {}


# -- failures, and the end


async def test_a_failure_is_told_as_one_of_ours(bench: Served, caplog: pytest.LogCaptureFixture) -> None:
    received = await bench.say(b"GET /fails HTTP/1.1\r\nHost: a\r\n\r\n" + ASK, until=2)
    (status, headers, body), (following, _, _) = answers(received)
    assert (status, headers["content-type"], following) == (500, "application/problem+json", 200)
    assert b"defect" in body
    assert [record.name for record in caplog.records] == ["bridge.http"]
    assert bench.server.counts["handed_over", 500] == 1


async def test_a_failure_in_the_middle_ends_the_connection(bench: Served) -> None:
    assert (await bench.say(b"GET /fails-late HTTP/1.1\r\nHost: a\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await until("nothing is left", lambda: not bench.server.connections)


async def test_an_application_learns_that_the_client_went(bench: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(b"GET /streams HTTP/1.1\r\nHost: a\r\n\r\n")
    await until("it is asked", lambda: bench.app.asked == ["/streams"])
    writer.transport.abort()
    await until("it knows", lambda: bench.app.gone == 1)


async def test_a_stop_lets_what_is_begun_be_answered() -> None:
    bench = Served()
    _, bench.port = await bench.server.listen("127.0.0.1", 0)
    saying = asyncio.create_task(bench.say(ASK + post("/waits")))
    await until("it is asked", lambda: bench.app.asked == ["/admin", "/waits"])
    bench.server.begin_stopping()
    asyncio.get_running_loop().call_later(0.2, bench.app.go.set)
    await bench.server.stop()
    [_, (status, headers, _)] = answers(await saying)
    assert (status, headers["connection"]) == (200, "close")


async def test_a_stop_waits_for_no_application_for_ever() -> None:
    bench = Served()
    _, bench.port = await bench.server.listen("127.0.0.1", 0)
    saying = asyncio.create_task(bench.say(post("/waits")))
    await until("it is asked", lambda: bench.app.asked == ["/waits"])
    async with asyncio.timeout(3):
        await bench.server.stop()
        assert await saying == b""
    assert not bench.server.application.is_busy  # type: ignore[union-attr]


# -- noise

NOISE = [ASK, ASK, post("/x", *CHUNKED, body=CHUNKS), post("/x", "Content-Length: 4", body=b"abcd")]
NOISE += [post("/early", "Content-Length: 4", body=b"abcd"), post("/x", "Expect: 100-continue", "Content-Length: 2", body=b"ab")]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_mutated_requests_are_never_a_defect(
    new_loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LINGER", 0.05)
    monkeypatch.setattr(test_http_raw, "VALID", [*test_http_raw.VALID, *NOISE])
    random = Random(7)
    failures: list[dict[str, Any]] = []

    async def one(bench: Served, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        with bench.connect() as sock, contextlib.suppress(OSError):
            cut = random.randrange(len(data) + 1)
            await loop.sock_sendall(sock, data[:cut])
            await asyncio.sleep(0)
            await loop.sock_sendall(sock, data[cut:])
            sock.shutdown(socket.SHUT_WR)
            received = b""
            async with asyncio.timeout(20):
                while read := await loop.sock_recv(sock, 65536):
                    received += read
            assert b"HTTP/1.1 500" not in received, data

    async def play() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        async with running(Served()) as bench:
            assert isinstance(bench, Served)
            for _ in range(10):
                await asyncio.gather(*(one(bench, test_http_raw.mutate(random)) for _ in range(25)))
            await until("all are gone", lambda: not bench.server.connections)
            assert bench.handed_over() > 0

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(play())
    assert not failures
    assert not caplog.records
