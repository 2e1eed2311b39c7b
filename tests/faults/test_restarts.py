"""Restarts, in order and not: a reader who comes back finds what it was told, and nothing that lives is ever missing."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.background import Background
from tests.kit.daemon import EVERYTHING, Daemon, by_ref
from tests.kit.fakes import kubeobjects
from tests.kit.fakes.kubernetes import FakeKubernetes
from tests.kit.readers import LOST_TAIL, Blocker, Follower, Poller, Reader
from tests.kit.servers.process import ServerFailed, wait_for

SOON = 60.0
SERVED_WITHIN = 2.0
"""Seconds from the start of the process to a whole answer from disk."""

Config = dict[str, Any]


class Cluster:
    """A fake API server with ``services`` services of ``pods`` pods each, a slice a pod. Refs are of the source ``k``."""

    def __init__(self, stack: ExitStack, folder: Path, services: int, pods: int, *, per_slice: int = 1, **keys: Any) -> None:
        self._loop = stack.enter_context(Background())
        self.living: set[str] = set()
        self.ended: set[str] = set()
        self._numbers = 0
        self.api = self._loop.call(lambda: FakeKubernetes(**keys))
        self._loop.call(self._fill, services, pods, per_slice)
        self._loop.run(self.api.accept())
        stack.callback(self.refuse)
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(self.api.kubeconfig())
        self.config: Config = {"type": "kubernetes", "kubeconfig": str(kubeconfig), "silence": "30s"}

    def _fill(self, services: int, pods: int, per_slice: int) -> None:
        for service in range(services):
            self.api.put("services", kubeobjects.service(f"s{service}"))
            names = [f"s{service}-{pod}" for pod in range(pods)]
            for first in range(0, pods, per_slice):
                part = names[first : first + per_slice]
                made = [kubeobjects.endpoint(f"10.{service}.0.{pod % 250}", name) for pod, name in enumerate(part)]
                self.api.put("endpointslices", kubeobjects.endpointslice(part[0], f"s{service}", made))
            self.living |= {self._ref(service, name) for name in names}

    @staticmethod
    def _ref(service: int, name: str) -> str:
        return f"test/k/shop/s{service}/uid-{name}"

    def add(self, service: int) -> str:
        """One pod more; its slice's name."""
        self._numbers += 1
        name = f"new{self._numbers}"
        endpoint = kubeobjects.endpoint("10.9.9.9", name)
        self.living.add(self._ref(service, name))
        self._loop.call(self.api.put, "endpointslices", kubeobjects.endpointslice(name, f"s{service}", [endpoint]))
        return name

    def end(self, service: int, name: str) -> None:
        """That pod is no more."""
        self.ended.add(self._ref(service, name))
        self.living.discard(self._ref(service, name))
        self._loop.call(self.api.delete, "endpointslices", name)

    def fail(self, call: str, fault: str, times: int = 10**9) -> None:
        """From now on a call fails so."""
        self._loop.call(self.api.fail, call, fault, times)

    def heal(self) -> None:
        """It works."""
        self._loop.run(self.api.heal())

    def refuse(self) -> None:
        """Nobody listens."""
        self._loop.run(self.api.refuse())

    def forget(self) -> None:
        """The calls so far."""
        self._loop.call(self.api.calls.clear)

    def wait_call(self, name: str) -> None:
        """Wait until a call is made."""
        wait_for(f"the call {name}", lambda: any(call.name == name for call in list(self.api.calls)), SOON)


class Table:
    """A file source ``f``: one service whose instances come and go."""

    def __init__(self, folder: Path, count: int) -> None:
        self._path = folder / "table.json"
        self._numbers = list(range(count))
        self._next = count
        self.ended: set[str] = set()
        self.config: Config = {"type": "file", "paths": [str(self._path)], "refresh": "500ms"}
        self.write()

    @property
    def living(self) -> set[str]:
        """Refs."""
        return {f"test/f/shop/table/i{number}" for number in self._numbers}

    def write(self) -> None:
        """Rename it into place."""
        instances = [{"id": f"i{number}", "address": "10.0.0.1", "ports": {"http": 1024 + number}} for number in self._numbers]
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps({"services": [{"name": "table", "namespace": "shop", "instances": instances}]}))
        new.replace(self._path)

    def turn(self) -> None:
        """The oldest goes, another one comes."""
        self.ended.add(f"test/f/shop/table/i{self._numbers.pop(0)}")
        self._numbers.append(self._next)
        self._next += 1
        self.write()

    def grow(self, count: int) -> None:
        """That many more."""
        self._numbers += range(self._next, self._next + count)
        self._next += count
        self.write()

    def break_(self) -> None:
        """It cannot be read."""
        new = self._path.with_suffix(".new")
        new.write_text("{")
        new.replace(self._path)

    def remove(self) -> None:
        """The file is gone."""
        self._path.unlink()


@contextmanager
def reading(daemon: Daemon) -> Iterator[list[Reader]]:
    """One reader of each kind."""
    with ExitStack() as stack:
        yield [stack.enter_context(reader) for reader in (Follower(daemon), Blocker(daemon), Poller(daemon))]


def agree(daemon: Daemon, readers: list[Reader], living: set[str], timeout: float = SOON) -> None:
    """Wait until daemon and readers have exactly what lives."""
    wait_for("the daemon's agreement", lambda: daemon.instances(**EVERYTHING).keys() == living, timeout, 0.1)
    for reader in readers:
        reader.wait(living, timeout)


def synced(daemon: Daemon, name: str) -> None:
    """Wait until a source is."""
    daemon.wait_source(name, "synced", SOON)


def written(daemon: Daemon) -> None:
    """Wait until all that is known is on disk: what is known for a moment only may be lost."""
    wait_for("the disk", lambda: daemon.status()["queues"]["dirty_rows"] == 0, SOON)


@pytest.mark.parametrize("call", ["list endpointslices page 2", "list services", "stream endpointslices"])
def test_a_kill_in_the_first_listing_leaves_no_half_of_it(call: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path, 2, 10, page_size=4, streaming=call.startswith("stream"))
        table = Table(tmp_path, 5)
        cluster.fail(call, "hang")
        daemon = stack.enter_context(Daemon(tmp_path / "d", {"sources": {"k": cluster.config, "f": table.config}}))
        synced(daemon, "f")
        readers = stack.enter_context(reading(daemon))
        for _ in range(3):
            cluster.wait_call(call)
            assert daemon.instances(**EVERYTHING).keys() == table.living, "half a listing is shown"
            assert "k" in daemon.get("/v1/instances").headers["envbridge-incomplete"]
            assert daemon.get("/v1/services/shop/s0").status == 503
            daemon.kill9()
            cluster.forget()
            daemon.start()
        cluster.heal()
        daemon.kill9()
        daemon.start()
        agree(daemon, readers, cluster.living | table.living)
        for reader in readers:
            reader.check()


def test_a_kill_in_the_first_listing_after_a_restart_loses_nothing_known(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path, 2, 10, page_size=4, streaming=False)
        daemon = stack.enter_context(Daemon(tmp_path / "d", {"sources": {"k": cluster.config}}))
        synced(daemon, "k")
        readers = stack.enter_context(reading(daemon))
        written(daemon)
        cluster.fail("list endpointslices page 2", "hang")
        for _ in range(3):
            daemon.kill9()
            cluster.forget()
            daemon.start()
            cluster.wait_call("list endpointslices page 2")
            assert daemon.instances(**EVERYTHING).keys() == cluster.living
        daemon.kill9()
        cluster.heal()
        daemon.start()
        synced(daemon, "k")
        agree(daemon, readers, cluster.living)
        for reader in readers:
            reader.check()
            assert reader.thinnest == len(cluster.living)


class Load:
    """Changes without end in a thread of its own: pods and rows come and go."""

    def __init__(self, cluster: Cluster, table: Table) -> None:
        self._cluster, self._table = cluster, table
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(1, "load")

    def __enter__(self) -> None:
        self._changing = self._pool.submit(self._run)

    def __exit__(self, *_: object) -> None:
        """Raises what ended it before its time."""
        self._ending.set()
        self._changing.result(SOON)
        self._pool.shutdown()

    def _run(self) -> None:
        made: list[tuple[int, str]] = []
        while not self._ending.wait(0.1):
            service = random.randrange(4)
            made.append((service, self._cluster.add(service)))
            if len(made) > 5:
                self._cluster.end(*made.pop(0))
            if random.random() < 0.2:
                self._table.turn()


def test_twenty_restarts_under_load_remove_nothing_that_lives(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster, table = Cluster(stack, tmp_path, 4, 10), Table(tmp_path, 10)
        sources = {name: {**each.config, "guard": {"for": "1s"}} for name, each in (("k", cluster), ("f", table))}
        daemon = stack.enter_context(Daemon(tmp_path / "d", {"sources": sources}))
        for name in sources:
            synced(daemon, name)
        readers = [
            stack.enter_context(reader) for reader in (Follower(daemon), Follower(daemon), Blocker(daemon), Poller(daemon))
        ]
        kills: list[float] = []
        with Load(cluster, table):
            for number in range(20):
                time.sleep(random.uniform(0.2, 1.0))
                if number % 4 == 3:
                    assert daemon.stop() == 0
                else:
                    kills.append(time.monotonic())
                    daemon.kill9()
                daemon.start()
        agree(daemon, readers, cluster.living | table.living)
        for reader in readers:
            reader.check(cluster.ended | table.ended, kills)
            assert len(reader.lineages) == 1, "the database was made anew"


class Historian(Follower):
    """Keeps every state that it was told, with its time."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon)
        self.history: list[tuple[float, frozenset[str]]] = []

    def note_cursor(self, text: str) -> None:
        super().note_cursor(text)
        state = frozenset(self.present)
        if not self.history or self.history[-1][1] != state:
            self.history.append((time.monotonic(), state))


def test_thirty_kills_at_random_moments_leave_index_and_data_in_agreement(tmp_path: Path) -> None:
    """What comes back from disk alone is one of the states that were there, at most a second older than what was told."""
    with ExitStack() as stack:
        table = Table(tmp_path, 30)
        daemon = stack.enter_context(Daemon(tmp_path / "d", {"sources": {"f": table.config}}))
        synced(daemon, "f")
        follower = Historian(daemon)
        stack.enter_context(follower)
        states = [frozenset(table.living)]
        for _ in range(30):
            end = time.monotonic() + random.uniform(0.0, 0.5)
            while time.monotonic() < end:
                table.turn()
                states.append(frozenset(table.living))
                time.sleep(0.06)
            killed = time.monotonic()
            daemon.kill9()
            told = [state for at, state in list(follower.history) if at < killed - LOST_TAIL]
            table.break_()
            daemon.start()
            reply = daemon.get("/v1/instances", **EVERYTHING)
            restored = frozenset(by_ref(reply.body["instances"]))
            assert restored in states, "half a change"
            assert not told or states.index(restored) >= states.index(told[-1]), "older than what was told"
            (service,) = daemon.get("/v1/services").body["services"]
            assert service["environments"]["test"]["ready"] == len(restored)
            table.write()
        agree(daemon, [follower], table.living)
        assert len(follower.lineages) == 1


def test_ten_thousand_instances_are_served_from_disk_while_every_backend_is_down(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cluster = Cluster(stack, tmp_path, 100, 100, per_slice=100)
        table = Table(tmp_path, 10)
        daemon = stack.enter_context(Daemon(tmp_path / "d", {"sources": {"k": cluster.config, "f": table.config}}))
        for name in ("k", "f"):
            synced(daemon, name)
        living = cluster.living | table.living
        written(daemon)
        cluster.refuse()
        table.remove()
        took, used = [], []
        for _ in range(3):  # with nobody else reading: that would be measured too
            daemon.kill9()
            began = time.monotonic()
            daemon.start()
            reply = daemon.get("/v1/instances", **EVERYTHING)
            took.append(time.monotonic() - began)
            used.append(daemon.cpu)
            assert (reply.status, len(reply.body["instances"])) == (200, len(living))
            assert reply.headers["envbridge-stale"] == "test"
            assert int(reply.headers["envbridge-age"]) > 0
            assert daemon.get("/readyz").status == 200
            for row in daemon.get("/v1/environments").body[0]["sources"]:
                assert row["state"] in ("stale", "failed")
                assert row["age_ms"] > 0
        # On a machine that is busy with other things, what it took of the processor is what counts.
        assert min(took) <= SERVED_WITHIN or min(used) <= 0.75 * SERVED_WITHIN, (took, used)
        readers = stack.enter_context(reading(daemon))
        daemon.kill9()
        daemon.start()
        for name in ("k", "f"):
            assert daemon.wait_source(name, "failed", SOON)["last_error"]
        cluster.heal()
        table.write()
        for name in ("k", "f"):
            synced(daemon, name)
        reply = daemon.get("/v1/instances", **EVERYTHING)
        assert "envbridge-stale" not in reply.headers
        agree(daemon, readers, living)
        for reader in readers:
            reader.check()


def start_refused(daemon: Daemon) -> Config:
    """Start what must not start; the log line that says why."""
    with pytest.raises(ServerFailed):
        daemon.start()
    assert daemon.process.returncode == 1
    return daemon.log()[-1]


def test_a_corrupt_database_is_moved_aside_and_filled_again_under_a_new_lineage(tmp_path: Path) -> None:
    with ExitStack() as stack:
        table = Table(tmp_path, 200)
        daemon = stack.enter_context(Daemon(tmp_path / "d", {"sources": {"f": table.config}}))
        synced(daemon, "f")
        before = daemon.get("/v1/instances")
        assert daemon.stop() == 0
        database = tmp_path / "d" / "data" / "envbridge.db"
        damaged = bytearray(database.read_bytes())
        damaged[4096:12288] = bytes(8192)
        database.write_bytes(damaged)
        daemon.start()
        synced(daemon, "f")
        assert daemon.instances(**EVERYTHING).keys() == table.living
        assert list(database.parent.glob("envbridge.db.corrupt-*"))
        assert any(line["level"] == "error" and "damaged" in line["event"] for line in daemon.log())
        after = daemon.get("/v1/instances")
        assert after.cursor.rsplit("-", 2)[0] != before.cursor.rsplit("-", 2)[0]
        held = daemon.blocking("/v1/instances", before.cursor, "1s")
        assert held.status == 304, "the same content, whatever its lineage"
        table.turn()
        wait_for("the change", lambda: daemon.instances(**EVERYTHING).keys() == table.living, SOON)
        reset = daemon.blocking("/v1/instances", before.cursor, "1s")
        assert (reset.status, reset.headers.get("envbridge-reset")) == (200, "true")


def test_a_database_of_another_environment_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path, 3)
    config = {"sources": {"f": table.config}}
    with Daemon(tmp_path / "d", config) as daemon:
        synced(daemon, "f")
        assert daemon.stop() == 0
    other = Daemon(tmp_path / "d", {**config, "environment": "other"})
    line = start_refused(other)
    assert line["level"] == "error"
    assert "`test`" in line["reason"]
    assert "`other`" in line["reason"]
    with Daemon(tmp_path / "d", config) as daemon:
        assert daemon.instances(**EVERYTHING).keys() == table.living


def test_a_second_daemon_on_the_same_data_directory_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path, 3)
    config = {"sources": {"f": table.config}, "data_dir": str(tmp_path / "data")}
    with Daemon(tmp_path / "one", config) as daemon:
        synced(daemon, "f")
        line = start_refused(Daemon(tmp_path / "two", config))
        assert f"process {daemon.pid}" in line["reason"]
        assert daemon.instances(**EVERYTHING).keys() == table.living


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte; only the superuser can make one."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no small file system can be mounted: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path: Path) -> None:
    """Write until there is no space left."""
    with path.open("wb", 0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))


def test_a_full_disk_is_told_and_costs_no_read_and_is_recovered_from(tmp_path: Path, small_disk: Path) -> None:
    with ExitStack() as stack:
        table = Table(tmp_path, 50)
        config = {"sources": {"f": table.config}, "data_dir": str(small_disk / "data")}
        daemon = stack.enter_context(Daemon(tmp_path / "d", config))
        synced(daemon, "f")
        readers = stack.enter_context(reading(daemon))
        filler = small_disk / "filler"
        fill(filler)

        def told() -> bool:
            table.grow(20)
            return daemon.status()["store"]["error"] is not None

        wait_for("the failure to write", told, SOON, 0.3)
        assert "the state cannot be written to disk" in daemon.status()["warnings"]
        table.turn()
        agree(daemon, readers, table.living)
        filler.unlink()
        wait_for("the recovery", lambda: daemon.status()["store"]["error"] is None, SOON, 0.1)
        written(daemon)
        daemon.kill9()
        table.break_()
        daemon.start()
        assert daemon.instances(**EVERYTHING).keys() == table.living
        for reader in readers:
            reader.check(table.ended)
