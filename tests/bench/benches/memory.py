"""`memory`: what an instance costs the running daemon, all its indexes included.

The daemon reads a cluster of services of a hundred instances through its Kubernetes source, and has written it to disk. Its
growth is over the same daemon that read a cluster of one such service. Reference: a process of its own validates the JSON that
the daemon answers for the same instances into pydantic models, one after the other, and keeps the models in a list; nothing of
an index. The records alone are the daemon's structs, as its source makes them, with its interning, in a list likewise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from bridge.model import ServiceInstance
from tests.bench import cluster
from tests.bench.apart import apart, resident
from tests.bench.goals import Goal
from tests.bench.session import Figures, Measure, Session
from tests.kit.background import Background
from tests.kit.daemon import Daemon
from tests.kit.servers.process import wait_for

NAME = "memory"
_LOAD_SECONDS = 240.0


class Port(BaseModel):
    """`bridge.model.Port` as pydantic has it."""

    model_config = ConfigDict(frozen=True)

    name: str | None
    port: int
    protocol: str = "TCP"
    app_protocol: str | None = None


class Instance(BaseModel):
    """`bridge.model.ServiceInstance` as pydantic has it."""

    model_config = ConfigDict(frozen=True)

    environment: str
    source: str
    id: str
    namespace: str
    service: str
    addresses: tuple[str, ...] = ()
    hostname: str | None = None
    ports: tuple[Port, ...] = ()
    health: Literal["ready", "unready", "unknown"] = "ready"
    lifecycle: Literal["active", "draining"] = "active"
    state: Literal["listed", "down", "expired"] = "listed"
    weight: int = 1
    region: str | None = None
    zone: str | None = None
    node: str | None = None
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}


def run(session: Session) -> None:
    """1,000,000 instances, 10,000 in a smoke test. Only the daemon is measured repeatedly: the rest does not move."""
    instances = session.scale(1_000_000, 10_000)
    idle = Fed(session, cluster.SLICE).measure()["resident"]
    fed = Fed(session, instances)
    alone, each = apart(records, instances), apart(models, instances)
    session.say(f"{NAME}: {idle / 1024**2:.1f} MiB with {cluster.SLICE} instances")

    def ours() -> Figures:
        seen = fed.measure()
        return {"running": (seen["resident"] - idle) / instances, "records": alone, "peak": (seen["peak"] - idle) / instances}

    session.compare(
        [
            Measure("running", f"daemon with {instances:,}, each", "B", Goal("ratio <= 0.5 and ours <= 900")),
            Measure("records", "its records alone, each", "B", Goal("ours <= 400")),
            Measure("peak", "daemon's peak, each", "B"),
        ],
        ours,
        session.reference("pydantic models", lambda: each),
        lambda each: {"running": each},
    )


class Fed:
    """A cluster that daemons read, each from its start."""

    def __init__(self, session: Session, instances: int) -> None:
        self._session = session
        self._services = instances // cluster.SLICE
        self._kubeconfig = session.folder() / "kubeconfig"
        api = cluster.api_server(instances)
        loop = session.enter(Background())
        loop.run(api.accept())
        self._kubeconfig.write_text(api.kubeconfig())

    def measure(self) -> Figures:
        """Bytes of memory of a daemon that read everything and wrote it down, and the most it had until then."""
        source = {"type": "kubernetes", "kubeconfig": str(self._kubeconfig), "request_timeout": "5m"}
        with self._session.pin(Daemon(self._session.folder(), {"sources": {"cluster": source}})) as daemon:
            self._await(daemon, "envbridge_catalog_services", self._services)
            self._await(daemon, "envbridge_store_dirty_rows", 0)
            status = Path(f"/proc/{daemon.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return {"resident": _bytes(fields["VmRSS"]), "peak": _bytes(fields["VmHWM"])}

    @staticmethod
    def _await(daemon: Daemon, name: str, value: float) -> None:
        """Wait for a metric to have a value."""
        wait_for(f"{value} {name}", lambda: _metric(daemon, name) == value, _LOAD_SECONDS, 0.2)


def _metric(daemon: Daemon, name: str) -> float:
    lines = str(daemon.get("/metrics", timeout=_LOAD_SECONDS).body).splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def _bytes(text: str) -> int:
    return int(text.removesuffix("kB")) * 1024


def records(instances: int) -> float:
    """Bytes of memory per record in this process: what the source makes of the slices, kept in a list."""
    kept: list[ServiceInstance] = []
    kept.extend(cluster.group(0).instances)  # what is imported and made once is not theirs
    kept.clear()
    before = resident()
    for group in cluster.groups(instances):
        kept.extend(group.instances)
    return (resident() - before) / len(kept)


def models(instances: int) -> float:
    """Bytes of memory per pydantic model in this process: what it makes of each instance's JSON, kept in a list."""
    encode = msgspec.json.Encoder().encode
    kept = [Instance.model_validate_json(encode(instance)) for instance in cluster.group(0).instances]
    kept.clear()
    before = resident()
    for group in cluster.groups(instances):
        for instance in group.instances:
            stamped = msgspec.structs.replace(instance, environment="test", source="cluster")
            kept.append(Instance.model_validate_json(encode(stamped)))
    return (resident() - before) / len(kept)
