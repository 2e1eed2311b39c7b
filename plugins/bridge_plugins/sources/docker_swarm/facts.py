"""What nodes and networks mean to instances. Pure.

An address is never an arbitrary choice: where it is not clear which one counts, that is said instead.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from sys import intern

from msgspec import Struct

from bridge.model import Health

from . import wire

_NODE_HEALTH: dict[str, Health] = {"ready": "ready", "down": "unready", "disconnected": "unready"}
_GATEWAY = "docker_gwbridge"


class UnfitError(Exception):
    """A task, or a service, that cannot be shown as the mode wants it."""


class NodeFacts(Struct, frozen=True):
    """What of a node bears on instances. address: None where it has none that others can use."""

    name: str
    address: str | None = None
    health: Health = "ready"
    active: bool = True
    zone: str | None = None
    region: str | None = None


class NetworkFacts(Struct, frozen=True):
    """What of a network bears on instances; ``usable``: neither the routing mesh's nor a node's own."""

    name: str
    usable: bool = True


class Cluster(Struct, frozen=True):
    """What services share: nodes and networks by id. broken_nodes: why a node cannot be read, by id."""

    nodes: dict[str, NodeFacts] = {}
    networks: dict[str, NetworkFacts] = {}
    broken_nodes: dict[str, str] = {}


def cluster_facts(nodes: wire.Items[wire.Node], networks: wire.Items[wire.Network], prefix: str) -> Cluster:
    """What of nodes and networks bears on instances. prefix: of the labels that say something to us."""
    return Cluster(
        {id_: node_facts(node, prefix) for id_, node in nodes.found.items()},
        {id_: NetworkFacts(network.name, is_usable(network.name, network.ingress)) for id_, network in networks.found.items()},
        nodes.broken,
    )


def node_facts(node: wire.Node, prefix: str) -> NodeFacts:
    """A node's name, address, health and place.

    The managers may know a node by an address that means nothing elsewhere (moby/moby#35437): a label of the node, or of its
    Engine, corrects it, and a manager has another one.
    """
    described = node.description
    own = node.spec.labels or {}
    engine = (described.engine.labels if described and described.engine else None) or {}

    def label(*keys: str) -> str | None:
        return next((text for key in keys for labels in (own, engine) if (text := labels.get(key))), None)

    listed = _ip(node.status.addr)
    managing = _ip(_host(node.manager_status.addr)) if node.manager_status else None
    address = _ip(label(f"{prefix}address") or "")
    if address is None and listed is not None and not (listed.is_loopback or listed.is_unspecified):
        address = listed
    if address is None and managing is not None and not managing.is_unspecified:
        address = managing
    zone, region = label(f"{prefix}zone", "zone"), label(f"{prefix}region", "region")
    return NodeFacts(
        name=intern((described.hostname if described else "") or node.id),
        address=None if address is None else str(address),
        health=_NODE_HEALTH.get(node.status.state, "unknown"),
        active=node.spec.availability == "active",
        zone=None if zone is None else intern(zone),
        region=None if region is None else intern(region),
    )


def choose_network(attached: Mapping[str, NetworkFacts], wanted: str | None) -> str:
    """The id of the network whose addresses count. wanted: its name or id.

    Without ``wanted`` it must be the only usable one. Raises UnfitError for everything else: never an arbitrary choice.
    """
    usable = {id_: network.name for id_, network in attached.items() if network.usable}
    names = ", ".join(sorted(usable.values())) or "none"
    if wanted is not None:
        found = [id_ for id_, name in usable.items() if wanted in (id_, name)]
        if len(found) != 1:
            raise UnfitError(f"is not attached to the network {wanted!r}, but to: {names}")
        return found[0]
    if len(usable) != 1:
        raise UnfitError(f"has to be attached to exactly one network, or to be told which; it is attached to: {names}")
    return next(iter(usable))


def is_usable(name: str, ingress: bool) -> bool:
    return not ingress and name != _GATEWAY


def one_per_family(texts: Iterable[str]) -> tuple[str, ...]:
    """One address per family, without prefix lengths, IPv4 first. Raises UnfitError for what is no address."""
    families: dict[int, str] = {}
    for text in texts:
        try:
            address = ipaddress.ip_interface(text).ip
        except ValueError:
            raise UnfitError(f"has {text[:80]!r} for an address") from None
        families.setdefault(address.version, str(address))
    return tuple(families[version] for version in sorted(families))


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _host(text: str) -> str:
    """The host of ``HOST:PORT`` or ``[HOST]:PORT``."""
    return text.rpartition(":")[0].strip("[]") if ":" in text else text
