"""What waits is small: nothing of its own is kept that readers of one view share, and the parser goes until more comes."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.http.http_bench import Bench, answers, running


@pytest.mark.parametrize("first", [b"", b"\r\n"])
async def test_a_connection_parses_on_after_it_waited(first: bytes) -> None:
    bench = Bench()
    async with running(bench):
        blocking = await bench.block()

        async def ask() -> bytes:
            return await bench.say(
                blocking,
                first + b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n",
                b"GET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n",
                until=3,
            )

        asking = asyncio.create_task(ask())
        await bench.waiting()
        bench.show(3)
        received = await asking
    assert [status for status, _, _ in answers(received)] == [200, 200, 404]


async def test_readers_that_wait_alike_share_the_answer_and_keep_no_parser() -> None:
    bench = Bench()
    async with running(bench):
        blocking = await bench.block()
        asking = [asyncio.create_task(bench.say(blocking, until=1)) for _ in range(3)]
        await bench.waiting(3)
        blocked = [connection for connection in bench.server.connections if getattr(connection, "waiting", None)]
        renders = {id(connection.waiting.wait.render) for connection in blocked}  # type: ignore[union-attr]
        cursors = {id(connection.waiting.wait.cursor) for connection in blocked}  # type: ignore[union-attr]
        assert len(renders) == len(cursors) == 1
        assert all(connection._parser is None for connection in blocked)
        bench.show(3)
        received = await asyncio.gather(*asking)
    assert [status for one in received for status, _, _ in answers(one)] == [200] * 3
    assert len({one.partition(b"\r\n\r\n")[2] for one in received}) == 1


async def test_a_malformed_message_while_waiting_ends_the_connection_unanswered() -> None:
    bench = Bench()
    async with running(bench):
        blocking = await bench.block()
        asking = asyncio.create_task(bench.say(blocking, b"\x00nonsense\r\n\r\n"))
        received = await asking
    assert received == b""
    assert bench.server.limited["malformed"] == 1
