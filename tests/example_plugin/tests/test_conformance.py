"""The suite that every source must pass, over an inventory server that the test can change and break."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from envbridge_inventory.config import InventoryConfig

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import InProcessBridge, PollSourceConformance, eventually

WEB = ServiceName("conformance", "web")


class World:
    """The server, acted on around the source. It tells the suite's service ``conformance/web`` as the role ``web``."""

    deadline = 5.0

    def __init__(self) -> None:
        self.machines: dict[str, dict[str, Any]] = {}
        self.broken = False
        handler = type("Handler", (_Handler,), {"world": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def config(self) -> SourceConfig:
        """The inventory knows no namespaces; `namespaces`, a key of every source, gives them a name."""
        url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        return InventoryConfig(type="inventory", url=url, refresh=0.2, namespaces={"default": "conformance"})

    async def add(self, service: ServiceName, name: str) -> str:
        address = f"192.0.2.{len(self.machines) + 1}"
        self.machines[name] = {"name": name, "address": address, "roles": {service.name: 8080}, "up": True}
        return f"{service.name}/{name}"

    async def remove(self, service: ServiceName, name: str) -> None:
        del self.machines[name]

    async def set_ready(self, service: ServiceName, name: str, ready: bool) -> None:
        self.machines[name]["up"] = ready

    async def fail(self) -> None:
        self.broken = True

    async def mend(self) -> None:
        self.broken = False


class _Handler(BaseHTTPRequestHandler):
    world: World

    def do_GET(self) -> None:
        self.send_response(503 if self.world.broken else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"machines": list(self.world.machines.values())}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.server.shutdown()
    made.server.server_close()


class TestInventory(PollSourceConformance):
    """All of it, and what is special about this source."""

    async def test_a_machine_that_breaks_keeps_its_records(self, world: World) -> None:
        """Its old record stays, the others change, and the status says what is wrong."""
        kept, gone = await world.add(WEB, "m1"), await world.add(WEB, "m2")
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            world.machines["m1"]["address"] = "nowhere"
            new = await world.add(WEB, "m3")
            await eventually("the new one", lambda: set(bridge.instances) == {kept, gone, new})
            assert bridge.state() == "failed"
            assert bridge.status is not None
            assert "machines[0]" in bridge.status.rejected
            world.machines["m1"]["address"] = "192.0.2.9"
            await world.remove(WEB, "m2")
            await eventually("the old one anew", lambda: set(bridge.instances) == {kept, new})
            assert bridge.state() == "synced"
