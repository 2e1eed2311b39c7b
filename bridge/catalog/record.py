"""One id of a source, and one group: what is kept of each, and what a fold changed of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import is_not

from msgspec import Struct

from bridge.catalog.merge import merge
from bridge.model import ServiceInstance, ServiceName

Pair = tuple[ServiceInstance | None, ServiceInstance | None]
"""An instance before and after a change; None where it was not, or is no longer, there."""

Parts = tuple[tuple[str, ServiceInstance], ...]
"""What each group says of an id: group key and instance, one or more."""


class Record(Struct, gc=False):
    """One id: what it shows, and when it was first listed (wall seconds).

    held_by: the key of the only group that shows it, as nearly all have, or else what each group says of it.
    """

    instance: ServiceInstance
    held_by: str | Parts
    since: float

    @property
    def parts(self) -> Parts:
        """What each group says of it."""
        held_by = self.held_by
        return ((held_by, self.instance),) if isinstance(held_by, str) else held_by

    def show(self, parts: Parts) -> None:
        """Take over what the groups say now."""
        self.instance = merge([part for _, part in parts])
        self.held_by = parts[0][0] if len(parts) == 1 else parts


class Group:
    """One key: what it shows (each id once), the ids kept though it shows them no more, and the services it stands for."""

    __slots__ = ("instances", "kept", "services")

    def __init__(self) -> None:
        self.instances: list[ServiceInstance] = []
        self.kept: dict[str, None] = {}
        self.services: tuple[ServiceName, ...] = ()

    @property
    def shown(self) -> list[str]:
        """The ids it shows."""
        return [instance.id for instance in self.instances]

    def differences(self, instances: Sequence[ServiceInstance]) -> list[int] | None:
        """Where ``instances`` are other objects than those it shows; None where they are not as many, or mostly others."""
        if len(instances) != len(self.instances):
            return None
        found = list(compress(range(len(instances)), map(is_not, self.instances, instances)))
        return found if 2 * len(found) <= len(instances) else None


@dataclass(slots=True)
class Changes:
    """What a fold changed: instances by id, how many groups more or fewer stand for a service, groups touched.

    moved: ids that show the same as before, but are held by other groups now: only the disk cares.
    """

    pairs: dict[str, Pair] = field(default_factory=dict)
    stands: dict[ServiceName, int] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)
    moved: dict[str, None] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.pairs or self.stands or self.groups or self.moved)

    def absorb(self, other: Changes) -> None:
        """Add what happened after."""
        for id_, (before, after) in other.pairs.items():
            self.note(id_, before, after)
        self.groups.update(other.groups)
        self.moved.update(other.moved)

    def arrive(self, instances: Iterable[ServiceInstance]) -> None:
        """Add instances that were not there before."""
        pairs: dict[str, Pair] = {instance.id: (None, instance) for instance in instances}
        if self.pairs.keys().isdisjoint(pairs):
            self.pairs.update(pairs)
        else:
            for id_, (_, instance) in pairs.items():
                self.note(id_, None, instance)

    def note(self, id_: str, before: ServiceInstance | None, after: ServiceInstance | None) -> None:
        """Add one step; steps of one id collapse, and one that leads back vanishes."""
        if id_ in self.pairs:
            before = self.pairs[id_][0]
            if before == after:
                del self.pairs[id_]
                return
        if before is not after:
            self.pairs[id_] = (before, after)
