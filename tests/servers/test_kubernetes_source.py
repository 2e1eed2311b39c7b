"""The Kubernetes source on a real API server with its real controllers."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from bridge.aio import SystemClock
from bridge.contracts import PluginContext
from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import Gone, InstanceGroup, Listing, Observation, ServiceInstance
from bridge_plugins.sources.kubernetes.config import KubernetesConfig
from bridge_plugins.sources.kubernetes.source import KubernetesSource
from tests.kit.servers.kubernetes import KubeCluster

pytest_plugins = ("tests.kit.servers.fixtures",)

DEADLINE = 30.0
RIGHTS = [
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
]
_numbers = itertools.count(1)


class Cluster:
    """A namespace of its own on a cluster, and the source as it sees it."""

    def __init__(self, kube: KubeCluster, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.node = f"node-{namespace}"
        self.groups: dict[str, InstanceGroup] = {}
        self.gone: list[str] = []
        self.last: Listing | None = None

    @property
    def instances(self) -> dict[str, ServiceInstance]:
        """By id; of an instance in several groups, the last."""
        return {item.id: item for group in self.groups.values() for item in group.instances}

    def apply(self, observation: Observation) -> None:
        """Take in what the source yielded."""
        for event in observation if isinstance(observation, tuple) else (observation,):
            if isinstance(event, Listing):
                assert not event.unknown
                assert not event.rejected
                self.last = event
                kept = {key: self.groups[key] for key in event.unchanged}
                self.groups = kept | {group.key: group for group in event.groups}
            elif isinstance(event, InstanceGroup):
                self.groups[event.key] = event
            elif isinstance(event, Gone):
                self.groups.pop(event.key, None)
                self.gone.append(event.key)

    async def until(self, observations: AsyncGenerator[Observation, None], holds: Callable[[], bool]) -> None:
        """Read on until something holds."""
        async with asyncio.timeout(DEADLINE):
            while not holds():
                self.apply(await anext(observations))

    async def do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A blocking call of the kit."""
        return await asyncio.to_thread(function, *args, **kwargs)

    @asynccontextmanager
    async def source(self, user: str = "admin", **keys: Any) -> AsyncIterator[KubernetesSource]:
        """The source on this namespace."""
        config = KubernetesConfig.model_validate(
            {
                "type": "kubernetes",
                "kubeconfig": str(self.kube.kubeconfig(user)),
                "namespaces_watched": [self.namespace],
                **keys,
            }
        )
        context = PluginContext("test", "cluster", logging.getLogger("test"), SystemClock(), lambda event, amount=1: None)
        async with config.open(context) as source:
            yield source


@pytest.fixture(params=["kube_cluster", "old_etcd_kube_cluster"])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """A namespace with one Node, over a new etcd (streaming lists) and over an old one (paged lists)."""
    kube: KubeCluster = request.getfixturevalue(request.param)
    own = Cluster(kube, f"source-{next(_numbers)}")
    await own.do(kube.namespace, own.namespace)
    await own.do(kube.node, own.node, "zone-a", "region-1", ["192.0.2.50"])
    yield own
    await own.do(kube.delete_namespace, own.namespace)
    await own.do(kube.delete_node, own.node)


async def test_the_life_of_a_service(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    async with cluster.source(nodes=True) as source, aclosing(source.watch_scope(namespace)) as observations:
        cluster.apply(await anext(observations))
        assert cluster.groups == {}

        await cluster.do(kube.service, "web", namespace, selector={"app": "web"})
        await cluster.until(observations, lambda: f"{namespace}/service/web" in cluster.groups)
        assert cluster.instances == {}

        first = await cluster.do(kube.pod, "web-1", namespace, {"app": "web"}, cluster.node, "10.77.1.1")
        second = await cluster.do(kube.pod, "web-2", namespace, {"app": "web"}, cluster.node, "10.77.1.2", ready=False)
        ids = [f"{namespace}/web/{pod['metadata']['uid']}" for pod in (first, second)]
        await cluster.until(observations, lambda: set(ids) == set(cluster.instances))
        shown = cluster.instances[ids[0]]
        assert (shown.addresses, shown.health, shown.lifecycle) == (("10.77.1.1",), "ready", "active")
        assert (shown.region, shown.zone, shown.node) == ("region-1", "zone-a", cluster.node)
        assert [(port.name, port.port) for port in shown.ports] == [("http", 8080)]
        assert cluster.instances[ids[1]].health == "unready"

        await cluster.do(kube.set_ready, "web-2", namespace, True)
        await cluster.until(observations, lambda: cluster.instances[ids[1]].health == "ready")
        await cluster.do(kube.set_ready, "web-2", namespace, False)
        await cluster.until(observations, lambda: cluster.instances[ids[1]].health == "unready")

        await cluster.do(kube.terminate_pod, "web-1", namespace)
        await cluster.until(observations, lambda: cluster.instances[ids[0]].lifecycle == "draining")
        assert cluster.instances[ids[0]].health == "ready"
        await cluster.do(kube.force_delete_pod, "web-1", namespace)
        await cluster.until(observations, lambda: set(cluster.instances) == {ids[1]})

        await cluster.do(kube.delete_service, "web", namespace)
        await cluster.until(observations, lambda: cluster.groups == {})
        assert f"{namespace}/service/web" in cluster.gone


async def test_both_families_are_one_instance(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    await cluster.do(kube.service, "web", namespace, selector={"app": "web"}, ipFamilyPolicy="RequireDualStack")
    pod = await cluster.do(kube.pod, "web-1", namespace, {"app": "web"}, cluster.node, ["10.77.2.1", "fd00:77::1"])
    async with cluster.source() as source, aclosing(source.watch_scope(namespace)) as observations:

        def groups() -> list[InstanceGroup]:
            return [group for group in cluster.groups.values() if group.instances]

        cluster.apply(await anext(observations))
        await cluster.until(observations, lambda: len(groups()) == 2)
        assert {group.instances[0].addresses for group in groups()} == {("10.77.2.1",), ("fd00:77::1",)}
        assert set(cluster.instances) == {f"{namespace}/web/{pod['metadata']['uid']}"}


async def test_a_relist_of_what_did_not_change_says_so(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    await cluster.do(kube.service, "web", namespace, selector={"app": "web"})
    for number in range(3):
        await cluster.do(kube.pod, f"web-{number}", namespace, {"app": "web"}, cluster.node)
    await cluster.do(kube.wait_endpoints, namespace, "web", 3, 3)
    async with cluster.source() as source:
        for _ in range(2):
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope(namespace)) as observations:
                cluster.apply(await anext(observations))
            assert len(cluster.instances) == 3
    assert cluster.last is not None
    assert cluster.last.groups == ()
    assert len(cluster.last.unchanged) == 2


async def test_publish_modes_on_real_services(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    await cluster.do(kube.service, "web", namespace, selector={"app": "web"}, type="NodePort")
    annotations = {"envbridge.io/publish": "cluster-ip", "envbridge.io/tags": "inner,v2"}
    await cluster.do(kube.service, "inner", namespace, selector={"app": "web"}, annotations=annotations)
    await cluster.do(kube.pod, "web-1", namespace, {"app": "web"}, cluster.node)
    await cluster.do(kube.wait_endpoints, namespace, "web", 1, 1)
    await cluster.do(kube.wait_endpoints, namespace, "inner", 1, 1)
    async with cluster.source(publish="node-port") as source, aclosing(source.watch_scope(namespace)) as observations:
        cluster.apply(await anext(observations))
        on_node = cluster.instances[f"{namespace}/web/{cluster.node}"]
        assert (on_node.addresses, on_node.health) == (("192.0.2.50",), "ready")
        assert on_node.ports[0].port >= 30000
        (inner,) = [item for item in cluster.instances.values() if item.service == "inner"]
        assert inner.tags == ("inner", "v2")
        assert inner.ports[0].port == 80

        await cluster.do(kube.set_node_ready, cluster.node, False)
        await cluster.until(observations, lambda: f"{namespace}/web/{cluster.node}" not in cluster.instances)


async def test_the_deletion_of_a_namespace_empties_it(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    await cluster.do(kube.service, "web", namespace, selector={"app": "web"})
    await cluster.do(kube.pod, "web-1", namespace, {"app": "web"}, cluster.node)
    await cluster.do(kube.wait_endpoints, namespace, "web", 1, 1)
    async with cluster.source() as source, aclosing(source.watch_scope(namespace)) as observations:
        cluster.apply(await anext(observations))
        assert len(cluster.instances) == 1
        await cluster.do(kube.delete_namespace, namespace)
        await cluster.until(observations, lambda: cluster.groups == {})


async def test_rights_are_enough_and_a_missing_one_is_named(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    async with cluster.source("bridge") as source:
        for rights, names in (([], "list services"), (RIGHTS[1:], "list endpointslices.discovery.k8s.io")):
            if rights:
                await cluster.do(kube.grant, "bridge", namespace, rights)
            async with asyncio.timeout(DEADLINE), aclosing(source.watch_scope(namespace)) as observations:
                with pytest.raises(ForbiddenError, match=names):
                    await anext(observations)
        await cluster.do(kube.grant, "bridge", namespace, RIGHTS)
        # The authorizer learns of a new role a moment later.
        async with asyncio.timeout(DEADLINE):
            while cluster.last is None:
                async with aclosing(source.watch_scope(namespace)) as observations:
                    try:
                        cluster.apply(await anext(observations))
                    except ForbiddenError:
                        await asyncio.sleep(0.05)
    await cluster.do(kube.revoke, "bridge", namespace)


async def test_a_restart_of_the_api_server_loses_nothing(cluster: Cluster) -> None:
    kube, namespace = cluster.kube, cluster.namespace
    await cluster.do(kube.service, "web", namespace, selector={"app": "web"})
    pod = await cluster.do(kube.pod, "web-1", namespace, {"app": "web"}, cluster.node)
    await cluster.do(kube.wait_endpoints, namespace, "web", 1, 1)
    async with cluster.source() as source:
        async with aclosing(source.watch_scope(namespace)) as observations:
            cluster.apply(await anext(observations))
            await cluster.do(kube.stop_apiserver)
            with pytest.raises(TransientError):
                await cluster.until(observations, lambda: False)
        async with aclosing(source.watch_scope(namespace)) as observations:
            with pytest.raises(TransientError, match="refused"):
                await anext(observations)
        await cluster.do(kube.compact)
        await cluster.do(kube.start_apiserver)
        cluster.last = None
        async with asyncio.timeout(DEADLINE):
            while cluster.last is None:
                try:
                    async with aclosing(source.watch_scope(namespace)) as observations:
                        cluster.apply(await anext(observations))
                except SourceError:
                    await asyncio.sleep(0.1)
    assert set(cluster.instances) == {f"{namespace}/web/{pod['metadata']['uid']}"}


async def test_the_list_is_of_the_kind_that_the_server_offers(cluster: Cluster, request: pytest.FixtureRequest) -> None:
    async with cluster.source() as source, aclosing(source.watch_scope(cluster.namespace)) as observations:
        async with asyncio.timeout(DEADLINE):
            cluster.apply(await anext(observations))
        refused = source.without_streaming_lists
    assert refused == (() if "[kube_cluster]" in request.node.name else ("endpointslices", "services"))
