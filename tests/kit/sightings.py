"""How soon a reader has what a backend shows: who saw which state of an instance, and when.

An observer is a thread that writes down each change of state of each instance with the time it learnt of it. One of them
watches the backend's own API (the truth), the others are readers of the bridge; `tests.kit.latency` compares them. All times
are seconds of this process's monotonic clock.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from tests.kit.daemon import EVERYTHING, Daemon, ask, events_of, target
from tests.kit.servers.dockerd import Swarm
from tests.kit.servers.kubernetes import KubeCluster

ABSENT = "absent"
READY = "ready active"
UNREADY = "unready active"
DRAINING = "ready draining"

_TASK_POLL = 0.02


class Sighting(NamedTuple):
    """An instance came into a state, which was learnt at ``at``."""

    state: str
    at: float


class Sightings:
    """What one observer saw, by instance id. Safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: BaseException | None = None
        self._states: dict[str, str] = {}
        self._history: defaultdict[str, list[Sighting]] = defaultdict(list)
        self._changed = threading.Condition()

    def see(self, states: Mapping[str, str], at: float) -> None:
        """Take in the states of all instances there are; what is not among them is absent."""
        with self._changed:
            for id_ in [*states, *(self._states.keys() - states.keys())]:
                state = states.get(id_, ABSENT)
                if self._states.get(id_, ABSENT) != state:
                    self._history[id_].append(Sighting(state, at))
            self._states = dict(states)
            self._changed.notify_all()

    def see_one(self, id_: str, state: str, at: float) -> None:
        """Take in the state of one instance, the others being as they were."""
        others = {known: seen for known, seen in self.states.items() if known != id_}
        self.see(others if state == ABSENT else others | {id_: state}, at)

    @property
    def states(self) -> dict[str, str]:
        """The states as they were last seen."""
        with self._changed:
            return dict(self._states)

    def history(self, since: float) -> dict[str, list[Sighting]]:
        """What was seen from a time on, by instance id."""
        with self._changed:
            found = {id_: [item for item in items if item.at >= since] for id_, items in self._history.items()}
        return {id_: items for id_, items in found.items() if items}

    def wait(self, holds: Callable[[dict[str, str]], bool], timeout: float, what: str = "") -> None:
        """Wait until something holds of the states. Raises TimeoutError, or what ended the observer."""
        with self._changed:
            there = self._changed.wait_for(lambda: self.error is not None or holds(self._states), timeout)
            if self.error is not None:
                raise AssertionError(f"{self.name} ended") from self.error
            if not there:
                raise TimeoutError(f"{self.name}: not within {timeout:g} s: {what} (states: {self._states})")

    @property
    def ended(self) -> list[str]:
        """The id of an instance for each time that it went away."""
        with self._changed:
            return [id_ for id_, items in self._history.items() for item in items if item.state == ABSENT]

    def fail(self, error: BaseException) -> None:
        """The observer ended by itself."""
        with self._changed:
            self.error = error
            self._changed.notify_all()


class Observer(ABC):
    """A thread that fills `seen` while the context lasts."""

    def __init__(self, name: str) -> None:
        self.seen = Sightings(name)
        self._socket: socket.socket | None = None
        self._ending = threading.Event()
        self._began = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._began.wait(20.0), f"{self.seen.name} has nothing within 20 s: {self.seen.error!r}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                # Not the TLS socket's own: that would take the session from under the reading thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        self._thread.join(10.0)

    def see(self, states: Mapping[str, str], at: float) -> None:
        """Write down, and let the context begin."""
        self.seen.see(states, at)
        self._began.set()

    def opened(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        """Connect; the end of the context will interrupt it."""
        connection.connect()
        self._socket = connection.sock
        return connection

    @abstractmethod
    def observe(self) -> None:
        """Observe until `_ending` is set or the connection ends."""

    def _run(self) -> None:
        try:
            self.observe()
            if not self._ending.is_set():
                raise EOFError("the connection ended")
        except BaseException as error:  # noqa: BLE001  # told to whoever waits
            if not self._ending.is_set():
                self.seen.fail(error)
                self._began.set()


def states_of(instances: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The states in an answer's instances, by id."""
    return {item["id"]: f"{item['health']} {item['lifecycle']}" for item in instances}


class BlockedReader(Observer):
    """Blocks on a list of instances: a GET with a cursor, one after another on one connection."""

    def __init__(self, daemon: Daemon, path: str, **params: Any) -> None:
        super().__init__(f"blocked reader of {path}")
        self._daemon, self._path, self._params = daemon, path, {**EVERYTHING, **params}

    def observe(self) -> None:
        connection = self.opened(http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=60.0))
        try:
            after: dict[str, str] = {}
            while not self._ending.is_set():
                reply = ask(connection, target(self._path, {**self._params, **after}))
                at = time.monotonic()
                if reply.status == 200:
                    self.see(states_of(reply.body["instances"]), at)
                elif reply.status != 304:
                    assert reply.status in (404, 503), reply
                    self.see({}, at)
                assert not after or "envbridge-reset" not in reply.headers, reply.headers
                after = {"after": reply.cursor, "wait": "30s"}
        finally:
            connection.close()


class StreamReader(Observer):
    """Follows a list of instances as Server-Sent Events."""

    def __init__(self, daemon: Daemon, path: str, **params: Any) -> None:
        super().__init__(f"stream reader of {path}")
        self._daemon, self._target = daemon, target(path, {**EVERYTHING, **params})

    def observe(self) -> None:
        connection = self.opened(http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=30.0))
        present: dict[str, str] = {}
        snapshot: dict[str, str] = {}
        try:
            connection.request("GET", self._target, headers={"Accept": "text/event-stream"})
            with connection.getresponse() as response:
                assert response.status == 200, response.status
                for event in events_of(response):
                    at = time.monotonic()
                    assert event.type != "reset", "a reset for a reader that keeps up"
                    if event.type == "snapshot":
                        snapshot |= states_of(event.data["instances"])
                        if event.data.get("complete"):
                            present = snapshot
                            self.see(present, at)
                    elif event.type == "change":
                        present |= states_of([*event.data["added"], *event.data["updated"]])
                        for ref in event.data["removed"]:
                            present.pop(ref.split("/", 2)[2], None)
                        self.see(present, at)
        finally:
            connection.close()


class SliceWatch(Observer):
    """The API server's own watch of the EndpointSlices of a namespace: the truth about Kubernetes."""

    def __init__(self, kube: KubeCluster, namespace: str) -> None:
        super().__init__(f"watch of {namespace}")
        self._kube, self._path = kube, f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self._slices: dict[str, dict[str, str]] = {}

    def observe(self) -> None:
        listed = self._kube.api("GET", self._path)
        for item in listed["items"]:
            self._put(item)
        self._tell(time.monotonic())
        version = listed["metadata"]["resourceVersion"]
        connection = self.opened(
            http.client.HTTPSConnection(
                "127.0.0.1",
                int(self._kube.url.rpartition(":")[2]),
                timeout=1800.0,
                context=ssl.create_default_context(cafile=self._kube.ca_file),
            )
        )
        try:
            authorization = {"Authorization": f"Bearer {self._kube.token()}"}
            connection.request("GET", f"{self._path}?watch=1&resourceVersion={version}", headers=authorization)
            with connection.getresponse() as response:
                assert response.status == 200, response.status
                while line := response.readline():
                    at = time.monotonic()
                    event = json.loads(line)
                    assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
                    self._put(event["object"], deleted=event["type"] == "DELETED")
                    self._tell(at)
        finally:
            connection.close()

    def _put(self, item: dict[str, Any], *, deleted: bool = False) -> None:
        meta = item["metadata"]
        prefix = f"{meta['namespace']}/{meta['labels']['kubernetes.io/service-name']}"
        endpoints = [] if deleted else item.get("endpoints") or []
        self._slices[meta["name"]] = {f"{prefix}/{self._own(each)}": self._state(each["conditions"]) for each in endpoints}

    def _tell(self, at: float) -> None:
        self.see({id_: state for states in self._slices.values() for id_, state in states.items()}, at)

    @staticmethod
    def _own(endpoint: dict[str, Any]) -> str:
        return str((endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0])

    @staticmethod
    def _state(conditions: dict[str, bool]) -> str:
        if conditions.get("terminating"):
            return DRAINING if conditions.get("serving") else "unready draining"
        return READY if conditions.get("ready", True) else UNREADY


class TaskPoll(Observer):
    """A tight poll of a Swarm manager's `/tasks` of some services: the truth about Swarm.

    The time is that of asking: what an answer shows first may have been there since.
    """

    def __init__(self, swarm: Swarm, services: Sequence[str]) -> None:
        super().__init__("poll of /tasks")
        self._swarm, self._path = swarm, f"/tasks?filters={quote(json.dumps({'service': list(services)}))}"

    def observe(self) -> None:
        while not self._ending.is_set():
            at = time.monotonic()
            tasks = self._swarm.api("GET", self._path)
            running = [task for task in tasks if task["Status"]["State"] == "running"]
            self.see({task["ID"]: READY if task["DesiredState"] == "running" else DRAINING for task in running}, at)
            self._ending.wait(_TASK_POLL)
