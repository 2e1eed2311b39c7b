"""The build cache outside the checkout: `~/.cache/envbridge/servers`, or the folder named by ENVBRIDGE_SERVERS."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from .process import ServerUnavailable

_STEP_SECONDS = 1800.0


def cache_dir() -> Path:
    """The cache folder, made if it is not there. Raises ServerUnavailable when it cannot be made."""
    named = os.environ.get("ENVBRIDGE_SERVERS")
    folder = Path(named) if named else Path.home() / ".cache" / "envbridge" / "servers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ServerUnavailable(f"the cache folder cannot be made: {error}") from error
    return folder


def digest(files: Sequence[Path], *texts: str) -> str:
    """A short hash over the files' names and contents and the texts: the key of what is made from them."""
    state = hashlib.sha256()
    for file in sorted(files):
        state.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    for text in texts:
        state.update(text.encode() + b"\0")
    return state.hexdigest()[:16]


@contextmanager
def lock(name: str, timeout: float = _STEP_SECONDS) -> Iterator[None]:
    """Hold the cache's lock `name` against other processes and threads.

    Raises ServerUnavailable when another holder keeps it for longer than `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    with (cache_dir() / f"{name}.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ServerUnavailable(f"the lock {name} was held by another process for {timeout:g} s") from None
                time.sleep(0.1)
        yield  # closing the file lets the lock go, at a crash too


def make_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, made by `make(temporary path)` and renamed into place; callers at the same time make it once.

    Whatever `make` raises goes on to the caller, and nothing is left at `target`.
    """
    if target.exists():
        return target
    with lock(target.name):
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            make(temporary)
            temporary.rename(target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
    return target


def run_step(what: str, args: Sequence[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run one step of a build or an installation and return its standard output.

    Its output is kept in the cache's `logs` folder. Raises ServerUnavailable with the log's tail when it fails.
    """
    log = cache_dir() / "logs" / f"{what.replace('/', '_').replace(' ', '-')}.log"
    log.parent.mkdir(exist_ok=True)
    try:
        done = subprocess.run(
            [str(arg) for arg in args],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_STEP_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerUnavailable(f"{what}: {error}") from error
    log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ServerUnavailable(f"{what} ended with status {done.returncode}:\n{tail}")
    return done.stdout


def python_environment(name: str, *requirements: str) -> Path:
    """The `bin` folder of a virtual environment in the cache that has the given PyPI requirements installed."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache_dir() / f"{name}-{digest([], version, *requirements)}"

    def make(marker: Path) -> None:
        # Made where it stays (its scripts name their interpreter by absolute path); the marker says that it is whole.
        shutil.rmtree(folder, ignore_errors=True)
        run_step(f"venv {name}", [sys.executable, "-m", "venv", folder])
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        run_step(f"pip {name}", [folder / "bin" / "python", *pip, *requirements])
        marker.write_text("\n".join(requirements))

    make_once(folder.with_name(f"{folder.name}.ok"), make)
    return folder / "bin"
