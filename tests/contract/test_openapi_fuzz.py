"""The API document against the API: whatever it allows to be asked is answered as it says."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
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
from bridge.serve.http.message import TITLES
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.openapi import document
from bridge.serve.http.server import HttpServer
from bridge.serve.http.system import SystemSurface
from bridge.sync.ingest import Ingest
from tests.contract.watch_world import ScriptedConfig
from tests.kit.daemon import Daemon
from tests.kit.servers.process import wait_for
from tests.unit.http.http_bench import ask

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
        """Of a bridge that has not much to tell: a whole one is held against the document below."""
        counts = dict.fromkeys(("epoch", "revision", "uptime_ms", "index"), 1)
        lists: dict[str, Any] = {name: [] for name in ("warnings", "sources", "peers", "exporters", "jobs", "holds")}
        objects = {"hub": None, "queues": {}, "memory": {}, "store": {"error": None, "rows_written": 0}}
        return {"version": "0", "environment": "eu", "uid": "u", "role": "owner", "ready": True, **counts, **lists, **objects}

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


DOCUMENT = json.loads(json.dumps(document("0")))
PATHS: dict[str, Any] = DOCUMENT["paths"]
EXAMPLE = {"namespace": "shop", "name": "web", "environment": "eu", "source": "main", "id": "shop%2Fweb%2F0"}
VIEWS = [path for path, item in PATHS.items() if "304" in item["get"]["responses"]]
OPEN = ["/healthz", "/readyz"]
DIGEST = frozenset({hashlib.sha256(b"secret").digest()})

every_path = pytest.mark.parametrize("path", PATHS)
every_view = pytest.mark.parametrize("path", VIEWS)


def resolved(node: Any) -> Any:
    """What ``node`` refers to, itself where it is no reference."""
    while "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def validate(value: Any, name: str) -> None:
    """Raises where ``value`` is not what the document's schema ``name`` says."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(value)


def assert_documented(path: str, status: int, headers: dict[str, str]) -> None:
    """The document names the status and every header, and demands none that is missing. ``headers``: names in lower case."""
    responses = PATHS[path]["get"]["responses"]
    assert str(status) in responses, f"{path}: {status} is not in the document"
    described = {name.lower(): resolved(header) for name, header in resolved(responses[str(status)])["headers"].items()}
    framing = {"content-type", "content-length", "connection"}
    assert set(headers) - framing <= set(described), f"{path}: {status} has headers that the document does not name"
    for name, header in described.items():
        assert name in headers or not header.get("required"), f"{path}: {status} lacks {name}"


def fetch(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    try:
        connection.request(
            method, path.format(**EXAMPLE), headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        return response.status, {name.lower(): text for name, text in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_the_document_names_every_path_and_parameter(api: Any) -> None:
    assert api.raw_schema == DOCUMENT
    api.validate()
    assert set(PATHS) >= {"/v1/services", "/v1/services/{namespace}/{name}", "/v1/instances", "/v1/environments"}
    names = {parameter["name"] for parameter in PATHS["/v1/instances"]["get"]["parameters"]}
    assert names >= {"environment", "health", "after", "wait", "limit", "page", "near", "If-None-Match", "Last-Event-ID"}


@every_path
def test_every_refusal_of_the_listener_is_in_the_document(path: str) -> None:
    everywhere = {str(status) for status in TITLES} - {"401", "403", "404", "429"}
    assert everywhere <= set(PATHS[path]["get"]["responses"])


@every_path
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_status_and_headers_are_in_the_document(address: str, path: str, method: str) -> None:
    status, headers, _ = fetch(address, path, method)
    assert status == (200 if method in ("GET", "HEAD") else 405)
    assert_documented(path, status, headers)


@every_view
def test_what_a_cursor_gets_is_in_the_document(address: str, path: str) -> None:
    assert {"If-None-Match", "after", "wait"} <= {parameter["name"] for parameter in PATHS[path]["get"]["parameters"]}
    _, ok, _ = fetch(address, path)
    status, unchanged, _ = fetch(address, path, If_None_Match=ok["etag"])
    assert status == 304
    assert_documented(path, 304, unchanged)
    for name in ("etag", "vary", "cache-control", "envbridge-incomplete"):
        assert unchanged.get(name) == ok.get(name)
    status, reset, _ = fetch(address, path, If_None_Match='W/"xyz-1-0123456789abcdef"', Accept_Encoding="gzip")
    assert (status, reset["envbridge-reset"]) == (200, "true")
    assert_documented(path, 200, reset)


@every_view
def test_what_a_stream_begins_with_is_in_the_document(address: str, path: str) -> None:
    content = PATHS[path]["get"]["responses"]["200"]["content"]
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
    connection.request("GET", path.format(**EXAMPLE), headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    assert response.getheader("content-type") == ("text/event-stream" if "text/event-stream" in content else "application/json")
    assert_documented(path, response.status, {name.lower(): text for name, text in response.getheaders()})
    connection.close()


PROBLEMS = [
    ("/v1/services", "/v1/services?frob=1", 400),
    ("/v1/services/{namespace}/{name}", "/v1/services/shop/none", 503),
    ("/v1/services/{namespace}/{name}", "/v1/services/shop/none?source=main", 404),
    ("/v1/instances/{environment}/{source}/{id}", "/v1/instances/eu/main/none", 404),
    ("/v1/instances/{environment}/{source}/{id}", "/v1/instances/eu/silent/none", 503),
    ("/healthz", "/healthz?" + "a" * 9_000, 414),
    ("/v1/environments", "/v1/environments?wait=", 400),
]


@pytest.mark.parametrize(("path", "target", "expected"), PROBLEMS)
def test_problems_are_in_the_document(address: str, path: str, target: str, expected: int) -> None:
    status, headers, body = fetch(address, target)
    assert status == expected
    assert_documented(path, status, headers)
    validate(json.loads(body), "Problem")


@pytest.mark.parametrize(
    ("parameter", "value"), [("health", "helthy"), ("lifecycle", "x" * 4000), ("state", ""), ("stale", "'<b>")]
)
def test_a_wrong_value_is_shown_with_its_parameter(address: str, parameter: str, value: str) -> None:
    status, _, body = fetch(address, f"/v1/instances?{parameter}={value}")
    problem = json.loads(body)
    validate(problem, "Problem")
    assert (status, problem["parameter"]) == (400, parameter)
    assert repr(value[:20])[1:-1] in problem["detail"]
    assert len(problem["detail"]) < 300


def test_a_header_that_is_too_long_is_in_the_document(address: str) -> None:
    status, headers, _ = fetch(address, "/v1/status", X="a" * 20_000)
    assert status == 431
    assert_documented("/v1/status", status, headers)


@every_path
async def test_where_a_token_is_needed_is_in_the_document(path: str) -> None:
    status, headers, _ = await ask(f"GET {path.format(**EXAMPLE)} HTTP/1.1\r\nHost: test\r\n\r\n".encode(), tokens=DIGEST)
    assert (status == 401) is (path not in OPEN)
    assert_documented(path, status, headers)
    assert (PATHS[path]["get"].get("security") == []) is (path in OPEN)


def test_the_status_of_a_real_bridge_is_as_the_document_says(tmp_path: Path) -> None:
    config = {"sources": {"shop": {"type": "file", "paths": ["shop.yaml"]}, "none": {"type": "file", "paths": ["none.yaml"]}}}
    (tmp_path / "shop.yaml").write_text("services: [{name: web, instances: [{id: a, address: 192.0.2.1, port: 80}, {id: 1}]}]")
    with Daemon(tmp_path, config) as daemon:
        wait_for("both were tried", lambda: all(source["state"] != "starting" for source in daemon.status()["sources"]), 10)
        status = daemon.status()
    assert {source["name"] for source in status["sources"]} == {"shop", "none"}
    validate(status, "Status")


def test_the_document_says_that_long_waits_are_shortened() -> None:
    [wait] = [parameter for parameter in PATHS["/v1/instances"]["get"]["parameters"] if parameter["name"] == "wait"]
    assert "at most 10m" in wait["description"]
