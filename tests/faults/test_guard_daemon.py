"""The guard, retirement and renaming from outside: what is merely absent is held, shown, and obeyed in time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.background import Background
from tests.kit.daemon import EVERYTHING, Daemon
from tests.kit.fakes import dockerobjects, kubeobjects
from tests.kit.fakes.cloud_map import FakeCloudMap
from tests.kit.fakes.docker import FakeDocker
from tests.kit.fakes.kubernetes import FakeKubernetes
from tests.kit.readers import Blocker, Follower, Poller, Reader
from tests.kit.servers.process import wait_for

PODS = 12
LOST = 8
SOON = 60.0
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
Config = dict[str, Any]


class Backend:
    """A backend that can lose instances without saying so. config: of its source; ids: in the order in which they are lost."""

    config: Config
    ids: list[str]

    def lose(self, count: int) -> None:
        """The first ``count`` are no longer in any list."""
        raise NotImplementedError

    def return_(self) -> None:
        """All are there again."""
        raise NotImplementedError


class Kubernetes(Backend):
    """A cluster whose slices vanish unseen; a new list is due every second."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._loop = stack.enter_context(Background())
        self._loop.call(self._fill)
        self._loop.run(self._api.accept())
        stack.callback(lambda: self._loop.run(self._api.refuse()))
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(self._api.kubeconfig())
        self.config = {"type": "kubernetes", "kubeconfig": str(kubeconfig), "refresh": "1s"}
        self.ids = [f"shop/web/uid-p{number}" for number in range(PODS)]

    def _fill(self) -> None:
        self._api = FakeKubernetes()
        self._api.put("services", kubeobjects.service("web"))
        self._api.put("endpointslices", *(self._slice(number) for number in range(PODS)))

    @staticmethod
    def _slice(number: int) -> Config:
        return kubeobjects.endpointslice(f"web-{number}", "web", [kubeobjects.endpoint(f"10.0.0.{number}", f"p{number}")])

    def lose(self, count: int) -> None:
        for number in range(count):
            self._loop.call(self._api.lose, "endpointslices", f"web-{number}")

    def return_(self) -> None:
        for number in range(PODS):
            self._loop.call(self._api.put, "endpointslices", self._slice(number))


class Docker(Backend):
    """A Swarm whose lists lack tasks, though it wants them."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._docker = stack.enter_context(FakeDocker())
        self._docker.put("services", dockerobjects.service("web", desired=PODS))
        self.return_()
        self.config = {"type": "docker_swarm", "hosts": [self._docker.host], "refresh": "500ms"}
        self.ids = [f"t{number}" for number in range(PODS)]

    def lose(self, count: int) -> None:
        for id_ in self.ids[:count]:
            del self._docker.tasks[id_]

    def return_(self) -> None:
        port = dockerobjects.port(80, 8080, mode="host")
        self._docker.put("tasks", *(dockerobjects.task(f"t{number}", ports=[port]) for number in range(PODS)))


class CloudMap(Backend):
    """A namespace whose instances are deregistered: Cloud Map says it by leaving them out."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._cloud = stack.enter_context(FakeCloudMap())
        self._service = self._cloud.service(self._cloud.namespace("shop.local"), "web")
        self.return_()
        self.config = {"type": "cloud_map", "region": "eu-west-1", "endpoint_url": self._cloud.url, "refresh": "500ms"}
        self.ids = [f"{self._service}/i{number}" for number in range(PODS)]

    def lose(self, count: int) -> None:
        for number in range(count):
            self._cloud.deregister(self._service, f"i{number}")

    def return_(self) -> None:
        for number in range(PODS):
            self._cloud.register(self._service, f"i{number}", f"10.0.0.{number}")


class File(Backend):
    """A file; only what leaves none of it is held."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._file = folder / "web.json"
        self.return_()
        self.config = {"type": "file", "paths": [str(self._file)], "refresh": "500ms"}
        self.ids = [f"shop/web/i{number}" for number in range(PODS)]

    def _write(self, first: int) -> None:
        instances = [{"id": f"i{number}", "address": f"10.0.0.{number}"} for number in range(first, PODS)]
        written = self._file.with_suffix(".new")
        written.write_text(json.dumps({"services": [{"name": "web", "namespace": "shop", "instances": instances}]}))
        written.replace(self._file)

    def lose(self, count: int) -> None:
        self._write(count)

    def return_(self) -> None:
        self._write(0)


BACKENDS: dict[str, Callable[[ExitStack, Path], Backend]] = {
    "kubernetes": Kubernetes,
    "docker_swarm": Docker,
    "cloud_map": CloudMap,
    "file": File,
}


class World:
    """A daemon with the one source ``s``, and readers that must lose nothing but what they may."""

    def __init__(self, backend: Backend, daemon: Daemon, stack: ExitStack) -> None:
        self.backend, self.daemon = backend, daemon
        readers = (Follower(daemon), Blocker(daemon), Poller(daemon))
        self.readers: list[Reader] = [stack.enter_context(reader) for reader in readers]

    def refs(self, ids: Iterable[str], source: str = "s") -> set[str]:
        """Their refs."""
        return {f"test/{source}/{id_}" for id_ in ids}

    def wait_instances(self, ids: list[str], source: str = "s", timeout: float = SOON) -> None:
        """Wait until exactly these are listed."""
        want = self.refs(ids, source)
        wait_for("the instances", lambda: self.daemon.instances(**EVERYTHING).keys() == want, timeout, 0.05)

    def row(self, name: str = "s") -> Config:
        """A source's row of `/v1/environments`."""
        rows = {row["name"]: row for row in self.daemon.get("/v1/environments").body[0]["sources"]}
        return dict(rows[name])

    def check(self, ended: Iterable[str] = ()) -> None:
        """No reader lost anything else."""
        for reader in self.readers:
            reader.check(self.refs(ended))


@contextmanager
def world(type_: str, folder: Path, **keys: Any) -> Iterator[World]:
    """The daemon on a backend of that type, synced."""
    with ExitStack() as stack:
        backend = BACKENDS[type_](stack, folder)
        config = {"sources": {"s": {**backend.config, **keys}}}
        daemon = stack.enter_context(Daemon(folder / "daemon", config, env=CREDENTIALS))
        daemon.wait_ready()
        made = World(backend, daemon, stack)
        made.wait_instances(backend.ids)
        yield made


def hold(world: World, count: int) -> None:
    """Lose that many; wait until they are held, and look at every place that has to say so."""
    backend, daemon = world.backend, world.daemon
    backend.lose(count)
    wait_for("the guard", lambda: world.row()["held"] == count, SOON, 0.05)
    row = world.row()
    assert (row["state"], row["instances"]) == ("synced", PODS)
    assert row["held_reason"]
    (shown,) = daemon.status()["holds"]
    assert (shown["source"], shown["held"], shown["reason"]) == ("s", count, row["held_reason"])
    for id_ in backend.ids:
        page = daemon.get(f"/v1/instances/test/s/{id_}")
        assert (page.status, page.body["held"]) == (200, id_ in backend.ids[:count])
    assert any(line["event"] == "guard holds removals" and line["source"] == "s" for line in daemon.log())
    world.check()


def losses(type_: str) -> int:
    """How many a type must lose for its guard to hold."""
    return PODS if type_ == "file" else LOST


@pytest.mark.parametrize("type_", BACKENDS)
def test_mass_absence_is_held_and_shown_everywhere_and_ends_when_they_return(type_: str, tmp_path: Path) -> None:
    with world(type_, tmp_path) as made:
        hold(made, losses(type_))
        made.backend.return_()
        wait_for("the end of the hold", lambda: made.row()["held"] == 0, SOON, 0.05)
        assert made.row()["held_reason"] is None
        assert made.daemon.status()["holds"] == []
        made.wait_instances(made.backend.ids)
        made.check()


@pytest.mark.parametrize("type_", BACKENDS)
def test_held_absence_is_obeyed_after_its_time_and_further_listings(type_: str, tmp_path: Path) -> None:
    with world(type_, tmp_path, guard={"for": "3s"}) as made:
        lost = losses(type_)
        hold(made, lost)
        made.wait_instances(made.backend.ids[lost:])
        assert made.row()["held"] == 0
        made.check(ended=made.backend.ids[:lost])


@pytest.mark.parametrize("type_", BACKENDS)
def test_a_guard_that_is_off_obeys_at_once(type_: str, tmp_path: Path) -> None:
    with world(type_, tmp_path, guard="off") as made:
        lost = losses(type_)
        made.backend.lose(lost)
        made.wait_instances(made.backend.ids[lost:])
        assert not any(line["event"] == "guard holds removals" for line in made.daemon.log())
        made.check(ended=made.backend.ids[:lost])


@pytest.mark.parametrize("type_", BACKENDS)
def test_a_few_that_go_are_no_mass(type_: str, tmp_path: Path) -> None:
    with world(type_, tmp_path) as made:
        made.backend.lose(2)
        made.wait_instances(made.backend.ids[2:])
        made.check(ended=made.backend.ids[:2])


def test_what_is_held_survives_a_kill_and_is_weighed_again(tmp_path: Path) -> None:
    with world("kubernetes", tmp_path) as made:
        hold(made, LOST)
        made.daemon.kill9()
        made.daemon.start()
        wait_for("the guard", lambda: made.row()["held"] == LOST, SOON, 0.05)
        made.check()


def test_a_source_taken_from_the_configuration_is_retired_and_can_come_back(tmp_path: Path) -> None:
    with world("kubernetes", tmp_path) as made:
        config = made.daemon.config
        made.daemon.reload({"sources": {}})
        wait_for("the retirement", lambda: made.row()["state"] == "retired", SOON, 0.05)
        made.wait_instances(made.backend.ids)
        assert [hold["reason"] for hold in made.daemon.status()["holds"]] == ["retired"]
        assert made.daemon.get("/v1/instances", **EVERYTHING).headers["envbridge-stale"] == "test"
        assert any(line["event"] == "source retired" and line["source"] == "s" for line in made.daemon.log())
        made.daemon.kill9()
        made.daemon.start()
        assert made.row()["state"] == "retired", "a restart behaves as a reload"
        made.wait_instances(made.backend.ids)
        made.daemon.reload(config)
        wait_for("its return", lambda: made.row()["state"] == "synced", SOON, 0.05)
        assert made.daemon.status()["holds"] == []
        made.check()


def test_a_renamed_source_hands_its_records_over_in_one_change(tmp_path: Path) -> None:
    with world("kubernetes", tmp_path) as made:
        made.daemon.reload({"sources": {"t": {**made.backend.config, "renamed_from": "s"}}})
        made.wait_instances(made.backend.ids, "t")
        rows = made.daemon.get("/v1/environments").body[0]["sources"]
        assert [row["name"] for row in rows] == ["t"]
        made.check(ended=made.backend.ids)
        for reader in made.readers:
            assert reader.thinnest == PODS
            reader.wait(made.refs(made.backend.ids, "t"))
        made.daemon.kill9()
        made.daemon.start()
        made.wait_instances(made.backend.ids, "t")


def test_a_bad_configuration_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    with world("file", tmp_path) as made:
        made.daemon.reload({"sources": {"s": {"type": "nothing of the kind"}}})
        wait_for("the refusal", lambda: any(row["event"] == "configuration refused" for row in made.daemon.log()), SOON)
        assert made.row()["state"] == "synced"
        made.wait_instances(made.backend.ids)
        made.check()
