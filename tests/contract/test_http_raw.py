"""What no HTTP client would send: the listener answers it, or hangs up, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from bridge.serve.http import client, protocol
from bridge.serve.http.limits import Limits
from tests.unit.http.http_bench import GET, Bench, answers, complete, running, statuses, until


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running(Bench()) as bench:
        yield bench


SMUGGLED = b"GET /v1/services HTTP/1.1\r\nHost: smuggled\r\n\r\n"
CHUNKED = b"GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"

MALFORMED = {
    "both length headers": b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    "the same length twice": b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 4, 4\r\n\r\nabcd",
    "a signed length": b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: +4\r\n\r\nabcd",
    "a huge length": b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "an odd coding": b"GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "chunked not last": b"GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: test\n\n",
    "a bare line feed in the header": b"GET / HTTP/1.1\r\nHost: test\nX: y\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: te\rst\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : test\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: test\r\n X: y\r\n\r\n",
    "a null byte": b"GET / HTTP/1.1\r\nHost: te\x00st\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\nHost: test\r\nX: y\r\n\tz\r\n\r\n",
    "a folded trailer": CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n",
    "a bare line feed before the body": b"GET / HTTP/1.1\r\nHost: test\r\nX: y\r\n\n",
    "a bare line feed behind a chunk size": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "a bare line feed behind a chunk": CHUNKED + b"3\r\nabc\n0\r\n\r\n",
    "a bare line feed behind the last chunk": CHUNKED + b"0\n\r\n",
    "a bare line feed in the trailer": CHUNKED + b"0\r\nX: y\n\r\n",
    "both length headers, the other way about": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"),
    "no chunks": b"GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: gzip\r\n\r\n",
    "chunked twice": b"GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "Host twice": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "Host twice in HTTP/1.0": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\nHost: a\r\n\r\n",
    "an odd Host": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "an asterisk": b"GET * HTTP/1.1\r\nHost: test\r\n\r\n",
    "a target of another scheme": b"GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n",
    "a target without authority": b"GET http:///v1/services HTTP/1.1\r\nHost: test\r\n\r\n",
    "a target with a user": b"GET http://user@test/ HTTP/1.1\r\nHost: test\r\n\r\n",
    "no field name": b"GET / HTTP/1.1\r\nHost: test\r\n: y\r\n\r\n",
    "a chunk size that is none": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"2\r\nabcdef\r\n0\r\n\r\n",
    "a huge chunk size": CHUNKED + b"ffffffffffffffffff\r\n",
    "an unknown method": b"FROB / HTTP/1.1\r\nHost: test\r\n\r\n",
    "a giant method": b"G" * 100_000 + b" / HTTP/1.1\r\nHost: test\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n",
    "another version": b"GET / HTTP/3.7\r\nHost: test\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "nothing but noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_requests_get_one_refusal_and_nothing_behind_them_is_answered(bench: Bench, request_: bytes) -> None:
    received = await bench.say(request_ + SMUGGLED)
    assert all(status in (400, 405, 413, 431) for status in statuses(received)[-1:])
    assert len(statuses(received)) <= 2  # a complete request may have stood before the part that is none
    assert b"shop" not in received
    assert bench.server.counts["refused", 400] >= 1


TOO_LARGE = {
    "target": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n", 414),
    "header": (b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "fields": (
        b"GET / HTTP/1.1\r\nHost: test\r\n" + b"X: y\r\n" * 5 + b"".join(b"X%d: y\r\n" % n for n in range(200)) + b"\r\n",
        431,
    ),
    "body": (b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 2000000\r\n\r\n" + b"a" * 1_100_000, 413),
    "chunks": (
        CHUNKED + (b"1000\r\n" + b"a" * 4096 + b"\r\n") * 300,
        413,
    ),
    "a field that never ends": (b"GET / HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 3_000_000, 431),
    "a field that never ends behind an empty line": (b"\r\nGET / HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 3_000_000, 431),
    "a name that never ends": (b"GET / HTTP/1.1\r\nHost: test\r\n" + b"a" * 3_000_000, 431),
    "a trailer that never ends": (
        CHUNKED + b"0\r\nX: " + b"a" * 4_000_000,
        413,
    ),
    "a chunk extension that never ends": (
        CHUNKED + b"1;" + b"a" * 4_000_000,
        413,
    ),
}


@pytest.mark.parametrize(("request_", "status"), TOO_LARGE.values(), ids=TOO_LARGE)
async def test_what_is_too_large_is_refused_before_it_is_whole(bench: Bench, request_: bytes, status: int) -> None:
    received = await bench.say(*(request_[start : start + 16_384] for start in range(0, len(request_), 16_384)))
    assert bench.server.counts["refused", status] == 1
    assert statuses(received) in ([status], [])  # the answer may be lost where the request was still being sent


@pytest.mark.parametrize("count", [50, 500])
async def test_pipelined_requests_are_answered_in_order(bench: Bench, count: int) -> None:
    requests = [b"GET /v1/services/shop/x%d HTTP/1.1\r\nHost: test\r\n\r\n" % n if n % 2 else GET for n in range(count)]
    received = await bench.say(b"".join(requests), until=count)
    assert statuses(received) == [404 if n % 2 else 200 for n in range(count)]


async def test_a_request_that_begins_behind_many_others_is_no_longer_than_itself(bench: Bench) -> None:
    received = await bench.say(GET * 1000 + GET[:20], GET[20:], until=1001)
    assert statuses(received) == [200] * 1001


async def test_what_waits_behind_a_blocked_read_is_answered_after_it(bench: Bench) -> None:
    cursor = answers(await bench.say(b"GET /v1/instances HTTP/1.1\r\nHost: test\r\n\r\n", until=1))[0][1]["etag"][3:-1].encode()
    blocked = b"GET /v1/instances?wait=50ms&after=" + cursor + b" HTTP/1.1\r\nHost: test\r\n\r\n"
    head = b"HEAD /v1/services HTTP/1.1\r\nHost: test\r\n\r\n"
    sock = bench.connect()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, blocked + head + GET * 3)
    received = b""
    async with asyncio.timeout(5):
        while received.count(b"HTTP/1.1 ") < 5:
            received += await loop.sock_recv(sock, 65536)
    sock.close()
    first, _, rest = received.partition(b"\r\n\r\n")
    second, _, rest = rest.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 304")
    assert second.startswith(b"HTTP/1.1 200")
    assert statuses(rest) == [200, 200, 200], "an answer to HEAD has no body"


async def test_an_answer_to_a_blocked_read_has_its_body_though_head_came_behind_it(bench: Bench) -> None:
    cursor = answers(await bench.say(b"GET /v1/instances HTTP/1.1\r\nHost: test\r\n\r\n", until=1))[0][1]["etag"][3:-1].encode()
    sock = bench.connect()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(
        sock, b"GET /v1/instances?after=" + cursor + b" HTTP/1.1\r\nHost: test\r\n\r\nHEAD / HTTP/1.1\r\nHost: test\r\n\r\n"
    )
    await until("the read blocks", lambda: bench.server.waits.blocked == 1)
    bench.show(3)
    received = b""
    async with asyncio.timeout(5):
        while received.count(b"HTTP/1.1 ") < 2:
            received += await loop.sock_recv(sock, 65536)
    sock.close()
    assert len(json.loads(answers(received)[0][2])["instances"]) == 3


@pytest.mark.parametrize("count", [100, 1000])
async def test_thousands_behind_a_blocked_read_are_not_taken_in(bench: Bench, count: int) -> None:
    cursor = answers(await bench.say(b"GET /v1/instances HTTP/1.1\r\nHost: test\r\n\r\n", until=1))[0][1]["etag"][3:-1].encode()
    received = await bench.say(
        b"GET /v1/instances?wait=100ms&after=" + cursor + b" HTTP/1.1\r\nHost: test\r\n\r\n", GET * count, until=count + 1
    )
    assert statuses(received) == [304] + [200] * count


async def test_byte_by_byte(bench: Bench) -> None:
    request = b"GET /v1/services/shop/web HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"
    received = await bench.say(*(request[n : n + 1] for n in range(len(request))), until=1)
    assert statuses(received) == [200]


async def test_a_request_that_never_ends_is_given_up(bench: Bench) -> None:
    bench.server.limits = replace(bench.server.limits, request=0.2)
    assert statuses(await bench.say(b"GET / HTTP/1.1\r\nHost")) == [408]


async def test_an_idle_connection_is_closed(bench: Bench) -> None:
    bench.server.limits = replace(bench.server.limits, idle=0.2)
    assert statuses(await bench.say(GET)) == [200]
    assert await bench.say() == b""


async def test_a_half_closed_reader_gets_its_answers(bench: Bench) -> None:
    assert statuses(await bench.say(GET * 3, half_close=True)) == [200, 200, 200]


async def test_a_half_closed_reader_of_much_gets_it_whole(bench: Bench) -> None:
    bench.show(300, size=1000)
    received = await bench.say(b"GET /v1/instances HTTP/1.1\r\nHost: test\r\n\r\n" * 20, half_close=True, within=20)
    assert statuses(received) == [200] * 20
    assert complete(received)


async def test_a_half_closed_blocked_read_ends(bench: Bench) -> None:
    cursor = answers(await bench.say(b"GET /v1/instances HTTP/1.1\r\nHost: test\r\n\r\n", until=1))[0][1]["etag"][3:-1].encode()
    assert await bench.say(b"GET /v1/instances?after=" + cursor + b" HTTP/1.1\r\nHost: test\r\n\r\n", half_close=True) == b""
    assert bench.server.waits.blocked == 0


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    ],
)
async def test_an_upgrade_is_not_taken_and_nothing_behind_it_is_read(bench: Bench, request_: bytes) -> None:
    received = await bench.say(request_ + SMUGGLED, SMUGGLED)
    assert len(answers(received)) == 1
    assert answers(received)[0][1]["connection"] == "close"
    assert b"shop" not in received


async def test_http_0_9_is_answered_and_closed(bench: Bench) -> None:
    assert statuses(await bench.say(b"GET /\r\n\r\n" + SMUGGLED)) == [200]


async def test_http_1_0_is_answered_and_closed(bench: Bench) -> None:
    [(status, headers, body)] = answers(await bench.say(b"GET /healthz HTTP/1.0\r\n\r\n"))
    assert (status, headers["connection"], body) == (200, "close", b'{"status":"ok"}')


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/services", "/v1/instances", "/v1/services/shop/none", "/nothing"])
async def test_head_says_what_get_would(bench: Bench, path: str) -> None:
    line = f" {path} HTTP/1.0\r\n\r\n".encode()
    got, asked = await bench.say(b"GET" + line), await bench.say(b"HEAD" + line)
    [(status, _, body)] = answers(got)
    head, _, rest = asked.partition(b"\r\n\r\n")
    assert rest == b""
    assert f"content-length: {len(body)}" in head.decode().lower()
    assert head.startswith(f"HTTP/1.1 {status} ".encode())


async def test_head_of_a_stream_has_no_events(bench: Bench) -> None:
    received = await bench.say(b"HEAD /v1/services HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\r\n")
    assert received.endswith(b"\r\n\r\n")
    assert b"text/event-stream" in received


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"])
@pytest.mark.parametrize("path", [b"/v1/services", b"/v1/services?frob=1", b"/healthz", b"/v1/instances/eu/main/shop/web/0"])
async def test_reads_are_not_written_to(bench: Bench, method: bytes, path: bytes) -> None:
    [(status, headers, _), _] = answers(
        await bench.say(method + b" " + path + b" HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc" + GET, until=2)
    )
    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_garbage_behind_a_blocked_read_harms_no_other_reader(bench: Bench) -> None:
    cursor = answers(await bench.say(b"GET /v1/instances HTTP/1.1\r\nHost: test\r\n\r\n", until=1))[0][1]["etag"][3:-1].encode()
    blocked = b"GET /v1/instances?after=" + cursor + b" HTTP/1.1\r\nHost: test\r\n\r\n"
    loop = asyncio.get_running_loop()
    socks = [bench.connect() for _ in range(40)]
    for n, sock in enumerate(socks):
        await loop.sock_sendall(sock, blocked)
        await until("it blocks", lambda n=n: bench.server.waits.blocked == n + 1)  # type: ignore[misc]
    for sock in socks[::2]:
        await loop.sock_sendall(sock, b"\x00garbage\r\n\r\n")
    await until("the refusals", lambda: bench.server.counts["refused", 400] == 20)
    assert bench.server.waits.blocked == 20
    bench.show(3)
    for sock in socks[1::2]:
        async with asyncio.timeout(5):
            assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")
    for sock in socks:
        sock.close()


@pytest.mark.parametrize("accept", [b"application/json", b"text/event-stream"])
async def test_a_reader_that_never_reads_is_let_go(bench: Bench, accept: bytes) -> None:
    bench.server.limits = replace(bench.server.limits, reader=0.3)
    bench.show(300, size=1000)
    request = b"GET /v1/instances HTTP/1.1\r\nHost: test\r\nAccept: " + accept + b"\r\n\r\n"
    loop = asyncio.get_running_loop()
    sock = bench.connect(receive_buffer=2048)
    await loop.sock_sendall(sock, request * 64)
    await until("it is connected", lambda: len(bench.server.connections) == 1)
    for size in range(900, 940):
        bench.show(250, size=size)
        await asyncio.sleep(0)
        assert sum(connection.unsent for connection in bench.server.connections) < 4 * protocol.HIGH_WATER
    await until("it is let go", lambda: not bench.server.connections)
    assert bench.server.counts["stuck", 0] == 1
    sock.close()


async def test_a_reader_that_takes_no_last_answer_is_let_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer fits the buffer, so that nothing ever pauses; the connection must end all the same."""
    bench.server.limits = replace(bench.server.limits, reader=0.3)
    monkeypatch.setattr(protocol, "HIGH_WATER", 64 * 1024 * 1024)
    bench.show(2000, size=1024)
    loop = asyncio.get_running_loop()
    sock = bench.connect(receive_buffer=2048)
    await loop.sock_sendall(sock, b"GET /v1/instances HTTP/1.1\r\nHost: test\r\n\r\n" * 4 + b"GET /v1/instances HTTP/1.0\r\n\r\n")
    await until("it is connected", lambda: len(bench.server.connections) == 1)
    await until("it is let go", lambda: not bench.server.connections)
    sock.close()


async def test_connections_beyond_the_limit_are_told_so() -> None:
    async with running(Bench(limits=Limits(connections=3, per_loopback=3, per_address=1))) as bench:
        socks = [bench.connect() for _ in range(3)]
        await until("they are connected", lambda: len(bench.server.connections) == 3)
        [(status, headers, _)] = answers(await bench.say(GET))
        assert (status, headers["retry-after"]) == (503, "1")
        for sock in socks:
            sock.close()
        await until("they are gone", lambda: not bench.server.connections)


VALID = [
    GET,
    b"GET /v1/services?environment=eu&limit=2 HTTP/1.1\r\nHost: test\r\nAccept: application/json\r\n\r\n",
    b"GET /v1/instances?meta.a=b&wait=10ms&after=abc-1-0123456789abcdef HTTP/1.1\r\nHost: test\r\n\r\n",
    b'GET /v1/services/shop/web HTTP/1.1\r\nHost: test\r\nIf-None-Match: W/"abc-1-0123456789abcdef", *\r\n\r\n',
    b"GET /v1/services HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\nLast-Event-ID: abc-1-0123456789abcdef\r\n\r\n",
    b"POST /v1/instances HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"HEAD /v1/instances/eu/main/shop%2Fweb/0 HTTP/1.1\r\nHost: test\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab",
]
ODD = [b"\r\n", b"\n", b"\x00", b"\xff", b"%", b"%00", b"%ff", b" ", b":", b"?", b"&", b"=", b"/", b"0", b"\r\n\r\n"]
ODD += [b"chunked", b"a" * 3000]


def mutate(random: Random) -> bytes:
    data = bytearray(b"".join(random.choices(VALID, k=random.randrange(1, 4))))
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at:at] = random.choice(ODD)
            case 1:
                del data[at : at + random.randrange(1, 12)]
            case 2:
                data[at : at + 1] = bytes([random.randrange(256)])
            case _:
                start = random.randrange(len(data) + 1)
                data[at:at] = data[start : start + random.randrange(40)]
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
async def test_mutated_requests_are_never_a_defect(
    bench: Bench, seed: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 in all: each connection gets well-formed answers or none, never a 500."""
    monkeypatch.setattr(client, "LINGER", 0.05)
    random = Random(seed)
    print(f"seed {seed}")
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: failures.append(context))

    async def one(data: bytes) -> None:
        sock = bench.connect()
        try:
            with contextlib.suppress(OSError):
                cut = random.randrange(len(data) + 1)
                await loop.sock_sendall(sock, data[:cut])
                await loop.sock_sendall(sock, data[cut:])
                sock.shutdown(socket.SHUT_WR)
                received = b""
                async with asyncio.timeout(20):
                    while read := await loop.sock_recv(sock, 65536):
                        received += read
                assert b"HTTP/1.1 500" not in received, data
                if b"text/event-stream" not in received and b"HEAD" not in data:
                    statuses(received)
        finally:
            sock.close()

    for _ in range(10):
        await asyncio.gather(*(one(mutate(random)) for _ in range(25)))
    assert not failures
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    await until("all are gone", lambda: not bench.server.connections)
    assert bench.server.waits.blocked == 0
    assert not bench.server.counts["answered", 500]
