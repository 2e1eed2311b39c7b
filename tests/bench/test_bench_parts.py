"""What several benches measure with: percentiles, the loop's lag, steady readers, commands that speak, the snapshot."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import msgpack
from msgspec.structs import astuple

from bridge.model import Port, ServiceInstance
from tests.bench import behind_http, snapshot
from tests.bench.benches import kubernetes
from tests.bench.child import Child
from tests.bench.lag import LoopLag, percentile
from tests.bench.paced import Readers
from tests.kit.background import Background
from tests.kit.listener import Listener


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_percentiles_of_a_hundred(share: float, value: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_a_stall_of_the_loop_counts_for_every_tick_that_it_swallowed() -> None:
    async def stall() -> list[float]:
        async with LoopLag() as lag:
            await asyncio.sleep(0.05)
            time.sleep(0.1)  # noqa: ASYNC251  # this is what is measured
            await asyncio.sleep(0.05)
        return lag.late

    late = asyncio.run(stall())
    assert max(late) >= 0.09
    assert sum(seconds >= 0.04 for seconds in late) >= 50


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while request := await reader.readuntil(b"\r\n\r\n"):
        status, body = (b"404 Not Found", b"no") if b"GET /missing " in request else (b"200 OK", b"yes")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


@pytest.fixture
def port() -> Iterator[int]:
    """A server that answers everything but /missing."""
    with Background() as loop:
        listener = loop.call(Listener, _answer)
        yield listener.port
        loop.call(listener.close)
        loop.run(listener.reset())


def test_readers_read_as_often_as_they_should(port: int) -> None:
    end = time.monotonic() + 0.5
    with Readers(port, ["/a", "/b"], rate=200.0) as readers:
        took = readers.read_until(lambda: time.monotonic() > end)
    assert 80 <= len(took) <= 120
    assert min(took) > 0


def test_readers_take_no_other_answer_than_200(port: int) -> None:
    with Readers(port, ["/missing"], rate=200.0) as readers, pytest.raises(RuntimeError, match="404"):
        readers.read_until(lambda: False)


def test_a_child_says_when_it_is_there_and_answers() -> None:
    program = "import sys; print('here', flush=True)\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
    with Child([sys.executable, "-c", program]) as child:
        assert child.said == "here"
        assert 0 < child.took < 10
        assert child.ask("change") == "CHANGE"


def test_a_child_that_ends_is_told_with_its_complaint() -> None:
    with pytest.raises(RuntimeError, match="no such thing"), Child([sys.executable, "-c", "raise SystemExit('no such thing')"]):
        pass


def test_the_snapshot_gives_back_every_field(tmp_path: Path) -> None:
    made = ServiceInstance(id="a", source="s", namespace="n", service="w", ports=(Port("http", 80),), meta={"k": "v"}, zone="z")
    (tmp_path / "file").write_bytes(msgpack.encode([astuple(made)]))
    assert ServiceInstance.__struct_fields__ == snapshot.Instance.__struct_fields__
    [read] = snapshot.read(tmp_path / "file").values()
    assert msgpack.encode(astuple(read)) == msgpack.encode(astuple(made))


def test_the_source_behind_http_reads_what_the_official_client_reads(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(gc.unfreeze)  # what is measured freezes, as the daemon does
    listed, events = tmp_path / "list", tmp_path / "events"
    listed.write_bytes(kubernetes.page(2))
    events.write_bytes(kubernetes.lines(2))
    assert behind_http.listing(listed, 2)["seconds"] > 0
    assert behind_http.watching(listed, events, 2)["rate"] > 0
    assert behind_http.models_of_list(listed, 2)["seconds"] > 0
    assert behind_http.models_of_events(events, 2)["rate"] > 0
