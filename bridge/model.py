"""The nouns that everything else exchanges.

Values are frozen, compare by content and carry no clocks: "changed?" is ``!=``. They are msgspec Structs outside
the garbage collector (``gc=False``), because a catalog holds a million of them and none can form a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from msgspec import Struct

from bridge.errors import SourceError

Health = Literal["ready", "unready", "unknown"]
Lifecycle = Literal["active", "draining"]
State = Literal["listed", "down", "expired"]

DEFAULT_NAMESPACE = "default"


class ServiceName(NamedTuple):
    """A service, named ``namespace/name``; the same in every environment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Origin(NamedTuple):
    """Where a record comes from: the environment and its source, both without ``/``."""

    environment: str
    source: str


NOWHERE = Origin("", "")
"""The origin of an instance as long as nobody stamped it."""


class Port(Struct, frozen=True, gc=False):
    """A port of an endpoint. ``name`` is None where the backend gives none; ``protocol`` is TCP, UDP or SCTP."""

    name: str | None
    port: int
    protocol: str = "TCP"
    app_protocol: str | None = None


class ServiceInstance(Struct, frozen=True, gc=False, kw_only=True):
    """One instance of one service, as every surface shows it.

    The field order is the order of the JSON document. Plugins leave ``environment`` and ``source`` empty (ingest
    stamps them), or as their context has them (which spares a copy), and ``state`` alone (the lifecycle decides it).
    ``id`` is unique in its source and contains the service it was seen in, by the source's own names. ``addresses``
    are textual IPs; ``weight`` is >= 0.
    """

    environment: str = ""
    source: str = ""
    id: str
    namespace: str
    service: str
    addresses: tuple[str, ...] = ()
    hostname: str | None = None
    ports: tuple[Port, ...] = ()
    health: Health = "ready"
    lifecycle: Lifecycle = "active"
    state: State = "listed"
    weight: int = 1
    region: str | None = None
    zone: str | None = None
    node: str | None = None
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}

    @property
    def service_name(self) -> ServiceName:
        """The service this instance belongs to."""
        return ServiceName(self.namespace, self.service)

    @property
    def ref(self) -> str:
        """``environment/source/id``: its name among all environments."""
        return f"{self.environment}/{self.source}/{self.id}"


class InstanceGroup(Struct, frozen=True, gc=False):
    """What the backend replaces as a whole under ``key``: a slice, a Swarm service, a Cloud Map service, a file's service.

    ``key`` is a path (``payments/web-abc``). ``services`` are the names the group stands for, in the source's own names,
    so that a service without instances exists. The same id may stand in several groups of one service.
    """

    key: str
    instances: tuple[ServiceInstance, ...] = ()
    services: tuple[ServiceName, ...] = ()


class Gone(Struct, frozen=True, gc=False):
    """The backend itself said that the group ``key`` ended: explicit negative evidence."""

    key: str


class Rejected(Struct, frozen=True, gc=False):
    """One broken object in a stream: group key or instance id, and why. Its old record is kept."""

    key: str
    reason: str


class Confirmed(Struct, frozen=True, gc=False):
    """Nothing new under ``scope``, seen just now (a bookmark, an unchanged poll). Feeds age and the silence deadline."""

    scope: str = ""


class Listing(Struct, frozen=True, gc=False):
    """A complete observation of everything under the key prefix ``scope`` (``""``: the whole source).

    groups: the groups that are there, each complete.
    unchanged: keys of groups that are there exactly as this source last yielded them (a fingerprint said so).
    unknown: key or key prefix -> why it could not be told; what is under it is kept. A key may be in ``groups`` and in
        ``unknown``: then what the group shows is applied and what it lacks is kept.
    rejected: group key or instance id -> why; their old records are kept.
    gone: group keys or instance ids that the backend itself calls ended.

    Absence from a listing means removal, weighed by the guard, except under ``unknown`` and ``rejected``.
    """

    scope: str = ""
    groups: tuple[InstanceGroup, ...] = ()
    unchanged: tuple[str, ...] = ()
    unknown: Mapping[str, SourceError] = {}
    rejected: Mapping[str, str] = {}
    gone: tuple[str, ...] = ()


SourceEvent = Listing | InstanceGroup | Gone | Rejected | Confirmed
Observation = SourceEvent | tuple[SourceEvent, ...]
"""What a source yields: one event, or several that belong to one index."""


def covers(scope: str, key: str) -> bool:
    """Whether the path ``key`` lies under the path prefix ``scope``: equal, or below it at a ``/``; ``""`` covers all."""
    return not scope or key == scope or key.startswith(scope if scope.endswith("/") else scope + "/")
