"""`restart`: 100,000 instances served from disk, from the start of the process to the first answered read of one of them.

The daemon's source is a Kubernetes API server that is gone: it is the disk alone that answers. Reference: a Python process that
reads one msgpack file with the same instances, decodes it and keeps one copy of what repeats; no index, no server, no checks.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from msgspec import msgpack
from msgspec.structs import astuple

from bridge.aio import SystemClock
from bridge.model import ServiceInstance
from bridge.sync.store import Store
from tests.bench import cluster, writer, writing
from tests.bench.apart import apart
from tests.bench.child import Child, bytecode
from tests.bench.first import first_answer
from tests.bench.goals import Goal
from tests.bench.machine import cpu, rss
from tests.bench.session import Figures, Measure, Session
from tests.bench.snapshot import Instance
from tests.kit.daemon import Daemon
from tests.kit.fakes.kubernetes import FakeKubernetes
from tests.kit.servers.process import free_port, wait_for

NAME = "restart"


def run(session: Session) -> None:
    """100,000 instances, 10,000 in a smoke test. Each repetition starts from a copy of the same data directory."""
    instances = session.scale(100_000, 10_000)
    kubeconfig, data, file = session.folder() / "kubeconfig", session.folder() / "data", session.folder() / "snapshot"
    gone = FakeKubernetes()
    gone.port = free_port()
    kubeconfig.write_text(gone.kubeconfig())
    database, size = apart(writing.prepare, data, instances), apart(export, data, file)
    session.say(f"{NAME}: {instances:,} instances, a database of {database / 1e6:.1f} MB, a snapshot of {size / 1e6:.1f} MB")

    def ours() -> Figures:
        folder = session.folder()
        shutil.copytree(data, folder / "data")
        daemon = session.pin(Daemon(folder, config(kubeconfig), env=bytecode()))
        try:
            seconds, body = first_answer(daemon.process, daemon.port, f"/v1/services/{cluster.NAMESPACE}/{cluster.name(7)}")
            used, held = cpu(daemon.pid), rss(daemon.pid)
            if body.count(b'"id"') != cluster.SLICE:
                raise RuntimeError(f"the first answer is {body[:200]!r}")
            wait_for("the number of instances", lambda: daemon.source(writer.SOURCE)["instances"] == instances)
        finally:
            daemon.kill9()
        return {"seconds": seconds, "cpu": used, "memory": held}

    def theirs(path: Path) -> Figures:
        command = [sys.executable, "-m", "tests.bench.snapshot", str(path)]
        with Child(command, core=session.cores.server, env=bytecode()) as child:
            if child.said != str(instances):
                raise RuntimeError(f"{child.said} instances were read")
            return {"seconds": child.took, "cpu": cpu(child.pid), "memory": rss(child.pid)}

    theirs(file)
    ours()  # from now on both find their bytecode, and what they read in the page cache
    session.compare(
        [
            Measure("seconds", f"{instances:,} instances, until the first read", "ms", Goal("ratio <= 2"), scale=1000),
            Measure("cpu", "processor time until then", "ms", scale=1000),
            Measure("memory", "memory then", "MiB", scale=2**-20),
        ],
        ours,
        session.reference("msgpack snapshot", lambda: file),
        theirs,
    )


def config(kubeconfig: Path) -> dict[str, object]:
    """The daemon's configuration."""
    source = {"type": "kubernetes", "kubeconfig": str(kubeconfig)}
    return {"environment": writer.ENVIRONMENT, "sources": {writer.SOURCE: source}}


def export(data: Path, file: Path) -> int:
    """Write what a data directory holds as one msgpack file; its bytes. The directory is copied before it is opened."""
    copy = shutil.copytree(data, file.with_name("copy"))
    _, stored = Store.open(copy, environment=writer.ENVIRONMENT, environment_uid=None, clock=SystemClock())
    if ServiceInstance.__struct_fields__ != Instance.__struct_fields__:
        raise RuntimeError("the snapshot's instances have other fields than ours")
    instances = [astuple(part.instance) for record in stored.records for part in record.parts]
    return file.write_bytes(msgpack.encode(instances))
