"""How soon a blocked reader and a stream have what a real backend shows, against the bounds we promise.

``ENVBRIDGE_SAMPLES`` sets how many samples of each kind are taken. The figures of each run are printed (``pytest -s``).
Meanwhile a watcher of all instances must see no removal but of what ended.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kit.cloudmap import CREDENTIALS, REGION, CloudMap
from tests.kit.daemon import Daemon, Watcher
from tests.kit.latency import Latencies, samples
from tests.kit.servers.dockerd import Swarm
from tests.kit.servers.kubernetes import KubeCluster
from tests.kit.servers.moto import Moto
from tests.kit.sightings import (
    ABSENT,
    DRAINING,
    READY,
    UNREADY,
    BlockedReader,
    Sightings,
    SliceWatch,
    StreamReader,
    TaskPoll,
)

KUBERNETES_P99 = 0.25
REPLICAS = 5

SWARM_REFRESH = 5.0
SWARM_ROLLOUT = 1.5
SWARM_ELSE = SWARM_REFRESH + 0.5
TASKS = 6

CLOUD_MAP_REFRESH = 1.0
CLOUD_MAP_HEALTH_REFRESH = 2.0
CLOUD_MAP_MORE = 1.0
REGISTRATIONS = 10

STAYING = """
services:
  - name: staying
    instances: [{id: one, address: 192.0.2.1}, {id: two, address: 192.0.2.2}]
"""


@contextmanager
def daemon_with(folder: Path, source: dict[str, Any]) -> Iterator[tuple[Daemon, Watcher]]:
    """A ready daemon with the source ``backend`` and a file beside it, and a watcher of all it has."""
    (folder / "staying.yaml").write_text(STAYING)
    sources = {"backend": source, "file": {"type": "file", "paths": ["staying.yaml"]}}
    with Daemon(folder, {"sources": sources}, env=CREDENTIALS) as daemon:
        daemon.wait_ready()
        with Watcher(daemon) as watcher:
            yield daemon, watcher


@contextmanager
def readers_of(daemon: Daemon, path: str, **params: str) -> Iterator[dict[str, Sightings]]:
    """A blocked reader and a stream of the same list."""
    with BlockedReader(daemon, path, **params) as blocked, StreamReader(daemon, path, **params) as stream:
        yield {"blocking": blocked.seen, "stream": stream.seen}


def in_state(id_: str, state: str) -> Callable[[dict[str, str]], bool]:
    """Whether an instance is in a state."""
    return lambda states: states.get(id_, ABSENT) == state


def all_in(state: str, count: int) -> Callable[[dict[str, str]], bool]:
    """Whether there are so many instances, all in a state."""
    return lambda states: list(states.values()) == [state] * count


def whatever(states: dict[str, str]) -> bool:
    """For a truth that is complete once the act is over."""
    return True


def check(latencies: Latencies, watcher: Watcher, truth: Sightings) -> None:
    """Print the figures, and see that nothing else was lost."""
    print(f"\n{latencies.report()}")
    watcher.check(f"test/backend/{id_}" for id_ in truth.ended)
    assert {"test/file/default/staying/one", "test/file/default/staying/two"} <= watcher.present


class Shop:
    """A namespace of a cluster with Services whose Pods the test runs, and what watches them."""

    def __init__(self, kube: KubeCluster) -> None:
        self.kube = kube
        self.namespace = f"latency-{secrets.token_hex(3)}"
        self.node = f"node-{self.namespace}"

    def __enter__(self) -> Shop:
        self.kube.namespace(self.namespace)
        self.kube.node(self.node)
        for name in ("web", "scaled", "other"):
            self.kube.service(name, self.namespace, selector={"app": name})
        return self

    def __exit__(self, *_: object) -> None:
        self.kube.delete_namespace(self.namespace)
        self.kube.delete_node(self.node)

    def pod(self, name: str, app: str) -> str:
        """Run a Pod of a Service; the instance's id."""
        made = self.kube.pod(name, self.namespace, {"app": app}, self.node)
        return f"{self.namespace}/{app}/{made['metadata']['uid']}"


@pytest.fixture
def shop(kube_cluster: KubeCluster) -> Iterator[Shop]:
    with Shop(kube_cluster) as shop:
        yield shop


def test_kubernetes_changes_reach_readers_in_time(shop: Shop, tmp_path: Path) -> None:
    kube, namespace, number = shop.kube, shop.namespace, samples(20)
    pods = {f"web-{index}": shop.pod(f"web-{index}", "web") for index in range(number)}
    for index in range(3):
        shop.pod(f"other-{index}", "other")
    kube.wait_endpoints(namespace, "web", number, number, timeout=30.0)
    kube.wait_endpoints(namespace, "other", 3, 3)
    latencies = Latencies()
    source = {"type": "kubernetes", "kubeconfig": str(kube.kubeconfig()), "namespaces_watched": [namespace]}
    with daemon_with(tmp_path, source) as (daemon, watcher), SliceWatch(kube, namespace) as watch:
        truth = watch.seen
        _pods(shop, daemon, truth, latencies, pods)
        _scaling(shop, daemon, truth, latencies, number)
        _services(shop, daemon, truth, latencies, number)
        check(latencies, watcher, truth)
    latencies.check(KUBERNETES_P99, 0.99)


def _pods(shop: Shop, daemon: Daemon, truth: Sightings, latencies: Latencies, pods: dict[str, str]) -> None:
    """Readiness flips both ways, termination, and the end of each Pod."""
    kube, namespace, prefix = shop.kube, shop.namespace, f"{shop.namespace}/web/"
    with readers_of(daemon, f"/v1/services/{namespace}/web") as readers:
        for name, id_ in pods.items():
            steps = (
                ("pod unready", partial(kube.set_ready, name, namespace, False), UNREADY),
                ("pod ready", partial(kube.set_ready, name, namespace, True), READY),
                ("pod termination", partial(kube.terminate_pod, name, namespace), DRAINING),
                ("pod end", partial(kube.force_delete_pod, name, namespace), ABSENT),
            )
            for kind, act, state in steps:
                latencies.measure(kind, act, in_state(id_, state), truth, readers, prefix=prefix)


def _scaling(shop: Shop, daemon: Daemon, truth: Sightings, latencies: Latencies, number: int) -> None:
    """A Deployment up and down: its Pods become ready, drain, and end."""
    kube, namespace, labels = shop.kube, shop.namespace, {"app": "scaled"}
    kube.deployment("scaled", namespace, 0, labels, shop.node)

    def up() -> None:
        kube.scale("scaled", namespace, REPLICAS)
        kube.run_pods(namespace, labels, REPLICAS)

    steps = (
        ("scale up", up, all_in(READY, REPLICAS)),
        ("scale down", partial(kube.scale, "scaled", namespace, 0), all_in(DRAINING, REPLICAS)),
        ("end after scale down", partial(kube.reap_pods, namespace, labels), all_in(ABSENT, 0)),
    )
    with readers_of(daemon, f"/v1/services/{namespace}/scaled") as readers:
        while latencies.count("scale up") < number:
            for kind, act, done in steps:
                latencies.measure(kind, act, done, truth, readers, prefix=f"{namespace}/scaled/")


def _services(shop: Shop, daemon: Daemon, truth: Sightings, latencies: Latencies, number: int) -> None:
    """Services that come and go over a Pod that stays."""
    kube, namespace = shop.kube, shop.namespace
    shop.pod("kept", "kept")
    for index in range(number):
        name = f"passing-{index}"
        with ExitStack() as stack:
            path, prefix = f"/v1/services/{namespace}/{name}", f"{namespace}/{name}/"
            # Nobody has this name yet: the answer is 404, with a cursor to wait on.
            blocked = stack.enter_context(BlockedReader(daemon, path)).seen
            latencies.measure(
                "service creation",
                partial(kube.service, name, namespace, selector={"app": "kept"}),
                all_in(READY, 1),
                truth,
                {"blocking": blocked},
                prefix=prefix,
            )
            stream = stack.enter_context(StreamReader(daemon, path)).seen
            latencies.measure(
                "service deletion",
                partial(kube.delete_service, name, namespace),
                all_in(ABSENT, 0),
                truth,
                {"blocking": blocked, "stream": stream},
                prefix=prefix,
            )


def test_swarm_changes_reach_readers_in_time(swarm: Swarm, tmp_path: Path) -> None:
    swarm.reset()
    number = samples(5)
    # One that takes a while to stop is seen draining.
    swarm.create_service("web", "--update-parallelism=2", "--rollback-parallelism=2", replicas=TASKS, env={"STOP_DELAY": "1"})
    swarm.create_service("other")
    latencies = Latencies()
    source = {"type": "docker_swarm", "hosts": [swarm.docker_host], "refresh": f"{SWARM_REFRESH:g}s"}
    with (
        daemon_with(tmp_path, source) as (daemon, watcher),
        TaskPoll(swarm, ["web"]) as poll,
        readers_of(daemon, "/v1/services/default/web") as readers,
    ):
        truth = poll.seen

        def measure(kind: str, act: Callable[[], None], replicas: int = TASKS) -> None:
            latencies.measure(kind, act, all_in(READY, replicas), truth, readers, by_state=True)

        while latencies.count(f"update: {READY}") < number:
            measure("update", partial(swarm.update_service, "web", f"--env-add=GENERATION={secrets.token_hex(4)}"))
            measure("rollback", partial(swarm.rollback_service, "web"))
        while latencies.count(f"scale up: {READY}") < number:
            measure("scale down", partial(swarm.scale_service, "web", 1), 1)
            measure("scale up", partial(swarm.scale_service, "web", TASKS))
        check(latencies, watcher, truth)
    swarm.remove_service("web", wait=False)
    swarm.remove_service("other", wait=False)
    latencies.check(SWARM_ROLLOUT, kinds=lambda kind: not kind.startswith("scale"))
    latencies.check(SWARM_ELSE)


class Registrations:
    """Acts on one Cloud Map service, and is the truth about it: what a call returned for is there."""

    def __init__(self, cloud_map: CloudMap, service: str) -> None:
        self.truth = Sightings(f"calls for {service}")
        self._cloud_map, self._service = cloud_map, service

    def register(self, name: str) -> None:
        """Register an instance."""
        self._cloud_map.register(self._service, name, AWS_INSTANCE_IPV4="192.0.2.3", AWS_INSTANCE_PORT="80")

    def deregister(self, name: str) -> None:
        """Deregister an instance."""
        self._cloud_map.deregister(self._service, name)

    def sicken(self, name: str) -> None:
        """An instance is unhealthy from now on."""
        self._cloud_map.set_healthy(self._service, name, False)

    def heal(self, name: str) -> None:
        """An instance is healthy from now on."""
        self._cloud_map.set_healthy(self._service, name, True)

    def each(self, act: Callable[[str], None], names: list[str], state: str, poll: float) -> None:
        """Act on each name at a random point of a poll, over two polls in all; each is in ``state`` then."""
        for name in names:
            time.sleep(random.uniform(0, 2 * poll / len(names)))
            act(name)
            self.truth.see_one(f"{self._service}/{name}", state, time.monotonic())


def test_cloud_map_changes_reach_readers_in_time(moto_server: Moto, tmp_path: Path) -> None:
    moto_server.reset()
    latencies = Latencies()
    source = {
        "type": "cloud_map",
        "region": REGION,
        "endpoint_url": moto_server.url,
        "refresh": f"{CLOUD_MAP_REFRESH:g}s",
        "health_refresh": f"{CLOUD_MAP_HEALTH_REFRESH:g}s",
        # It would hold back what is deregistered by the dozen.
        "guard": "off",
    }
    with closing(CloudMap(moto_server.url)) as cloud_map:
        namespace = cloud_map.namespace("latency")
        plain = Registrations(cloud_map, cloud_map.service(namespace, "plain"))
        checked = Registrations(cloud_map, cloud_map.service(namespace, "checked", checked=True))
        staying = [f"staying-{index}" for index in range(4 * REGISTRATIONS)]
        for service in (plain, checked):
            service.each(service.register, staying, READY, 0.0)
        with daemon_with(tmp_path, source) as (daemon, watcher):
            with readers_of(daemon, "/v1/services/latency/plain") as readers:
                while latencies.count("registration") < samples(20):
                    names = [secrets.token_hex(4) for _ in range(REGISTRATIONS)]
                    for kind, act, state in (
                        ("registration", plain.register, READY),
                        ("deregistration", plain.deregister, ABSENT),
                    ):
                        each = partial(plain.each, act, names, state, CLOUD_MAP_REFRESH)
                        latencies.measure(kind, each, whatever, plain.truth, readers)
            with readers_of(daemon, "/v1/services/latency/checked") as readers:
                while latencies.count("health change") < samples(20):
                    for act, state in ((checked.sicken, UNREADY), (checked.heal, READY)):
                        each = partial(checked.each, act, staying[:REGISTRATIONS], state, CLOUD_MAP_HEALTH_REFRESH)
                        latencies.measure("health change", each, whatever, checked.truth, readers)
            check(latencies, watcher, plain.truth)
    latencies.check(CLOUD_MAP_REFRESH + CLOUD_MAP_MORE, kinds=lambda kind: "registration" in kind)
    latencies.check(CLOUD_MAP_HEALTH_REFRESH + CLOUD_MAP_MORE)
