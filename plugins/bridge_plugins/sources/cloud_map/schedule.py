"""When to ask what. Pure: time comes in as an argument (monotonic seconds)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from zlib import crc32

Ask = Literal["revision", "instances"]
"""DiscoverInstancesRevision, which tells of registrations only; or DiscoverInstances, which tells all."""

SOONER = 0.9
"""What is due within this share of a poll is asked now: the next poll would be too late."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often, in seconds: polls, health of services that have checks, and everything."""

    refresh: float
    health: float
    sweep: float


@dataclass(slots=True)
class Plan:
    """When one service is to be discovered, whatever its revision. ``None``: at once."""

    health_at: float | None = None
    sweep_at: float | None = None

    def ask(self, now: float, intervals: Intervals, *, checked: bool) -> Ask:
        """What to ask in the poll at ``now``."""
        latest = now + SOONER * intervals.refresh
        if self.health_at is None or self.sweep_at is None:
            return "instances"
        return "instances" if self.sweep_at < latest or (checked and self.health_at < latest) else "revision"

    def discovered(self, now: float, intervals: Intervals, identity: str) -> None:
        """It was, at ``now``. The first time, the next comes early, at a point of its own, so that services do not crowd."""
        share = 1.0 if self.sweep_at is not None else phase(identity)
        self.health_at = now + share * intervals.health
        self.sweep_at = now + share * intervals.sweep


def phase(identity: str) -> float:
    """A share of an interval, above 0 and at most 1, the same for the same service."""
    return (crc32(identity.encode()) % 1000 + 1) / 1000


class Bucket:
    """A token bucket: ``rate`` calls a second, spread evenly; ``burst`` seconds' worth, and at least one, at once.

    Calls reserve their turn in advance, so that each knows how long to wait.
    """

    def __init__(self, rate: float, *, burst: float = 0.1) -> None:
        self._interval = 1.0 / rate
        self._ahead = max(0.0, burst - self._interval)
        self._next = float("-inf")

    def reserve(self, now: float, until: float) -> float | None:
        """Seconds until the turn of one more call; None, and nothing reserved, where that would be past ``until``."""
        turn = max(self._next, now - self._ahead)
        if turn > until:
            return None
        self._next = turn + self._interval
        return max(0.0, turn - now)
