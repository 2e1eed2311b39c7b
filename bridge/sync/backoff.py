"""How long to wait before trying again: full jitter, as one formula for every source."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bridge.errors import ForbiddenError, SourceError


@dataclass(slots=True)
class Backoff:
    """Full-jitter exponential backoff. ``base`` and ``cap`` in seconds; a denial is tried again no sooner than ``denied``.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).
    """

    base: float = 0.5
    cap: float = 20.0
    denied: float = 5.0
    random: random.Random = field(default_factory=random.Random)
    attempts: int = 0

    def delay(self, error: BaseException) -> float:
        """Seconds to wait after ``error``; counts the attempt. What the backend asked for is waited for, up to a minute."""
        self.attempts += 1
        delay = self.random.uniform(0, min(self.cap, self.base * 2 ** min(self.attempts, 16)))
        if isinstance(error, ForbiddenError):
            delay = max(delay, self.random.uniform(self.denied, 2 * self.denied))
        if isinstance(error, SourceError) and error.retry_after is not None:
            delay = max(delay, min(error.retry_after, 60.0))
        return delay

    def reset(self) -> None:
        """It works: the next failure is the first."""
        self.attempts = 0
