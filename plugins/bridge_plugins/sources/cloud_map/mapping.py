"""From Cloud Map's answers to namespaces, services and groups of instances. Pure, and trusting no shape.

Answers are decoded JSON as it came over the wire: an object that is not what the API promises costs itself, not the answer.
Attribute names: API reference of RegisterInstance, and "Service discovery" of the Amazon ECS developer guide.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from bridge.model import Health, InstanceGroup, Port, ServiceInstance, ServiceName

MAX_RESULTS = 1000
"""Instances that one DiscoverInstances returns at most; as many may be fewer than there are."""

PORT_NAME = "default"

_IPV4, _IPV6, _PORT = "AWS_INSTANCE_IPV4", "AWS_INSTANCE_IPV6", "AWS_INSTANCE_PORT"
_CNAME, _ALIAS = "AWS_INSTANCE_CNAME", "AWS_ALIAS_DNS_NAME"
_ZONE, _REGION, _WEIGHT = ("AVAILABILITY_ZONE", "zone"), ("REGION", "region"), "weight"
_NODE = ("AWS_EC2_INSTANCE_ID", "EC2_INSTANCE_ID")
_NO_META = frozenset((_IPV4, _IPV6, _PORT, _CNAME, _ALIAS, _WEIGHT, "AWS_INIT_HEALTH_STATUS", *_ZONE, *_REGION, *_NODE))
_HEALTH: dict[str, Health] = {"HEALTHY": "ready", "UNHEALTHY": "unready", "UNKNOWN": "unknown"}

_NAME_BYTES = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HOSTNAME = re.compile(r"(?=.{1,253}\.?$)(?:[A-Za-z0-9_*](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.(?!$)|\.?$))+")
_DIGITS = re.compile(r"[0-9]{1,9}")


class MalformedError(Exception):
    """A value is not what the API promises; the text says which and why."""


class Namespace(NamedTuple):
    """A Cloud Map namespace. ``http_name``: what the discover calls want, which `name` is not where names repeat."""

    id: str
    name: str
    http_name: str

    @property
    def key(self) -> str:
        """The prefix of its services' group keys."""
        return self.name.replace("/", "%2F")


class Service(NamedTuple):
    """A Cloud Map service. ``checked``: something tells the health of its instances."""

    id: str
    name: str
    namespace: Namespace
    checked: bool

    @property
    def key(self) -> str:
        """Its group key: ``<namespace name>/<service id>``."""
        return f"{self.namespace.key}/{self.id}"


class Found(NamedTuple):
    """What a list answer has.

    broken: place or group key -> why an object in it could not be read. unidentified: why it cannot be told of one of them
        which it is, so that the list says of nothing that it is not there; None where each can be told.
    """

    namespaces: tuple[Namespace, ...]
    services: tuple[Service, ...]
    broken: dict[str, str]
    unidentified: str | None


class Discovered(NamedTuple):
    """One service's group. ``rejected``: instance id, or a place under the group's key, -> why it is not in the group.

    ``full``: the answer has as many instances as one can have, so what it lacks may be there.
    """

    group: InstanceGroup
    rejected: dict[str, str]
    full: bool = False


def show(value: object) -> str:
    """An untrusted value for a message: one line of ASCII, and short."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return ascii(value if len(value) <= 60 else value[:60] + "...")
    return f"a {type(value).__name__}"


def page(answer: object, member: str) -> tuple[list[Any], str | None]:
    """The objects of a list answer, and the token of the next page. An empty page with a token is an answer like any other.

    Raises MalformedError where the list is missing: a proxy's page is not an empty list.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get(member), list):
        raise MalformedError(f"the answer has no list {member}")
    token = answer.get("NextToken")
    if token is not None and not isinstance(token, str):
        raise MalformedError(f"NextToken is {show(token)}")
    return answer[member], token or None


def revision(answer: object) -> int:
    """``InstancesRevision``. Raises MalformedError."""
    value = answer.get("InstancesRevision") if isinstance(answer, dict) else None
    if type(value) is not int:
        raise MalformedError(f"InstancesRevision is {show(value)}, no whole number")
    return value


def read_namespaces(objects: list[Any]) -> Found:
    """The namespaces of ListNamespaces. DNS namespaces may come without an HttpName: then it is their name."""
    namespaces: list[Namespace] = []
    broken: dict[str, str] = {}
    unidentified: str | None = None
    for position, value in enumerate(objects):
        place = None
        try:
            entry = _object(value)
            id_ = _text(entry, "Id")
            place = _text(entry, "Name").replace("/", "%2F")
            name = _name(entry, "Name")
            http = _nested(entry, "Properties", "HttpProperties").get("HttpName")
            namespaces.append(Namespace(id_, name, http if isinstance(http, str) and http else name))
        except MalformedError as error:
            broken[place or f"Namespaces[{position}]"] = str(error)
            if place is None:
                unidentified = unidentified or f"Namespaces[{position}]: {error}"
    return Found(tuple(namespaces), (), broken, unidentified)


def read_services(objects: list[Any], namespace: Namespace) -> Found:
    """The services of ListServices that are of ``namespace``; a backend that ignores the filter names another's."""
    services: list[Service] = []
    broken: dict[str, str] = {}
    unidentified: str | None = None
    for position, value in enumerate(objects):
        place = None
        try:
            entry = _object(value)
            if "NamespaceId" in entry and entry["NamespaceId"] != namespace.id:
                continue
            id_ = _name(entry, "Id")
            place = f"{namespace.key}/{id_}"
            checked = any(entry.get(member) is not None for member in ("HealthCheckConfig", "HealthCheckCustomConfig"))
            services.append(Service(sys.intern(id_), sys.intern(_name(entry, "Name")), namespace, checked))
        except MalformedError as error:
            broken[place or f"{namespace.key}/Services[{position}]"] = str(error)
            if place is None:
                unidentified = unidentified or f"Services[{position}]: {error}"
    return Found((), tuple(services), broken, unidentified)


def read_instances(objects: list[Any], service: Service, region: str | None) -> Discovered:
    """The group that DiscoverInstances shows of ``service``, in the order of ids: the API's is random.

    region: of the instances that do not say theirs. An id that comes twice counts once, the last one.
    """
    instances: dict[str, ServiceInstance] = {}
    rejected: dict[str, str] = {}
    for position, value in enumerate(objects):
        key = f"{service.key}/Instances[{position}]"  # where no id can be read, any of the group's may have been meant
        try:
            entry = _object(value)
            key = f"{service.id}/{_text(entry, 'InstanceId')}"
            instances[key] = _instance(entry, key, service, region)
            rejected.pop(key, None)
        except MalformedError as error:
            instances.pop(key, None)
            rejected[key] = f"{show(key)[1:-1]}: {error}"
    ordered = tuple(instances[key] for key in sorted(instances))
    group = InstanceGroup(service.key, ordered, (ServiceName(service.namespace.name, service.name),))
    return Discovered(group, rejected, full=len(objects) >= MAX_RESULTS)


def _instance(entry: dict[str, Any], id_: str, service: Service, region: str | None) -> ServiceInstance:
    attributes = _nested(entry, "Attributes")
    for name, value in attributes.items():
        _well_formed(name, "an attribute's name")
        if not isinstance(value, str):
            raise MalformedError(f"the attribute {show(name)} is {show(value)}, no text")
        _well_formed(value, f"the attribute {show(name)}")
    addresses = tuple(_addresses(attributes))
    hostname = _hostname(attributes)
    if not addresses and hostname is None:
        raise MalformedError(f"no address: none of {_IPV4}, {_IPV6}, {_CNAME}, {_ALIAS} is set")
    weight = attributes.get(_WEIGHT, "")
    return ServiceInstance(
        id=id_,
        namespace=service.namespace.name,
        service=service.name,
        addresses=addresses,
        hostname=hostname,
        ports=_ports(attributes),
        health=_health(entry.get("HealthStatus"), service),
        weight=int(weight) if _DIGITS.fullmatch(weight) else 1,
        zone=_first(attributes, _ZONE),
        region=_first(attributes, _REGION) or region,
        node=_first(attributes, _NODE),
        meta={sys.intern(name): value for name, value in sorted(attributes.items()) if name not in _NO_META},
    )


def _health(status: object, service: Service) -> Health:
    """UNKNOWN, or no status, of a service that nothing checks is servable: there is nothing that could ever say more."""
    if status is None:
        status = "UNKNOWN"
    if not isinstance(status, str) or status not in _HEALTH:
        raise MalformedError(f"HealthStatus is {show(status)}")
    return "ready" if status == "UNKNOWN" and not service.checked else _HEALTH[status]


def _addresses(attributes: dict[str, str]) -> Iterator[str]:
    for name, kind in ((_IPV4, ipaddress.IPv4Address), (_IPV6, ipaddress.IPv6Address)):
        if name in attributes:
            try:
                yield str(kind(attributes[name]))
            except ValueError:
                raise MalformedError(f"{name} is no such address: {show(attributes[name])}") from None


def _hostname(attributes: dict[str, str]) -> str | None:
    for name in (_ALIAS, _CNAME):
        if name in attributes:
            if not _HOSTNAME.fullmatch(attributes[name]):
                raise MalformedError(f"{name} is no host name: {show(attributes[name])}")
            return attributes[name]
    return None


def _ports(attributes: dict[str, str]) -> tuple[Port, ...]:
    """None without the attribute; 0, which the API allows, is no port."""
    if _PORT not in attributes:
        return ()
    text = attributes[_PORT]
    if not _DIGITS.fullmatch(text) or int(text) > 65535:
        raise MalformedError(f"{_PORT} is no port: {show(text)}")
    return (Port(PORT_NAME, int(text)),) if int(text) else ()


def _first(attributes: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((sys.intern(attributes[name]) for name in names if attributes.get(name)), None)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise MalformedError(f"is {show(value)}, no object")
    return value


def _nested(entry: dict[str, Any], *members: str) -> dict[str, Any]:
    """An object some members down; empty where one of them is missing or null."""
    for member in members:
        value = entry.get(member)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise MalformedError(f"{member} is {show(value)}, no object")
        entry = value
    return entry


def _well_formed(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MalformedError(f"{what} is not valid Unicode") from None


def _text(entry: dict[str, Any], member: str) -> str:
    value = entry.get(member)
    if not isinstance(value, str) or not value:
        raise MalformedError(f"{member} is {show(value)}, no text")
    _well_formed(value, member)
    if _CONTROL.search(value) or len(value.encode()) > _NAME_BYTES:
        raise MalformedError(f"{member} has control characters or more than {_NAME_BYTES} bytes: {show(value)}")
    return value


def _name(entry: dict[str, Any], member: str) -> str:
    """Text that can be part of a path."""
    value = _text(entry, member)
    if "/" in value:
        raise MalformedError(f"{member} has a `/`, which no name can have here: {show(value)}")
    return value
