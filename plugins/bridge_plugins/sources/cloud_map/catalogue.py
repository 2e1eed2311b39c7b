"""Which namespaces and services there are, and for which of them that could not be told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from bridge.errors import SourceError
from bridge_plugins.sources.cloud_map.api import Api
from bridge_plugins.sources.cloud_map.mapping import Found, Namespace, Service

T = TypeVar("T")


class Catalogue(Struct, frozen=True):
    """One reading of the control plane.

    services: by group key. failed: namespace key -> why its services could not be listed.
    rejected: namespace key -> group key or place -> why a service could not be read. broken: the same, of namespaces.
    unsure: namespace key, or "" for all -> why there may be services in it of which nothing is known.
    absent: names to watch that no namespace has.
    complete: keys of the namespaces whose list carries absence. all_told: whether the list of namespaces does.
    """

    services: dict[str, Service] = {}
    failed: dict[str, SourceError] = {}
    rejected: dict[str, dict[str, str]] = {}
    broken: dict[str, str] = {}
    unsure: dict[str, str] = {}
    absent: frozenset[str] = frozenset()
    complete: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    all_told: bool = False

    def lacks(self, service: Service) -> bool:
        """Whether it says that there is no such service; not the case where it could not tell."""
        key = service.namespace.key
        if service.key in self.services or service.key in self.rejected.get(key, {}):
            return False
        return key in self.complete or (self.all_told and key not in self.listed and key not in self.broken)

    def supersedes(self, service: Service) -> bool:
        """Whether another service has this one's name: asking by name would now tell of that one."""
        return any(
            other.name == service.name and other.namespace.id == service.namespace.id and other.id != service.id
            for other in self.services.values()
        )


class Control(Protocol):
    """Runs a blocking call of the control plane at the rate it allows."""

    def __call__(self, call: Callable[[], T]) -> Awaitable[T]: ...


async def read(api: Api, watched: Sequence[str], control: Control) -> Catalogue:
    """Read all namespaces, and the services of those to watch (empty: all). Raises SourceError when nothing could be told."""
    found = await control(api.namespaces)
    chosen = [space for space in found.namespaces if not watched or space.name in watched or space.http_name in watched]
    answers = await asyncio.gather(*(_services(api, namespace, control) for namespace in chosen))
    return combine(found, chosen, answers, watched)


async def _services(api: Api, namespace: Namespace, control: Control) -> Found | SourceError:
    try:
        return await control(lambda: api.services(namespace))
    except SourceError as error:
        return error


def combine(
    found: Found, chosen: Sequence[Namespace], answers: Sequence[Found | SourceError], watched: Sequence[str]
) -> Catalogue:
    """What the answers say together; those of namespaces that share a name count as one."""
    services: dict[str, Service] = {}
    failed: dict[str, SourceError] = {}
    rejected: dict[str, dict[str, str]] = {}
    unsure: dict[str, str] = {"": f"ListNamespaces: {found.unidentified}"} if found.unidentified else {}
    for namespace, answer in zip(chosen, answers, strict=True):
        if isinstance(answer, SourceError):
            failed[namespace.key] = answer
            continue
        services.update((service.key, service) for service in answer.services)
        if answer.broken:
            rejected.setdefault(namespace.key, {}).update(answer.broken)
        if answer.unidentified:
            unsure[namespace.key] = f"ListServices: {answer.unidentified}"
    listed = frozenset(namespace.key for namespace in chosen)
    names = {name for namespace in chosen for name in (namespace.name, namespace.http_name)}
    # Of namespaces that are not to be watched, what is wrong does not matter.
    broken = {place: why for place, why in found.broken.items() if not watched or place in watched or "[" in place}
    return Catalogue(
        services=services,
        failed=failed,
        rejected=rejected,
        broken=broken,
        unsure=unsure,
        absent=frozenset(watched) - names - broken.keys(),
        complete=listed - failed.keys() - unsure.keys(),
        listed=listed,
        all_told=not found.unidentified,
    )
