"""The Kubernetes source without a network: from the bytes of a list, and of the lines of a watch, to the catalog.

Beside it what the official client makes of the same bytes. Each is called in a process of its own (`apart`).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import io
import logging
import os
import threading
import time
from collections.abc import Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import urllib3

from bridge.aio import SystemClock
from bridge.catalog.query import Query
from bridge.contracts import PluginContext
from bridge.model import InstanceGroup, ServiceName
from bridge_plugins.sources.kubernetes.feed import Deadlines
from bridge_plugins.sources.kubernetes.requests import Question
from bridge_plugins.sources.kubernetes.source import KubernetesSource, Settings
from bridge_plugins.sources.kubernetes.transport import Api
from tests.bench import cluster, writer
from tests.bench.machine import peak, rss
from tests.bench.session import Figures

_NO_SERVICES = b'{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1000"},"items":[]}'
_WAIT = 60.0


class Answers(Api):
    """An API server in memory: one page of slices, no Services, and a watch that begins with ``events`` and stays open.

    end: set it to let the threads go that wait for what comes next.
    """

    def __init__(self, listed: bytes, events: bytes) -> None:
        super().__init__(lambda: None)
        self._listed, self._events = listed, events
        self.end = threading.Event()

    def prepare(self) -> Any:
        return None

    def get(self, client: Any, question: Question, read_timeout: float) -> urllib3.BaseHTTPResponse:
        of_slices = question.resource.kind == "EndpointSlice"
        if "sendInitialEvents" in question.target:
            return _Answer(b"{}", 400)  # no streaming list: the bytes are those of a page
        if question.verb == "watch":
            return _Answer(self._events if of_slices else b"", end=self.end)
        return _Answer(self._listed if of_slices else _NO_SERVICES)


class _Answer(urllib3.HTTPResponse):
    """An answer whose body is handed over as it is, in one piece."""

    def __init__(self, body: bytes, status: int = 200, end: threading.Event | None = None) -> None:
        refusal = io.BytesIO(body if status != 200 else b"")
        super().__init__(refusal, {"Content-Type": "application/json"}, status, preload_content=False)
        self._rest, self._end = body, end

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        rest, self._rest = self._rest, b""
        if not rest and self._end is not None:
            self._end.wait()
        return rest


def listing(listed: Path, slices: int) -> Figures:
    """Read a list: seconds until the catalog has it, bytes of the catalog, and bytes at the peak beyond these."""
    return _run(_listing(listed.read_bytes(), slices))


async def _listing(listed: bytes, slices: int) -> Figures:
    bridge, process = _Bridge(listed), os.getpid()
    gc.collect()
    gc.freeze()  # as the daemon does once it has started
    before, began = rss(process), time.perf_counter()
    async with aclosing(bridge.source.watch_scope("")) as watch:
        bridge.ingest.accept(writer.SOURCE, await anext(watch))
        seconds, most = time.perf_counter() - began, peak(process)
    bridge.check(slices)
    catalog = bridge.ingest.catalog
    del bridge  # what the source remembers is not the catalog
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    stays = rss(process) - before
    assert catalog.services
    return {"seconds": seconds, "memory": max(0, most - before - stays), "catalog": stays}


def watching(listed: Path, events: Path, slices: int) -> Figures:
    """Read a list, and then as many events of its watch as it has slices: events per second."""
    return _run(_watching(listed.read_bytes(), events.read_bytes(), slices))


async def _watching(listed: bytes, events: bytes, slices: int) -> Figures:
    bridge = _Bridge(listed, events)
    async with aclosing(bridge.source.watch_scope("")) as watch:
        bridge.ingest.accept(writer.SOURCE, await anext(watch))
        gc.collect()
        gc.freeze()
        began, left = time.perf_counter(), slices
        while left > 0:
            observation = await anext(watch)
            bridge.ingest.accept(writer.SOURCE, observation)
            told = observation if isinstance(observation, tuple) else (observation,)
            left -= sum(isinstance(event, InstanceGroup) for event in told)
        seconds = time.perf_counter() - began
        bridge.api.end.set()
    bridge.check(slices)
    return {"rate": slices / seconds}


class _Bridge:
    """The source and the catalog that it fills."""

    def __init__(self, listed: bytes, events: bytes = b"") -> None:
        self.ingest, self.api = writer.ingest(), Answers(listed, events)
        logger = logging.getLogger("bench")
        ctx = PluginContext(writer.ENVIRONMENT, writer.SOURCE, logger, SystemClock(), lambda event, amount=1: None)
        self.source = KubernetesSource(self.api, ("",), Settings("pod", False, None, None, Deadlines(_WAIT, _WAIT)), ctx)

    def check(self, slices: int) -> None:
        """Whether all can be read."""
        _check(self.ingest.partition.instances, slices)
        view = self.ingest.catalog.instances_view(Query(), ServiceName(cluster.NAMESPACE, cluster.name(0)))
        if view.status != 200:
            raise RuntimeError(f"a read is answered with {view.status}")


def _run(work: Coroutine[Any, Any, Figures]) -> Figures:
    """In the event loop that the daemon has."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def models_of_list(listed: Path, slices: int) -> Figures:
    """The official client's deserialiser alone: seconds, and bytes at the peak; its models are no catalog."""
    from kubernetes.client import ApiClient

    body, process, client = listed.read_bytes(), os.getpid(), ApiClient()
    gc.collect()
    before, began = rss(process), time.perf_counter()
    models = client.deserialize(body.decode(), "V1EndpointSliceList", "application/json")
    seconds, most = time.perf_counter() - began, peak(process)
    _check(sum(len(item.endpoints) for item in models.items), slices)
    return {"seconds": seconds, "memory": most - before}


def models_of_events(events: Path, slices: int) -> Figures:
    """What the official client's `Watch` does to each line: events per second."""
    from kubernetes.watch import Watch

    lines, watch = events.read_bytes().splitlines(), Watch()  # type: ignore[no-untyped-call]
    began = time.perf_counter()
    models = [watch.unmarshal_event(line.decode(), "V1EndpointSlice")["object"] for line in lines]  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - began
    _check(sum(len(item.endpoints) for item in models), slices)
    return {"rate": len(lines) / seconds}


def _check(instances: int, slices: int) -> None:
    if instances != slices * cluster.SLICE:
        raise RuntimeError(f"{instances} of {slices * cluster.SLICE} endpoints were read")
