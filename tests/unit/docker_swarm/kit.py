"""What the tests of the Swarm source share: answers of a manager without a manager."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from bridge.aio import SystemClock
from bridge.contracts import PluginContext
from bridge.model import Listing, Observation, ServiceInstance
from bridge_plugins.sources.docker_swarm.config import DockerSwarmConfig
from bridge_plugins.sources.docker_swarm.facts import cluster_facts
from bridge_plugins.sources.docker_swarm.listing import Bodies, Outcome, Snapshot, State, compare, read_snapshot
from bridge_plugins.sources.docker_swarm.mapping import Mapped, map_service
from bridge_plugins.sources.docker_swarm.policy import Settings
from bridge_plugins.sources.docker_swarm.source import DockerSwarmSource
from bridge_plugins.sources.docker_swarm.wire import NETWORKS, NODES, SERVICES, TASKS, read_items
from tests.kit.fakes.dockerobjects import INGRESS, Object, network, node

MESH = network(INGRESS, "ingress", ingress=True)


def mapped(
    service: Object,
    *tasks: Object,
    nodes: Sequence[Object] = (node("n1"),),
    networks: Sequence[Object] = (MESH,),
    settings: Settings = Settings(),  # noqa: B008  # frozen
) -> Mapped:
    """One service, mapped from its JSON."""
    services = read_items(dump([service]), SERVICES, {})
    listed = read_items(dump(tasks), TASKS, {})
    for items in (services, listed):
        assert (items.broken, items.nameless) == ({}, [])
    cluster = cluster_facts(read_items(dump(nodes), NODES, {}), read_items(dump(networks), NETWORKS, {}), settings.label_prefix)
    (only,) = services.found.values()
    return map_service(only, tuple(listed.found.values()), cluster, settings)


def single(found: Mapped) -> ServiceInstance:
    """The only instance."""
    assert not found.rejected
    (instance,) = found.group.instances
    return instance


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


class Swarm:
    """A Swarm that is listed again and again, as the source does it."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008  # frozen
        self.settings = settings
        self.state = State()
        self.nodes: list[Object] = [node("n1")]
        self.networks: list[Object] = [MESH]

    def snapshot(self, services: Sequence[object], tasks: Sequence[object]) -> Snapshot:
        bodies = Bodies(dump(services), dump(tasks), dump(self.nodes), dump(self.networks))
        return read_snapshot(bodies, self.state.memos, self.settings)

    def step(
        self,
        services: Sequence[object],
        tasks: Sequence[object] = (),
        ended: Sequence[str] = (),
        doubts: Mapping[str, Exception] | None = None,
    ) -> Outcome:
        """One cycle."""
        outcome = compare(self.snapshot(services, tasks), self.state, self.settings, ended, doubts or {})  # type: ignore[arg-type]
        self.state = outcome.state
        return outcome

    def listing(self, services: Sequence[object], tasks: Sequence[object] = (), ended: Sequence[str] = ()) -> Listing:
        """One cycle that has something to say."""
        observation = self.step(services, tasks, ended).observation
        assert isinstance(observation, Listing)
        return observation


def shown(listing: Observation) -> dict[str, set[str]]:
    """Instance ids by group key."""
    assert isinstance(listing, Listing)
    return {group.key: {instance.id for instance in group.instances} for group in listing.groups}


def context() -> PluginContext:
    return PluginContext("eu", "swarm", logging.getLogger("test"), SystemClock(), lambda event, amount=1: None)


@contextlib.asynccontextmanager
async def opened(*hosts: str, **keys: Any) -> AsyncGenerator[DockerSwarmSource, None]:
    """The source as the core opens it."""
    config = DockerSwarmConfig.model_validate({"type": "docker_swarm", "hosts": hosts, **keys})
    async with config.open(context()) as source:
        yield source


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)
