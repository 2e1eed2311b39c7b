"""`start`: from the start of the process to the first answered read, with an empty catalog, and memory when idle.

References: Python importing every extra at once (the SDKs of all sources), and Python that does nothing.
"""

from __future__ import annotations

import sys
import time

from tests.bench.child import Child, bytecode
from tests.bench.first import first_answer
from tests.bench.goals import Goal
from tests.bench.machine import cpu, rss
from tests.bench.session import Figures, Measure, Session
from tests.kit.daemon import Daemon
from tests.kit.servers.process import ServerUnavailable

NAME = "start"
EXTRAS = ("kubernetes", "docker", "boto3")
_PATH = "/v1/services"
_IDLE_SECONDS = 1.5
"""After its first answer, with the periodic work once done."""


def run(session: Session) -> None:
    """The daemon without a source; each reference with the same measures."""

    def ours(idle: float = _IDLE_SECONDS) -> Figures:
        daemon = session.pin(Daemon(session.folder(), {"sources": {}}, env=bytecode()))
        try:
            seconds, body = first_answer(daemon.process, daemon.port, _PATH)
            used = cpu(daemon.pid)
            if b'"services":[]' not in body.replace(b" ", b""):
                raise RuntimeError(f"the first answer is {body[:200]!r}")
            time.sleep(idle)
            return {"seconds": seconds, "cpu": used, "memory": rss(daemon.pid)}
        finally:
            daemon.kill9()

    def python(program: str) -> Figures:
        command = [sys.executable, "-c", f"import sys; {program}; print(flush=True); sys.stdin.read()"]
        with Child(command, core=session.cores.server, env=bytecode()) as child:
            return {"seconds": child.took, "cpu": cpu(child.pid), "memory": rss(child.pid)}

    def importing_all() -> str:
        program = f"import {', '.join(EXTRAS)}"
        try:
            python(program)  # and from now on it finds its bytecode
        except RuntimeError as error:
            raise ServerUnavailable(f"not all of {', '.join(EXTRAS)} can be imported: {error}") from error
        return program

    ours(idle=0.0)  # from now on it finds its bytecode
    session.compare(
        measures("first read", Goal("ours <= 300 or ratio <= 0.25"), Goal("ours <= 45")),
        ours,
        session.reference("importing every extra", importing_all),
        python,
    )
    session.compare(measures("first read, and Python alone"), ours, session.reference("Python alone", lambda: "pass"), python)


def measures(what: str, seconds: Goal | None = None, memory: Goal | None = None) -> list[Measure]:
    """What is measured against each reference."""
    return [
        Measure("seconds", f"process start to {what}", "ms", seconds, scale=1000),
        Measure("memory", f"memory idle after the {what}", "MiB", memory, scale=2**-20),
        Measure("cpu", f"processor time to {what}", "ms", scale=1000),
    ]
