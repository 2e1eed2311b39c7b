"""The Docker Swarm source passes the suite for sources on a real Docker Engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import OutageConformance, PollSourceConformance
from bridge_plugins.sources.docker_swarm.config import DockerSwarmConfig
from tests.kit.proxy import Mode, Proxy
from tests.kit.servers.dockerd import Swarm

STACK = "com.docker.stack.namespace"


class Stack:
    """Each instance is a Swarm service with one task, so that a test can say which one ends; a rule joins them again."""

    deadline = 30.0

    def __init__(self, swarm: Swarm, proxy: Proxy, outage: Mode) -> None:
        self._swarm = swarm
        self._proxy = proxy
        self._outage = outage

    def config(self) -> SourceConfig:
        return DockerSwarmConfig.model_validate(
            {
                "type": "docker_swarm",
                "hosts": [f"tcp://127.0.0.1:{self._proxy.port}"],
                "refresh": "1s",
                "relabel": [{"from": "{name}", "match": "(.*)--.*", "to": "name", "value": r"\1"}],
            }
        )

    async def add(self, service: ServiceName, name: str) -> str:
        full = _name(service, name)
        await self._do(self._swarm.create_service, full, labels={STACK: service.namespace})
        (task,) = await self._do(self._swarm.tasks, full)
        return str(task["ID"])

    async def remove(self, service: ServiceName, name: str) -> None:
        await self._do(self._swarm.remove_service, _name(service, name))

    async def fail(self) -> None:
        self._proxy.set(self._outage)

    async def mend(self) -> None:
        self._proxy.set("pass")

    async def _do(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        return await asyncio.to_thread(function, *arguments, **more)


def _name(service: ServiceName, name: str) -> str:
    return f"{service.namespace}_{service.name}--{name}"


@contextmanager
def stack(swarm: Swarm, outage: Mode) -> Iterator[Stack]:
    swarm.reset()
    # The Swarm knows its only node by a loopback address, which is none that others can use.
    swarm.update_node("--label-add=envbridge.address=192.0.2.10")
    with Proxy(urlsplit(swarm.tcp_url or "").port or 0) as proxy:
        yield Stack(swarm, proxy, outage)
    swarm.update_node("--label-rm=envbridge.address")
    swarm.reset()


class TestDockerSwarm(PollSourceConformance):
    """The whole suite; connections are refused when it fails."""

    @pytest.fixture
    def world(self, swarm: Swarm) -> Iterator[Stack]:
        with stack(swarm, "refuse") as world:
            yield world


class TestSilence(OutageConformance):
    """Connections stay open and nothing answers any more."""

    @pytest.fixture
    def world(self, swarm: Swarm) -> Iterator[Stack]:
        with stack(swarm, "hang") as world:
            yield world
