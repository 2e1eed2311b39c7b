"""The machine: what it is, and which core is whose."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.servers.process import ServerProcess


def describe() -> dict[str, Any]:
    """What a figure depends on, and how busy the machine was already (its load averages)."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _field(path: str, name: str) -> str | None:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


@dataclass(frozen=True)
class Cores:
    """One core for the server under test, ours or the reference, and another for the load."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> Cores:
        """The first two this process may use; where there is only one, it serves for both."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[min(1, len(usable) - 1)])

    @property
    def shared(self) -> bool:
        """Whether load and server take processor time from each other."""
        return self.server == self.load

    def take_load(self) -> None:
        """Bind this process, and the children it starts from now on, to the load's core."""
        os.sched_setaffinity(0, {self.load})

    def bind_server(self, process: ServerProcess) -> None:
        """Have a server that is not started yet start on the server's core. Raises RuntimeError without `taskset`."""
        taskset = shutil.which("taskset")
        if taskset is None:
            raise RuntimeError("taskset (util-linux) is not on this machine: figures of unbound processes would say nothing")
        process.args[:0] = [taskset, "--cpu-list", str(self.server)]


def allow_files() -> int:
    """Raise the limit of open files, children's too, as far as it goes, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def bypass_proxies() -> None:
    """Have this process, and the children it starts from now on, ask no proxy for what is on loopback."""
    present = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = present if present.strip() == "*" else ",".join(filter(None, [present, "127.0.0.1", "localhost"]))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = hosts


def rss(pid: int) -> int:
    """Resident memory of a process in bytes. Raises OSError."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak(pid: int) -> int:
    """The most memory that was resident since the process began to run its program, in bytes. Raises OSError."""
    field = _field(f"/proc/{pid}/status", "VmHWM")
    return int(field.removesuffix(" kB")) * 1024 if field else rss(pid)


def cpu(pid: int) -> float:
    """Seconds of processor time that a process's living threads have used, which other work on the machine hardly moves.

    From /proc/PID/task/TID/schedstat (Linux, Documentation/scheduler/sched-stats): nanoseconds. Raises OSError.
    """
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
