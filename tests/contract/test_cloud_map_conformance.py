"""The Cloud Map source passes the suite for sources; its world is a strict fake of the API, with a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import OutageConformance, PollSourceConformance
from bridge_plugins.sources.cloud_map.config import CloudMapConfig
from tests.kit.fakes.cloud_map import FakeCloudMap
from tests.kit.proxy import Mode, Proxy


class FakeNamespace:
    """One namespace whose services have custom health; ``outage`` is what the proxy does when it fails."""

    deadline = 5.0

    def __init__(self, fake: FakeCloudMap, proxy: Proxy, outage: Mode) -> None:
        self._fake = fake
        self._proxy = proxy
        self._outage = outage
        self._namespace = fake.namespace("conformance")
        self._services: dict[ServiceName, str] = {}

    def config(self) -> SourceConfig:
        return CloudMapConfig(
            type="cloud_map",
            region="eu-west-1",
            endpoint_url=f"http://127.0.0.1:{self._proxy.port}",
            refresh=0.3,
            health_refresh=0.3,
            sweep=2.0,
        )

    async def add(self, service: ServiceName, name: str) -> str:
        if service not in self._services:
            self._services[service] = self._fake.service(self._namespace, service.name, checked=True)
        self._fake.register(self._services[service], name)
        return f"{self._services[service]}/{name}"

    async def remove(self, service: ServiceName, name: str) -> None:
        self._fake.deregister(self._services[service], name)

    async def set_ready(self, service: ServiceName, name: str, ready: bool) -> None:
        self._fake.set_health(self._services[service], name, "HEALTHY" if ready else "UNHEALTHY")

    async def fail(self) -> None:
        self._proxy.set(self._outage)

    async def mend(self) -> None:
        self._proxy.set("pass")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)


@contextmanager
def fake_namespace(outage: Mode) -> Iterator[FakeNamespace]:
    with FakeCloudMap() as fake, Proxy(urlsplit(fake.url).port or 0) as proxy:
        yield FakeNamespace(fake, proxy, outage)


class TestCloudMap(PollSourceConformance):
    """The whole suite; connections are refused when it fails."""

    @pytest.fixture
    def world(self) -> Iterator[FakeNamespace]:
        with fake_namespace("refuse") as world:
            yield world


class TestResets(OutageConformance):
    """Connections are taken and reset."""

    @pytest.fixture
    def world(self) -> Iterator[FakeNamespace]:
        with fake_namespace("reset") as world:
            yield world
