"""The Kubernetes source passes the suite for sources on a real API server with its real controllers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import OutageConformance, SourceConformance
from bridge_plugins.sources.kubernetes.config import KubernetesConfig
from tests.kit.proxy import Mode, Proxy
from tests.kit.servers.kubernetes import KubeCluster

_numbers = itertools.count(1)


class Namespace:
    """A namespace of its own, renamed; instances are Pods, whose slices the cluster's controllers write."""

    deadline = 30.0

    def __init__(self, kube: KubeCluster, proxy: Proxy, outage: Mode) -> None:
        self._kube = kube
        self._proxy = proxy
        self._outage = outage
        self._name = f"conformance-{next(_numbers)}"
        self._node = f"node-{self._name}"
        self._services: dict[ServiceName, set[str]] = {}

    async def make(self) -> None:
        await self._do(self._kube.namespace, self._name)
        await self._do(self._kube.node, self._node, "zone-a", "region-1")

    async def end(self) -> None:
        await self._do(self._kube.reap_pods, self._name)
        await self._do(self._kube.delete_namespace, self._name)
        await self._do(self._kube.delete_node, self._node)

    def config(self) -> SourceConfig:
        server = f"https://127.0.0.1:{self._proxy.port}"
        return KubernetesConfig.model_validate(
            {
                "type": "kubernetes",
                "kubeconfig": str(self._kube.kubeconfig(server=server)),
                "namespaces_watched": [self._name],
                "namespaces": {self._name: "conformance"},
                "request_timeout": "4s",
                "silence": "4s",
            }
        )

    async def add(self, service: ServiceName, name: str) -> str:
        selector = {"app": service.name}
        if service not in self._services:
            self._services[service] = set()
            await self._do(self._kube.service, service.name, self._name, selector=selector)
        pod = await self._do(self._kube.pod, name, self._name, selector, self._node)
        self._services[service].add(name)
        await self._settled(service)
        return f"{self._name}/{service.name}/{pod['metadata']['uid']}"

    async def remove(self, service: ServiceName, name: str) -> None:
        await self._do(self._kube.force_delete_pod, name, self._name)
        self._services[service].discard(name)
        await self._settled(service)

    async def set_ready(self, service: ServiceName, name: str, ready: bool) -> None:
        await self._do(self._kube.set_ready, name, self._name, ready)

    async def fail(self) -> None:
        self._proxy.set(self._outage)

    async def mend(self) -> None:
        self._proxy.set("pass")

    async def _settled(self, service: ServiceName) -> None:
        """Wait until the controllers have written what the Pods say."""
        await self._do(self._kube.wait_endpoints, self._name, service.name, len(self._services[service]))

    async def _do(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        return await asyncio.to_thread(function, *arguments, **more)


MakeWorld = Callable[[Mode], AbstractAsyncContextManager[Namespace]]


@pytest.fixture
def make_world(kube_cluster: KubeCluster) -> MakeWorld:
    @asynccontextmanager
    async def make(outage: Mode) -> AsyncIterator[Namespace]:
        with Proxy(urlsplit(kube_cluster.url).port or 0) as proxy:
            world = Namespace(kube_cluster, proxy, outage)
            await world.make()
            try:
                yield world
            finally:
                await world.end()

    return make


class TestKubernetes(SourceConformance):
    """The whole suite; connections are refused when it fails."""

    @pytest.fixture
    async def world(self, make_world: MakeWorld) -> AsyncIterator[Namespace]:
        async with make_world("refuse") as world:
            yield world


class TestSilence(OutageConformance):
    """Connections stay open and nothing answers any more."""

    @pytest.fixture
    async def world(self, make_world: MakeWorld) -> AsyncIterator[Namespace]:
        async with make_world("hang") as world:
            yield world
