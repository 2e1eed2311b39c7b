"""wrk: as many reads as a server answers, over a number of connections that stay open."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.kit.servers.binaries import find

_HEADERS = (
    "User-Agent: bench/1",
    "Accept: application/json",
    "Accept-Encoding: identity",
    "Connection: keep-alive",
)
"""With Host the five that a client library sends."""

_DISTINCT = Path(__file__).parent / "load" / "distinct.lua"
_SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Load:
    """What wrk saw: answers, their bytes in all, answers per second, the 99th percentile of their latency in seconds."""

    reads: int
    size: float
    rate: float
    p99: float


def wrk(url: str, *, connections: int, seconds: int, distinct: bool = False) -> Load:
    """Read a URL from one thread for a while. Raises ServerUnavailable, or RuntimeError where not all went well.

    distinct: no two requests are the same bytes (a request id in each).
    """
    command: list[str] = [
        str(find("wrk")),
        "--threads=1",
        f"--connections={connections}",
        f"--duration={seconds}s",
        "--latency",
        "--timeout=60s",
    ]
    for header in _HEADERS:
        command += ["--header", header]
    if distinct:
        command += ["--script", str(_DISTINCT)]
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 30)
    if done.returncode != 0:
        raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
    return parse(done.stdout)


def parse(output: str) -> Load:
    """What wrk printed. Raises RuntimeError where there were errors, or it is not wrk's output."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    reads = re.search(r"(\d+) requests in \S+, ([\d.]+)([KMG]?)B read", output)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", output)
    if reads is None or rate is None or p99 is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk: {output}")
    return Load(int(reads[1]), float(reads[2]) * _SIZES[reads[3]], float(rate[1]), float(p99[1]) * _UNITS[p99[2]])
