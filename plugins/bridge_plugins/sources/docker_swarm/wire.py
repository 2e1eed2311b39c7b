"""The Engine's JSON, decoded field by field: only what is mapped is read, everything else is skipped unseen.

Field names and their optionality are those of the Engine API (https://docs.docker.com/engine/api/), of which Go leaves out
or writes as ``null`` what is empty. Lists keep their objects raw, so that a broken one costs only itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, field

from bridge.errors import TransientError

T = TypeVar("T")

Id = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]{1,128}\Z")]
PortNumber = Annotated[int, Meta(ge=0, le=65535)]

_MALFORMED = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)


class Port(Struct, gc=False, rename="pascal"):
    """A published port of a service or of a task; ``published_port`` is 0 until one was allocated."""

    target_port: PortNumber = 0
    published_port: PortNumber = 0
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    publish_mode: Literal["ingress", "host"] = "ingress"
    name: str = ""


class VirtualIP(Struct, gc=False):
    """The address of a service on one network, with its prefix length; empty while there is none."""

    network_id: str = field(default="", name="NetworkID")
    addr: str = field(default="", name="Addr")


class Endpoint(Struct):
    """How a service is exposed."""

    ports: list[Port] | None = field(default=None, name="Ports")
    virtual_ips: list[VirtualIP] | None = field(default=None, name="VirtualIPs")


class Mode(Struct, rename="pascal"):
    """How a service is scheduled; of interest is only whether it is a job, which is meant to end."""

    replicated_job: dict[str, Any] | None = None
    global_job: dict[str, Any] | None = None


class ServiceSpec(Struct, rename="pascal"):
    """What its owner wants of a service."""

    name: str
    labels: dict[str, str] | None = None
    mode: Mode | None = None

    @property
    def is_job(self) -> bool:
        """Whether its tasks are meant to end."""
        return self.mode is not None and (self.mode.replicated_job is not None or self.mode.global_job is not None)


class UpdateStatus(Struct, gc=False, rename="pascal"):
    """How far an update or a rollback has come."""

    state: str = ""


class ServiceStatus(Struct, gc=False, rename="pascal"):
    """The manager's own count of tasks (API 1.41 and later)."""

    desired_tasks: int = 0


class Service(Struct, rename="pascal"):
    """A service."""

    id: Id = field(name="ID")
    spec: ServiceSpec
    endpoint: Endpoint | None = None
    update_status: UpdateStatus | None = None
    service_status: ServiceStatus | None = None


class PortStatus(Struct, rename="pascal"):
    """The ports that a task has on its node."""

    ports: list[Port] | None = None


class TaskStatus(Struct, rename="pascal"):
    """What a task does now."""

    state: str
    port_status: PortStatus | None = None


class AttachedSpec(Struct, rename="pascal"):
    """A network's name, and whether it is the routing mesh's."""

    name: str = ""
    ingress: bool = False


class AttachedNetwork(Struct, rename="pascal"):
    """The network of an attachment."""

    id: str = field(default="", name="ID")
    spec: AttachedSpec | None = None


class Attachment(Struct, rename="pascal"):
    """A task's addresses on one network, with their prefix lengths."""

    network: AttachedNetwork
    addresses: list[str] | None = None


class ContainerSpec(Struct, rename="pascal"):
    """The container of a task."""

    labels: dict[str, str] | None = None


class TaskSpec(Struct, rename="pascal"):
    """What a task runs; plugins and attached containers have no ``container_spec``."""

    container_spec: ContainerSpec | None = None


class Task(Struct, rename="pascal"):
    """A task."""

    id: Id = field(name="ID")
    status: TaskStatus
    spec: TaskSpec
    desired_state: str
    service_id: str = field(default="", name="ServiceID")
    node_id: str = field(default="", name="NodeID")
    networks_attachments: list[Attachment] | None = None


class NodeSpec(Struct, rename="pascal"):
    """What an operator wants of a node."""

    availability: str = ""
    labels: dict[str, str] | None = None


class Engine(Struct, rename="pascal"):
    """The Engine of a node."""

    labels: dict[str, str] | None = None


class NodeDescription(Struct, rename="pascal"):
    """What a node says of itself."""

    hostname: str = ""
    engine: Engine | None = None


class NodeStatus(Struct, rename="pascal"):
    """What the managers see of a node."""

    state: str = ""
    addr: str = ""


class ManagerStatus(Struct, rename="pascal"):
    """Of a manager; ``addr`` has a port."""

    addr: str = ""


class Node(Struct, rename="pascal"):
    """A node."""

    id: Id = field(name="ID")
    spec: NodeSpec
    status: NodeStatus
    description: NodeDescription | None = None
    manager_status: ManagerStatus | None = None


class Network(Struct, rename="pascal"):
    """A network, which has ``Id`` where everything else has ``ID``."""

    id: Id
    name: str
    ingress: bool = False


class _Head(Struct):
    id: str | None = field(default=None, name="ID")


class _NetworkHead(Struct):
    id: str | None = field(default=None, name="Id")


class _Owner(Struct):
    service_id: Id = field(name="ServiceID")


class Kind(Generic[T]):
    """A kind of object, as one call lists it."""

    def __init__(self, name: str, type_: type[T], head: type[_Head] | type[_NetworkHead] = _Head) -> None:
        self.name = name
        self.decode = msgspec.json.Decoder(type_).decode
        self.decode_head = msgspec.json.Decoder(head).decode


SERVICES = Kind("services", Service)
TASKS = Kind("tasks", Task)
NODES = Kind("nodes", Node)
NETWORKS = Kind("networks", Network, _NetworkHead)


class Items(Struct, Generic[T]):
    """The objects of one list.

    found: by id. broken: why an object with a readable id cannot be read, by id.
    nameless: why, of objects without a readable id; each with the id of the service it says it belongs to, or "".
    memo: what was decoded, by digest of its JSON, for the next list.
    """

    found: dict[str, T]
    broken: dict[str, str]
    nameless: list[tuple[str, str]]
    memo: dict[bytes, T]


class Actor(Struct):
    """What an event is about."""

    id: str = field(default="", name="ID")


class Event(Struct, rename="pascal"):
    """An event of the Engine."""

    type: str = ""
    action: str = ""
    actor: Actor | None = None


class _Version(Struct):
    api_version: Annotated[str, Meta(pattern=r"\A[0-9]{1,3}\.[0-9]{1,3}\Z")] = field(name="ApiVersion")


class _Message(Struct):
    message: str = ""


_LIST = msgspec.json.Decoder(list[Raw])
_OWNER = msgspec.json.Decoder(_Owner)
_EVENT = msgspec.json.Decoder(Event)
_VERSION = msgspec.json.Decoder(_Version)
_MESSAGE = msgspec.json.Decoder(_Message)


def digest(data: bytes | Raw) -> bytes:
    """A fingerprint of JSON."""
    return blake2b(data, digest_size=16).digest()


def read_items(body: bytes, kind: Kind[T], memo: Mapping[bytes, T]) -> Items[T]:
    """The objects of a list. memo: of the list before; what has not changed is not decoded again.

    Raises TransientError where the body is no list.
    """
    try:
        raws = _LIST.decode(body)
    except _MALFORMED as error:
        raise TransientError(f"the list of {kind.name} cannot be read: {error}") from error
    items: Items[T] = Items({}, {}, [], {})
    for position, raw in enumerate(raws):
        key = digest(raw)
        item = memo.get(key)
        if item is None:
            try:
                item = kind.decode(raw)
            except _MALFORMED as error:
                _note_broken(items, raw, kind, f"{kind.name}[{position}]: {error}")
                continue
        items.memo[key] = item
        items.found[item.id] = item  # type: ignore[attr-defined]  # every kind has one
    return items


def read_event(line: bytes) -> Event:
    """One line of the event stream; an empty event where it is none: it is a hint that something happened all the same."""
    try:
        return _EVENT.decode(line)
    except _MALFORMED:
        return Event()


def read_version(body: bytes) -> str:
    """The API version that ``/version`` names. Raises TransientError where it names none."""
    try:
        return _VERSION.decode(body).api_version
    except _MALFORMED as error:
        raise TransientError(f"the version cannot be read: {error}") from error


def read_message(body: bytes) -> str:
    """The text of an error's body; the first of its characters where it is not the Engine's."""
    try:
        return _MESSAGE.decode(body).message
    except _MALFORMED:
        return body[:200].decode(errors="replace")


def _note_broken(items: Items[T], raw: Raw, kind: Kind[T], reason: str) -> None:
    try:
        own = kind.decode_head(raw).id
        named = own is not None and msgspec.convert(own, Id)
    except _MALFORMED:
        named = None
    if named:
        items.broken[named] = reason
        return
    try:
        owner = _OWNER.decode(raw).service_id
    except _MALFORMED:
        owner = ""
    items.nameless.append((reason, owner))
