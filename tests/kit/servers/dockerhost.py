"""What dockerd leaves on the machine, taken away again: bridges, iptables rules, mounts, processes, IP forwarding.

The state before the start is kept in the build cache, so that the next start can clean up after a run that was
killed. Where another Docker was there before, its networks and rules are not touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

from .binaries import find
from .cache import cache_dir

_BRIDGES = ("docker0", "docker_gwbridge")
_TABLES = ("filter", "nat", "mangle")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=30)


def _marker() -> Path:
    return cache_dir() / "swarm-host.json"


def working_iptables() -> Path | None:
    """The iptables that the kernel takes: the default one, else the legacy one; None when neither works."""
    default = find("iptables")
    for program in (default, default.with_name("iptables-legacy")):
        if program.exists() and all(_run(program, "-t", table, "-S").returncode == 0 for table in ("filter", "nat")):
            return program
    return None


def _rules(iptables: Path | None) -> dict[str, list[str]]:
    if iptables is None:
        return {}
    return {table: _run(iptables, "-w", "-t", table, "-S").stdout.splitlines() for table in _TABLES}


def _processes_of(directory: Path) -> list[int]:
    """Processes whose command line names dockerd's exec root (containerd and its shims), and all below them."""
    needle = f"{directory}/exec/"
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if needle in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.add(int(entry.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid(), os.getppid()})


def other_docker() -> bool:
    """Whether a dockerd that is not ours runs, or left its bridges."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "dockerd":
                return True
    return any((Path("/sys/class/net") / name).exists() for name in _BRIDGES)


def remember(directory: Path) -> None:
    """Note the machine's state before dockerd starts with its files in `directory`."""
    iptables = working_iptables()
    state = {
        "directory": str(directory),
        "other_docker": other_docker(),
        "iptables": str(iptables) if iptables else None,
        "rules": _rules(iptables),
        "forward": _FORWARD.read_text().strip() if _FORWARD.exists() else None,
        "folders": [path for path in ("/etc/docker", "/run/docker", "/var/lib/docker") if not Path(path).exists()],
    }
    _marker().write_text(json.dumps(state))


def clean_up() -> None:
    """Undo what the last remembered dockerd, which has ended, left; does nothing when all is clean."""
    try:
        state: dict[str, Any] = json.loads(_marker().read_text())
    except (OSError, ValueError):
        return
    directory = Path(state["directory"])
    _end_processes(directory)
    _unmount(directory)
    shutil.rmtree(directory / "exec", ignore_errors=True)
    shutil.rmtree(directory / "data", ignore_errors=True)
    if not state["other_docker"]:
        for name in _BRIDGES:
            _run(find("ip"), "link", "delete", name)
        if state["iptables"]:
            _restore_rules(Path(state["iptables"]), state["rules"])
        if state["forward"] is not None:
            _FORWARD.write_text(state["forward"])
        for folder in state["folders"]:
            shutil.rmtree(folder, ignore_errors=True)
    _marker().unlink(missing_ok=True)


def _end_processes(directory: Path) -> None:
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline and (left := _processes_of(directory)):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _unmount(directory: Path) -> None:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(f"{directory}/")), reverse=True):
        _run("umount", "-l", point)


def _restore_rules(iptables: Path, before: dict[str, list[str]]) -> None:
    """Remove the rules and chains that were not there before, and set the chains' policies back."""
    for table, now in _rules(iptables).items():
        added = list((Counter(now) - Counter(before.get(table, []))).elements())
        changes = [line.replace("-A ", "-D ", 1) for line in added if line.startswith("-A ")]
        chains = [line.split()[1] for line in added if line.startswith("-N ")]
        changes += [f"{verb} {chain}" for verb in ("-F", "-X") for chain in chains]
        changes += [line for line in before.get(table, []) if line.startswith("-P ") and line not in now]
        for change in changes:
            _run(iptables, "-w", "-t", table, *shlex.split(change))
