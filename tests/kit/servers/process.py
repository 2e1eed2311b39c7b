"""Child processes that are servers: start until a probe answers, pause, end by their own pid; never by name.

All times are in seconds. A child asks the kernel for a signal at the death of its parent, so that nothing is left
behind when the test run itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
# Below the kernel's ephemeral range: an outgoing connection cannot take the port of a server that is down for a while.
_FIRST_PORT, _LAST_PORT = 15000, 29999
_WORKERS = 8
_given_ports: set[int] = set()
_ports_lock = threading.Lock()


class ServerUnavailable(RuntimeError):  # noqa: N818
    """The server cannot be had on this machine; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ServerFailed(RuntimeError):  # noqa: N818
    """The server is here but did not start, answer or end; the message carries the tail of its log."""


def free_port() -> int:
    """A TCP port that nothing listens on, and that neither this process nor another worker of pytest-xdist hands out."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    with _ports_lock:
        for _ in range(1000):
            port = random.randint(_FIRST_PORT, _LAST_PORT) // _WORKERS * _WORKERS + worker
            if port in _given_ports:
                continue
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("0.0.0.0", port))
                _given_ports.add(port)
                return port
    raise ServerUnavailable(f"no free port in {_FIRST_PORT}-{_LAST_PORT}")


def wait_for(what: str, probe: Callable[[], T | None], timeout: float = 10.0, interval: float = 0.02) -> T:
    """The first true result of `probe`, asked every `interval` seconds.

    Raises TimeoutError naming `what` and the last result after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s (last: {str(result)[:500]})")
        time.sleep(interval)


def http_ok(url: str, context: ssl.SSLContext | None = None, timeout: float = 1.0) -> bool:
    """Whether a GET of the URL is answered with a 2xx status."""
    try:
        with urllib.request.urlopen(url, timeout=timeout, context=context) as response:
            return 200 <= int(response.status) < 300
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except (OSError, ValueError):
        return False


def tail_of(log: Path, lines: int = 30) -> str:
    """The last lines of a log file, or a note that there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"(no log: {error})"


# Children are started from one thread that lives as long as the process: the kernel sends the death signal when the
# *thread* that forked ends, so a child started from a short-lived worker thread would die with that thread.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="server-spawner")


class Server(ABC):
    """Something that starts and stops, and can stand in a `with` statement."""

    @abstractmethod
    def start(self) -> None:
        """Start and wait until it answers; raises ServerFailed, and nothing is left running then."""

    @abstractmethod
    def stop(self) -> None:
        """End it; does nothing when it has ended."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.stop()


class ServerProcess:
    """One server as a child process with its output in a log file (appended to at each start)."""

    def __init__(
        self,
        name: str,
        args: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """`env` is added to this process's environment; `death_signal` goes to the child when this process dies."""
        self.name, self.args, self.log, self.cwd = name, [str(arg) for arg in args], log, cwd
        self._env = {**os.environ, **(env or {})}
        self._death_signal = death_signal
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The child's process id; raises ServerFailed when it was not started."""
        if self._child is None:
            raise ServerFailed(f"{self.name} was not started")
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs (or is paused)."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """The child's exit status (negative: the signal that ended it); None while it runs."""
        return None if self._child is None else self._child.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to a child that runs."""
        os.kill(self.pid, number)

    def tail(self, lines: int = 30) -> str:
        """The last lines of the server's log."""
        return tail_of(self.log, lines)

    def start(self, probe: Callable[[], object] | None = None, timeout: float = 30.0) -> None:
        """Start and wait until `probe` gives a true value; on failure the child is ended and ServerFailed raised."""
        if self.alive:
            raise ServerFailed(f"{self.name} runs already as process {self.pid}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._child = _spawner.submit(self._popen).result()
        deadline = time.monotonic() + timeout
        while probe is not None and not probe():
            if not self.alive:
                raise ServerFailed(f"{self.name} ended with status {self._child.returncode}:\n{self.tail()}")
            if time.monotonic() >= deadline:
                self.kill()
                raise ServerFailed(f"{self.name} did not answer within {timeout:g} s:\n{self.tail()}")
            time.sleep(0.02)

    def _popen(self) -> subprocess.Popen[bytes]:
        parent, death_signal = os.getpid(), int(self._death_signal)

        def before_exec() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os._exit(1)

        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.args,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self.cwd,
                start_new_session=True,  # Ctrl-C at the terminal is for the test run; its fixtures end the servers
                preexec_fn=before_exec,
            )

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, wait up to `timeout` seconds, then SIGKILL. Does nothing when the child has ended."""
        if self._child is None or not self.alive:
            return
        self._child.send_signal(signal.SIGTERM)
        self._child.send_signal(signal.SIGCONT)  # a paused child gets the first signal only when it goes on
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL and wait for the end: what a crash looks like to clients."""
        if self._child is not None and self.alive:
            self._child.kill()
            self._child.wait(10)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        os.kill(self.pid, signal.SIGCONT)
