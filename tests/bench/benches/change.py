"""`change`: a group of a hundred with one instance changed, from fold to one woken reader.

Reference: the same in a catalog of 1,000 instances, in the same process, change by change in turns. The group comes as the
Kubernetes source yields it, of a service chosen at random, which nothing has touched for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from statistics import median, quantiles

from tests.bench.goals import Goal
from tests.bench.loaded import Bridges
from tests.bench.session import Figures, Measure, Session

NAME = "change"
SMALL = 1_000
CHANGES = 500


def run(session: Session) -> None:
    """1,000,000 instances, 10,000 in a smoke test; 500 changes of each catalog in a repetition."""
    large, changes = session.scale(1_000_000, 10_000), session.scale(CHANGES, 100)
    bridges = session.enter(Bridges(session.folder(), [large, SMALL]))
    bridges.changes(changes // 10, seed=0)
    seeds = count(1)

    def measure() -> list[Figures]:
        read = bridges.changes(changes, next(seeds))
        unread = bridges.changes(changes, next(seeds), read=False)
        return [_figures(*seconds) for seconds in zip(read, unread, strict=True)]

    turns = Turns(measure)
    measures = [
        Measure("median", f"change among {large:,}, to the reader", "\u00b5s", Goal("ratio <= 1.5"), scale=1e6),
        Measure("p99", f"change among {large:,}, to the reader, p99", "\u00b5s", scale=1e6),
        Measure("unread", f"change among {large:,}, without a reader", "\u00b5s", scale=1e6),
    ]
    reference = session.reference(f"the same among {SMALL:,}", lambda: turns)
    session.compare(measures, lambda: turns.figures(0), reference, lambda turns: turns.figures(1))


class Turns:
    """What was measured of several sides at once, handed out to each side by itself."""

    def __init__(self, measure: Callable[[], list[Figures]]) -> None:
        self._measure = measure
        self._kept: dict[int, deque[Figures]] = {}

    def figures(self, side: int) -> Figures:
        """The next figures of a side."""
        if not self._kept.get(side):
            for other, figures in enumerate(self._measure()):
                self._kept.setdefault(other, deque()).append(figures)
        return self._kept[side].popleft()


def _figures(read: list[float], unread: list[float]) -> Figures:
    return {"median": median(read), "p99": quantiles(read, n=100)[98], "unread": median(unread)}
