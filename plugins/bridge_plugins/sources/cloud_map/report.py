"""What a poll returns: the differences between what is known and what was told. Pure, but for noting what it tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bridge.errors import SourceError, TransientError
from bridge.model import Confirmed, InstanceGroup, Listing, SourceEvent, covers
from bridge_plugins.sources.cloud_map.looks import Watched
from bridge_plugins.sources.cloud_map.mapping import MAX_RESULTS

HUNG = 2.0
"""Seconds without an answer after which a service is unknown; until then it is merely late."""


class Problem(NamedTuple):
    """What is wrong with a namespace's list of services, or that of namespaces: why not all of it is known, and what of it
    could not be read.
    """

    error: SourceError | None
    rejected: Mapping[str, str]

    def differs(self, other: Problem) -> bool:
        """Whether there is something to tell to who knows ``other``."""
        return (str(self.error), self.rejected) != (str(other.error), other.rejected)


NO_PROBLEM = Problem(None, {})


def listing(scope: str, services: Iterable[Watched], problems: Mapping[str, Problem], *, whole: bool = False) -> Listing:
    """A listing of ``scope`` with these services. ``whole``: with all their groups, though they may not have changed."""
    groups: list[InstanceGroup] = []
    unchanged: list[str] = []
    unknown: dict[str, SourceError] = {}
    rejected: dict[str, str] = {}
    for key, problem in problems.items():
        rejected |= problem.rejected
        if problem.error is not None:
            unknown[key] = problem.error
    for watched in services:
        key = watched.service.key
        current = watched.fresh or watched.told
        if current is not None:
            rejected |= current.rejected
            if whole or current != watched.told:
                groups.append(current.group)
            else:
                unchanged.append(key)
            if current.full:
                unknown[key] = _truncated(key)
        error = watched.error or (TransientError(f"{key}: not answered yet") if current is None else None)
        if error is not None:
            unknown[key] = error
        watched.told, watched.fresh, watched.error_told = current, None, error is not None
    return Listing(scope, tuple(groups), tuple(unchanged), unknown, rejected)


def exact(told: Listing, services: Iterable[Watched]) -> tuple[Listing, ...]:
    """A listing, and again each group that it shows in a part it calls unknown: what such a group lacks is not there."""
    shown = {group.key for group in told.groups if any(key != group.key and covers(key, group.key) for key in told.unknown)}
    return told, *(listing(each.service.key, (each,), {}, whole=True) for each in services if each.service.key in shown)


def event(watched: Watched, now: float) -> SourceEvent | None:
    """What there is to tell of one service; None where it was not reached, or is merely late."""
    key = watched.service.key
    since = watched.asking_since
    if watched.running and since is not None and now - since > HUNG:
        watched.error = TransientError(f"{key}: no answer for {now - since:.0f} s")
    changed = watched.fresh is not None and watched.fresh != watched.told
    if watched.error is not None and not changed:
        watched.error_told = True
        return Listing(key, unknown={key: watched.error}, rejected=watched.told.rejected if watched.told else {})
    if changed or (watched.error_told and watched.ended == "well"):
        return listing(key, (watched,), {}, whole=True)
    watched.fresh = None
    return Confirmed(key) if watched.ended == "well" else None


def gone(watched: Watched) -> Listing:
    """A service that the backend says, twice, it does not have."""
    return Listing(watched.service.key, gone=(watched.service.key,))


def _truncated(key: str) -> TransientError:
    return TransientError(f"{key}: possibly truncated at {MAX_RESULTS} instances; what it lacks is kept")
