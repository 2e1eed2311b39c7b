"""Kubernetes objects to instance groups. Pure functions: no clock, no I/O, no state.

The meaning of the fields is that of discovery/v1 and core/v1: a condition left out reads as ``ready: true``,
``serving: <ready>``, ``terminating: false``; only the first address of an endpoint counts; ``ports`` belong to a slice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from sys import intern

from msgspec import Struct
from msgspec.structs import replace

from bridge.model import NOWHERE, Health, InstanceGroup, Lifecycle, Origin, Port, ServiceInstance, ServiceName

from .checks import are_usable, is_domain, is_ip, row_fault
from .policy import Policy
from .rows import Row, SliceRows, rows_of
from .shapes import Conditions, EndpointPort, Node, Service, SliceContent, SliceLabels
from .wire import is_name

OWN_MANAGER = "envbridge.io"
"""The managed-by value of what this project writes into a cluster; never read back."""

_MIRRORS = frozenset(
    {
        "endpointslice-mesh-controller.cilium.io",
        "endpointslice-dispatch-controller.karmada.io",
        "lighthouse-agent.submariner.io",
    }
)
"""Controllers that copy other clusters' endpoints. Kubernetes' own mirror of v1 Endpoints is not one of them."""


class NodeFacts(Struct, frozen=True):
    """What of a Node bears on instances."""

    region: str | None = None
    zone: str | None = None
    addresses: tuple[str, ...] = ()
    ready: bool = False


class SliceGroup(Struct, frozen=True):
    """A slice's group; which of its endpoints are no instances, and why; ports left out.

    rejected: by instance id; by a place under the group's key where the id is unreadable, which keeps what the group lacks.
    """

    group: InstanceGroup
    rejected: dict[str, str]
    unresolved_ports: int = 0


def slice_key(namespace: str, name: str) -> str:
    """The key of an EndpointSlice's group; never that of a Service's."""
    return f"{namespace}/slice/{name}"


def service_key(namespace: str, name: str) -> str:
    """The key of a Service's own group."""
    return f"{namespace}/service/{name}"


def is_foreign(labels: SliceLabels) -> bool:
    """Whether a slice stands for endpoints of another cluster, or was written by us: reading it would make a loop."""
    manager = labels.managed_by or ""
    return bool(labels.multicluster_service or labels.source_cluster) or manager in _MIRRORS or is_own(manager)


def is_own(manager: str | None) -> bool:
    """Whether a managed-by value is this project's."""
    return manager is not None and (manager == OWN_MANAGER or manager.endswith(f".{OWN_MANAGER}"))


def node_facts(node: Node) -> NodeFacts:
    """A Node's place, addresses (internal ones first) and readiness."""
    labels, status = node.metadata.labels, node.status
    listed = [] if status is None else status.addresses or []
    addresses = [
        item.address for kind in ("InternalIP", "ExternalIP") for item in listed if item.type == kind and is_ip(item.address)
    ]
    conditions = [] if status is None else status.conditions or []
    return NodeFacts(
        region=labels.region or None if labels else None,
        zone=labels.zone or None if labels else None,
        addresses=tuple(dict.fromkeys(addresses)),
        ready=any(item.type == "Ready" and item.status == "True" for item in conditions),
    )


def group_from_slice(
    key: str,
    name: ServiceName,
    content: SliceContent,
    policy: Policy,
    nodes: Mapping[str, NodeFacts],
    origin: Origin = NOWHERE,
) -> SliceGroup:
    """As `group_from_rows`, from a slice as it was read."""
    return group_from_rows(key, name, rows_of(content), policy, nodes, origin)


def group_from_rows(
    key: str,
    name: ServiceName,
    content: SliceRows,
    policy: Policy,
    nodes: Mapping[str, NodeFacts],
    origin: Origin = NOWHERE,
) -> SliceGroup:
    """The group of one EndpointSlice of the service ``name``: an instance per endpoint, at the slice's ports.

    nodes: by name; gives the region, and the zone where the endpoint has none.
    origin: stamped on each, which spares the core a copy of it.
    """
    ports, unresolved = _slice_ports(content.ports, policy)
    rows = content.rows
    rejected: dict[str, str] = {}
    by_name, prefix = content.address_type == "FQDN", f"{name.namespace}/{name.name}/"
    if content.broken or not are_usable(rows, content.address_type):
        rows, rejected = _usable(key, prefix, content)
    common = ServiceInstance(
        environment=origin.environment,
        source=origin.source,
        id="",
        namespace=name.namespace,
        service=name.name,
        ports=ports,
        weight=policy.weight,
        tags=policy.tags,
        meta=policy.meta,
    )
    instances: list[ServiceInstance] = []
    for address, uid, hostname, node, zone, conditions in rows:
        if address is None:
            continue  # no such row is usable
        # Copying what a slice's endpoints have in common is the cheapest way to make thousands of them.
        instance = replace(
            common,
            id=prefix + (uid or address),
            addresses=() if by_name else (address,),
            hostname=address if by_name else hostname,
            zone=intern(zone) if zone else None,
            node=intern(node) if node else None,
        )
        if conditions is not None:
            health, lifecycle = _condition(conditions, policy.publish_not_ready)
            instance = replace(instance, health=health, lifecycle=lifecycle)
        if node is not None and node in nodes:
            facts = nodes[node]
            instance = replace(instance, region=facts.region, zone=instance.zone or facts.zone)
        instances.append(instance)
    return SliceGroup(InstanceGroup(key, _unique(instances), (name,)), rejected, unresolved)


def spliced(former: SliceGroup, head: int, tail: int, between: SliceGroup) -> SliceGroup | None:
    """The group with other instances between its first ``head`` and its last ``tail``; None where that does not tell it.

    former: with an instance for each of its endpoints. between: of the endpoints that are new or have changed.
    """
    if between.rejected:
        return None  # the reasons tell places in the whole slice
    old, new = former.group.instances, between.group.instances
    first, replaced, last = old[:head], old[head : len(old) - tail], old[len(old) - tail :]
    came = {instance.id for instance in new}.difference(instance.id for instance in replaced)
    if came and not came.isdisjoint(instance.id for instance in (*first, *last)):
        return None
    return SliceGroup(InstanceGroup(former.group.key, (*first, *new, *last), former.group.services), {}, former.unresolved_ports)


def _usable(key: str, prefix: str, content: SliceRows) -> tuple[list[Row], dict[str, str]]:
    """The rows that can be instances, and why the others cannot (`SliceGroup.rejected`)."""
    rows: list[Row] = []
    rejected: dict[str, str] = {}
    broken = content.broken or {}
    for index, row in enumerate(content.rows):
        fault = broken.get(index) or row_fault(row, content.address_type)
        if fault is None:
            rows.append(row)
        else:
            uid = row[1]
            known_as = f"{prefix}{uid}" if is_name(uid) else f"{key}/endpoints[{index}]"
            rejected[known_as] = f"endpoints[{index}] of {key}: {fault}"
    return rows, rejected


def _condition(conditions: Conditions, publish_not_ready: bool) -> tuple[Health, Lifecycle]:
    ready = conditions.ready is not False
    serving = ready if conditions.serving is None else conditions.serving
    healthy = serving if conditions.terminating or publish_not_ready else ready
    return "ready" if healthy else "unready", "draining" if conditions.terminating else "active"


def group_from_service(
    key: str, service: Service, policy: Policy, ready_on: Collection[str], nodes: Mapping[str, NodeFacts]
) -> InstanceGroup:
    """A Service's own group: without instances where its slices stand for it, else what ``policy.publish`` says.

    ready_on: the nodes with ready endpoints, over all slices (`rows.ready_nodes`). nodes: by name, for ``node-port``.
    """
    name = ServiceName(intern(service.metadata.namespace), intern(service.metadata.name))
    spec = service.spec
    if spec is None:
        return InstanceGroup(key, (), (name,))
    health: Health = "ready" if ready_on else "unready"
    instances: list[ServiceInstance] = []
    if spec.type == "ExternalName":
        if policy.external_name and spec.external_name and is_domain(spec.external_name):
            host = spec.external_name
            # Nobody watches what an alias points at.
            instances.append(_instance(name, host, policy, hostname=host, ports=_ports(service), health="unknown"))
    elif policy.publish == "cluster-ip":
        listed = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
        addresses = tuple(address for address in listed if is_ip(address))
        if addresses:
            instances.append(_instance(name, addresses[0], policy, addresses=addresses, ports=_ports(service), health=health))
    elif policy.publish == "load-balancer":
        balancer = service.status.load_balancer if service.status else None
        for ingress in (balancer.ingress if balancer else None) or ():
            if ingress.ip and is_ip(ingress.ip):
                instances.append(
                    _instance(name, ingress.ip, policy, addresses=(ingress.ip,), ports=_ports(service), health=health)
                )
            elif ingress.hostname and is_domain(ingress.hostname):
                host = ingress.hostname
                instances.append(_instance(name, host, policy, hostname=host, ports=_ports(service), health=health))
    elif policy.publish == "node-port" and (ports := _ports(service, on_node=True)):
        local = spec.external_traffic_policy == "Local"
        for node, facts in nodes.items():
            if facts.ready and facts.addresses and (node in ready_on or not local):
                instances.append(
                    _instance(name, node, policy, addresses=facts.addresses, ports=ports, health=health, node=node, facts=facts)
                )
    unique = {instance.id: instance for instance in instances}
    return InstanceGroup(key, tuple(unique.values()), (name,))


def _instance(
    name: ServiceName,
    own: str,
    policy: Policy,
    *,
    ports: tuple[Port, ...],
    health: Health,
    addresses: tuple[str, ...] = (),
    hostname: str | None = None,
    node: str | None = None,
    facts: NodeFacts | None = None,
) -> ServiceInstance:
    lifecycle: Lifecycle = "active"
    return ServiceInstance(
        id=f"{name.namespace}/{name.name}/{own}",
        namespace=name.namespace,
        service=name.name,
        addresses=addresses,
        hostname=hostname,
        ports=ports,
        health=health,
        lifecycle=lifecycle,
        weight=policy.weight,
        region=facts.region if facts else None,
        zone=facts.zone if facts else None,
        node=node,
        tags=policy.tags,
        meta=policy.meta,
    )


def _slice_ports(listed: list[EndpointPort] | None, policy: Policy) -> tuple[tuple[Port, ...], int]:
    """The ports of a slice, and how many had to be left out: "all ports", with no number at the Service either."""
    ports: list[Port] = []
    unresolved = 0
    for item in listed or ():
        number = item.port or policy.target_ports.get(item.name or "")
        if number:
            ports.append(_port(item.name, number, item.protocol, item.app_protocol))
        else:
            unresolved += 1
    return tuple(ports), unresolved


def _ports(service: Service, *, on_node: bool = False) -> tuple[Port, ...]:
    listed = service.spec.ports if service.spec else None
    return tuple(
        _port(item.name, number, item.protocol, item.app_protocol)
        for item in listed or ()
        if (number := item.node_port if on_node else item.port)
    )


def _port(name: str | None, number: int, protocol: str | None, app_protocol: str | None) -> Port:
    return Port(
        intern(name) if name else None,
        number,
        intern(protocol) if protocol else "TCP",
        intern(app_protocol) if app_protocol else None,
    )


def _unique(instances: list[ServiceInstance]) -> tuple[ServiceInstance, ...]:
    """Each instance once: of one that a slice lists twice the ready one, then the active one, then the first."""
    if len({instance.id for instance in instances}) == len(instances):
        return tuple(instances)
    unique: dict[str, ServiceInstance] = {}
    for instance in instances:
        first = unique.get(instance.id, instance)
        unique[instance.id] = min(first, instance, key=lambda item: (item.health != "ready", item.lifecycle != "active"))
    return tuple(unique.values())
