"""Load generators in C, built with `cc` into the cache of the test servers."""

from __future__ import annotations

from pathlib import Path

from tests.kit.servers.binaries import find
from tests.kit.servers.cache import cache_dir, digest, make_once, run_step

_LOAD = Path(__file__).parent / "load"


def compiled(name: str) -> Path:
    """The program of ``load/<name>.c``, built once. Raises ServerUnavailable when it cannot be compiled."""
    source, compiler = _LOAD / f"{name}.c", find("cc")

    def make(target: Path) -> None:
        run_step(f"compile {name}", [compiler, "-O2", "-Wall", "-Wextra", "-o", target, source])

    return make_once(cache_dir() / f"bench-{digest([source])}" / name, make)
