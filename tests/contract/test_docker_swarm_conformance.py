"""The Docker Swarm source passes the suite for sources; its world is a scripted manager, with a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import OutageConformance, PollSourceConformance
from bridge_plugins.sources.docker_swarm.config import DockerSwarmConfig
from tests.kit.fakes import dockerobjects as objects
from tests.kit.fakes.docker import FakeDocker
from tests.kit.proxy import Mode, Proxy


class FakeSwarm:
    """Services of one stack with a task for each instance; ``outage`` is what the proxy does when it fails."""

    deadline = 5.0

    def __init__(self, docker: FakeDocker, proxy: Proxy, outage: Mode) -> None:
        self._docker = docker
        self._proxy = proxy
        self._outage = outage

    def config(self) -> SourceConfig:
        return DockerSwarmConfig(type="docker_swarm", hosts=(f"tcp://127.0.0.1:{self._proxy.port}",), refresh=0.5)

    async def add(self, service: ServiceName, name: str) -> str:
        self._docker.put("tasks", objects.task(f"task-{name}", service.name, slot=len(self._docker.tasks) + 1))
        self._put(service, "create" if service.name not in self._docker.services else "update")
        return f"task-{name}"

    async def remove(self, service: ServiceName, name: str) -> None:
        ended = objects.task(f"task-{name}", service.name, state="shutdown", desired="shutdown")
        self._docker.put("tasks", ended)
        self._put(service, "update")

    async def fail(self) -> None:
        self._proxy.set(self._outage)

    async def mend(self) -> None:
        self._proxy.set("pass")

    def _put(self, service: ServiceName, action: str) -> None:
        running = [task for task in self._docker.tasks.values() if task["DesiredState"] == "running"]
        desired = sum(task["ServiceID"] == service.name for task in running)
        name = f"{service.namespace}_{service.name}"
        self._docker.put("services", objects.service(service.name, name, stack=service.namespace, desired=desired))
        self._docker.emit("service", action, service.name)


@contextmanager
def fake_swarm(outage: Mode) -> Iterator[FakeSwarm]:
    with FakeDocker(tcp=True) as docker, Proxy(urlsplit(docker.host).port or 0) as proxy:
        yield FakeSwarm(docker, proxy, outage)


class TestDockerSwarm(PollSourceConformance):
    """The whole suite; connections are refused when it fails."""

    @pytest.fixture
    def world(self) -> Iterator[FakeSwarm]:
        with fake_swarm("refuse") as world:
            yield world


class TestResets(OutageConformance):
    """Connections are taken and reset."""

    @pytest.fixture
    def world(self) -> Iterator[FakeSwarm]:
        with fake_swarm("reset") as world:
            yield world
