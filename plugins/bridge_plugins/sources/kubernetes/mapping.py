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

from .checks import endpoint_fault, is_domain, is_ip
from .policy import Policy
from .wire import Conditions, EndpointPort, Node, Service, SliceContent, SliceLabels, is_name

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
    """The group of one EndpointSlice of the service ``name``: an instance per endpoint, at the slice's ports.

    nodes: by name; gives the region, and the zone where the endpoint has none.
    origin: stamped on each, which spares the core a copy of it.
    """
    ports, unresolved = _slice_ports(content.ports, policy)
    by_name, broken = content.address_type == "FQDN", content.broken or {}
    prefix = f"{name.namespace}/{name.name}/"
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
    instances: dict[str, ServiceInstance] = {}
    rejected: dict[str, str] = {}
    for index, endpoint in enumerate(content.endpoints or ()):
        uid = endpoint.target_ref.uid if endpoint.target_ref is not None else None
        fault = broken.get(index) or endpoint_fault(endpoint, content.address_type)
        if fault is None and uid and not is_name(uid):
            fault = "the uid of its target is none"
        if fault is not None:
            known_as = f"{prefix}{uid}" if is_name(uid) else f"{key}/endpoints[{index}]"
            rejected[known_as] = f"endpoints[{index}] of {key}: {fault}"
            continue
        address = endpoint.addresses[0] if endpoint.addresses else ""
        own_id = prefix + (uid or address)
        node, zone = endpoint.node_name, endpoint.zone
        # Copying what a slice's endpoints have in common is the cheapest way to make thousands of them.
        instance = replace(
            common,
            id=own_id,
            addresses=() if by_name else (address,),
            hostname=address if by_name else endpoint.hostname,
            zone=intern(zone) if zone else None,
            node=intern(node) if node else None,
        )
        if endpoint.conditions is not None:
            health, lifecycle = _condition(endpoint.conditions, policy.publish_not_ready)
            if health != "ready" or lifecycle != "active":
                instance = replace(instance, health=health, lifecycle=lifecycle)
        if node is not None and node in nodes:
            facts = nodes[node]
            instance = replace(instance, region=facts.region, zone=instance.zone or facts.zone)
        if own_id in instances:
            instance = _preferred(instances[own_id], instance)
        instances[own_id] = instance
    return SliceGroup(InstanceGroup(key, tuple(instances.values()), (name,)), rejected, unresolved)


def _condition(conditions: Conditions, publish_not_ready: bool) -> tuple[Health, Lifecycle]:
    ready = conditions.ready is not False
    serving = ready if conditions.serving is None else conditions.serving
    healthy = serving if conditions.terminating or publish_not_ready else ready
    return "ready" if healthy else "unready", "draining" if conditions.terminating else "active"


def ready_nodes(content: SliceContent) -> frozenset[str]:
    """The nodes that hold ready endpoints of a slice; ``""`` stands for an endpoint without a node."""
    return frozenset(
        endpoint.node_name or ""
        for endpoint in content.endpoints or ()
        if endpoint.addresses and (endpoint.conditions is None or endpoint.conditions.ready is not False)
    )


def group_from_service(
    key: str, service: Service, policy: Policy, ready_on: Collection[str], nodes: Mapping[str, NodeFacts]
) -> InstanceGroup:
    """A Service's own group: without instances where its slices stand for it, else what ``policy.publish`` says.

    ready_on: the nodes with ready endpoints, over all slices (`ready_nodes`). nodes: by name, for ``node-port``.
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


def _preferred(first: ServiceInstance, second: ServiceInstance) -> ServiceInstance:
    """Of one instance that a slice lists twice: the ready one, then the active one, then the first."""
    return min(first, second, key=lambda item: (item.health != "ready", item.lifecycle != "active"))
