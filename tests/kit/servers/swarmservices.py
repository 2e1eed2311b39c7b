"""Swarm services, tasks and networks for tests."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .dockerhttp import DockerError
from .dockerimage import NAME
from .process import wait_for

Object = dict[str, Any]
# The defaults of the command line wait 5 s after each task of an update, and 5 s before a task is started again.
_QUICK = ("--update-monitor=300ms", "--rollback-monitor=300ms", "--restart-delay=200ms", "--stop-grace-period=10s")
_SETTLED = (None, "completed", "rollback_completed", "paused", "rollback_paused")


class SwarmServices(ABC):
    """The helpers; waiting ones raise TimeoutError, all raise DockerError when the Engine refuses."""

    image: str

    @abstractmethod
    def docker(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run the docker command line."""

    @abstractmethod
    def api(self, method: str, path: str, body: Any = None, timeout: float = 10.0) -> Any:
        """One raw call of the Engine."""

    def network(self, name: str, *arguments: str) -> str:
        """Make an overlay network that containers may join too; its id."""
        return self.docker("network", "create", "--driver=overlay", "--attachable", *arguments, name)

    def remove_network(self, name: str, timeout: float = 20.0) -> None:
        """Remove a network, as soon as the tasks that used it have ended."""
        self._until(f"the removal of the network {name}", lambda: self.docker("network", "rm", name), timeout)

    def create_service(
        self,
        name: str,
        *arguments: str,
        image: str | None = None,
        replicas: int | None = 1,
        port: int = 8080,
        publish: Sequence[str] = (),
        networks: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        health: bool = False,
        wait: bool = True,
        timeout: float = 30.0,
    ) -> str:
        """Make a service of the test image and return its id.

        `arguments` are further ones of `docker service create`; `replicas` None means a global service; the program
        listens on `port`; `publish` holds texts like "mode=host,target=8080,published=18080"; `health` takes the image
        with a HEALTHCHECK. `wait`: until the tasks run (with a HEALTHCHECK: are healthy).
        """
        command = ["service", "create", "--detach", "--quiet", "--no-resolve-image", f"--name={name}", *_QUICK]
        command += ["--mode=global"] if replicas is None else [f"--replicas={replicas}"]
        command += [f"--publish={item}" for item in publish] + [f"--network={item}" for item in networks]
        command += [f"--env={key}={value}" for key, value in {"PORT": str(port), **(env or {})}.items()]
        command += [f"--label={key}={value}" for key, value in (labels or {}).items()]
        made = self.docker(*command, *arguments, image or (f"{NAME}:health" if health else self.image))
        if wait:
            self.wait_running(name, 1 if replicas is None else replicas, timeout)
        return made

    def update_service(self, name: str, *arguments: str, wait: bool = True, timeout: float = 60.0) -> None:
        """`docker service update` with the arguments ("--image=envbridge-test:2", "--env-add=A=1", "--force")."""
        self.docker("service", "update", "--detach", "--quiet", "--no-resolve-image", *arguments, name)
        if wait:
            self.wait_settled(name, timeout)

    def rollback_service(self, name: str, wait: bool = True, timeout: float = 60.0) -> None:
        """Go back to the specification before the last update."""
        self.docker("service", "rollback", "--detach", "--quiet", name)
        if wait:
            self.wait_settled(name, timeout)

    def scale_service(self, name: str, replicas: int, wait: bool = True, timeout: float = 60.0) -> None:
        """Change the number of replicas."""
        self.docker("service", "scale", "--detach", f"{name}={replicas}")
        if wait:
            self.wait_settled(name, timeout)

    def remove_service(self, name: str, wait: bool = True, timeout: float = 30.0) -> None:
        """Remove a service; `wait`: until its tasks are gone from the API. One that is not there is no error."""
        try:
            found = self.service(name)["ID"]
        except DockerError as error:
            if error.status == 404:
                return
            raise
        self.docker("service", "rm", name)
        if wait:
            wait_for(f"the end of {name}'s tasks", lambda: not self._living_tasks(found), timeout, 0.05)

    def service(self, name: str) -> Object:
        """The service as the API shows it, `ServiceStatus` included; raises DockerError with status 404."""
        found: Object = self.api("GET", f"/services/{quote(name)}")
        return found

    def tasks(self, name: str, desired: str | None = "running", state: str | None = "running") -> list[Object]:
        """A service's tasks by desired and present state (None: any)."""
        listed = self._tasks({"service": [name]} | ({"desired-state": [desired]} if desired else {}))
        return [task for task in listed if state in (None, task["Status"]["State"])]

    def wait_running(self, name: str, count: int, timeout: float = 30.0) -> list[Object]:
        """Wait until exactly `count` tasks run and are to run."""
        tasks: list[Object] = []

        def there() -> bool:
            tasks[:] = self.tasks(name)
            return len(tasks) == count

        try:
            wait_for(f"{count} running tasks of {name}", there, timeout, 0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; tasks: {self._summary(name)}") from error
        return tasks

    def wait_settled(self, name: str, timeout: float = 60.0) -> list[Object]:
        """Wait until no update is under way and all wanted tasks run by the present specification."""
        tasks: list[Object] = []

        def settled() -> bool:
            service = self.service(name)
            spec = service["Spec"]
            tasks[:] = self.tasks(name)
            wanted = spec["Mode"].get("Replicated", {}).get("Replicas", 1)
            template = spec["TaskTemplate"]
            parts = ("ContainerSpec", "ForceUpdate")
            same = all(task["Spec"].get(part) == template.get(part) for task in tasks for part in parts)
            return (service.get("UpdateStatus") or {}).get("State") in _SETTLED and same and len(tasks) == wanted

        try:
            wait_for(f"{name} settled", settled, timeout, 0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; tasks: {self._summary(name)}") from error
        return tasks

    def node(self) -> Object:
        """The only node of the Swarm."""
        found: Object = self.api("GET", "/nodes")[0]
        return found

    def update_node(self, *arguments: str) -> None:
        """`docker node update` with the arguments ("--availability=drain", "--label-add=zone=a")."""
        self.docker("node", "update", *arguments, self.node()["ID"])

    def reset(self, timeout: float = 60.0) -> None:
        """Remove all services and all networks of the tests; the node is active again."""
        if self.node()["Spec"]["Availability"] != "active":
            self.update_node("--availability=active")
        for service in self.api("GET", "/services"):
            self.remove_service(service["Spec"]["Name"], timeout=timeout)
        for network in self.api("GET", f"/networks?filters={quote(json.dumps({'scope': ['swarm']}))}"):
            if not network.get("Ingress"):
                self.remove_network(network["Name"], timeout)

    def _tasks(self, filters: Mapping[str, Sequence[str]]) -> list[Object]:
        listed: list[Object] = self.api("GET", f"/tasks?filters={quote(json.dumps(filters))}")
        return listed

    def _living_tasks(self, service_id: str) -> list[Object]:
        ended = ("complete", "shutdown", "failed", "rejected", "remove", "orphaned")
        tasks = [task for task in self.api("GET", "/tasks") if task["ServiceID"] == service_id]
        return [task for task in tasks if task["Status"]["State"] not in ended]

    def _summary(self, name: str) -> list[str]:
        tasks = self.tasks(name, desired=None, state=None)
        return [f"{t['DesiredState']}/{t['Status']['State']} {t['Status'].get('Err', '')}" for t in tasks]

    @staticmethod
    def _until(what: str, action: Callable[[], object], timeout: float) -> None:
        def done() -> bool:
            try:
                action()
            except DockerError as error:
                return "not found" in error.message.lower()
            return True

        wait_for(what, done, timeout, 0.1)
