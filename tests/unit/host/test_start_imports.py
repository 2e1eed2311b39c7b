"""What a start imports: only what is switched on. Each look is in a process of its own, as this one has imported much."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bridge

REPOSITORY = Path(__file__).parents[3]

SDKS = {"kubernetes", "docker", "boto3", "botocore", "urllib3", "requests"}
OTHER_PLUGINS = {f"bridge_plugins.sources.{name}" for name in ("kubernetes", "docker_swarm", "cloud_map")}
OTHER_COMMANDS = {
    "rich",
    "typer",
    "bridge.client",
    "bridge.cli.read",
    "bridge.cli.tables",
    "bridge.cli.watch",
    "bridge.host.schema",
}
ON_REQUEST = {"prometheus_client", "bridge.host.metrics", "bridge.serve.http.openapi"}
CORE = {"asyncio", "bridge.contracts", "bridge.host", "msgspec", "pydantic", "yaml"}

DAEMON = """
import json, os, socket, sys, threading, time

def get(path):
    try:
        with socket.create_connection(("127.0.0.1", {port}), timeout=10) as connection:
            connection.sendall(f"GET {{path}} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n".encode())
            with connection.makefile("rb") as reader:
                return reader.read()
    except ConnectionError:
        return b""

def look():
    while b'"web"' not in get("/v1/services") or b"poll shop" not in get("/v1/status"):
        time.sleep(0.02)
    running = sorted(sys.modules)
    assert b"envbridge_source_state" in get("/metrics")
    print(json.dumps([running, sorted(sys.modules)]), flush=True)
    os._exit(0)

threading.Thread(target=look, daemon=True).start()
sys.argv = ["envbridge", "run", {config!r}]
from bridge.cli import main
main()
"""


def run(program: str, *path: Path) -> list[list[str]]:
    """What the program prints, as JSON."""
    found = os.pathsep.join([*map(str, path), str(REPOSITORY), str(REPOSITORY / "plugins"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lists: list[list[str]] = json.loads(done.stdout)
    return lists


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder for the import path that declares our own plugins, whether we are installed or not."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = tmp_path / "envbridge-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: envbridge\nVersion: 0\n")
    lines = []
    for group, names in declared.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in names.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("bridge", CORE),
        ("bridge.cli", CORE | SDKS | OTHER_COMMANDS | {"bridge.cli.run"}),
        ("bridge.cli.read", CORE | {"rich"}),
        ("bridge.host.config", SDKS | OTHER_PLUGINS | {"rich", "typer", "apscheduler", "uvloop", "sqlite3", "bridge.serve"}),
        ("bridge.host.app", SDKS | OTHER_PLUGINS | OTHER_COMMANDS | ON_REQUEST | {"apscheduler", "typer"}),
    ],
)
def test_an_import_brings_no_more_than_it_needs(module: str, absent: set[str]) -> None:
    (loaded,) = run(f"import json, sys, {module}; print(json.dumps([sorted(sys.modules)]))")
    assert module in loaded
    assert not absent & set(loaded)


def test_a_daemon_with_a_file_source_imports_the_metrics_when_they_are_asked_for_and_nothing_else(site: Path) -> None:
    (site / "shop.yaml").write_text("services: [{name: web, instances: [{address: 192.0.2.1, ports: {http: 80}}]}]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = site / "bridge.yaml"
    source = "sources: {shop: {type: file, paths: [shop.yaml]}}"
    config.write_text(f"environment: test\nserve: {{http: {{listen: '127.0.0.1:{port}'}}}}\n{source}\n")
    running, scraped = run(DAEMON.format(port=port, config=str(config)), site)
    assert {"apscheduler", "bridge_plugins.sources.file", "uvloop"} <= set(running)
    assert not (SDKS | OTHER_PLUGINS | OTHER_COMMANDS | ON_REQUEST) & set(running)
    assert "prometheus_client" in scraped


@pytest.mark.parametrize("name", bridge.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(bridge, name) is not None


def test_a_name_that_is_not_public_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Catalog'"):
        getattr(bridge, "Catalog")  # noqa: B009  # written as an attribute, no type checker would let it pass
