"""How long changes of a backend take to reach readers of the bridge, from what observers saw (`tests.kit.sightings`)."""

from __future__ import annotations

import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tests.kit.sightings import Sighting, Sightings

T = TypeVar("T")


def samples(default: int) -> int:
    """How many samples of each kind a test takes: ``ENVBRIDGE_SAMPLES``, else ``default``."""
    return int(os.environ.get("ENVBRIDGE_SAMPLES") or default)


class Latencies:
    """How long each kind of change takes to reach each reader."""

    def __init__(self) -> None:
        self.seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def measure(
        self,
        kind: str,
        act: Callable[[], object],
        done: Callable[[dict[str, str]], bool],
        truth: Sightings,
        readers: Mapping[str, Sightings],
        *,
        prefix: str = "",
        by_state: bool = False,
        timeout: float = 30.0,
    ) -> None:
        """Act, wait until ``done`` holds of the truth's states and the readers show the same, and add what each change took.

        readers: by how they read. prefix: only instances whose id begins with it. by_state: each state is a kind of its own.
        Raises TimeoutError, or AssertionError for a change that a reader never got.
        """

        def ours(found: Mapping[str, T]) -> dict[str, T]:
            return {id_: value for id_, value in found.items() if id_.startswith(prefix)}

        since = time.monotonic()
        act()
        truth.wait(lambda states: done(ours(states)), timeout, kind)
        for reader in readers.values():
            reader.wait(lambda states: states == ours(truth.states), timeout, kind)
        changes = ours(truth.history(since))
        for label, reader in readers.items():
            histories = reader.history(since)
            for id_, expected in changes.items():
                for sighting, seen_at in matched(expected, histories.get(id_, ())):
                    name = f"{kind}: {sighting.state}" if by_state else kind
                    self.seconds[name, label].append(seen_at - sighting.at)

    def count(self, kind: str) -> int:
        """Samples of a kind so far, of one reader."""
        return min((len(taken) for (name, _), taken in self.seconds.items() if name == kind), default=0)

    def quantile(self, kind: str, reader: str, share: float) -> float:
        """By nearest rank."""
        ordered = sorted(self.seconds[kind, reader])
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    def report(self) -> str:
        """A table: count, p50, p99 and maximum in milliseconds, of each kind and reader."""
        lines = [f"{'change':<34} {'reader':<9} {'n':>5} {'p50':>8} {'p99':>8} {'max':>8}  ms"]
        for kind, reader in self.seconds:
            figures = (f"{self.quantile(kind, reader, share) * 1000:8.1f}" for share in (0.5, 0.99, 1.0))
            lines.append(f"{kind:<34} {reader:<9} {len(self.seconds[kind, reader]):>5} {' '.join(figures)}")
        return "\n".join(lines)

    def check(self, bound: float, share: float = 1.0, kinds: Callable[[str], bool] = lambda kind: True) -> None:
        """Raises AssertionError with the figures where a quantile of a kind is above ``bound`` seconds."""
        late = [key for key in self.seconds if kinds(key[0]) and self.quantile(*key, share) > bound]
        assert not late, f"p{share * 100:g} above {bound:g} s: {late}\n{self.report()}"


def matched(expected: Sequence[Sighting], seen: Sequence[Sighting]) -> list[tuple[Sighting, float]]:
    """Each expected sighting with the time at which it, or a later one, was seen; orders agree.

    A reader may skip a state that another one followed at once, and may see a short one that the truth's observer missed.
    Raises AssertionError where it did not get as far as it should.
    """
    pairs: list[tuple[Sighting, float]] = []
    for sighting in seen:
        following = expected[len(pairs) :]
        position = next((index for index, item in enumerate(following) if item.state == sighting.state), None)
        if position is not None:
            pairs += [(item, sighting.at) for item in following[: position + 1]]
    assert len(pairs) == len(expected), f"never seen: {expected[len(pairs) :]}; seen: {list(seen)}"
    return pairs
