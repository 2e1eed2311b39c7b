"""The API server's JSON, decoded field by field: only what is mapped is read, everything else is skipped unseen.

Fields are optional wherever Go's encoder may write ``null`` or nothing. Lists and watch events keep their objects raw,
so that a broken one costs only itself.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from bridge.errors import TransientError

T = TypeVar("T")

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
NodePort = Annotated[int, Meta(ge=0, le=65535)]
"""0: none was given to it."""

AddressType = Literal["IPv4", "IPv6", "FQDN"]
Protocol = Literal["TCP", "UDP", "SCTP"]
_MALFORMED = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_LONGEST_NAME = 255
# The escape of a surrogate, with the one of its second half where that follows; an even run of backslashes escapes itself.
_SURROGATE = re.compile(
    rb"(?<!\\)(\\++)u(?:[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|[dD][c-fC-F][0-9a-fA-F]{2})"
)
_REPLACEMENT = rb"\ufffd"


class BrokenError(Exception):
    """An object that cannot be read. ``name`` is None where not even that can be told."""

    def __init__(self, reason: str, namespace: str = "", name: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.namespace = namespace
        self.name = name


class SliceLabels(
    Struct,
    omit_defaults=True,
    gc=False,
    rename={
        "service": "kubernetes.io/service-name",
        "managed_by": "endpointslice.kubernetes.io/managed-by",
        "multicluster_service": "multicluster.kubernetes.io/service-name",
        "source_cluster": "multicluster.kubernetes.io/source-cluster",
    },
):
    """The labels of an EndpointSlice that decide whose it is."""

    service: str | None = None
    managed_by: str | None = None
    multicluster_service: str | None = None
    source_cluster: str | None = None


class SliceMetadata(Struct, gc=False):
    """Of an EndpointSlice."""

    name: str
    namespace: str
    labels: SliceLabels | None = None


class Conditions(Struct, omit_defaults=True, gc=False):
    """Of an endpoint; absent ones have a meaning that `mapping` knows."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetRef(Struct, omit_defaults=True, gc=False):
    """The object behind an endpoint, as a rule a Pod."""

    uid: str | None = None


class Endpoint(Struct, omit_defaults=True, gc=False, rename="camel"):
    """One endpoint; only its first address has a meaning (field documentation of discovery/v1)."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None
    hostname: str | None = None
    target_ref: TargetRef | None = None
    node_name: str | None = None
    zone: str | None = None


class EndpointPort(Struct, omit_defaults=True, gc=False, rename="camel"):
    """A port of all endpoints of a slice; without ``port`` it stands for all ports."""

    name: str | None = None
    port: PortNumber | None = None
    protocol: Protocol | None = None
    app_protocol: str | None = None


class SliceContent(Struct, omit_defaults=True, gc=False, rename="camel"):
    """What an EndpointSlice says, without its metadata: equal content is an unchanged slice.

    broken: position -> why that endpoint could not be read; an empty one, with its uid if that was readable, is in its place.
    """

    address_type: AddressType | None = None
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None
    broken: dict[int, str] | None = msgspec.field(default=None, name="-")  # no field of the API's


class EndpointSlice(SliceContent, rename="camel", kw_only=True):
    """An EndpointSlice (discovery.k8s.io/v1)."""

    metadata: SliceMetadata


class _LooseSlice(Struct, rename="camel"):
    metadata: SliceMetadata
    address_type: AddressType | None = None
    endpoints: list[Raw] | None = None
    ports: list[EndpointPort] | None = None


class _Target(Struct, rename="camel"):
    target_ref: TargetRef | None = None


class Metadata(Struct):
    """Of a Service."""

    name: str
    namespace: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class ServicePort(Struct, rename="camel"):
    """A port of a Service; ``target_port`` is a number, or the name of a container's port."""

    port: PortNumber
    name: str | None = None
    protocol: Protocol | None = None
    app_protocol: str | None = None
    target_port: int | str | None = None
    node_port: NodePort | None = None


class ServiceSpec(Struct, rename="camel"):
    """The specification of a Service."""

    type: str | None = None
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")
    ports: list[ServicePort] | None = None
    external_name: str | None = None
    external_traffic_policy: str | None = None
    publish_not_ready_addresses: bool | None = None


class Ingress(Struct):
    """One address of a load balancer."""

    ip: str | None = None
    hostname: str | None = None


class LoadBalancer(Struct):
    """The load balancer's part of a Service's status."""

    ingress: list[Ingress] | None = None


class ServiceStatus(Struct, rename="camel"):
    """The status of a Service."""

    load_balancer: LoadBalancer | None = None


class Service(Struct):
    """A Service (v1)."""

    metadata: Metadata
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


class NodeLabels(Struct, rename={"region": "topology.kubernetes.io/region", "zone": "topology.kubernetes.io/zone"}):
    """The labels of a Node that tell where it is."""

    region: str | None = None
    zone: str | None = None


class NodeMetadata(Struct):
    """Of a Node."""

    name: str
    labels: NodeLabels | None = None


class NodeAddress(Struct):
    """An address of a Node; only InternalIP and ExternalIP are IPs."""

    type: str
    address: str


class NodeCondition(Struct):
    """A condition of a Node."""

    type: str
    status: str


class NodeStatus(Struct):
    """The status of a Node."""

    addresses: list[NodeAddress] | None = None
    conditions: list[NodeCondition] | None = None


class Node(Struct):
    """A Node (v1)."""

    metadata: NodeMetadata
    status: NodeStatus | None = None


class _ListMetadata(Struct, rename="camel"):
    resource_version: str
    continue_: str | None = msgspec.field(default=None, name="continue")


class _Page(Struct):
    kind: str
    metadata: _ListMetadata
    items: list[Raw] | None


class _Event(Struct):
    type: str
    object: Raw


class _HeadMetadata(Struct, rename="camel"):
    name: str | None = None
    namespace: str | None = None
    resource_version: str | None = None
    annotations: Any = None


class _Head(Struct):
    metadata: _HeadMetadata


class Status(Struct):
    """The API server's answer to what it refuses (``kind: Status``), also inside a watch."""

    code: int = 0
    reason: str | None = None
    message: str | None = None


class Page(Struct):
    """One page of a list: its objects, the list's resourceVersion and the token of the next page."""

    items: list[Raw]
    version: str
    next: str | None


class Event(Struct):
    """One line of a watch: ADDED, MODIFIED, DELETED, BOOKMARK or ERROR, and the object it is about."""

    type: str
    object: Raw


class Bookmark(Struct):
    """How far a watch has come; ``initial_end``: everything that was there when it began has been sent."""

    version: str
    initial_end: bool


_PAGE = msgspec.json.Decoder(_Page)
_EVENT = msgspec.json.Decoder(_Event)
_HEAD = msgspec.json.Decoder(_Head)
_STATUS = msgspec.json.Decoder(Status)
_SLICE = msgspec.json.Decoder(EndpointSlice)
_LOOSE_SLICE = msgspec.json.Decoder(_LooseSlice)
_ENDPOINT = msgspec.json.Decoder(Endpoint)
_TARGET = msgspec.json.Decoder(_Target)
_SERVICE = msgspec.json.Decoder(Service)
_NODE = msgspec.json.Decoder(Node)
_EVENT_TYPES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})


def read_page(body: bytes, kind: str) -> Page:
    """The page of a list of ``kind``. Raises TransientError for anything else: truncated, HTML, another kind."""
    try:
        page = _decode(_PAGE, body)
    except _MALFORMED as error:
        raise TransientError(f"list of {kind}: the answer cannot be read: {error}") from error
    if page.kind != f"{kind}List":
        raise TransientError(f"list of {kind}: the answer is a {page.kind[:80]!r}")
    if not page.metadata.resource_version:
        raise TransientError(f"list of {kind}: the answer has no resourceVersion")
    return Page(page.items or [], page.metadata.resource_version, page.metadata.continue_ or None)


def read_event(line: bytes, kind: str) -> Event:
    """One line of a watch. Raises TransientError where it is none."""
    try:
        event = _decode(_EVENT, line)
    except _MALFORMED as error:
        raise TransientError(f"watch of {kind}: a line cannot be read: {error}") from error
    if event.type not in _EVENT_TYPES:
        raise TransientError(f"watch of {kind}: unknown event type {event.type[:80]!r}")
    return Event(event.type, event.object)


def read_bookmark(raw: Raw, kind: str) -> Bookmark:
    """How far a bookmark, or any other event's object, brings the watch. Raises TransientError where that cannot be told."""
    try:
        metadata = _HEAD.decode(raw).metadata
    except _MALFORMED as error:
        raise TransientError(f"watch of {kind}: an object without metadata: {error}") from error
    if not metadata.resource_version:
        raise TransientError(f"watch of {kind}: an object without resourceVersion")
    annotations = metadata.annotations
    ends = isinstance(annotations, dict) and annotations.get("k8s.io/initial-events-end") == "true"
    return Bookmark(metadata.resource_version, ends)


def read_status(body: bytes | Raw) -> Status:
    """The refusal in a body; an empty one where there is none to be read."""
    try:
        return _STATUS.decode(body)
    except _MALFORMED:
        return Status()


def read_slice(raw: Raw) -> EndpointSlice:
    """An EndpointSlice; endpoints that cannot be read are ``broken``. Raises BrokenError where it is more than those."""
    try:
        return _SLICE.decode(raw)
    except _MALFORMED:
        return _read_endpoint_by_endpoint(raw)


def read_service(raw: Raw) -> Service:
    """A Service. Raises BrokenError."""
    return _read(raw, _SERVICE)


def read_node(raw: Raw) -> Node:
    """A Node. Raises BrokenError."""
    return _read(raw, _NODE)


def read_name(raw: Raw) -> tuple[str, str]:
    """Namespace (empty where it has none) and name of any object. Raises BrokenError, without a name."""
    try:
        metadata = _HEAD.decode(raw).metadata
    except _MALFORMED as error:
        raise BrokenError(f"an object without a readable name: {error}") from error
    namespace = metadata.namespace or ""
    if not is_name(metadata.name) or (namespace and not is_name(namespace)):
        raise BrokenError("an object without a usable name")
    return namespace, str(metadata.name)


def is_name(text: str | None) -> bool:
    """Whether a text can be part of a key: not empty, no ``/``, no control characters, at most 255 bytes."""
    if not text or "/" in text or not text.isprintable():
        return False
    return len(text) <= _LONGEST_NAME and (text.isascii() or len(text.encode()) <= _LONGEST_NAME)


def _decode(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """What a page or a line says. Half a surrogate pair in one of its objects does not cost the others: it reads as U+FFFD.

    Raises what the decoder raises.
    """
    try:
        return decoder.decode(text)
    except _MALFORMED:
        whole = _SURROGATE.sub(_without_half, text)
        if whole == text:
            raise
        return decoder.decode(whole)


def _without_half(found: re.Match[bytes]) -> bytes:
    backslashes, second = found[1], found[2]
    if len(backslashes) % 2:  # an escape, of a whole pair or of half of one
        return found[0] if second else backslashes[:-1] + _REPLACEMENT
    return found[0].removesuffix(second) + _REPLACEMENT if second else found[0]


def _read_endpoint_by_endpoint(raw: Raw) -> EndpointSlice:
    loose = _read(raw, _LOOSE_SLICE)
    endpoints: list[Endpoint] = []
    broken: dict[int, str] = {}
    for position, item in enumerate(loose.endpoints or ()):
        try:
            endpoints.append(_ENDPOINT.decode(item))
        except _MALFORMED as error:
            broken[position] = str(error)
            endpoints.append(Endpoint(target_ref=_target(item)))
    return EndpointSlice(loose.address_type, endpoints, loose.ports, broken, metadata=loose.metadata)


def _target(raw: Raw) -> TargetRef | None:
    try:
        return _TARGET.decode(raw).target_ref
    except _MALFORMED:
        return None


def _read(raw: Raw, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(raw)
    except _MALFORMED as error:
        namespace, name = read_name(raw)
        raise BrokenError(str(error), namespace, name) from error
