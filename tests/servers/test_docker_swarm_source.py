"""The Swarm source against a real Docker Engine."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest

from bridge.catalog.guard import GuardPolicy
from bridge.catalog.records import SourceRecords
from bridge.errors import SourceError, TransientError
from bridge.model import Port, ServiceInstance, ServiceName
from bridge_plugins.sources.docker_swarm import source as source_module
from bridge_plugins.sources.docker_swarm.config import DockerSwarmConfig
from bridge_plugins.sources.docker_swarm.source import DockerSwarmSource
from tests.kit.servers.dockerd import Swarm
from tests.kit.servers.process import free_port
from tests.unit.docker_swarm.kit import context

REFRESH = 5.0


@pytest.fixture
def engine(swarm: Swarm) -> Iterator[Swarm]:
    swarm.reset()
    yield swarm
    swarm.reset()


class Follower:
    """Polls a source as the core does, every ``REFRESH`` and at its hints, and keeps what it says under the default guard."""

    def __init__(self, source: DockerSwarmSource) -> None:
        self.source = source
        self.records = SourceRecords(GuardPolicy(0.3, 3, 300.0, False))
        self.history: list[dict[str, ServiceInstance]] = []
        self.errors: list[SourceError] = []
        self._lock = asyncio.Lock()

    @property
    def instances(self) -> dict[str, ServiceInstance]:
        return {id_: record.instance for id_, record in self.records.records.items()}

    def of(self, service: str, lifecycle: str = "active") -> list[ServiceInstance]:
        return [each for each in self.instances.values() if each.service == service and each.lifecycle == lifecycle]

    async def poll(self) -> None:
        async with self._lock:
            try:
                observation = await self.source.list()
            except SourceError as error:
                self.errors.append(error)
                return
            self.records.fold(observation if isinstance(observation, tuple) else [observation], time.monotonic(), time.time())
            self.history.append(self.instances)

    async def on_schedule(self) -> None:
        while True:
            await self.poll()
            await asyncio.sleep(REFRESH)

    async def on_hints(self) -> None:
        while True:
            try:
                async with contextlib.aclosing(self.source.hints()) as hints:
                    async for seconds in hints:
                        await asyncio.sleep(seconds)
                        await self.poll()
            except SourceError as error:
                self.errors.append(error)
            await asyncio.sleep(0.5)

    async def until(self, true: Callable[[], Any], seconds: float = 30.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def followed(*hosts: str, **keys: Any) -> AsyncGenerator[Follower, None]:
    config = DockerSwarmConfig.model_validate({"type": "docker_swarm", "hosts": hosts, **keys})
    async with config.open(context()) as source:
        follower = Follower(source)
        tasks = [asyncio.create_task(follower.on_schedule()), asyncio.create_task(follower.on_hints())]
        try:
            await follower.until(lambda: follower.history)
            yield follower
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_task_is_listed_where_its_host_port_answers(engine: Swarm) -> None:
    published = free_port()
    async with followed(engine.docker_host) as follower:
        await asyncio.to_thread(
            engine.create_service,
            "shop_web",
            publish=[f"mode=host,target=8080,published={published}"],
            labels={"com.docker.stack.namespace": "shop", "envbridge.port.8080": "http", "envbridge.meta.team": "checkout"},
        )
        await follower.until(lambda: follower.of("web"))
        (instance,) = follower.of("web")
        (task,) = engine.tasks("shop_web")
        assert (instance.id, instance.service_name) == (task["ID"], ServiceName("shop", "web"))
        assert (instance.health, instance.ports, instance.meta) == ("ready", (Port("http", published),), {"team": "checkout"})
        url = f"http://{instance.addresses[0]}:{instance.ports[0].port}/"
        with await asyncio.to_thread(urllib.request.urlopen, url, timeout=5) as response:
            assert response.status == 200


async def test_an_overlay_network_gives_the_tasks_own_addresses(engine: Swarm) -> None:
    await asyncio.to_thread(engine.network, "blue")
    await asyncio.to_thread(engine.network, "green")
    await asyncio.to_thread(engine.create_service, "web", networks=["blue", "green"], labels={"envbridge.port.8080": "http"})
    (task,) = engine.tasks("web")
    addresses = {each["Network"]["Spec"]["Name"]: each["Addresses"][0].split("/")[0] for each in task["NetworksAttachments"]}
    async with followed(engine.docker_host, publish="task-overlay", network="green") as follower:
        (instance,) = follower.of("web")
        assert (instance.addresses, instance.ports) == ((addresses["green"],), (Port("http", 8080),))
    async with followed(engine.docker_host, publish="vip", network="blue") as follower:
        (instance,) = follower.of("web")
        assert instance.addresses[0].startswith(addresses["blue"].rsplit(".", 1)[0])
    async with followed(engine.docker_host, publish="task-overlay") as follower:
        assert follower.of("web") == []


async def test_the_routing_mesh_is_the_node(engine: Swarm) -> None:
    published = free_port()
    await asyncio.to_thread(engine.create_service, "web", publish=[f"target=8080,published={published}"])
    async with followed(engine.docker_host, publish="ingress") as follower:
        (instance,) = follower.of("web")
        assert instance.ports == (Port(None, published),)
        assert instance.id == f"{engine.service('web')['ID']}/{engine.node()['ID']}"


async def test_scaling_down_drains_and_then_removes_without_the_guard(engine: Swarm) -> None:
    await asyncio.to_thread(engine.create_service, "web", replicas=6, env={"STOP_DELAY": "3"}, timeout=60.0)
    async with followed(engine.docker_host) as follower:
        assert len(follower.of("web")) == 6
        await asyncio.to_thread(engine.scale_service, "web", 1, wait=False)
        await follower.until(lambda: len(follower.of("web", "draining")) == 5)
        await follower.until(lambda: len(follower.instances) == 1)
        assert not follower.records.held
        await asyncio.to_thread(engine.scale_service, "web", 0, wait=False)
        await follower.until(lambda: not follower.instances)
        assert not follower.records.held


async def test_an_update_and_a_rollback_never_leave_the_service_without_a_ready_task(engine: Swarm) -> None:
    options = ("--update-order=start-first", "--rollback-order=start-first")
    await asyncio.to_thread(engine.create_service, "web", *options, replicas=2, health=True, timeout=60.0)
    async with followed(engine.docker_host) as follower:
        await asyncio.to_thread(engine.update_service, "web", "--env-add=A=1")
        await follower.until(lambda: set(follower.instances) == {task["ID"] for task in engine.tasks("web")})
        await asyncio.to_thread(engine.rollback_service, "web")
        await follower.until(lambda: set(follower.instances) == {task["ID"] for task in engine.tasks("web")})
        assert all(
            any(each.lifecycle == "active" and each.health == "ready" for each in seen.values()) for seen in follower.history
        )
        assert not follower.records.held


async def test_a_removed_service_goes_at_once(engine: Swarm) -> None:
    await asyncio.to_thread(engine.create_service, "web", replicas=5, env={"STOP_DELAY": "5"}, timeout=60.0)
    await asyncio.to_thread(engine.create_service, "api")
    async with followed(engine.docker_host) as follower:
        assert len(follower.instances) == 6
        await asyncio.to_thread(engine.docker, "service", "rm", "web")
        await follower.until(lambda: not follower.of("web") and not follower.of("web", "draining"), 5.0)
        assert len(follower.of("api")) == 1
        assert not follower.records.held
        engine.remove_service("web")


async def test_a_removal_that_no_event_told_of_is_found_out_by_asking(engine: Swarm) -> None:
    await asyncio.to_thread(engine.create_service, "web", replicas=2)
    config = DockerSwarmConfig.model_validate({"type": "docker_swarm", "hosts": [engine.docker_host]})
    async with config.open(context()) as source:
        follower = Follower(source)
        await follower.poll()
        assert len(follower.instances) == 2
        await asyncio.to_thread(engine.docker, "service", "rm", "web")
        await follower.poll()
        assert (follower.instances, follower.errors) == ({}, [])


async def test_a_drained_node_lets_go_of_its_tasks(engine: Swarm) -> None:
    await asyncio.to_thread(engine.create_service, "web", replicas=2, env={"STOP_DELAY": "3"})
    async with followed(engine.docker_host) as follower:
        await asyncio.to_thread(engine.update_node, "--availability=drain")
        await follower.until(lambda: len(follower.of("web", "draining")) == 2)
        await follower.until(lambda: not follower.instances)
        assert not follower.records.held
        await asyncio.to_thread(engine.update_node, "--availability=active")
        await follower.until(lambda: len(follower.of("web")) == 2)


async def test_what_the_manager_shows_is_seen_in_time(engine: Swarm) -> None:
    """During a rollout within 1.5 s; the median, because others use this machine too."""
    await asyncio.to_thread(engine.create_service, "web", "--update-delay=0s")
    delays = []
    async with followed(engine.docker_host) as follower:
        for replicas in (2, 4, 3, 5):
            await asyncio.to_thread(engine.scale_service, "web", replicas)
            shown = time.monotonic()
            await follower.until(lambda replicas=replicas: len(follower.of("web")) == replicas)  # type: ignore[misc]
            delays.append(time.monotonic() - shown)
    assert statistics.median(delays) <= 1.5, delays


async def test_an_engine_that_hangs_or_restarts_loses_nothing(engine: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.tcp_url is not None
    await asyncio.to_thread(engine.create_service, "web", replicas=2)
    async with followed(engine.docker_host, engine.tcp_url) as follower:
        before = set(follower.instances)
        with monkeypatch.context() as patch:
            patch.setattr(source_module, "CYCLE_SECONDS", 1.0)
            engine.pause()
            try:
                with pytest.raises(TransientError):
                    await follower.source.list()
            finally:
                engine.resume()
        await follower.poll()
        assert set(follower.instances) == before
        await asyncio.to_thread(engine.restart_dockerd)
        assert all(len(seen) >= 1 for seen in follower.history)
        await asyncio.to_thread(engine.wait_running, "web", 2, 60.0)
        await follower.until(lambda: set(follower.instances) == {task["ID"] for task in engine.tasks("web")})
