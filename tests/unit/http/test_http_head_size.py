"""How much of a head is read, whole or not; and what a read that waited counts as."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.http.http_bench import Bench, answers, running

START = b"GET /v1/services HTTP/1.1\r\nHost: x\r\n"
ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        (START + b"X: " + b"a" * 17_000,),
        (START + b"X: " + b"a" * 9_000, b"a" * 9_000),
        (ASKED * 3 + START + b"X: " + b"a" * 17_000,),
        (START + b"".join(b"A%d: b\r\n" % (n % 3) for n in range(3_000)),),
    ],
    ids=["one field", "in two packets", "behind whole requests", "many fields"],
)
async def test_a_head_is_refused_when_it_is_too_long_before_it_is_whole(pieces: tuple[bytes, ...]) -> None:
    bench = Bench()
    async with running(bench):
        received = answers(await bench.say(*pieces))
    assert received[-1][0] == 431
    assert bench.server.limited["header_size"] == 1


@pytest.mark.parametrize("names", [1, 129], ids=["one name", "names of their own"])
async def test_fields_are_counted_whatever_their_names(names: int) -> None:
    bench = Bench()
    fields = b"".join(b"A%d: b\r\n" % (n % names) for n in range(129))
    async with running(bench):
        assert [status for status, _, _ in answers(await bench.say(START + fields + b"\r\n"))] == [431]
        whole = START + b"".join(b"A: b\r\n" for _ in range(120)) + b"\r\n"
        assert answers(await bench.say(whole, until=1))[0][0] == 200


async def test_a_read_that_waited_counts_as_what_it_was_answered() -> None:
    bench = Bench()
    async with running(bench):
        assert answers(await bench.say(await bench.block("50ms"), until=1))[0][0] == 304
        asking = asyncio.create_task(bench.say(await bench.block(), until=1))
        await bench.waiting()
        assert bench.server.counts["waited", 200] == 0
        bench.show(3)
        assert answers(await asking)[0][0] == 200
    assert (bench.server.counts["waited", 200], bench.server.counts["waited", 304]) == (1, 1)
