"""Many things, some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last one shorter; each is taken when it is asked for (`itertools.batched` of 3.12)."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
