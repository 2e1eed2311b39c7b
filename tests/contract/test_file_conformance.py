"""The file source passes the suite for sources; its world is a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import InProcessBridge, PollSourceConformance, eventually
from bridge_plugins.sources.file.config import FileConfig

Instance = dict[str, Any]


class Folder:
    """One JSON file per service, written whole and renamed into place; broken, each file is cut in half."""

    deadline = 5.0

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._services: dict[ServiceName, dict[str, Instance]] = {}
        self._broken = False
        self._write(ServiceName("conformance", "placeholder"))

    def config(self) -> SourceConfig:
        return FileConfig(type="file", paths=(str(self._directory / "*.json"),), refresh=0.5)

    async def add(self, service: ServiceName, name: str) -> str:
        number = len(self._services.get(service, {})) + 1
        instance = {"id": name, "address": f"192.0.2.{number}", "ports": {"http": 8080}}
        self._services.setdefault(service, {})[name] = instance
        self._write(service)
        return f"{service}/{name}"

    async def remove(self, service: ServiceName, name: str) -> None:
        del self._services[service][name]
        self._write(service)

    async def set_ready(self, service: ServiceName, name: str, ready: bool) -> None:
        self._services[service][name]["health"] = "ready" if ready else "unready"
        self._write(service)

    def delete(self, service: ServiceName) -> None:
        """Delete a service's file, which says nothing of its instances."""
        (self._directory / f"{service.name}.json").unlink()

    async def fail(self) -> None:
        self._broken = True
        self._write_all()

    async def mend(self) -> None:
        self._broken = False
        self._write_all()

    def _write_all(self) -> None:
        for file in self._directory.glob("*.json"):
            self._write(ServiceName("conformance", file.stem))

    def _write(self, service: ServiceName) -> None:
        instances = list(self._services.get(service, {}).values())
        entry = {"name": service.name, "namespace": service.namespace, "instances": instances}
        text = json.dumps({"services": [entry] if service in self._services else []})
        file = self._directory / f"{service.name}.json"
        temporary = file.with_suffix(".tmp")
        temporary.write_text(text[: len(text) // 2] if self._broken else text)
        temporary.replace(file)


@pytest.fixture
def world(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class TestFile(PollSourceConformance):
    """The whole suite."""

    async def test_a_file_that_vanished_between_two_sources_is_unknown_and_not_obeyed(self, world: Folder) -> None:
        """The second one learns from the core what the catalog holds of the source."""
        web, api = ServiceName("conformance", "web"), ServiceName("conformance", "api")
        ids = {await world.add(web, "w1"), await world.add(api, "a1")}
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            await bridge.__aexit__(None, None, None)
            world.delete(api)
            await bridge.__aenter__()
            await eventually("that it is missing", lambda: bridge.state() == "failed", deadline=world.deadline)
            assert set(bridge.instances) == ids
            assert not bridge.removed
