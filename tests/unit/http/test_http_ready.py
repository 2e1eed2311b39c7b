"""Answers given again as ready bytes are the ones that would be made anew, whatever happened in between."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.catalog import catalog as catalog_module
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.errors import TransientError
from bridge.model import InstanceGroup, Listing, ServiceInstance, ServiceName
from bridge.serve.http import ready
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.protocol import Connection
from bridge.serve.http.server import HttpServer
from bridge.sync.ingest import Ingest
from bridge.testing import ManualClock
from tests.contract.watch_world import ScriptedConfig

AGE = re.compile(rb"Envbridge-Age: (\d+)\r\n")
TOKEN = frozenset({hashlib.sha256(b"t").digest()})
PATHS = (
    "/v1/services/shop/web",
    "/v1/services/shop/none",
    "/v1/services",
    "/v1/instances?zone=a&stale=no",
    "/v1/services/x?bad=1",
)
FIELDS = ("", "Authorization: Bearer t\r\n", "Accept-Encoding: gzip\r\n", "Accept: application/msgpack\r\n")


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, peer: str) -> None:
        super().__init__({"peername": (peer, 1)})
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.sent += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.sent += b"".join(list_of_data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class World:
    """A server on a clock that stands still, and a connection that stays."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        self.clock = ManualClock()
        self.peer = peer
        self.catalog = Catalog(Indexes("abc", 1, 1_000_000))
        partition = self.catalog.partitions["eu"] = Partition("eu", "uid", 1)
        self.ingest = Ingest(self.catalog, partition, self.clock, logging.getLogger("test.ready"))
        self.ingest.add("main", ScriptedConfig(guard=None), scopes=("",), polled=False)
        self.server = HttpServer(self.catalog, [NativeSurface(self.catalog, self.clock)], self.clock, insecure=True)
        self.kept, self.wire = self.connect()

    def connect(self) -> tuple[Connection, Wire]:
        connection, wire = Connection(self.server), Wire(self.peer)
        connection.connection_made(wire)
        return connection, wire

    def show(self, count: int) -> None:
        instances = tuple(
            ServiceInstance(id=f"shop/web/{n}", namespace="shop", service="web", zone="ab"[n % 2], meta={"pad": "x" * 300})
            for n in range(count)
        )
        self.ingest.accept("main", Listing("", (InstanceGroup("web", instances, (ServiceName("shop", "web"),)),)))

    def ask(self, request: bytes) -> bytes:
        """The answer on the connection that stays."""
        self.wire.sent = b""
        self.kept.data_received(request)
        if self.wire.closed:
            self.kept, self.wire = self.connect()
        return self.wire.sent

    def ask_anew(self, request: bytes) -> bytes:
        """The answer made from nothing, on a connection of its own."""
        self.server.ready.clear()
        for views in self.catalog._views.values():
            for view in views.values():
                view.bodies.clear()
        connection, wire = self.connect()
        connection.data_received(request)
        connection.connection_lost(None)
        return wire.sent

    @property
    def ready(self) -> dict[bytes, ready.ReadyAnswer]:
        return self.server.ready.loopback if self.kept.loopback else self.server.ready.elsewhere


def get(path: str, fields: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n".encode()


def without_age(answer: bytes) -> tuple[bytes, int]:
    """The answer without the one field that time alone moves on, and that field's milliseconds."""
    found = AGE.search(answer)
    return AGE.sub(b"", answer), int(found[1]) if found else 0


REQUESTS = [get(path, fields, method) for path in PATHS for fields in FIELDS for method in ("GET", "HEAD")]
EVENTS: dict[str, Callable[[World], None]] = {
    "nothing": lambda world: None,
    "a moment": lambda world: world.clock.advance(ready.LIFE / 2),
    "a while": lambda world: world.clock.advance(40.0),
    "a tick": lambda world: world.ingest.tick(),
    "none": lambda world: world.show(0),
    "two": lambda world: world.show(2),
    "three": lambda world: world.show(3),
    "a failure": lambda world: world.ingest.fail("main", "", TransientError("down")),
    "a token": lambda world: world.server.replace_tokens(TOKEN),
    "another token": lambda world: world.server.replace_tokens(frozenset({b"other"})),
}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.sampled_from(REQUESTS)), min_size=1, max_size=12),
    st.sampled_from(("127.0.0.1", "192.0.2.1")),
)
@settings(deadline=None, max_examples=150)
def test_an_answer_given_again_is_the_one_that_would_be_made(steps: list[tuple[str, bytes]], peer: str) -> None:
    async def play() -> None:
        world = World(peer)
        ages: list[tuple[float, int]] = []
        for event, request in steps:
            EVENTS[event](world)
            again = [world.ask(request), world.ask(request)]
            made, age = without_age(world.ask_anew(request))
            now = world.clock.monotonic()
            ages.append((now, age))
            for answer, age_then in map(without_age, again):
                assert answer == made
                assert age_then in {age for at, age in ages if now - at < ready.LIFE}

    asyncio.run(play())


def test_the_same_request_is_answered_without_a_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.show(2)
    first = world.ask(get(PATHS[0]))
    assert get(PATHS[0]) in world.ready
    monkeypatch.setattr(world.server, "reply", lambda request: pytest.fail("it was looked at"))
    assert world.ask(get(PATHS[0])) == first
    assert world.server.counts["answered", 200] == 2


def test_ages_move_on() -> None:
    world = World()
    world.show(1)
    world.ask(get(PATHS[0]))
    world.clock.advance(1.0)
    assert b"Envbridge-Age: 1000\r\n" in world.ask(get(PATHS[0]))


NOT_KEPT = {
    "it closes": get(PATHS[0], "Connection: close\r\n"),
    "it is one of two": get(PATHS[0]) * 2,
    "another begins behind it": get(PATHS[0]) + b"GET /v1",
    "it waits": get(PATHS[0] + "?after=abc-9-0000000000000000&wait=1s"),
    "it expects": get(PATHS[0], "Expect: 100-continue\r\nContent-Length: 1\r\n") + b"x",
    "it is no view": get("/v1/environments"),
    "it is large": get(PATHS[0], f"X-Pad: {'x' * ready.LARGEST_REQUEST}\r\n"),
    "it cannot be understood": get("/v1/services?limit=x"),
}


@pytest.mark.parametrize("request_", NOT_KEPT.values(), ids=NOT_KEPT)
async def test_it_is_not_kept_where(request_: bytes) -> None:
    world = World()
    world.show(1)
    world.ask(request_)
    assert not world.ready


def test_a_view_that_is_forgotten_is_not_answered_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_module, "MAX_IDLE", 1)
    world = World()
    world.show(1)
    world.ask(get(PATHS[0]))
    world.ask(get(PATHS[1]))
    world.show(2)
    assert b"shop/web/1" in world.ask(get(PATHS[0]))


def test_entries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "MOST", 3)
    world = World()
    world.show(1)
    for number in range(10):
        world.ask(get(PATHS[0], f"X-Number: {number}\r\n"))
        assert len(world.ready) <= 3


def test_half_a_request_that_was_asked_before_is_no_request() -> None:
    world = World()
    world.show(1)
    whole = get(PATHS[0])
    expected = world.ask(whole)
    world.wire.sent = b""
    for piece in (whole[:-2], whole[-2:], whole):
        world.kept.data_received(piece)
    assert world.wire.sent == expected * 2
