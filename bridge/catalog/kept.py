"""What an observation could not tell, and so keeps: keys and ids are paths, and a prefix stands for all below it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Kept:
    """What a listing could not tell: keys or prefixes unknown, keys or ids rejected."""

    def __init__(self, unknown: Iterable[str], rejected: Iterable[str]) -> None:
        self._ids = frozenset(rejected)
        self._parts = self._ids | {part.removesuffix("/") for part in unknown}
        self._above = {prefix for part in self._ids for prefix in upwards(part)}

    def covers(self, key: str) -> bool:
        """Whether the group ``key`` lies under what is unknown, or a rejection concerns it or something in it."""
        return bool(self._parts) and (key in self._above or any(prefix in self._parts for prefix in upwards(key)))

    def keeps(self, key: str, id_: str) -> bool:
        """Whether ``id_`` may be there though the group ``key`` does not show it."""
        return id_ in self._ids or self.covers(key)


def upwards(path: str) -> Iterator[str]:
    """The path, and every path above it, the whole (``""``) last."""
    yield path
    while path:
        path = path.rpartition("/")[0]
        yield path
