"""The example of a third-party plugin, installed as its users would, does what its README says."""

from __future__ import annotations

import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.daemon import Daemon

PLUGIN = Path(__file__).resolve().parents[1] / "example_plugin"
MACHINES = [
    {"name": "m1", "address": "192.0.2.1", "roles": {"web": 8080, "api": 9090}, "up": True},
    {"name": "m2", "address": "192.0.2.2", "roles": {"web": 8080}, "up": False},
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which Python finds the plugin, installed into a folder of its own beside what is here."""
    folder = tmp_path_factory.mktemp("site")
    # With hatchling at hand nothing is fetched; without, pip brings it, as for anybody who builds the package.
    offline = ["--no-build-isolation", "--no-index"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    run([*command, *offline, "--target", str(folder), str(PLUGIN)])
    # The tests' own path, too: what is imported here from a checkout is imported there.
    paths = [str(folder), *(path for path in sys.path if path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}


def run(command: list[str], expected: int = 0, **more: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)
    assert done.returncode == expected, done.stdout + done.stderr
    return done


def envbridge(environment: dict[str, str], *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-c", "from bridge.cli import main; main()", *arguments], expected, env=environment)


@pytest.fixture
def inventory() -> Iterator[str]:
    """The URL of a server with the machines, for bearers of the token."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["Authorization"] == "Bearer open-sesame" else 403)
            self.end_headers()
            self.wfile.write(json.dumps({"machines": MACHINES}).encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/machines"
    server.shutdown()
    server.server_close()
    thread.join()


def configuration(folder: Path, **source: Any) -> Path:
    (folder / "inventory.token").write_text("open-sesame\n")
    path = folder / "bridge.yaml"
    path.write_text(json.dumps({"environment": "test", "data_dir": "data", "sources": {"machines": source}}))
    return path


def test_it_is_listed_with_its_distribution(environment: dict[str, str]) -> None:
    listed = json.loads(envbridge(environment, "plugins", "-o", "json").stdout)
    assert {
        "kind": "source",
        "type": "inventory",
        "distribution": "envbridge-inventory",
        "version": "1.0.0",
        "module": "envbridge_inventory.config",
    } in listed


def test_a_configuration_with_it_is_right(environment: dict[str, str], tmp_path: Path, inventory: str) -> None:
    path = configuration(tmp_path, type="inventory", url=inventory, token="file:inventory.token", refresh="10s")
    assert "1 inventory" in envbridge(environment, "check", str(path)).stdout
    assert "reachable" in envbridge(environment, "check", str(path), "--connect").stdout


def test_a_wrong_one_is_told_with_what_was_meant(environment: dict[str, str], tmp_path: Path) -> None:
    path = configuration(tmp_path, type="inventory", urls="http://inventory.example.org", timeout=5, token="file:absent")
    told = envbridge(environment, "check", str(path), expected=2).stderr
    assert "sources.machines.urls: there is no such key. Did you mean `url`?" in told
    assert "sources.machines.url: is missing" in told
    assert "sources.machines.timeout: a duration is a string with a unit" in told
    assert "sources.machines.token: there is no file" in told


def test_its_keys_are_in_the_schema(environment: dict[str, str]) -> None:
    schema = envbridge(environment, "schema").stdout
    assert "Machines by their roles, as an inventory service lists them." in schema


def test_the_daemon_serves_what_it_finds(environment: dict[str, str], tmp_path: Path, inventory: str) -> None:
    source = {"type": "inventory", "url": inventory, "token": "file:inventory.token", "namespaces": {"default": "shop"}}
    (tmp_path / "inventory.token").write_text("open-sesame\n")
    with Daemon(tmp_path, {"sources": {"machines": source}}, env=environment) as daemon:
        daemon.wait_ready()
        shown = daemon.instances(health="any")
        assert {ref: (item["service"], item["health"]) for ref, item in shown.items()} == {
            "test/machines/api/m1": ("api", "ready"),
            "test/machines/web/m1": ("web", "ready"),
            "test/machines/web/m2": ("web", "unready"),
        }
        assert {item["namespace"] for item in shown.values()} == {"shop"}
        document = daemon.source("machines")
        assert (document["state"], document["url"]) == ("synced", inventory)
        assert "open-sesame" not in json.dumps(daemon.status())
    assert "open-sesame" not in daemon.log_path.read_text()


def test_its_own_tests_pass(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(PLUGIN), str(PLUGIN / "tests")]
    done = run([*command, "-c", str(PLUGIN / "pyproject.toml")], env=environment, cwd=tmp_path)
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
