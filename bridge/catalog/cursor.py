"""Cursors: when a view last changed here, and what it contained (semantics 4.6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

_FORM = re.compile(r"([0-9a-z]+)-([0-9]{1,20})-([0-9a-f]{16})")
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """``<lineage>-<index>-<digest>``, opaque to readers."""

    lineage: str
    index: int
    digest: int

    def __str__(self) -> str:
        return f"{self.lineage}-{self.index}-{self.digest:016x}"


@lru_cache(maxsize=1024)  # all who wait for a view have the same
def parse_cursor(text: str) -> Cursor | None:
    """The cursor in ``text``, with or without the marks of an ETag; None where it is none."""
    bare = text.strip().removeprefix("W/").strip('"')
    match = _FORM.fullmatch(bare)
    return Cursor(match[1], int(match[2]), int(match[3], 16)) if match else None


def item_digest(item: bytes) -> int:
    """64 bits that stand for one entry of a view."""
    return int.from_bytes(blake2b(item, digest_size=8).digest(), "big")


def combine(*digests: int) -> int:
    """The digest of a set of entries: their sum, so that it follows a change without a look at the rest."""
    return sum(digests) & _MASK


@dataclass(slots=True)
class Indexes:
    """The numbering of changes in one database (rules W1 and W2).

    gaps: ranges ``(low, high]`` that an unclean stop left: what was shown under them may be lost.
    ceiling: the highest index that may be handed out before the next reservation is on disk.
    """

    lineage: str
    index: int
    ceiling: int
    gaps: tuple[tuple[int, int], ...] = ()

    def advance(self) -> int:
        """The next index."""
        self.index += 1
        return self.index

    def shown(self, index: int) -> int:
        """``index`` as a cursor may carry it: 0 beyond the ceiling, never handed out, so that only the digest counts."""
        return index if index <= self.ceiling else 0

    def handed_out(self, cursor: Cursor) -> bool:
        """Whether ``cursor`` may have come from here: this lineage, and an index given out and not lost."""
        return (
            cursor.lineage == self.lineage
            and 1 <= cursor.index <= self.index
            and not any(low < cursor.index <= high for low, high in self.gaps)
        )
