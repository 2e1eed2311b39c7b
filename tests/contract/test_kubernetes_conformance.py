"""The Kubernetes source passes the suite for sources; its world is a scripted API server, with a proxy before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import OutageConformance, SourceConformance
from bridge_plugins.sources.kubernetes.config import KubernetesConfig
from tests.kit.fakes import kubeobjects as objects
from tests.kit.fakes.kubernetes import FakeKubernetes
from tests.kit.proxy import Mode, Proxy


class FakeCluster:
    """A Service and one slice for each service; ``outage`` is what the proxy does when it fails."""

    deadline = 5.0

    def __init__(self, api: FakeKubernetes, proxy: Proxy, folder: Path, outage: Mode) -> None:
        self._api = api
        self._proxy = proxy
        self._outage = outage
        self._kubeconfig = folder / "kubeconfig"
        self._kubeconfig.write_text(api.kubeconfig().replace(str(api.port), str(proxy.port)))
        self._services: dict[ServiceName, dict[str, objects.Object]] = {}

    def config(self) -> SourceConfig:
        return KubernetesConfig.model_validate(
            {"type": "kubernetes", "kubeconfig": str(self._kubeconfig), "request_timeout": "1s", "silence": "1s"}
        )

    async def add(self, service: ServiceName, name: str) -> str:
        if service not in self._services:
            self._services[service] = {}
            self._api.put("services", objects.service(service.name, namespace=service.namespace))
        address = f"192.0.2.{len(self._services[service]) + 1}"
        self._services[service][name] = objects.endpoint(address, name)
        self._put(service)
        return f"{service}/{objects.uid(name)}"

    async def remove(self, service: ServiceName, name: str) -> None:
        del self._services[service][name]
        self._put(service)

    async def set_ready(self, service: ServiceName, name: str, ready: bool) -> None:
        self._services[service][name]["conditions"] = {"ready": ready, "serving": ready, "terminating": False}
        self._put(service)

    async def fail(self) -> None:
        self._proxy.set(self._outage)

    async def mend(self) -> None:
        self._proxy.set("pass")

    def _put(self, service: ServiceName) -> None:
        endpoints = list(self._services[service].values())
        slice_ = objects.endpointslice(f"{service.name}-1", service.name, endpoints, namespace=service.namespace)
        self._api.put("endpointslices", slice_)


MakeWorld = Callable[[Mode, bool], AbstractAsyncContextManager[FakeCluster]]


@pytest.fixture
def make_world(tmp_path: Path) -> MakeWorld:
    @asynccontextmanager
    async def make(outage: Mode, streaming: bool) -> AsyncIterator[FakeCluster]:
        async with FakeKubernetes(streaming=streaming) as api:
            with Proxy(api.port) as proxy:
                yield FakeCluster(api, proxy, tmp_path, outage)

    return make


class TestStreamingLists(SourceConformance):
    """A server that offers streaming lists; it refuses connections when it fails."""

    @pytest.fixture
    async def world(self, make_world: MakeWorld) -> AsyncIterator[FakeCluster]:
        async with make_world("refuse", True) as world:
            yield world


class TestPagedLists(SourceConformance):
    """A server that does not; connections are reset when it fails."""

    @pytest.fixture
    async def world(self, make_world: MakeWorld) -> AsyncIterator[FakeCluster]:
        async with make_world("reset", False) as world:
            yield world


class TestSilence(OutageConformance):
    """Connections stay open and nothing answers any more."""

    @pytest.fixture
    async def world(self, make_world: MakeWorld) -> AsyncIterator[FakeCluster]:
        async with make_world("hang", True) as world:
            yield world
