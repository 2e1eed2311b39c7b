"""`ingest-lag`: reads of the running daemon while it takes in 100,000 endpoints, against reads while nothing happens.

Readers ask steadily for the services of a file, no two requests alike, while the Kubernetes source lists a cluster, and while
every endpoint of it changes. Reference: the same daemon, readers and API server, and nothing to take in.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import api_server, cluster, content
from tests.bench.child import Child
from tests.bench.goals import Goal
from tests.bench.lag import percentile
from tests.bench.paced import Readers
from tests.bench.session import Figures, Measure, Session
from tests.kit.daemon import Daemon
from tests.kit.servers.process import wait_for

NAME = "ingest-lag"
RATE = 400.0
"""Reads per second."""

_SERVICES, _INSTANCES = 50, 10
_EMPTY = "nothing-is-here"
"""A namespace of the cluster: following it, the daemon has loaded and connected all that it needs, and holds nothing."""

_SECONDS = 120.0
_LOOK_EVERY = 0.2


def run(session: Session) -> None:
    """100,000 endpoints, 10,000 in a smoke test."""
    instances = session.scale(100_000, 10_000)
    goal = Goal("ratio <= 2 or difference <= 2")
    session.compare(
        [
            Measure("listing", f"read p99 while {instances:,} endpoints are listed", "ms", goal, scale=1000),
            Measure("events", f"read p99 while {instances:,} endpoints change", "ms", goal, scale=1000),
            Measure("worst listing", "longest read while they are listed", "ms", scale=1000),
            Measure("worst events", "longest read while they change", "ms", scale=1000),
            Measure("median", "median read while they are listed", "ms", scale=1000),
            Measure("seconds listing", "time to list them", "s"),
            Measure("seconds events", "time to take in the changes", "s"),
        ],
        lambda: measured(session, instances, ingested),
        session.reference("idle", lambda: float(session.scale(3, 1))),
        lambda seconds: measured(session, instances, lambda rig: idle(rig, seconds)),
    )


@dataclass(frozen=True)
class Rig:
    """A daemon with its readers, and the cluster beside it."""

    daemon: Daemon
    readers: Readers
    cluster: Child
    config: Callable[[str | None], Mapping[str, Any]]
    instances: int

    def meanwhile(self, begin: Callable[[], object], done: Callable[[], object]) -> tuple[list[float], float]:
        """Read from just before ``begin()`` until ``done()``: seconds of each read, and of all."""
        over = threading.Event()
        failures: list[BaseException] = []

        def follow() -> None:
            try:
                begin()
                wait_for("the end of it", done, _SECONDS, _LOOK_EVERY)
            except BaseException as error:  # noqa: BLE001  # raised by the thread that reads
                failures.append(error)
            finally:
                over.set()

        began = time.monotonic()
        following = threading.Thread(target=follow, name="follow", daemon=True)
        following.start()
        took = self.readers.read_until(over.is_set)
        following.join()
        if failures:
            raise failures[0]
        return took, time.monotonic() - began


def measured(session: Session, instances: int, measure: Callable[[Rig], Figures]) -> Figures:
    """One repetition, with everything made anew."""
    folder = session.folder()
    content.write(folder / "shop.json", [content.service(f"web{number}", _INSTANCES) for number in range(_SERVICES)])
    with Child([sys.executable, "-m", "tests.bench.api_server", str(instances)]) as server:
        (folder / "kubeconfig").write_text(server.said)

        def config(namespace: str | None) -> Mapping[str, Any]:
            return configuration(folder / "kubeconfig", namespace)

        with session.pin(Daemon(folder, config(_EMPTY))) as daemon:
            daemon.wait_ready()
            paths = [f"/v1/services/shop/web{number}" for number in range(_SERVICES)]
            with Readers(daemon.port, paths, rate=RATE) as readers:
                warm = time.monotonic() + 0.5
                readers.read_until(lambda: time.monotonic() > warm)
                return measure(Rig(daemon, readers, server, config, instances))


def configuration(kubeconfig: Path, namespace: str | None) -> Mapping[str, Any]:
    """What the daemon follows: the file, and one namespace of the cluster, or all."""
    watched = {} if namespace is None else {"namespaces_watched": [namespace]}
    return {
        "sources": {
            "shop": {"type": "file", "paths": ["shop.json"]},
            "cluster": {"type": "kubernetes", "kubeconfig": str(kubeconfig), **watched},
        }
    }


def ingested(rig: Rig) -> Figures:
    """Read while the cluster is listed, and then while each of its slices changes."""
    daemon = rig.daemon
    last = f"/v1/services/{cluster.NAMESPACE}/{cluster.name(rig.instances // cluster.SLICE - 1)}"
    listing, listed = rig.meanwhile(
        lambda: daemon.reload(rig.config(None)), lambda: daemon.source("cluster")["instances"] == rig.instances
    )
    zone = api_server.zone_of(1)
    events, changed = rig.meanwhile(
        lambda: rig.cluster.ask("change"),
        lambda: all(item["zone"] == zone for item in daemon.get(last).body["instances"]),
    )
    return {**figures(listing, events), "seconds listing": listed, "seconds events": changed}


def idle(rig: Rig, seconds: float) -> Figures:
    """Read for a while, and look at the daemon meanwhile as `ingested` does."""
    end = time.monotonic() + seconds
    took, _ = rig.meanwhile(lambda: None, lambda: rig.daemon.source("cluster") and time.monotonic() > end)
    return figures(took, took)


def figures(listing: list[float], events: list[float]) -> dict[str, float]:
    """Of the reads during each."""
    return {
        "listing": percentile(listing, 0.99),
        "events": percentile(events, 0.99),
        "worst listing": max(listing),
        "worst events": max(events),
        "median": median(listing),
    }
