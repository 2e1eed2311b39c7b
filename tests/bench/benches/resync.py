"""`resync`: a cluster of 100,000 instances listed again, unchanged.

Ours: the Kubernetes source lists in pages, from the bytes of each answer to the listing that ingest accepted. Reference: the same
bytes through the standard library's `json`, each object compared with its former self.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from contextlib import aclosing
from statistics import median
from time import perf_counter, process_time
from typing import Any, cast

import urllib3
import uvloop

from bridge.contracts import PluginContext
from bridge.model import Listing
from bridge.testing.bridge import InProcessBridge
from bridge_plugins.sources.kubernetes.config import KubernetesConfig
from bridge_plugins.sources.kubernetes.feed import Deadlines
from bridge_plugins.sources.kubernetes.requests import PAGE_SIZE, Question
from bridge_plugins.sources.kubernetes.source import KubernetesSource, Settings
from bridge_plugins.sources.kubernetes.transport import Api
from tests.bench import cluster
from tests.bench.goals import Goal
from tests.bench.session import Figures, Measure, Session

NAME = "resync"
SOURCE = "cluster"
ROUNDS = 5
"""Listings of each repetition: its figure is their median."""


def run(session: Session) -> None:
    """100,000 instances, 10,000 in a smoke test."""
    instances = session.scale(100_000, 10_000)
    pages = listed(instances)
    size = sum(len(page) for kind in pages.values() for page in kind)
    session.say(f"{NAME}: {instances:,} instances, {size / 1e6:.1f} MB in {sum(map(len, pages.values()))} pages")
    runner = session.enter(asyncio.Runner(loop_factory=uvloop.new_event_loop))
    relist, plain = Relist(pages), Plain(pages)
    runner.run(relist.list())
    plain.list()
    gc.collect()
    gc.freeze()  # what either keeps is not looked through while the other one is measured
    rounds = session.scale(ROUNDS, 1)

    async def ours() -> Figures:
        return _median([await relist.list() for _ in range(rounds)])

    session.compare(
        [
            Measure("seconds", f"unchanged resync of {instances:,}", "ms", Goal("ratio <= 0.05"), scale=1000),
            Measure("cpu", f"processor time of an unchanged resync of {instances:,}", "ms", scale=1000),
        ],
        lambda: runner.run(ours()),
        session.reference("json and dict compare", lambda: plain),
        lambda plain: _median([plain.list() for _ in range(rounds)]),
    )
    gc.unfreeze()


class Relist:
    """The source with ingest behind it. Its API server answers from memory."""

    def __init__(self, pages: dict[str, list[bytes]]) -> None:
        self._bridge = InProcessBridge(KubernetesConfig(type="kubernetes"), source=SOURCE)
        self._bridge.ingest.add(SOURCE, self._bridge.config, scopes=("",), polled=False)
        context = PluginContext("test", SOURCE, logging.getLogger("bench"), self._bridge.clock, lambda event, amount=1: None)
        settings = Settings("pod", nodes=False, label_selector=None, field_selector=None, deadlines=Deadlines(60.0, 60.0))
        self._source = KubernetesSource(Canned(pages), ("",), settings, context)
        self._objects = sum(page.count(b'"creationTimestamp"') for kind in pages.values() for page in kind)
        self._listed = False

    async def list(self) -> Figures:
        """List everything, and have ingest accept it. All but the first time nothing has changed."""
        began, used = perf_counter(), process_time()
        async with aclosing(self._source.watch_scope("")) as watch:
            listing = await anext(watch)
            self._bridge.ingest.accept(SOURCE, listing, scope="")
            seconds, cpu = perf_counter() - began, process_time() - used
        assert isinstance(listing, Listing)
        told = listing.unchanged if self._listed else listing.groups
        assert len(told) == self._objects, (len(listing.unchanged), len(listing.groups))
        self._listed = True
        return {"seconds": seconds, "cpu": cpu}


class Plain:
    """What there would be without fingerprints: every object a dict, compared with its former self."""

    def __init__(self, pages: dict[str, list[bytes]]) -> None:
        self._pages = pages
        self._former: dict[tuple[str, str], Any] = {}

    def list(self) -> Figures:
        """Decode everything and compare it. The first time there is nothing to compare with."""
        began, used, changed = perf_counter(), process_time(), 0
        for plural, pages in self._pages.items():
            for page in pages:
                for item in json.loads(page)["items"]:
                    key = (plural, item["metadata"]["name"])
                    if self._former.get(key) != item:
                        self._former[key] = item
                        changed += 1
        figures = {"seconds": perf_counter() - began, "cpu": process_time() - used}
        assert changed in (0, len(self._former))
        return figures


class Canned(Api):
    """An API server without streaming lists, whose pages are in memory, read in one go."""

    def __init__(self, pages: dict[str, list[bytes]]) -> None:
        super().__init__(lambda: None)
        self._pages = pages

    def prepare(self) -> None:
        """There are no credentials."""

    def get(self, client: Any, question: Question, read_timeout: float) -> urllib3.BaseHTTPResponse:
        """The page asked for."""
        if question.verb != "list":
            return cast(urllib3.BaseHTTPResponse, _Response(422, b"{}"))
        _, _, token = question.target.partition("continue=")
        return cast(urllib3.BaseHTTPResponse, _Response(200, self._pages[question.resource.plural][int(token or 0)]))


class _Response:
    headers = {"Content-Type": "application/json"}

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    def read1(self, size: int) -> bytes:
        body, self._body = self._body, b""
        return body

    def read(self, size: int) -> bytes:
        return self.read1(size)

    def close(self) -> None:
        pass


def listed(instances: int) -> dict[str, list[bytes]]:
    """The answers to a list of Services, and to one of EndpointSlices."""
    numbers = range(instances // cluster.SLICE)
    return {
        "services": _pages("Service", [cluster.service_text(number) for number in numbers]),
        "endpointslices": _pages("EndpointSlice", [cluster.slice_text(number) for number in numbers]),
    }


def _pages(kind: str, objects: list[bytes]) -> list[bytes]:
    """A list as the API server pages it."""
    parts = [objects[start : start + PAGE_SIZE] for start in range(0, len(objects), PAGE_SIZE)]
    more = [b',"continue":"%d"' % (index + 1) for index in range(len(parts) - 1)] + [b""]
    return [
        b'{"kind":"%sList","apiVersion":"v1","metadata":{"resourceVersion":"9"%s},"items":[%s]}'
        % (kind.encode(), token, b",".join(part))
        for part, token in zip(parts, more, strict=True)
    ]


def _median(rounds: list[Figures]) -> Figures:
    return {key: median(figures[key] for figures in rounds) for key in rounds[0]}
