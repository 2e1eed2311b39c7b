"""An empty line between requests says nothing (RFC 9112, section 2.2), also where a read waits."""

from __future__ import annotations

import asyncio

from tests.unit.http.http_bench import Bench, answers, running


async def test_an_empty_line_behind_a_read_that_waits_begins_no_request() -> None:
    bench = Bench()
    async with running(bench):
        blocking = await bench.block()
        asking = asyncio.create_task(bench.say(blocking, b"\r\n", b"\r", b"\n", until=1))
        await bench.waiting()
        await asyncio.sleep(0.05)
        (connection,) = bench.server.connections
        assert connection.request_began is None
        bench.show(3)
        assert answers(await asking)[0][0] == 200
