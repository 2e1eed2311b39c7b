"""A service in the catalog: its instances from every environment, counted, and who knows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from bridge.catalog.summary import Tally, alike, counts_alike
from bridge.model import Origin, ServiceInstance, ServiceName

REMEMBERED_FOR = 24 * 3600.0
"""Seconds a service stays known after its last instance, and the last group that stood for it, went."""


class ServiceEntry:
    """One service. ``index``: when it last changed; ``emptied_at``: wall seconds, per environment whose last record went."""

    __slots__ = ("_expired", "_listed", "degraded", "emptied_at", "index", "members", "name", "stands", "tally")

    degraded_reason = "no instance of it was confirmed for longer than its sources' hold"

    def __init__(self, name: ServiceName) -> None:
        self.name = name
        self.index = 0
        self.members: dict[Origin, dict[str, ServiceInstance]] = {}
        self.tally = Tally()
        self.stands: dict[str, int] = {}
        self.emptied_at: dict[str, float] = {}
        self.degraded = False
        self._listed = 0
        self._expired = 0

    @property
    def all_listed(self) -> bool:
        """Whether no instance is down or expired, so that the running counts are the answer."""
        return self._listed == sum(map(len, self.members.values()))

    @property
    def known(self) -> bool:
        """Whether it exists: instances, a group that stands for it, or the memory of either."""
        return bool(self.members or self.stands or self.emptied_at)

    def environments(self) -> tuple[str, ...]:
        """The environments that know it, in order."""
        return tuple(sorted({*(origin.environment for origin in self.members), *self.stands, *self.emptied_at}))

    def ordered(self) -> Iterator[ServiceInstance]:
        """Its instances by environment, source and id."""
        for origin in sorted(self.members):
            members = self.members[origin]
            for id_ in sorted(members):
                yield members[id_]

    def change(self, pairs: Sequence[tuple[ServiceInstance | None, ServiceInstance | None]]) -> None:
        """Replace instances by others of the same origin and id; either side of a pair may be None."""
        arrived = [after for before, after in pairs if before is None and after is not None]
        if len(arrived) == len(pairs):
            self.arrive(arrived)
            return
        counts: dict[tuple[object, ...], list[Any]] = {}
        for before, after in pairs:
            instance = after if after is not None else before
            if instance is None:
                continue
            members = self.members.setdefault(Origin(instance.environment, instance.source), {})
            if before is not None and after is not None and counts_alike(before, after):
                members[after.id] = after
                continue
            if before is not None:
                counts.setdefault((*alike(before), before.state), [before, 0])[1] -= 1
            if after is not None:
                members[after.id] = after
                counts.setdefault((*alike(after), after.state), [after, 0])[1] += 1
            else:
                del members[instance.id]
        for emptied in [origin for origin, left in self.members.items() if not left]:
            del self.members[emptied]
        for instance, step in counts.values():
            if step:
                self._count(instance, step)

    def arrive(self, instances: Sequence[ServiceInstance]) -> None:
        """Take in instances, none of which is here; thousands at once where a source is listed, or read from disk."""
        for environment, source in {(instance.environment, instance.source) for instance in instances}:
            members = self.members.setdefault(Origin(environment, source), {})
            members.update(
                {
                    instance.id: instance
                    for instance in instances
                    if instance.source == source and instance.environment == environment
                }
            )
        kinds = [(*alike(instance), instance.state) for instance in instances]
        examples = dict(zip(kinds, instances, strict=True))
        for kind, count in Counter(kinds).items():
            self._count(examples[kind], count)

    def stand(self, environment: str, step: int) -> None:
        """More, or fewer, groups of an environment stand for it."""
        if count := self.stands.get(environment, 0) + step:
            self.stands[environment] = count
        else:
            self.stands.pop(environment, None)

    def settle(self, environment: str, wall: float) -> None:
        """After a change by ``environment``: note whether it has nothing left, and whether expired instances must stand in."""
        if environment in self.stands or any(origin.environment == environment for origin in self.members):
            self.emptied_at.pop(environment, None)
        else:
            self.emptied_at.setdefault(environment, wall)
        self.degrade()

    def degrade(self) -> None:
        """Note whether expired instances must stand in, because nothing else is left."""
        self.degraded = self._listed == 0 and self._expired > 0

    def _count(self, instance: ServiceInstance, step: int) -> None:
        self.tally.add(instance, step)
        if instance.state == "listed":
            self._listed += step
        elif instance.state == "expired":
            self._expired += step
