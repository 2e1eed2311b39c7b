"""How an observation is applied: step by step, so that readers are answered between the steps, yet never by half."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.model import InstanceGroup, ServiceName

PIECE = 100
"""Instances, about, that one step looks at or applies: less than a millisecond, and less than three beside busy threads."""


class Application:
    """An observation being applied. As long as nothing was changed it can be dropped; from then on it is only ever ended.

    steps: yields between two steps whether anything was changed yet.
    """

    def __init__(self, steps: Iterator[bool]) -> None:
        self._steps = steps
        self._begun = False

    def step(self) -> bool:
        """Do one step; whether there are more. Raises what the observation is refused with."""
        for begun in self._steps:
            self._begun = begun
            return True
        return False

    def end(self) -> None:
        """Drop it if nothing was changed, else do all that is left at once."""
        while self._begun and self.step():
            pass
        self._steps = iter(())


class Pieces:
    """The groups of a listing, to be cut into pieces of about `PIECE` instances, each service whole in one of them.

    Readers see piece after piece: a service that is new to them then comes with everything it has.
    size: instances in all.
    """

    def __init__(self) -> None:
        self.size = 0
        self._by_service: dict[ServiceName, list[InstanceGroup]] = {}
        self._mixed: list[tuple[InstanceGroup, set[ServiceName]]] = []

    def add(self, group: InstanceGroup) -> None:
        """One group more."""
        self.size += len(group.instances)
        services = _services(group)
        if len(services) == 1:
            self._by_service.setdefault(services.pop(), []).append(group)
        else:
            self._mixed.append((group, services))

    def cut(self) -> Iterator[list[InstanceGroup]]:
        """The pieces. What shares services with others, and they with others again, is the first."""
        piece: list[InstanceGroup] = []
        size = 0
        for group, services in self._mixed:
            piece.append(group)
            for name in services:
                piece += self._by_service.pop(name, ())
        if piece:
            yield piece
        piece = []
        for members in self._by_service.values():
            piece += members
            size += sum([len(group.instances) for group in members])
            if size >= PIECE:
                yield piece
                piece, size = [], 0
        if piece:
            yield piece


def _services(group: InstanceGroup) -> set[ServiceName]:
    services = set(group.services)
    namespace = service = ""
    for instance in group.instances:
        if instance.service is not service or instance.namespace is not namespace:
            namespace, service = instance.namespace, instance.service
            services.add(ServiceName(namespace, service))
    return services
