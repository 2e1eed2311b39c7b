"""Programs from Debian's packages, installed without letting the packages start services of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .cache import lock, run_step
from .process import ServerUnavailable

_POLICY = Path("/usr/sbin/policy-rc.d")
_POLICY_TEXT = "#!/bin/sh\n# Packages of the test servers start no services while they are installed.\nexit 101\n"
_updated = False


@dataclass(frozen=True)
class DebianProgram:
    """A program that a Debian package brings."""

    name: str
    path: Path
    packages: tuple[str, ...]
    version: str | None = None
    """The start of the version that a program from PATH must show; None: any will do."""

    def install(self) -> Path:
        """Install the packages unless the program is there; raises ServerUnavailable."""
        if not self.path.exists():
            install_packages(self.packages)
        if not self.path.exists():
            raise ServerUnavailable(f"{', '.join(self.packages)} installed, but there is no {self.path}")
        return self.path


def install_packages(packages: tuple[str, ...]) -> None:
    """`apt-get install` without recommended packages; lists are updated once per process.

    Raises ServerUnavailable when this is not Debian, not root, or the installation fails.
    """
    global _updated
    if shutil.which("apt-get") is None:
        raise ServerUnavailable(f"{', '.join(packages)}: apt-get is not on this machine")
    if os.geteuid() != 0:
        raise ServerUnavailable(f"{', '.join(packages)}: only root can install packages")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"]
    with lock("apt"), _no_services():
        if not _updated:
            run_step("apt-get update", [*apt, "update"], env=environment)
            _updated = True
        command = [*apt, "install", "-y", "--no-install-recommends", *packages]
        run_step(f"apt-get install {' '.join(packages)}", command, env=environment)


@contextmanager
def _no_services() -> Iterator[None]:
    """A `policy-rc.d` that forbids starting services; one that is there already is left as it is."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text(_POLICY_TEXT)
    try:
        _POLICY.chmod(0o755)
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
