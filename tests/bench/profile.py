"""`python -m tests.bench.profile [--quick] [--out DIR] [BENCH ...]`: where the daemon spends its time under a bench's load.

py-spy samples the daemon from outside. It comes from PATH or, into the cache of the test servers, from PyPI. The reference is
left out, and what the bench measures means nothing then.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tests.bench import machine
from tests.bench.__main__ import found
from tests.bench.results import Report
from tests.bench.session import Reference, Session, Startable
from tests.kit.daemon import Daemon
from tests.kit.servers.cache import python_environment
from tests.kit.servers.process import ServerProcess, ServerUnavailable

T = TypeVar("T")
S = TypeVar("S", bound=Startable)

_PACKAGE = "py-spy>=0.4,<0.5"
_PER_SECOND = 100
_SHOWN = 25
_ATTACH_SECONDS = 30.0


class Profiler:
    """py-spy on one process, from its start to its end. As a context manager it ends with it, and its output is whole."""

    def __init__(self, process: ServerProcess, output: Path) -> None:
        self.output, self._process = output, process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiler")
        self._complaint = ""

    def __enter__(self) -> Profiler:
        self._program = profiler()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._complaint:
            print(self._complaint, file=sys.stderr)

    def _run(self) -> None:
        while not self._process.alive:
            if self._over.wait(0.01):
                return
        command = [str(self._program), "record", "--pid", str(self._process.pid), "--rate", str(_PER_SECOND)]
        command += ["--nonblocking", "--format", "raw", "--duration", "unlimited", "--output", str(self.output)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            while child.poll() is None and self._process.alive and not self._over.wait(0.1):
                pass
            if child.poll() is None:
                child.send_signal(signal.SIGINT)  # it writes its output
            _, complaint = child.communicate(timeout=_ATTACH_SECONDS)
        if not self.output.exists():
            self._complaint = f"py-spy saw nothing (it needs root, or kernel.yama.ptrace_scope=0): {complaint.decode().strip()}"


class ProfiledSession(Session):
    """A session whose daemons are sampled, and whose references are left out."""

    def profile_into(self, folder: Path) -> None:
        """Where the samples go: one file for each daemon that the bench starts."""
        self._samples = folder
        self.outputs: list[Path] = []

    def pin(self, server: S) -> S:
        """See `Session.pin`."""
        super().pin(server)
        if isinstance(server, Daemon):
            output = self._samples / f"{self.bench}-{len(self.outputs) + 1}.stacks"
            output.unlink(missing_ok=True)
            self.outputs.append(output)
            self.enter(Profiler(server.process, output))
        return server

    def reference(self, name: str, make: Callable[[], T], kinds: Sequence[str] = ()) -> Reference[T]:
        """See `Session.reference`; there is none."""
        return Reference(name, why="left out of profiles")


def profiler() -> Path:
    """py-spy. Raises ServerUnavailable when it cannot be had."""
    on_path = shutil.which("py-spy")
    return Path(on_path) if on_path else python_environment("py-spy", _PACKAGE) / "py-spy"


def summary(stacks: Iterable[str]) -> list[str]:
    """The functions that cost most by themselves, and with what they call, as shares of all samples; imports are left out.

    stacks: lines of `frame;frame;... count`, outermost first.
    """
    own, whole = Counter[str](), Counter[str]()
    for line in stacks:
        text, _, number = line.rpartition(" ")
        frames = [_function(frame) for frame in text.split(";")]
        if not text or any("importlib" in frame for frame in frames):
            continue
        own[frames[-1]] += int(number)
        for frame in set(frames):
            whole[frame] += int(number)
    total = sum(own.values()) or 1
    rows = [f"{own[name] / total:6.1%} {whole[name] / total:6.1%}  {name}" for name, _ in own.most_common(_SHOWN)]
    return [f"{'self':>6} {'total':>6}  function, of {total} samples", *rows]


def _function(frame: str) -> str:
    """A frame without its line: "reply (bridge/serve/http/server.py)"."""
    return frame.rpartition(":")[0] + ")" if frame.endswith(")") and ":" in frame else frame


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 where nothing was sampled."""
    known = found()
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument(
        "benches", nargs="*", metavar="BENCH", default=["read"], help=f"some of {', '.join(known)} (default: read)"
    )
    parser.add_argument("--quick", action="store_true", help="10,000 instances")
    parser.add_argument("--out", type=Path, default=Path("build/bench"), metavar="DIR", help="where the samples go")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.benches if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    try:
        profiler()
    except ServerUnavailable as error:
        print(f"py-spy cannot be had: {error.reason}", file=sys.stderr)
        return 1
    cores = machine.Cores.choose()
    machine.bypass_proxies()
    machine.allow_files()
    cores.take_load()
    options.out.mkdir(parents=True, exist_ok=True)
    return max(profile(name, known[name].run, cores, options.out, quick=options.quick) for name in options.benches)


def profile(name: str, run: Callable[[Session], None], cores: machine.Cores, folder: Path, *, quick: bool) -> int:
    """Run one bench once, and print where its daemons spent their time; 1 where nothing was sampled."""
    with ProfiledSession(name, Report({}), cores, quick=quick, repetitions=1, say=print) as session:
        session.profile_into(folder)
        run(session)
    outputs = [output for output in session.outputs if output.exists()]
    for output in outputs:
        print(f"\n{output} (speedscope.app shows it as a flame graph)")
        print("\n".join(summary(output.read_text().splitlines())))
    return 0 if outputs else 1


if __name__ == "__main__":
    sys.exit(main())
