"""The daemon as a child process, and readers of its API that share no code with it.

    with Daemon(tmp_path, {"sources": {"shop": {"type": "file", "paths": ["shop.yaml"]}}}) as daemon:
        daemon.wait_ready()
        assert daemon.instances(health="any")

All times are in seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from tests.kit.servers.process import ServerProcess, free_port, wait_for

Object = dict[str, Any]

EVERYTHING: Mapping[str, Any] = {"health": "any", "lifecycle": "any", "state": "any"}
"""Filters that hide no instance."""

_COMMAND = ("-c", "from bridge.cli import main; main()")
_READ_TIMEOUT = 20.0
_SILENCE = 30.0
"""Three bookmarks of a stream."""


@dataclass(frozen=True)
class Reply:
    """An answer: its status, its headers with names in lower case, its body (JSON decoded, else text; None: empty)."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def cursor(self) -> str:
        """What `after` takes: the ETag without its marks. Raises KeyError where there is none."""
        return self.headers["etag"].removeprefix("W/").strip('"')


@dataclass(frozen=True)
class Event:
    """One event of a stream. ``id`` is its own, empty where it has none."""

    type: str
    data: Any
    id: str


class Daemon:
    """``envbridge run`` with a configuration of its own in a folder of its own.

    ``config`` is the configuration as a dict; ``environment`` (test), ``data_dir`` (`data` in the folder) and the listener
    (a free loopback port) are filled in where they are missing. Used as a context manager it is started, not yet ready, and
    killed at the end; tests that are about stopping call `stop`.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any], *, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.port = free_port()
        self.config_path = directory / "bridge.yaml"
        self.log_path = directory / "daemon.log"
        self.write_config(config)
        arguments = [sys.executable, *_COMMAND, "run", str(self.config_path)]
        self.process = ServerProcess("envbridge", arguments, self.log_path, {"PYTHONUNBUFFERED": "1", **(env or {})})

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration (JSON is YAML); `reload` makes a running daemon read it."""
        serve = dict(config.get("serve") or {})
        http = {"listen": f"127.0.0.1:{self.port}", **(serve.get("http") or {})}
        full = {"environment": "test", **config, "serve": {**serve, "http": http}}
        self.directory.mkdir(parents=True, exist_ok=True)
        written = self.config_path.with_suffix(".new")
        written.write_text(json.dumps(full, indent=2))
        written.replace(self.config_path)
        self.config: Object = full

    # -- the process

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.alive

    def start(self, timeout: float = 20.0) -> None:
        """Start and wait until it answers (not: until it is ready). Raises ServerFailed with the log's tail."""
        self.process.start(self._answers, timeout=timeout)

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait for 200 from `/readyz`. Raises TimeoutError with what it waits for and the log's tail."""
        try:
            wait_for("a ready daemon", lambda: self.get("/readyz").status == 200, timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self.get('/readyz').body}\n{self.process.tail()}") from error

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM, and wait; its exit status. Raises TimeoutError."""
        self.process.send(signal.SIGTERM)
        wait_for("the end of the daemon", lambda: not self.alive, timeout)
        assert self.process.returncode is not None
        return self.process.returncode

    def kill9(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()

    def reload(self, config: Mapping[str, Any] | None = None) -> None:
        """Write a new configuration, if given, and send SIGHUP; does not wait."""
        if config is not None:
            self.write_config(config)
        self.process.send(signal.SIGHUP)

    @property
    def rss(self) -> int:
        """Resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu(self) -> float:
        """Seconds of processor time it has used, in user and kernel mode."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> list[Object]:
        """Its log lines so far, those that are JSON."""
        lines = self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill9()

    # -- reading

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, timeout: float = _READ_TIMEOUT, **params: Any) -> Reply:
        """A GET on a connection of its own; parameters as keywords (a list repeats one). Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            return ask(connection, target(path, params), headers)
        finally:
            connection.close()

    def blocking(self, path: str, after: str, wait: str = "30s", *, timeout: float = 60.0, **params: Any) -> Reply:
        """A blocking read: answers when the view differs from what ``after`` saw (200), or at the deadline (304)."""
        return self.get(path, timeout=timeout, after=after, wait=wait, **params)

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = _SILENCE,
        **params: Any,
    ) -> Iterator[Iterator[Event]]:
        """The events of a stream as they come. Raises AssertionError where the answer is none, TimeoutError on silence."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        resume = {"Last-Event-ID": last_event_id} if last_event_id else {}
        try:
            connection.request("GET", target(path, params), headers={"Accept": "text/event-stream", **resume, **(headers or {})})
            with connection.getresponse() as response:
                kind = response.headers.get_content_type()
                assert (response.status, kind) == (200, "text/event-stream"), (response.status, kind)
                yield events_of(response)
        finally:
            connection.close()

    def instances(self, **params: Any) -> dict[str, Object]:
        """The instances of `/v1/instances` by ``environment/source/id``. Raises AssertionError unless the answer is 200."""
        reply = self.get("/v1/instances", **params)
        assert reply.status == 200, reply
        return by_ref(reply.body["instances"])

    def status(self) -> Object:
        """The document of `/v1/status`."""
        document: Object = self.get("/v1/status").body
        return document

    def source(self, name: str) -> Object:
        """A source's part of `/v1/status`. Raises KeyError."""
        found: dict[str, Object] = {source["name"]: source for source in self.status()["sources"]}
        return found[name]

    def wait_source(self, name: str, holds: str | Callable[[Object], object] = "synced", timeout: float = 30.0) -> Object:
        """Wait until a source is in a state, or until ``holds`` is true of its document, which is returned."""
        test = (lambda source: source["state"] == holds) if isinstance(holds, str) else holds
        last: Object = {}

        def probe() -> bool:
            last.clear()
            last.update({source["name"]: source for source in self.status()["sources"]}.get(name, {}))
            return bool(last) and bool(test(last))

        try:
            wait_for(f"the source {name}", probe, timeout, 0.05)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {last}\n{self.process.tail()}") from error
        return last

    def _answers(self) -> bool:
        try:
            return self.get("/healthz", timeout=1.0).status == 200
        except (OSError, http.client.HTTPException):
            return False


def by_ref(instances: list[Object]) -> dict[str, Object]:
    """Instances by ``environment/source/id``."""
    found = {f"{item['environment']}/{item['source']}/{item['id']}": item for item in instances}
    assert len(found) == len(instances), "an id comes twice"
    return found


def target(path: str, params: Mapping[str, Any]) -> str:
    """The request target; slashes in the path stay as they are."""
    query = urlencode({key: value for key, value in params.items() if value is not None}, doseq=True)
    return quote(path, safe="/%") + (f"?{query}" if query else "")


def ask(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """One GET on a connection, which is left open for the next."""
    connection.request("GET", path, headers=dict(headers or {}))
    response = connection.getresponse()
    content = response.read()
    named = {name.lower(): value for name, value in response.headers.items()}
    body: Any = None
    if content:
        is_json = "json" in named.get("content-type", "")
        body = json.loads(content) if is_json else content.decode(errors="replace")
    return Reply(response.status, named, body)


def events_of(response: http.client.HTTPResponse) -> Iterator[Event]:
    """The events of a stream (WHATWG HTML, section 9.2), as our server writes them: lines end with a line feed."""
    fields: dict[str, str] = {}
    while line := response.readline():
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        elif fields:
            if "data" in fields:
                yield Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id", ""))
            fields = {}


class Watcher:
    """A thread that follows `/v1/instances` with no filter and writes down what it was told to remove.

    removed: refs, in order; after a reset also what the new snapshot lacks. resets: how many. present: what it holds.
    error: why it ended by itself, or None.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.present: set[str] = set()
        self.removed: list[str] = []
        self.resets = 0
        self.error: BaseException | None = None
        self._daemon = daemon
        self._snapshot: set[str] | None = set()
        self._complete = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._complete.wait(20.0), f"no snapshot: {self.error}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending = True

    def check(self, ended: Iterable[str]) -> None:
        """Raises AssertionError where a ref was removed more often than it is in ``ended``, or the stream was lost."""
        lost = Counter(self.removed) - Counter(ended)
        assert not lost, f"removed, but alive: {dict(lost)}"
        assert self.error is None, f"the stream was lost: {self.error!r}"

    def _run(self) -> None:
        try:
            with self._daemon.stream("/v1/instances", **EVERYTHING) as events:
                for event in events:
                    if self._ending:
                        return
                    self._apply(event)
            raise EOFError("the stream ended")
        except BaseException as error:  # noqa: BLE001  # told by `check`
            if not self._ending:
                self.error = error
                self._complete.set()

    def _apply(self, event: Event) -> None:
        if event.type == "reset":
            self.resets += 1
            self._snapshot = set()
        elif event.type == "snapshot":
            assert self._snapshot is not None, "a snapshot without a reset"
            self._snapshot |= set(by_ref(event.data["instances"]))
            if event.data.get("complete"):
                self.removed += sorted(self.present - self._snapshot)
                self.present, self._snapshot = self._snapshot, None
                self._complete.set()
        elif event.type == "change":
            self.present |= set(by_ref([*event.data["added"], *event.data["updated"]]))
            self.removed += event.data["removed"]
            self.present -= set(event.data["removed"])
