"""A service at a glance: counts per environment, port names, tags (the entries of ``/v1/services``)."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET, Struct, UnsetType

from bridge.model import ServiceInstance, ServiceName


class Counts(Struct, gc=False):
    """Instances of one environment: draining whatever their health, else ready, or unready (unknown too)."""

    ready: int = 0
    unready: int = 0
    draining: int = 0


class ServiceSummary(Struct, frozen=True):
    """One entry of ``/v1/services``."""

    namespace: str
    name: str
    ports: tuple[str, ...]
    tags: tuple[str, ...]
    environments: dict[str, Counts]
    degraded: str | UnsetType = UNSET


def bucket(instance: ServiceInstance) -> str:
    """Which of the counts an instance adds to."""
    if instance.lifecycle == "draining":
        return "draining"
    return "ready" if instance.health == "ready" else "unready"


def alike(instance: ServiceInstance) -> tuple[object, ...]:
    """Equal for instances that count in the same way, most of the time: cheap, and never equal for others."""
    return instance.environment, instance.health, instance.lifecycle, id(instance.ports), id(instance.tags)


def counts_alike(one: ServiceInstance, other: ServiceInstance) -> bool:
    """Whether instances of one origin count in the same way."""
    return (
        one.health == other.health
        and one.lifecycle == other.lifecycle
        and one.state == other.state
        and one.ports == other.ports
        and one.tags == other.tags
    )


class Tally:
    """Running counts of one service's instances, so that a change costs what it weighs."""

    __slots__ = ("_counts", "_ports", "_tags")

    def __init__(self, instances: Iterable[ServiceInstance] = ()) -> None:
        self._counts: dict[str, Counts] = {}
        self._ports: dict[str, int] = {}
        self._tags: dict[str, int] = {}
        for instance in instances:
            self.add(instance, 1)

    def add(self, instance: ServiceInstance, step: int) -> None:
        """Count ``instance`` in (1) or out (-1), or as many that are `alike` it."""
        counts = self._counts.get(instance.environment)
        if counts is None:
            counts = self._counts[instance.environment] = Counts()
        name = bucket(instance)
        setattr(counts, name, getattr(counts, name) + step)
        if not (counts.ready or counts.unready or counts.draining):
            del self._counts[instance.environment]
        for port in instance.ports:
            if port.name:
                _step(self._ports, port.name, step)
        for tag in instance.tags:
            _step(self._tags, tag, step)

    def count(self, environment: str) -> int:
        """Instances of one environment."""
        counts = self._counts.get(environment)
        return counts.ready + counts.unready + counts.draining if counts else 0

    def __bool__(self) -> bool:
        return bool(self._counts)

    def summary(self, service: ServiceName, environments: Iterable[str], degraded: str | None) -> ServiceSummary:
        """The entry: counts of every environment that has instances, zeros for the other ``environments`` that know it."""
        known = sorted({*self._counts, *environments})
        return ServiceSummary(
            namespace=service.namespace,
            name=service.name,
            ports=tuple(sorted(self._ports)),
            tags=tuple(sorted(self._tags)),
            environments={
                name: Counts(c.ready, c.unready, c.draining) if (c := self._counts.get(name)) else Counts() for name in known
            },
            degraded=degraded if degraded is not None else UNSET,
        )


def _step(table: dict[str, int], key: str, step: int) -> None:
    if count := table.get(key, 0) + step:
        table[key] = count
    else:
        del table[key]
