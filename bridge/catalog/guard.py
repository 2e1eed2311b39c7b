"""The mass-removal guard: how much of a source may vanish by mere absence (semantics 4.2).

It weighs net loss: what a complete listing no longer shows, and what listings took within the last minute, less what
appeared in the same services. Replacement is no loss, and explicit endings never come here.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.model import ServiceName

WINDOW = 60.0
"""Seconds over which losses and additions are weighed against each other."""

LISTINGS_TO_OBEY = 2
"""Further complete listings that must agree before a held absence is obeyed."""


@dataclass(frozen=True, slots=True)
class GuardPolicy:
    """share: 0..1 of the source; floor: instances; hold_for: seconds; only_when_emptied: hold nothing else."""

    share: float = 0.3
    floor: int = 3
    hold_for: float = 300.0
    only_when_emptied: bool = False


@dataclass(slots=True)
class Hold:
    """An instance kept against a listing: since when (monotonic seconds), and how many further listings lacked it, too."""

    since: float
    listings: int = 0

    def is_over(self, policy: GuardPolicy, now: float) -> bool:
        """Whether the absence was confirmed often and long enough to be obeyed."""
        return self.listings >= LISTINGS_TO_OBEY and now - self.since >= policy.hold_for


@dataclass(slots=True)
class Window:
    """How many instances of each service appeared, and how many absence took, within the last minute."""

    added: Counter[ServiceName] = field(default_factory=Counter)
    lost: Counter[ServiceName] = field(default_factory=Counter)
    _events: deque[tuple[float, Counter[ServiceName], ServiceName, int]] = field(default_factory=deque)

    def add(self, now: float, service: ServiceName, count: int = 1) -> None:
        """Note that ``count`` instances appeared in ``service`` at ``now`` (monotonic seconds)."""
        self._note(now, self.added, service, count)

    def lose(self, now: float, service: ServiceName) -> None:
        """Note that absence took an instance of ``service``; explicit endings are no loss that the guard weighs."""
        self._note(now, self.lost, service, 1)

    def trim(self, now: float) -> None:
        """Forget what is older than the window."""
        while self._events and self._events[0][0] < now - WINDOW:
            _, counts, service, count = self._events.popleft()
            counts[service] -= count
            if not counts[service]:
                del counts[service]

    def _note(self, now: float, counts: Counter[ServiceName], service: ServiceName, count: int) -> None:
        self._events.append((now, counts, service, count))
        counts[service] += count


def services_to_hold(
    policy: GuardPolicy,
    *,
    absent: Mapping[ServiceName, int],
    sizes: Mapping[ServiceName, int],
    total: int,
    lost: Mapping[ServiceName, int],
    added: Mapping[ServiceName, int],
) -> tuple[frozenset[ServiceName], str | None]:
    """The services whose absent instances are to be held, and why.

    absent: instances per service that listings lack now (those held already included).
    sizes: instances per service now, the absent ones included; needed for the services in ``absent``.
    total: instances of the source now, the absent ones included.
    lost, added: instances per service that absence took, and that appeared, within the window.

    | what would go                                  | held                                  |
    |------------------------------------------------|---------------------------------------|
    | net loss > max(floor, share of the source)     | every service with a net loss         |
    | a service of >= 2 would have none              | that service                          |
    | anything else                                  | nothing                               |
    | `only_when_emptied`: all that the source has   | everything; nothing in any other case |
    """
    if not absent:
        return frozenset(), None
    if policy.only_when_emptied:
        if sum(absent.values()) < total:
            return frozenset(), None
        return frozenset(absent), f"the listing shows none of {total} instances"
    net: dict[ServiceName, int] = {}
    for service in {*absent, *lost}:
        loss = absent.get(service, 0) + lost.get(service, 0) - added.get(service, 0)
        if loss > 0:
            net[service] = loss
    loss_in_all = sum(net.values())
    before = max(total + sum(lost.values()) - sum(added.values()), total)
    limit = max(policy.floor, policy.share * before)
    if loss_in_all > limit:
        held = frozenset(service for service in absent if net.get(service, 0) > 0)
        return held, f"listings lack {loss_in_all} of {before} instances, more than {limit:g} within {WINDOW:g} s"
    emptied = frozenset(
        service for service, count in absent.items() if sizes[service] == count and count + lost.get(service, 0) >= 2
    )
    if emptied:
        names = ", ".join(sorted(map(str, emptied))[:3])
        return emptied, f"listings lack every instance of {names}" + (" and others" if len(emptied) > 3 else "")
    return frozenset(), None
