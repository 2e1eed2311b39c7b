"""The change log: what each index changed, for readers that resume (15 minutes or 100,000 changes)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec import Struct

from bridge.catalog.record import Pair
from bridge.model import ServiceInstance, ServiceName

MAX_AGE = 900.0
MAX_CHANGES = 100_000


class Touch(Struct, frozen=True):
    """What one index did to one service.

    pairs: its instances before and after; one that came from, or went to, another service has None there.
    known, degraded: whether the service was, and is, known and answered from expired instances.
    swayed: the expired instances that are otherwise as they were, where ``degraded`` changed.
    environments: those that knew the service before.
    """

    service: ServiceName
    pairs: tuple[Pair, ...]
    known: tuple[bool, bool]
    degraded: tuple[bool, bool] = (False, False)
    environments: tuple[str, ...] = ()
    swayed: tuple[ServiceInstance, ...] = ()


class Change:
    """All that one index changed, and when (monotonic seconds). ``pairs``: every instance once, whatever its services."""

    __slots__ = ("_by_service", "at", "index", "pairs", "touches")

    def __init__(self, index: int, at: float, pairs: tuple[Pair, ...], touches: tuple[Touch, ...]) -> None:
        self.index = index
        self.at = at
        self.pairs = pairs
        self.touches = touches
        self._by_service = {touch.service: touch for touch in touches}

    def touch(self, service: ServiceName) -> Touch | None:
        """What it did to ``service``."""
        return self._by_service.get(service)


class ChangeLog:
    """A bounded record of changes, oldest first. ``floor``: the log reaches back to every index from here on."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._changes: deque[Change] = deque()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, change: Change) -> None:
        """Record ``change``; the oldest give way beyond 100,000 instance changes."""
        self._changes.append(change)
        self._size += _weight(change)
        while self._size > MAX_CHANGES and self._changes:
            self._drop_first()

    def trim(self, now: float) -> None:
        """Forget what is older than 15 minutes."""
        while self._changes and self._changes[0].at < now - MAX_AGE:
            self._drop_first()

    def since(self, index: int) -> Iterator[Change] | None:
        """The changes after ``index`` in order; None where the log does not reach back so far."""
        if index < self.floor:
            return None
        tail: list[Change] = []
        for change in reversed(self._changes):
            if change.index <= index:
                break
            tail.append(change)
        return reversed(tail)

    def _drop_first(self) -> None:
        change = self._changes.popleft()
        self._size -= _weight(change)
        self.floor = change.index


def _weight(change: Change) -> int:
    return max(1, len(change.pairs))
