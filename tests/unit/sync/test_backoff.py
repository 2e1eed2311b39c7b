"""How long a source waits before it tries again."""

from __future__ import annotations

from random import Random

import pytest

from bridge.errors import ForbiddenError, TransientError
from bridge.sync.backoff import Backoff


class Always(Random):
    """Draws the same share of every range."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def delays(error: BaseException, count: int, share: float = 1.0) -> list[float]:
    backoff = Backoff(random=Always(share))
    return [backoff.delay(error) for _ in range(count)]


TABLE: dict[str, tuple[BaseException, float, list[float]]] = {
    "the longest": (TransientError("x"), 1.0, [1, 2, 4, 8, 16, 20, 20]),
    "the shortest": (TransientError("x"), 0.0, [0] * 7),
    "a defect is as any failure": (ValueError("x"), 1.0, [1, 2, 4, 8, 16, 20, 20]),
    "a denial waits": (ForbiddenError("x"), 0.0, [5] * 7),
    "a denial at the most": (ForbiddenError("x"), 1.0, [10, 10, 10, 10, 16, 20, 20]),
    "what the backend asked for": (TransientError("x", retry_after=7.0), 1.0, [7, 7, 7, 8, 16, 20, 20]),
    "a minute at the most": (TransientError("x", retry_after=3600.0), 1.0, [60] * 7),
    "a denial that asked for more": (ForbiddenError("x", retry_after=30.0), 0.0, [30] * 7),
}


@pytest.mark.parametrize(("error", "share", "expected"), TABLE.values(), ids=TABLE)
def test_delays(error: BaseException, share: float, expected: list[float]) -> None:
    assert delays(error, 7, share) == expected


def test_success_starts_anew() -> None:
    backoff = Backoff(random=Always(1.0))
    for _ in range(5):
        backoff.delay(TransientError("x"))
    backoff.reset()
    assert backoff.delay(TransientError("x")) == 1.0


def test_it_never_overflows() -> None:
    assert max(delays(TransientError("x"), 5000)) == 20.0


def test_two_sources_do_not_try_together() -> None:
    one, other = Backoff(), Backoff()
    error = TransientError("x")
    assert [one.delay(error) for _ in range(5)] != [other.delay(error) for _ in range(5)]
