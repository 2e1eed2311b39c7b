"""Each call of the Swarm source x each fault: nothing is lost, and the next list that works tells everything."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Iterator

import pytest

from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import Confirmed, Listing
from bridge_plugins.sources.docker_swarm import source as source_module
from bridge_plugins.sources.docker_swarm.source import DockerSwarmSource
from tests.kit.fakes.docker import CALLS, FAULTS, LISTS, FakeDocker, Fault
from tests.kit.fakes.dockerobjects import attachment, network, node, port, service, task
from tests.unit.docker_swarm.kit import opened, shown, until

SHORT = 0.6
FORBIDDEN = ("401", "403")
ONE_OBJECT = ("wrong type in one", "nameless")
OF_THE_BODY = ("reset", "slow", "truncated", *ONE_OBJECT)
MODES = ("host", "task-overlay", "ingress", "vip")


@contextlib.contextmanager
def deadline_for(fault: Fault) -> Iterator[None]:
    """A short one for what lasts until the deadline."""
    with pytest.MonkeyPatch.context() as patch:
        if fault in ("hang", "slow"):
            patch.setattr(source_module, "CYCLE_SECONDS", SHORT)
        yield


@pytest.fixture(params=["unix", "tcp"])
def docker(request: pytest.FixtureRequest) -> Iterator[FakeDocker]:
    with FakeDocker(tcp=request.param == "tcp") as docker:
        fill(docker)
        yield docker


def fill(docker: FakeDocker) -> None:
    docker.put("networks", network("blue"))
    docker.put("nodes", node("n1"), node("n2", "192.0.2.2"))
    for name in ("web", "api"):
        docker.put("services", service(name, desired=2, ports=[port(80, 30080)], virtual_ips={"blue": "10.0.1.2/24"}))
        networks = [attachment("blue", "10.0.1.5/24")]
        docker.put("tasks", task(f"{name}-1", name, networks=networks), task(f"{name}-2", name, node="n2", networks=networks))


@contextlib.asynccontextmanager
async def listed(docker: FakeDocker, publish: str = "host") -> AsyncGenerator[DockerSwarmSource, None]:
    async with opened(docker.host, publish=publish) as source:
        await source.list()
        yield source


async def exhaust(hints: AsyncGenerator[float, None]) -> None:
    async for _ in hints:
        pass


def recover(docker: FakeDocker, fault: Fault) -> None:
    docker.release()
    if fault == "refused":
        docker.refuse()
        docker.accept()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ONE_OBJECT])
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_fails_is_an_error_and_the_next_list_recovers(docker: FakeDocker, call: str, fault: Fault) -> None:
    async with listed(docker) as source:
        if call == "version":
            docker.fail("nodes", "500")  # after which everything is asked anew
            with pytest.raises(TransientError):
                await source.list()
        docker.fail(call, fault)
        began = time.monotonic()
        with deadline_for(fault), pytest.raises(ForbiddenError if fault in FORBIDDEN else TransientError) as failure:
            await source.list()
        assert time.monotonic() - began < SHORT + 2.0
        assert docker.host in str(failure.value)
        assert f"/{call}" in str(failure.value) or fault in ("wrong type", "truncated")
        recover(docker, fault)
        assert await source.list() == Confirmed()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ONE_OBJECT])
@pytest.mark.parametrize("call", CALLS)
async def test_a_first_call_that_fails_is_an_error_and_no_empty_listing(docker: FakeDocker, call: str, fault: Fault) -> None:
    async with opened(docker.host) as source:
        docker.fail(call, fault)
        with deadline_for(fault), pytest.raises(SourceError):
            await source.list()
        recover(docker, fault)
        assert shown(await source.list()) == {"web": {"web-1", "web-2"}, "api": {"api-1", "api-2"}}


@pytest.mark.parametrize("publish", MODES)
@pytest.mark.parametrize("fault", ONE_OBJECT)
@pytest.mark.parametrize("call", LISTS)
async def test_one_broken_object_loses_nothing(call: str, fault: Fault, publish: str) -> None:
    with FakeDocker() as docker:
        docker.networks.clear()  # the broken one is the first
        fill(docker)
        async with opened(docker.host, publish=publish) as source:
            first = shown(await source.list())
            docker.fail(call, fault)
            observation = await source.list()
            if observation != Confirmed():
                assert isinstance(observation, Listing)
                assert observation.gone == ()
                kept = {*observation.unchanged, *observation.unknown, *observation.rejected}
                for key, ids in first.items():
                    for id_ in ids - shown(observation).get(key, set()):
                        assert kept & {"", key, id_}, id_
            assert set(first) == {"web", "api"}
            after = await source.list()
            assert isinstance(after, Confirmed) or (not after.gone and not after.unknown and not after.rejected)  # type: ignore[union-attr]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_check_of_a_missing_service_that_fails_leaves_it_unknown(docker: FakeDocker, fault: Fault) -> None:
    async with listed(docker) as source:
        hidden = docker.services.pop("api")
        docker.fail("service", fault)
        if fault in OF_THE_BODY:  # which takes one that is there
            docker.before = lambda call: docker.put("services", hidden) if call == "service" else None
        with deadline_for(fault):
            observation = await source.list()
        assert isinstance(observation, Listing)
        assert (observation.gone, set(observation.unknown), observation.unchanged) == ((), {"api"}, ("web",))
        recover(docker, fault)
        docker.before = lambda call: None
        docker.services.pop("api", None)
        observation = await source.list()
        assert isinstance(observation, Listing)
        assert observation.gone == ("api",)


@pytest.mark.parametrize("fault", FAULTS)
async def test_hints_fail_alone_and_begin_with_a_list_when_they_are_back(docker: FakeDocker, fault: Fault) -> None:
    async with listed(docker) as source:
        docker.fail("events", fault)
        if fault in ("hang", "slow", *ONE_OBJECT, "wrong type"):
            docker.release()
        async with contextlib.aclosing(source.hints()) as hints:
            if fault in ("wrong type", "wrong type in one", "nameless", "slow"):
                assert await anext(hints) == 0.0  # no more than a hint was expected
            else:
                if fault == "hang":
                    threading.Timer(0.2, docker.release).start()
                with pytest.raises(SourceError):
                    await exhaust(hints)
        recover(docker, fault)
        assert await source.list() == Confirmed()
        async with contextlib.aclosing(source.hints()) as hints:
            assert await anext(hints) == 0.0


async def test_a_server_that_is_down_for_long_leaves_no_threads_and_no_sockets(docker: FakeDocker) -> None:
    async with listed(docker) as source:
        docker.refuse()
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("swarm")])
        for _ in range(20):
            with pytest.raises(TransientError):
                await source.list()
        await until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("swarm")])
        docker.accept()
        assert await source.list() == Confirmed()


async def test_a_socket_that_may_not_be_used_is_forbidden(docker: FakeDocker, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    async with listed(docker) as source:
        docker.fail("services", "500")
        with pytest.raises(TransientError):
            await source.list()
        monkeypatch.setattr("socket.socket.connect", deny)
        with pytest.raises(ForbiddenError, match="permission denied"):
            await source.list()
