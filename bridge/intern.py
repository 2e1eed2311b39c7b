"""One copy of what repeats: a catalog of a million instances has a few thousand names, tags, port lists and meta dicts.

`sys.intern` serves strings. Tuples and dicts share through a pool of a fixed size, so that a source whose values never
repeat costs no memory beyond it.
"""

from __future__ import annotations

from sys import intern
from typing import Any, TypeVar

LIMIT = 65_536
"""Entries a pool may hold before it starts anew."""

T = TypeVar("T")


class Interner:
    """Hands out one copy of equal values, which nobody may change from then on.

    limit: entries of the pool; beyond it the pool is emptied. What was handed out stays valid, it is only shared no further.
    May be used from several threads.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pool: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self._pool)

    text = staticmethod(intern)
    """The one copy of a string."""

    def items(self, value: tuple[T, ...]) -> tuple[T, ...]:
        """The one copy of a tuple whose members are hashable; a named tuple and a plain one stay two."""
        shared: tuple[T, ...] = self._share((type(value), value), value)
        return shared

    def mapping(self, value: dict[str, str]) -> dict[str, str]:
        """The one copy of a dict; another order of the same entries counts as another dict, since it is shown in order."""
        shared: dict[str, str] = self._share((dict, *value.items()), value)
        return shared

    def _share(self, key: Any, value: Any) -> Any:
        if len(self._pool) >= self._limit:
            self._pool.clear()
        return self._pool.setdefault(key, value)
