"""Commands that a bench starts and that say when they are there, and how a Python process starts fast."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.kit.servers.cache import cache_dir

ROOT = Path(__file__).resolve().parents[2]
_END_SECONDS = 5.0


def bytecode() -> dict[str, str]:
    """What makes a Python process find its bytecode from its second start on, as that of an installed program is found."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache_dir() / "bytecode")}


class Child:
    """A command that tells in lines what it does, and ends with its standard input; as a context manager it has been started.

    core: where it runs; None where this process does. env: added to this process's environment. took: seconds from just before
    it was started to its first line. said: that line. Raises RuntimeError when it ends or is silent for ``timeout`` seconds.
    """

    def __init__(
        self, command: Sequence[str], *, core: int | None = None, env: dict[str, str] | None = None, timeout: float = 60.0
    ) -> None:
        self._command = list(command) if core is None else ["taskset", "--cpu-list", str(core), *command]
        self._env = {**os.environ, **(env or {})}
        self._timeout = timeout
        self.took = 0.0
        self.said = ""

    def __enter__(self) -> Self:
        began = time.monotonic()
        self._child = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            self.said = self._line()
        except BaseException:
            self._end()
            raise
        self.took = time.monotonic() - began
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def ask(self, line: str) -> str:
        """Send a line and wait for the answer."""
        asked = self._pipe(self._child.stdin)
        asked.write(f"{line}\n")
        asked.flush()
        return self._line()

    def _line(self) -> str:
        said = self._pipe(self._child.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(said, selectors.EVENT_READ)
            if not selector.select(self._timeout):
                raise RuntimeError(f"{self._command}: silent for {self._timeout:g} s")
        line = said.readline()
        if not line:
            raise RuntimeError(f"{self._command}: {self._pipe(self._child.stderr).read().strip()}")
        return line.rstrip("\n")

    @staticmethod
    def _pipe(pipe: Any) -> IO[str]:
        assert pipe is not None
        opened: IO[str] = pipe
        return opened

    def _end(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            self._pipe(pipe).close()
        try:
            self._child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
