"""Watchers' rules W1-W6 under random changes: nothing missed, doubled, out of order, early or for nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from random import Random

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.aio import SystemClock
from bridge.catalog import catalog as catalog_module
from bridge.catalog import log as log_module
from bridge.model import InstanceGroup, Listing, ServiceName
from bridge.serve.http import protocol, render, stream
from bridge.serve.http.message import Answer, Request
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.server import HttpServer
from tests.contract.watch_model import SPECS, STREAMED, Content, shown
from tests.contract.watch_readers import BlockingReader, Stage, StreamReader, connected
from tests.contract.watch_world import World

SECONDS = float(os.environ.get("ENVBRIDGE_WATCH_SECONDS", "0"))
"""How long the random run goes on; without it, the few seeds below."""

SEEDS = range(3)
STEPS = 40


async def serve(stage: Stage) -> HttpServer:
    world = stage.world
    server = HttpServer(world.catalog, [NativeSurface(world.catalog, world.clock)], SystemClock())
    _, stage.port = await server.listen("127.0.0.1", 0)
    stage.history = world.history
    return server


async def end(server: HttpServer, *, clean: bool) -> None:
    if clean:
        await server.stop()
    assert server._server is not None
    server._server.close()
    for _ in range(3):  # until what was being accepted has come in, too
        for connection in list(server.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0.002)


def bookmark(server: HttpServer) -> None:
    for connection in list(server.connections):
        if connection.following is not None:
            connection.following.bookmark()


async def play(seed: int, steps: int) -> dict[str, int]:
    random = Random(seed)
    world = World(random, reserve=random.choice([10_000, 10_000, 60]))
    stage = Stage(world)
    for _ in range(random.randrange(30)):
        world.step()
    server = await serve(stage)
    readers: list[BlockingReader | StreamReader] = [BlockingReader(stage, spec, Random(random.random())) for spec in SPECS]
    readers += [BlockingReader(stage, random.choice(SPECS), Random(random.random())) for _ in range(10)]
    readers += [StreamReader(stage, spec, Random(random.random()), slow=random.random() < 0.4) for spec in STREAMED]
    readers += [StreamReader(stage, STREAMED[n], Random(random.random()), slow=n % 2 == 0) for n in range(10, 16)]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    restarts = {random.randrange(steps): random.random() < 0.5 for _ in range(random.randrange(3))}
    try:
        for number in range(steps):
            if number in restarts:
                await end(server, clean=restarts[number])
                world.restart(clean=restarts[number])
                server = await serve(stage)
            for _ in range(random.choice([1, 1, 1, 5, 30])):
                world.step()
            if random.random() < 0.1:
                bookmark(server)
            await asyncio.sleep(random.choice([0, 0, 0.001, 0.005, 0.02, 0.12]))
            raise_failure(tasks)
        world.quiesce()
        await settle(stage, readers, tasks)
        await compare(stage)
    finally:
        stage.over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await end(server, clean=True)
    raise_failure(tasks)
    assert not server.connections
    assert server.waits.blocked == 0
    return stage.seen


def raise_failure(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()


async def settle(stage: Stage, readers: list[BlockingReader | StreamReader], tasks: list[asyncio.Task[None]]) -> None:
    deadline = time.monotonic() + 40.0
    waiting = readers
    while waiting:
        raise_failure(tasks)
        waiting = [reader for reader in waiting if reader.state() != reader.expected()]
        if waiting and time.monotonic() > deadline:
            reader = waiting[0]
            raise AssertionError(
                f"{len(waiting)} readers miss something, {type(reader).__name__} {reader.spec} at {vars(reader)}\n"
                f"holds {reader.state()}\nnot   {reader.expected()}\n{stage.world.steps[-12:]}"
            )
        await asyncio.sleep(0.02)


async def compare(stage: Stage) -> None:
    """Every view, asked plainly, against the model; and the records of the source without guard against what it said."""
    async with connected(stage.port) as client:
        for spec in SPECS:
            path, query = spec
            answer = await client.get(f"{path}?{query}" if query else path)
            content = shown(spec, answer.status, answer.document() if answer.status == 200 else None)
            assert content == stage.world.now.content(spec), f"{spec}; {stage.world.steps[-12:]}"
    assert set(stage.world.partition.sources["a"].records) == stage.world.ledger.ids, stage.world.steps


def made_with_little_room(connection: protocol.Connection, transport: asyncio.BaseTransport) -> None:
    """As `Connection.connection_made`, with a send buffer so small that a slow reader falls behind soon."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
    connection_made(connection, transport)


connection_made = protocol.Connection.connection_made


def run(seed: int, monkeypatch: pytest.MonkeyPatch, steps: int = STEPS) -> dict[str, int]:
    """One play; its odd sizes bring out what large catalogs and full buffers would."""
    random = Random(seed * 7919)
    pieces = random.choice([2, 5, 1000])
    for module, name, value in (
        (stream, "PIECE", pieces),
        (render, "PIECE", pieces),
        (render, "COMPRESS_FROM", random.choice([10, 512])),
        (protocol, "HIGH_WATER", random.choice([256, 4096, 512 * 1024])),
        (log_module, "MAX_CHANGES", random.choice([30, 300, 100_000])),
        (catalog_module, "MAX_IDLE", random.choice([1, 4, 256])),
    ):
        monkeypatch.setattr(module, name, value)
    if random.random() < 0.5:
        monkeypatch.setattr(protocol.Connection, "connection_made", made_with_little_room)
    print(f"seed {seed}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(play(seed, steps))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_reader_sees_every_final_state_once_and_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(seed, monkeypatch)


def test_a_service_whose_last_group_went_is_remembered_across_a_restart() -> None:
    world = World(Random(0))
    web = ServiceName("shop", "web")
    world.ingest.accept("a", Listing("", (InstanceGroup("web", (), (web,)),)))
    world.restart(clean=True)
    world.ingest.accept("a", Listing(""))
    world.restart(clean=True)
    assert web in world.catalog.services


@given(st.randoms(use_true_random=False), st.integers(1, 25))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_view_is_as_the_model_after_every_change(random: Random, steps: int) -> None:
    """Contents, digests and 304s, asked without a socket in between."""
    world = World(random)
    surface = NativeSurface(world.catalog, world.clock)
    seen: dict[tuple[str, str], dict[str, Content]] = {spec: {} for spec in SPECS}
    for _ in range(steps):
        world.step()
        for spec in SPECS:
            path, query = spec
            answer = surface.answer(Request("GET", path, query, {}))
            assert isinstance(answer, Answer)
            content = shown(spec, answer.status, json.loads(answer.body) if answer.status == 200 else None)
            assert content == world.now.content(spec), f"{spec}; {world.steps}"
            cursor = dict(answer.headers)["ETag"][3:-1]
            for old, held in seen[spec].items():
                again = surface.answer(Request("GET", path, query, {"if-none-match": f'"{old}"'}))
                assert isinstance(again, Answer)
                assert (again.status == 304) is (held == content), f"{spec} {old}; {world.steps}"
                assert (old.rpartition("-")[2] == cursor.rpartition("-")[2]) is (held == content), f"{spec} {old} {cursor}"
            seen[spec] = dict([*seen[spec].items(), (cursor, content)][-3:])


@pytest.mark.skipif(not SECONDS, reason="set ENVBRIDGE_WATCH_SECONDS to run for longer")
def test_many_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    began, seed = time.monotonic(), int(os.environ.get("ENVBRIDGE_WATCH_SEED", time.time()))
    seen: dict[str, int] = {}
    while time.monotonic() - began < SECONDS:
        for what, count in run(seed, monkeypatch).items():
            seen[what] = seen.get(what, 0) + count
        seed += 1
    print(seen)
