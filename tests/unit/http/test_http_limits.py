"""Each limit of the listener: what goes beyond it, what is said to that, that the connection ends, and what is counted."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bridge.serve.http import client
from bridge.serve.http.limits import LIMITS, Limits
from bridge.serve.http.protocol import Connection
from bridge.serve.http.server import HttpServer
from bridge.testing import ManualClock
from tests.kit.certificates import self_signed
from tests.unit.http.http_bench import GET, Bench, Wire, answers, running, statuses, until

CHUNKED = b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /v1/services HTTP/1.1\r\nHost: smuggled\r\n\r\n"


def request(*fields: bytes, target: bytes = b"/healthz", method: bytes = b"GET", body: bytes = b"") -> bytes:
    return b"\r\n".join([method + b" " + target + b" HTTP/1.1", b"Host: a", *fields, b"", body])


REFUSED = {
    "both length headers": (request(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, "malformed"),
    "both, the other way about": (request(b"Transfer-Encoding: chunked", b"Content-Length: 4"), 400, "malformed"),
    "two lengths": (request(b"Content-Length: 4", b"Content-Length: 5", body=b"abcd"), 400, "malformed"),
    "a length that is none": (request(b"Content-Length: 4x"), 400, "malformed"),
    "bare line feeds": (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400, "malformed"),
    "a bare line feed in the header": (b"GET /healthz HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400, "malformed"),
    "a folded field": (request(b"X: y\r\n z"), 400, "malformed"),
    "a space before the colon": (request(b"Transfer-Encoding : chunked"), 400, "malformed"),
    "a null byte in a field": (request(b"X: y\x00z"), 400, "malformed"),
    "a null byte in the target": (request(target=b"/health\x00z"), 400, "malformed"),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n", 400, "malformed"),
    "a trailer without chunks": (CHUNKED + b"0\r\nHost: b\r\n\r\n", 400, "malformed"),
    "no chunk size": (CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n", 400, "malformed"),
    "a negative chunk size": (CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n", 400, "malformed"),
    "a chunk size beyond 64 bits": (CHUNKED + b"fffffffffffffffff\r\nabc\r\n", 400, "malformed"),
    "a chunk longer than it says": (CHUNKED + b"2\r\nabcd\r\n0\r\n\r\n", 400, "malformed"),
    "an absurd version": (b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n", 400, "malformed"),
    "a version that is none": (b"GET /healthz HTTP/x\r\nHost: a\r\n\r\n", 400, "malformed"),
    "HTTP/2": (b"GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505, "malformed"),
    "another coding": (request(b"Transfer-Encoding: gzip, chunked"), 501, "malformed"),
    "another expectation": (request(b"Expect: magic"), 417, "malformed"),
    "a long target": (request(target=b"/" + b"a" * 8192), 414, "target_size"),
    "a long field": (request(b"X: " + b"a" * 16_384), 431, "header_size"),
    "a field without end": (b"GET / HTTP/1.1\r\nX: " + b"a" * 30_000, 431, "header_size"),
    "many fields": (request(*[b"X%d: y" % number for number in range(128)]), 431, "header_size"),
    "a long body": (request(b"Content-Length: 1048577"), 413, "body_size"),
    "much in chunks": (CHUNKED + (b"10000\r\n" + b"a" * 65_536 + b"\r\n") * 17, 413, "body_size"),
    "a chunk extension without end": (CHUNKED + b"1;" + b"a" * 2_200_000, 413, "body_size"),
}


class World:
    """A server on a clock that stands still, and a connection to it."""

    def __init__(self, **limits: Any) -> None:
        bench = Bench()
        self.clock = ManualClock()
        self.server = HttpServer(bench.catalog, bench.server._surfaces, self.clock, limits=Limits(**limits), insecure=True)
        self.connection, self.wire = Connection(self.server), TakesNothing()
        self.connection.connection_made(self.wire)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.connection.expire(self.clock.monotonic())

    @property
    def limited(self) -> dict[str, int]:
        """The limits that took effect, and how often."""
        return {limit: times for limit, times in self.server.limited.items() if times}


class TakesNothing(Wire):
    """A transport whose client takes as much as it is let."""

    unsent = 0
    aborted = False
    paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = self.closed = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@pytest.mark.parametrize("size", [1, 7, 1 << 16], ids=["byte by byte", "by seven", "at once"])
@pytest.mark.parametrize(("data", "status", "limit"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_counted_and_closed(data: bytes, status: int, limit: str, size: int) -> None:
    world = World()
    if len(data) > 100_000 and size < 1000:
        size = 1000
    for start in range(0, len(data), size):
        world.connection.data_received(data[start : start + size])
    world.connection.data_received(SMUGGLED)
    [(got, headers, body)] = answers(world.wire.written)
    assert (got, headers["connection"], headers["content-type"]) == (status, "close", "application/problem+json")
    assert b"shop" not in body
    assert world.wire.closed
    assert world.limited == {limit: 1}
    assert world.server.counts["refused", status] == 1


AT_THE_LIMIT = {
    "target": (request(target=b"/" + b"a" * 8191), 404),
    "header": (request(b"X: " + b"a" * (16_384 - len(b"Host: a\r\nX: \r\n"))), 200),
    "fields": (request(*[b"X%d: y" % number for number in range(127)]), 200),
    "body": (request(b"Content-Length: 1048576", body=b"a" * 1_048_576), 200),
    "HTTP/0.9": (b"GET /healthz\r\n\r\n", 200),
}


@pytest.mark.parametrize(("data", "status"), AT_THE_LIMIT.values(), ids=AT_THE_LIMIT)
def test_what_is_no_more_than_the_limit_is_answered(data: bytes, status: int) -> None:
    world = World()
    world.connection.data_received(data)
    assert statuses(world.wire.written) == [status]
    assert world.limited == {}


# -- time


@pytest.mark.parametrize(
    "begun", [b"G", b"GET /healthz HTTP/1.1\r\nHost", b"\r\n", request(b"Content-Length: 3", body=b"a"), CHUNKED, GET + b"GET"]
)
def test_a_request_that_trickles_is_given_up_after_ten_seconds(begun: bytes) -> None:
    world = World()
    world.connection.data_received(begun)
    already = len(answers(world.wire.written))
    for _ in range(10):
        world.pass_time(1.0)
        assert world.limited == {}
    world.pass_time(0.1)
    [(status, headers, _)] = answers(world.wire.written)[already:]
    assert (status, headers["connection"]) == (408, "close")
    assert world.wire.closed
    assert world.limited == {"slow_request": 1}
    assert world.server.counts["refused", 408] == 1


def test_trickling_on_wins_no_time() -> None:
    world = World()
    for byte in b"GET /healthz":
        world.connection.data_received(bytes([byte]))
        world.pass_time(0.9)
    assert statuses(world.wire.written) == [408]


@pytest.mark.parametrize("said", [b"", GET, GET * 3])
def test_an_idle_connection_is_closed_after_75_seconds_without_a_word(said: bytes) -> None:
    world = World()
    if said:
        world.connection.data_received(said)
    written = world.wire.written
    world.pass_time(75.0)
    assert not world.wire.closed
    world.pass_time(0.1)
    assert world.wire.closed
    assert world.wire.written == written
    assert world.limited == {"idle": 1}


def test_each_request_wins_another_75_seconds() -> None:
    world = World()
    for _ in range(3):
        world.pass_time(74.0)
        world.connection.data_received(GET)
    assert not world.wire.closed


@pytest.mark.parametrize("seconds", [29.0, 31.0])
def test_a_reader_that_takes_nothing_for_30_seconds_is_let_go(seconds: float) -> None:
    world = World()
    world.connection.data_received(GET)
    world.wire.unsent = 100
    world.pass_time(1.0)
    world.pass_time(seconds)
    assert world.wire.aborted is (seconds > 30)
    assert world.limited == ({"slow_reader": 1} if seconds > 30 else {})
    assert world.server.counts["stuck", 0] == len(world.limited)


def test_a_reader_that_takes_a_little_is_kept() -> None:
    world = World()
    world.connection.data_received(GET * 5)
    for unsent in range(100, 0, -1):
        world.wire.unsent = unsent
        world.pass_time(20.0)
    assert not world.wire.aborted


# -- how many


@pytest.mark.parametrize("depth", [64, 65])
def test_65_requests_that_wait_for_their_turn_are_enough(depth: int) -> None:
    world = World()
    world.connection.data_received(GET)
    world.connection.pause_writing()
    world.connection.data_received(GET * depth)
    assert world.wire.paused is (depth > 64)
    assert world.limited == ({"pipelining": 1} if depth > 64 else {})
    world.connection.resume_writing()
    assert statuses(world.wire.written) == [200] * (depth + 1)
    assert not world.wire.paused


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        ({"connections": 1}, "connections"),
        ({"per_address": 1}, "connections_per_address"),
        ({"connections": 1, "per_address": 1}, "connections"),
    ],
)
def test_one_connection_too_many_is_told_so(limits: dict[str, int], limit: str) -> None:
    world = World(**limits)
    late = Wire()
    Connection(world.server).connection_made(late)
    [(status, headers, _)] = answers(late.written)
    assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
    assert late.closed
    assert world.limited == {limit: 1}
    world.connection.connection_lost(None)
    assert world.connection not in world.server.connections


def test_loopback_addresses_have_a_limit_of_their_own() -> None:
    world = World(per_loopback=1, per_address=0)
    wires = [Wire(), Wire()]
    for wire in wires:
        wire._extra["peername"] = ("127.0.0.1", 1)  # type: ignore[attr-defined]  # where a transport keeps it
        Connection(world.server).connection_made(wire)
    assert [wire.closed for wire in wires] == [False, True]


async def test_a_handshake_that_comes_to_nothing_is_counted(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path).values())
    bench = Bench(limits=Limits(handshake=0.2))
    _, bench.port = await bench.server.listen("127.0.0.1", 0, context)
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        assert await reader.read() == b"", "silence ends it"
        writer.close()
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=trusting)
        writer.write(GET)
        assert b" 200 " in await reader.readline()
        writer.close()
    sweeping = asyncio.create_task(bench.server.run())
    await until("it is counted", lambda: bench.server.limited["handshake"] > 0)
    assert bench.server.limited["handshake"] == 1
    sweeping.cancel()
    await bench.server.stop()


# -- over a socket


async def smuggle(bench: Bench) -> bytes:
    return await bench.say(request(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n") + SMUGGLED)


async def crawl(bench: Bench) -> bytes:
    bench.server.limits = replace(bench.server.limits, request=0.2)
    return await bench.say(b"GET /healthz HTTP/1.1\r\nHo")


async def idle(bench: Bench) -> bytes:
    bench.server.limits = replace(bench.server.limits, idle=0.2)
    return await bench.say()


@pytest.mark.parametrize(
    ("act", "expected", "limit"), [(smuggle, [400], "malformed"), (crawl, [408], "slow_request"), (idle, [], "idle")]
)
async def test_over_a_socket(
    act: Callable[[Bench], Awaitable[bytes]], expected: list[int], limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LINGER", 0.05)
    async with running(Bench()) as bench:
        assert statuses(await act(bench)) == expected
        assert bench.server.limited == {**dict.fromkeys(LIMITS, 0), limit: 1}


# -- the manual


def test_the_manual_has_every_limit_and_its_value() -> None:
    manual = (Path(__file__).parents[3] / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", manual, re.MULTILINE))
    assert set(LIMITS) <= set(rows)
    limits = asdict(Limits())
    told = {
        "connections": f"{limits['connections']:,} connections",
        "connections_per_address": f"{limits['per_loopback']:,} from a loopback address, {limits['per_address']:,} from another",
        "handshake": f"{limits['handshake']:g} s",
        "target_size": f"{limits['target_size'] // 1024} KiB",
        "header_size": f"{limits['header_size'] // 1024} KiB, {limits['header_fields']} fields",
        "body_size": f"{limits['body_size'] // 1024**2} MiB",
        "pipelining": f"{limits['pipelined']} requests",
        "slow_request": f"{limits['request']:g} s",
        "slow_reader": f"{limits['reader']:g} s",
        "idle": f"{limits['idle']:g} s",
    }
    assert {limit: value for limit, value in told.items() if not rows[limit].startswith(value)} == {}
