"""The shapes of the API server's objects: only what is mapped, everything else is skipped unseen.

Fields are optional wherever Go's encoder may write ``null`` or nothing. They stand in the order in which it writes them, which
is the order in which they are found at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

PortNumber = Annotated[int, Meta(ge=1, le=65535)]
NodePort = Annotated[int, Meta(ge=0, le=65535)]
"""0: none was given to it."""

AddressType = Literal["IPv4", "IPv6", "FQDN"]
Protocol = Literal["TCP", "UDP", "SCTP"]


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


class Conditions(Struct, omit_defaults=True, frozen=True, gc=False):
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


class SliceContent(Struct, gc=False, rename="camel"):
    """What an EndpointSlice says, without its metadata.

    broken: position -> why that endpoint could not be read; an empty one, with its uid if that was readable, is in its place.
    """

    address_type: AddressType | None = None
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None
    broken: dict[int, str] | None = msgspec.field(default=None, name="-")  # no field of the API's


class EndpointSlice(SliceContent, rename="camel", kw_only=True):
    """An EndpointSlice (discovery.k8s.io/v1)."""

    metadata: SliceMetadata


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
