"""Backends of every type, each with one fault to come in one of its calls: what the daemon is pointed at.

A case is one source of the configuration with a fake backend of its own, so that one daemon meets all faults at once.
"""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from tests.kit.background import Background
from tests.kit.fakes import cloud_map as fake_cloud_map
from tests.kit.fakes import docker as fake_docker
from tests.kit.fakes import dockerobjects, kubeobjects
from tests.kit.fakes import kubernetes as fake_kubernetes

FAULTS = (
    "refused",
    "reset",
    "401",
    "403",
    "404",
    "410",
    "429",
    "500",
    "503",
    "hang",
    "truncated",
    "wrong type",
    "wrong content",
)
"""wrong type: of one object, or of one value in it. wrong content: 200 with a proxy's HTML."""

DENIALS = ("401", "403")
FOR_EVER = 10**9
POLL = 0.5

Config = dict[str, Any]


class Case(ABC):
    """A source, its backend, and what goes wrong there.

    changes: how many instances were added to those it began with. late: whether it takes long to see that a rejection is over.
    asked_at_start: whether the call is one of those that a first listing makes.
    """

    type: str
    late = False
    asked_at_start = True

    def __init__(self, call: str, fault: str) -> None:
        self.call = call
        self.fault = fault
        self.changes = 0
        self.name = "-".join((self.type, *call.split(), *fault.split()))

    @abstractmethod
    def open(self, folder: Path, loop: Background) -> Config:
        """Start the backend, filled; the source's configuration. loop: where asynchronous fakes run."""

    @abstractmethod
    def close(self) -> None:
        """End the backend."""

    @abstractmethod
    def break_(self) -> None:
        """From now on the call fails so, and soon it is made."""

    @abstractmethod
    def add(self, name: str) -> None:
        """One instance more, of that name."""

    @property
    def met(self) -> bool:
        """Whether the call was made since it was broken; what a source says before may have another reason."""
        return True

    @abstractmethod
    def heal(self) -> None:
        """All is well, and nothing has changed but by `add`."""

    @property
    @abstractmethod
    def ids(self) -> set[str]:
        """Ids of the instances that it begins with."""

    @abstractmethod
    def id_of(self, name: str) -> str:
        """The id of an instance that was added."""

    def change(self) -> None:
        """One instance more."""
        self.changes += 1
        self.add(f"new{self.changes}")

    @property
    def living(self) -> set[str]:
        """Refs of all instances there, by the backend."""
        ids = self.ids | {self.id_of(f"new{number + 1}") for number in range(self.changes)}
        return {f"test/{self.name}/{id_}" for id_ in ids}

    @property
    def newest(self) -> str:
        """The ref of the instance that the last change made."""
        return f"test/{self.name}/{self.id_of(f'new{self.changes}')}"


class KubernetesCase(Case):
    """Two Services of two slices each; every list but that of Nodes takes two pages."""

    type = "kubernetes"
    calls = (
        "list nodes",
        "list services",
        "list services page 2",
        "list endpointslices",
        "list endpointslices page 2",
        "watch nodes",
        "watch services",
        "watch endpointslices",
        "stream nodes",
        "stream services",
        "stream endpointslices",
        "ask endpointslices",
    )
    ids = {f"shop/s{service}/uid-p{service}{pod}" for service in range(2) for pod in range(2)}

    def open(self, folder: Path, loop: Background) -> Config:
        self._loop = loop
        loop.call(self._make)
        self._loop.run(self._api.accept())
        kubeconfig = folder / f"{self.name}.kubeconfig"
        kubeconfig.write_text(self._api.kubeconfig())
        short = self.fault == "hang" or self.call.startswith("ask")
        deadlines = {"request_timeout": "4s", "silence": "8s"} if short else {}
        return {"kubeconfig": str(kubeconfig), "nodes": "nodes" in self.call, **deadlines}

    def close(self) -> None:
        self._loop.run(self._api.refuse())

    def _make(self) -> None:
        self._api = fake_kubernetes.FakeKubernetes(
            streaming=self.call.startswith("stream"),
            page_size=2 if "endpointslices" in self.call else 1,
            bookmark_every=60.0 if self.call.startswith("ask") else 3.0,
        )
        self._api.put("nodes", kubeobjects.node("n1"))
        for service in range(2):
            self._api.put("services", kubeobjects.service(f"s{service}"))
            for pod in range(2):
                endpoint = kubeobjects.endpoint(f"10.0.{service}.{pod}", f"p{service}{pod}")
                self._api.put("endpointslices", kubeobjects.endpointslice(f"s{service}-{pod}", f"s{service}", [endpoint]))

    def break_(self) -> None:
        kinds = {"wrong content": "html"}
        fault = kinds.get(self.fault, self.fault)
        assert fault in get_args(fake_kubernetes.Fault)
        self._api.calls.clear()
        self._loop.call(self._api.fail, self.call, fault, FOR_EVER)
        self._loop.run(self._restart())

    @property
    def met(self) -> bool:
        return any(call.name == self.call for call in list(self._api.calls))

    async def _restart(self) -> None:
        """End the watches: what follows lists and watches anew."""
        await self._api.refuse()
        await self._api.accept()

    def add(self, name: str) -> None:
        endpoint = kubeobjects.endpoint("10.0.9.9", name)
        self._loop.call(self._api.put, "endpointslices", kubeobjects.endpointslice(f"s0-{name}", "s0", [endpoint]))

    def id_of(self, name: str) -> str:
        return f"shop/s0/uid-{name}"

    def heal(self) -> None:
        self._loop.run(self._api.heal())
        self._loop.run(self._restart())


class DockerCase(Case):
    """Two services of two tasks each. A call about one service is made where that one is missing from the list."""

    type = "docker_swarm"
    calls = ("version", "services", "tasks", "nodes", "networks", "service", "events")
    ids = {f"{service}-{number}" for service in ("web", "api") for number in range(2)}

    def __init__(self, call: str, fault: str) -> None:
        super().__init__(call, fault)
        self.asked_at_start = call != "service"  # what is not known yet is not missed

    def open(self, folder: Path, loop: Background) -> Config:
        self._docker = fake_docker.FakeDocker(poll=POLL)
        for service in ("web", "api"):
            self._docker.put("services", dockerobjects.service(service, desired=2))
            self._docker.put("tasks", *(self._task(f"{service}-{n}", service) for n in range(2)))
        self._docker.accept()
        return {"hosts": [self._docker.host], "refresh": "4s"}

    def close(self) -> None:
        self._docker.__exit__(None, None, None)

    @staticmethod
    def _task(id_: str, service: str) -> dict[str, Any]:
        return dockerobjects.task(id_, service, ports=[dockerobjects.port(80, 8080, mode="host")])

    def break_(self) -> None:
        fault = self.fault
        if fault == "wrong content":
            fault = "html"
        elif fault == "wrong type" and self.call in fake_docker.LISTS:
            fault = "wrong type in one"
        assert fault in get_args(fake_docker.Fault)
        if self.call == "service":
            self._api = self._docker.services["api"]
            self._docker.before = self._leave_out
        elif self.call == "version":
            self._docker.fail("services", "500")  # after a failure the version is asked anew
        elif self.call == "events":
            self._docker.end_streams()
        self._docker.calls.clear()
        self._docker.fail(self.call, fault, FOR_EVER)  # type: ignore[arg-type]

    def _leave_out(self, call: str) -> None:
        """The list lacks a service that is there when it is asked about."""
        if call == "services":
            self._docker.services.pop("api", None)
        else:
            self._docker.services["api"] = self._api

    @property
    def met(self) -> bool:
        return self.call in list(self._docker.calls)

    def add(self, name: str) -> None:
        self._docker.put("tasks", self._task(name, "web"))
        self._docker.put("services", dockerobjects.service("web", desired=2 + self.changes))
        self._docker.emit("service", "update", "web")

    def id_of(self, name: str) -> str:
        return name

    def heal(self) -> None:
        if self.call == "service":
            self._docker.before = lambda call: None
            self._docker.services["api"] = self._api
        for call in (*fake_docker.CALLS, "service", "events"):
            self._docker.fail(call, "500")  # takes the place of the fault that stands
            self._docker.take_fault(call)
        self._docker.release()
        if self.fault == "refused":
            self._docker.refuse()
            self._docker.accept()
        self._docker.emit("service", "update", "web")


class NotingCloudMap(fake_cloud_map.FakeCloudMap):
    """Notes which operations it was asked for, whatever came of them."""

    def __init__(self) -> None:
        super().__init__(poll=POLL)
        self.noted: set[str] = set()

    def fault(self, operation: str, request: dict[str, Any]) -> str | None:
        self.noted.add(operation)
        return super().fault(operation, request)


class CloudMapCase(Case):
    """Two services of two instances. A third one that is not found any more makes the control plane be asked again."""

    type = "cloud_map"
    calls = ("ListNamespaces", "ListServices", "DiscoverInstancesRevision", "DiscoverInstances")

    def __init__(self, call: str, fault: str) -> None:
        super().__init__(call, fault)
        self.late = call.startswith("List") and fault == "wrong type"  # what is listed well is listed again a minute later
        self._ids: set[str] = set()
        self._hidden: dict[str, Any] = {}

    @property
    def ids(self) -> set[str]:
        return self._ids

    def open(self, folder: Path, loop: Background) -> Config:
        self._cloud = NotingCloudMap()
        namespace = self._cloud.namespace("shop.local")
        self._web, api, self._batch = (self._cloud.service(namespace, name, checked=True) for name in ("web", "api", "batch"))
        for service in (self._web, api, self._batch):
            for number in range(2):
                self._cloud.register(service, f"i{number}", f"10.0.0.{number}")
                self._ids.add(f"{service}/i{number}")
        self._cloud.__enter__()
        # Revisions are asked for where nothing more is due.
        often = "60s" if self.call == "DiscoverInstancesRevision" else "4s"
        keys = {"refresh": "4s", "health_refresh": often, "sweep": often}
        return {"region": "eu-west-1", "endpoint_url": self._cloud.url, **keys}

    def close(self) -> None:
        self._cloud.__exit__(None, None, None)

    def break_(self) -> None:
        fault = self.fault.replace(" ", "_")
        assert fault in fake_cloud_map.FAULTS
        self._cloud.noted.clear()
        self._cloud.break_call(self.call, fault)
        if self.call.startswith("List"):
            self._hidden = {self._batch: self._cloud.services.pop(self._batch)}

    @property
    def met(self) -> bool:
        return self.call in self._cloud.noted

    def add(self, name: str) -> None:
        self._cloud.register(self._web, name, "10.0.0.9")

    def id_of(self, name: str) -> str:
        return f"{self._web}/{name}"

    def heal(self) -> None:
        self._cloud.services |= self._hidden
        self._cloud.mend()


class FileCase(Case):
    """A file of four instances. A call is what is done to it, or to the folder it is in."""

    type = "file"
    breaks = {
        "gone": "the file",
        "cut off": "the file",
        "HTML": "the file",
        "a folder": "the file",
        "a loop of links": "the file",
        "empty": "the file",
        "binary": "the file",
        "a list": "the file",
        "wrong type at the top": "the file",
        "wrong type in one": "the file",
        "gone with its folder": "the folder",
    }
    ids = {f"shop/web/i{number}" for number in range(4)}

    def __init__(self, fault: str) -> None:
        super().__init__("read", fault)
        self._instances = [{"id": f"i{n}", "address": f"10.0.0.{n}", "ports": {"http": 80}} for n in range(4)]

    def open(self, folder: Path, loop: Background) -> Config:
        self._file = folder / self.name / "shop.json"
        self._write()
        return {"paths": [str(self._file)], "refresh": "1s"}

    def close(self) -> None:
        """There is nothing to end."""

    def _write(self, text: str | None = None) -> None:
        self._file.parent.mkdir(exist_ok=True)
        written = self._file.with_suffix(".new")
        written.write_text(text if text is not None else self._document(self._instances))
        written.replace(self._file)

    @staticmethod
    def _document(instances: object) -> str:
        return json.dumps({"services": [{"name": "web", "namespace": "shop", "instances": instances}]})

    def break_(self) -> None:
        match self.fault:
            case "gone":
                self._file.unlink()
            case "cut off":
                self._write(self._document(self._instances)[:-30])
            case "HTML":
                self._write("<html>Sign in</html>")
            case "a folder":
                self._file.unlink()
                self._file.mkdir()
            case "a loop of links":
                self._file.unlink()
                self._file.symlink_to(self._file)
            case "empty":
                self._write("")
            case "binary":
                self._file.write_bytes(bytes(range(256)))
            case "a list":
                self._write("[]")
            case "wrong type at the top":
                self._write('{"services": 9}')
            case "wrong type in one":
                self._write(self._document([{**self._instances[0], "address": 9}, *self._instances[1:]]))
            case _:
                shutil.rmtree(self._file.parent)

    def add(self, name: str) -> None:
        """Written when it heals: a broken file cannot say it."""
        self._instances.append({"id": name, "address": "10.0.0.9", "ports": {"http": 80}})

    def id_of(self, name: str) -> str:
        return f"shop/web/{name}"

    def heal(self) -> None:
        if self._file.is_dir():
            self._file.rmdir()
        self._write()


def every_case() -> Iterator[Case]:
    """Each call of each adapter with each fault."""
    for fault in FAULTS:
        yield from (KubernetesCase(call, fault) for call in KubernetesCase.calls)
        yield from (DockerCase(call, fault) for call in DockerCase.calls)
        yield from (CloudMapCase(call, fault) for call in CloudMapCase.calls)
    yield from (FileCase(fault) for fault in FileCase.breaks)
