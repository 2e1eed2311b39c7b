"""The source against a scripted manager: calls, hints, several managers, configuration."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from pydantic import ValidationError

from bridge.contracts import PollHints, PollSource
from bridge.errors import ForbiddenError, TransientError
from bridge.model import Confirmed, Listing
from bridge_plugins.sources.docker_swarm import source as source_module
from bridge_plugins.sources.docker_swarm.config import DockerSwarmConfig
from bridge_plugins.sources.docker_swarm.source import DEBOUNCE, UNSETTLED
from tests.kit.fakes.docker import FakeDocker
from tests.kit.fakes.dockerobjects import node, service, task
from tests.unit.docker_swarm.kit import context, opened, shown, until


@pytest.fixture(params=["unix", "tcp"])
def docker(request: pytest.FixtureRequest) -> Any:
    with FakeDocker(tcp=request.param == "tcp") as docker:
        yield docker


def fill(docker: FakeDocker, count: int = 2) -> None:
    docker.put("services", service("web", desired=count))
    docker.put("tasks", *(task(f"t{n}") for n in range(count)))


async def test_a_cycle_is_four_calls_of_one_version_whatever_is_there(docker: FakeDocker) -> None:
    fill(docker, 50)
    async with opened(docker.host) as source:
        assert isinstance(source, PollSource)
        assert isinstance(source, PollHints)
        assert isinstance(await source.list(), Listing)
        assert await source.list() == Confirmed()
    assert docker.calls == ["version", *(["services", "tasks", "nodes", "networks"] * 2)]
    assert docker.targets[0] == "/version"
    assert all(target.startswith("/v1.41/") for target in docker.targets[1:])
    filters = [json.loads(parse_qs(urlsplit(target).query).get("filters", ["null"])[0]) for target in docker.targets[1:5]]
    assert filters == [None, {"desired-state": ["running", "shutdown", "remove"]}, None, {"scope": ["swarm"]}]


async def test_a_missing_service_is_asked_about_and_gone_when_it_is_not_found(docker: FakeDocker) -> None:
    fill(docker)
    docker.put("services", service("api"))
    async with opened(docker.host) as source:
        await source.list()
        del docker.services["api"]
        observation = await source.list()
        assert isinstance(observation, Listing)
        assert (observation.gone, observation.unchanged) == (("api",), ("web",))
        assert await source.list() == Confirmed()
    assert docker.calls.count("service") == 1


async def test_a_missing_service_that_is_there_is_unknown(docker: FakeDocker) -> None:
    fill(docker)
    async with opened(docker.host) as source:
        await source.list()
        hidden = docker.services.pop("web")
        docker.before = lambda call: docker.put("services", hidden) if call == "service" else None
        observation = await source.list()
        assert isinstance(observation, Listing)
        assert (set(observation.unknown), observation.gone) == ({"web"}, ())


async def test_a_manager_that_answers_empty_costs_few_calls_and_nothing_at_once(docker: FakeDocker) -> None:
    docker.put("services", *(service(f"s{n}") for n in range(40)))
    async with opened(docker.host) as source:
        await source.list()
        docker.services.clear()
        observation = await source.list()
        assert isinstance(observation, Listing)
        assert len(observation.gone) == source_module.CHECKS
        assert len(observation.unknown) == 40 - source_module.CHECKS


async def test_a_remove_event_spares_the_question(docker: FakeDocker) -> None:
    fill(docker)
    docker.put("services", service("api", desired=0))
    async with opened(docker.host) as source, hinted(source) as hints:
        await source.list()
        assert await hints() == 0.0
        await source.list()
        del docker.services["api"]
        docker.emit("service", "remove", "api")
        docker.emit("service", "remove", "unheard-of")
        assert await hints() == DEBOUNCE
        observation = await source.list()
        assert isinstance(observation, Listing)
        assert observation.gone == ("api",)
    assert "service" not in docker.calls


# -- hints


@contextlib.asynccontextmanager
async def hinted(source: Any) -> AsyncGenerator[Callable[[], Any], None]:
    """The next hint, within 5 s."""
    generator = source.hints()
    async with contextlib.aclosing(generator):
        yield lambda: asyncio.wait_for(anext(generator), 5.0)


async def test_events_bring_a_list_forward_once_for_a_burst(docker: FakeDocker) -> None:
    fill(docker)
    docker.put("services", service("web", desired=2))
    async with opened(docker.host) as source, hinted(source) as hints:
        await source.list()
        assert await hints() == 0.0
        await source.list()
        for type_ in ("service", "node", "network"):
            docker.emit(type_, "update", "x")
        assert await hints() == DEBOUNCE
        docker.send(b"not JSON\n")
        assert await hints() == DEBOUNCE
    target = next(target for target in docker.targets if "/events" in target)
    filters = json.loads(parse_qs(urlsplit(target).query)["filters"][0])
    assert filters == {"scope": ["swarm"], "type": ["service", "node", "network"]}


async def test_an_idle_stream_asks_for_nothing(docker: FakeDocker) -> None:
    fill(docker)
    async with opened(docker.host) as source, hinted(source) as hints:
        await source.list()
        assert await hints() == 0.0
        await source.list()
        waiting = asyncio.ensure_future(hints())
        await asyncio.sleep(0.3)
        assert not waiting.done()
        docker.emit("node", "update", "n1")
        assert await waiting == DEBOUNCE


async def test_what_is_under_way_asks_for_a_list_each_second(docker: FakeDocker) -> None:
    fill(docker)
    docker.put("tasks", task("t1", state="starting"))
    async with opened(docker.host) as source, hinted(source) as hints:
        await source.list()
        assert await hints() == UNSETTLED
        assert await hints() == 0.0
        await source.list()
        assert await hints() == UNSETTLED
        docker.put("tasks", task("t1"))
        await source.list()
        docker.emit("service", "update", "web")
        assert await hints() == DEBOUNCE


@pytest.mark.parametrize("way", ["end", "refuse"])
async def test_hints_raise_when_the_stream_ends_and_can_be_opened_again(docker: FakeDocker, way: str) -> None:
    fill(docker)
    async with opened(docker.host) as source:
        await source.list()
        async with hinted(source) as hints:
            assert await hints() == 0.0
            await asyncio.to_thread(docker.end_streams if way == "end" else docker.refuse)
            with pytest.raises(TransientError):
                await hints()
        if way == "refuse":
            docker.accept()
        async with hinted(source) as hints:
            assert await hints() == 0.0


async def test_closing_the_hints_closes_the_stream_and_its_thread(docker: FakeDocker) -> None:
    fill(docker)
    async with opened(docker.host) as source:
        await source.list()
        async with hinted(source) as hints:
            assert await hints() == 0.0
            assert docker.streams == 1

        def closed() -> bool:
            docker.emit("node", "update", "n1")  # the fake notices by writing
            return docker.streams == 0

        await until(closed)


# -- several managers


async def test_a_manager_that_refuses_or_is_none_is_passed_over_in_the_same_cycle() -> None:
    with FakeDocker() as worker, FakeDocker(tcp=True) as manager:
        fill(manager)
        worker.fail("services", "503", times=1000)
        async with opened("tcp://127.0.0.1:1", "unix:///nowhere/docker.sock", worker.host, manager.host) as source:
            assert isinstance(await source.list(), Listing)
            assert worker.calls == ["version", "services"]
            assert await source.list() == Confirmed()
            assert worker.calls == ["version", "services"]  # the one that answered is asked first


@pytest.mark.parametrize("call", ["services", "tasks", "nodes", "networks"])
async def test_what_two_managers_say_is_never_mixed(call: str) -> None:
    with FakeDocker() as first, FakeDocker() as second:
        first.put("services", service("web", labels={"envbridge.tags": "first"}))
        second.put("services", service("web", labels={"envbridge.tags": "second"}))
        for docker in (first, second):
            docker.put("tasks", task("t1"))
        async with opened(first.host, second.host) as source:
            first.fail(call, "503")
            observation = await source.list()
        assert isinstance(observation, Listing)
        assert [instance.tags for group in observation.groups for instance in group.instances] == [("second",)]


async def test_a_manager_of_another_swarm_is_never_believed() -> None:
    with FakeDocker() as ours, FakeDocker() as theirs:
        fill(ours)
        theirs.nodes = {"other": node("other")}
        async with opened(ours.host, theirs.host) as source:
            await source.list()
            ours.fail("services", "503")
            with pytest.raises(TransientError, match="none of the nodes"):
                await source.list()
            assert await source.list() == Confirmed()


async def test_hints_follow_the_manager_that_answers() -> None:
    with FakeDocker() as first, FakeDocker() as second:
        for docker in (first, second):
            fill(docker)
        async with opened(first.host, second.host) as source:
            await source.list()
            async with hinted(source) as hints:
                assert await hints() == 0.0
                first.fail("tasks", "500")
                await source.list()
                with pytest.raises(StopAsyncIteration):
                    await hints()
            async with hinted(source) as hints:
                assert await hints() == 0.0
            assert second.streams + second.calls.count("events") >= 1


async def test_all_managers_failing_is_told_of_each() -> None:
    with FakeDocker() as first, FakeDocker() as second:
        first.retry_after = second.retry_after = "7"
        async with opened(first.host, second.host) as source:
            first.fail("services", "403")
            second.fail("tasks", "429")
            with pytest.raises(TransientError) as failure:
                await source.list()
            assert failure.value.retry_after == 7.0
            assert first.host in str(failure.value)
            assert second.host in str(failure.value)
            first.fail("services", "403")
            second.fail("tasks", "401")
            with pytest.raises(ForbiddenError):
                await source.list()


async def test_a_hanging_manager_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "CYCLE_SECONDS", 1.0)
    with FakeDocker() as first, FakeDocker() as second:
        fill(second)
        first.fail("tasks", "hang")
        async with opened(first.host, second.host) as source:
            assert shown(await source.list())["web"] == {"t0", "t1"}


# -- timeliness


async def test_two_thousand_tasks_are_listed_well_within_a_second() -> None:
    with FakeDocker() as docker:
        docker.put("services", *(service(f"s{n}", desired=10) for n in range(200)))
        docker.put("tasks", *(task(f"t{n}", f"s{n % 200}") for n in range(2000)))
        async with opened(docker.host) as source:
            await source.list()
            docker.put("tasks", task("t7", "s7", state="failed"))
            began = time.perf_counter()
            observation = await source.list()
            assert time.perf_counter() - began < 1.0
            assert isinstance(observation, Listing)
            assert observation.gone == ("t7",)
            assert len(observation.unchanged) == 199


# -- configuration


def test_defaults_are_those_of_the_contract() -> None:
    config = DockerSwarmConfig(type="docker_swarm")
    assert (config.hosts, config.publish, config.network) == (("unix:///var/run/docker.sock",), "host", None)
    assert (config.refresh, config.label_prefix, config.tls, config.silence) == (5.0, "envbridge.", None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hosts": []},
        {"hosts": ["/var/run/docker.sock"]},
        {"hosts": ["tcp://manager"]},
        {"hosts": ["tcp://user:secret@manager:2376"]},
        {"hosts": ["ssh://manager:22"]},
        {"hosts": ["tcp://manager:2376/path"]},
        {"publish": "pod"},
        {"network": ""},
        {"label_prefix": ""},
        {"refresh": "0s"},
        {"tls": {"cert_file": "cert.pem"}},
        {"tls": {"verify": False}},
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DockerSwarmConfig.model_validate({"type": "docker_swarm", **wrong})


async def test_a_certificate_that_is_not_there_is_a_transient_error(tmp_path: Path) -> None:
    tls = {"ca_file": str(tmp_path / "ca.pem"), "cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    config = DockerSwarmConfig.model_validate({"type": "docker_swarm", "hosts": ["tcp://192.0.2.1:2376"], "tls": tls})
    with pytest.raises(TransientError):
        async with config.open(context()):
            pass


async def test_the_surroundings_say_nothing_about_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with FakeDocker(tcp=True) as docker:
        fill(docker)
        async with opened(docker.host) as source:
            assert isinstance(await source.list(), Listing)
        async with opened("tcp://192.0.2.1:2375", proxy=docker.host.replace("tcp", "http")) as source:
            with contextlib.suppress(TransientError):  # the fake is no proxy, but it was asked
                await source.list()
        assert any(target.startswith("http://192.0.2.1:2375/") for target in docker.targets)


def test_the_example_is_valid() -> None:
    example = Path(__file__).parents[3] / "config" / "examples" / "docker_swarm.yaml"
    sources = yaml.safe_load(example.read_text())["sources"]
    for given in sources.values():
        DockerSwarmConfig.model_validate(given)


async def test_labels_that_are_not_understood_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with FakeDocker() as docker:
        docker.put("services", service("web", labels={"envbridge.weight": "heavy"}))
        async with opened(docker.host) as source:
            for desired in range(3):
                docker.put("services", service("web", labels={"envbridge.weight": "heavy"}, desired=desired))
                await source.list()
    assert len([record for record in caplog.records if "heavy" in record.getMessage()]) == 1
