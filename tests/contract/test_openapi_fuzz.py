"""The API document against the API: whatever it allows to be asked is answered as it says."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bridge.aio import SystemClock
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.model import InstanceGroup, Listing, Port, ServiceInstance, ServiceName
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.server import HttpServer
from bridge.serve.http.system import SystemSurface
from bridge.sync.ingest import Ingest
from tests.contract.watch_world import ScriptedConfig

SAYS = [content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = 15
PHASES = (Phase.explicit, Phase.generate)


class Host:
    """A process that is ready."""

    def unready(self) -> list[str] | None:
        return None

    def warnings(self) -> list[str]:
        return []

    def status(self) -> dict[str, Any]:
        return {"version": "0"}

    def metrics(self) -> tuple[bytes, str]:
        return b"# none\n", "text/plain; version=0.0.4"


def fill(ingest: Ingest) -> None:
    """Instances of every kind in two sources, and a source that was never read."""
    random = Random(1)
    for source in ("main", "spare", "silent"):
        ingest.add(source, ScriptedConfig(guard=None), scopes=("",), polled=False)
    for source in ("main", "spare"):
        groups = []
        for name in ("web", "api", "d b", "ü"):
            instances = tuple(
                ServiceInstance(
                    id=f"shop/{name}/{n}",
                    namespace="shop",
                    service=name,
                    addresses=random.choice([(), ("10.0.0.1", "fd00::1")]),
                    hostname=random.choice([None, "host.example.org"]),
                    ports=random.choice([(), (Port("http", 80, app_protocol="http"), Port(None, 81, "UDP"))]),
                    health=random.choice(["ready", "unready", "unknown"]),
                    lifecycle=random.choice(["active", "draining"]),
                    weight=n,
                    zone=random.choice([None, "z1"]),
                    tags=random.choice([(), ("v1", "v2")]),
                    meta=random.choice([{}, {"team": "a"}]),
                )
                for n in range(5)
            )
            groups.append(InstanceGroup(name, instances, (ServiceName("shop", name), ServiceName("shop", f"{name}-empty"))))
        ingest.accept(source, Listing("", tuple(groups)))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server in a thread of its own."""
    clock = SystemClock()
    catalog = Catalog(Indexes("abc", 1, 1_000_000))
    catalog.partitions["eu"] = Partition("eu", "uid", 1)
    fill(Ingest(catalog, catalog.partitions["eu"], clock, logging.getLogger("test.fuzz")))
    server = HttpServer(catalog, [NativeSurface(catalog, clock), SystemSurface(Host(), "0")], clock)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server")
    thread.start()
    _, port = asyncio.run_coroutine_threadsafe(server.listen("127.0.0.1", 0), loop).result(10)
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def api(address: str) -> Any:
    """The API as its document tells it."""
    return schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "not-allowed"])
def test_every_answer_is_as_the_document_says(api: Any, mode: GenerationMode) -> None:
    asked = 0
    for result in api.get_all_operations():
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and not operation.query:
            continue

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=PHASES)
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            response = case.call(timeout=10)
            assert response.status_code < 500 or response.status_code == 503, response.text
            case.validate_response(response, checks=SAYS)

        ask()
    assert asked > EXAMPLES


def test_the_document_names_every_path_and_parameter(api: Any) -> None:
    document = api.raw_schema
    assert set(document["paths"]) >= {"/v1/services", "/v1/services/{namespace}/{name}", "/v1/instances", "/v1/environments"}
    names = {parameter["name"] for parameter in document["paths"]["/v1/instances"]["get"]["parameters"]}
    assert names >= {"environment", "health", "after", "wait", "limit", "page", "near", "If-None-Match"}
