"""From a file's document to groups of instances, and what of it had to be left out. Pure.

One mistake costs as little as possible: an instance, else its service, else the file. What it costs is named under a
key whose old records stay (see `Mapped.rejected`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

from bridge.model import DEFAULT_NAMESPACE, Health, InstanceGroup, Lifecycle, Port, ServiceInstance, ServiceName
from bridge_plugins.sources.file import fields
from bridge_plugins.sources.file.document import DocumentError, Value
from bridge_plugins.sources.file.fields import MistakeError

_HEALTHS = ("ready", "unready", "unknown")
_LIFECYCLES = ("active", "draining")
_TOP_KEYS = frozenset(("services",))
_NAME_KEYS = frozenset(("name", "namespace"))
_SERVICE_KEYS = _NAME_KEYS | {"tags", "instances"}
_ENDPOINT_KEYS = frozenset(("address", "addresses", "hostname", "ports"))
_INSTANCE_KEYS = _ENDPOINT_KEYS | {"id", "health", "lifecycle", "weight", "zone", "region", "node", "tags", "meta"}


class Mapped(NamedTuple):
    """What a file says.

    rejected: key -> reasons. The key says what is kept of the old: an instance's id, that record; a group's key, what
        the group lacks; a place under a group's key (an instance whose id is unreadable), the same; the file's key (a
        service whose name is unreadable), whatever the file lacks.
    """

    groups: tuple[InstanceGroup, ...]
    rejected: dict[str, str]


def group_key(file_key: str, service: ServiceName) -> str:
    """The key of one service's group in one file."""
    return f"{file_key}/{service}"


def file_of(key: str) -> str:
    """The key of the file that holds the group ``key``."""
    return key.rsplit("/", 2)[0]


def map_document(document: Value, file_key: str) -> Mapped:
    """The groups of ``document``, one for each service.

    Raises DocumentError when it is not a mapping with a list ``services`` and nothing else: then all of it is unknown.
    """
    try:
        top = fields.mapping(document, _TOP_KEYS)
    except MistakeError as error:
        raise DocumentError(f"the document {error.problem}" if document is None else error.problem) from None
    try:
        services = fields.part(top, "services", fields.sequence)
    except MistakeError as error:
        raise DocumentError(str(error)) from None
    mapper = _Mapper(file_key)
    for position, entry in enumerate(services):
        mapper.service(entry, position)
    return mapper.result()


class _Mapper:
    """Collects one file's groups; equal parts of instances are kept once."""

    def __init__(self, file_key: str) -> None:
        self._file_key = file_key
        self._instances: dict[ServiceName, dict[str, ServiceInstance | None]] = {}  # None: rejected, but its id is taken
        self._rejected: dict[str, list[str]] = {}
        self._ports: dict[tuple[Port, ...], tuple[Port, ...]] = {}
        self._tags: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._meta: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def result(self) -> Mapped:
        groups = tuple(
            InstanceGroup(
                group_key(self._file_key, service),
                tuple(instance for instance in instances.values() if instance is not None),
                (service,),
            )
            for service, instances in self._instances.items()
        )
        return Mapped(groups, {key: "; ".join(reasons) for key, reasons in self._rejected.items()})

    def _reject(self, key: str, error: MistakeError) -> None:
        self._rejected.setdefault(key, []).append(str(error))

    def service(self, value: Value, position: int) -> None:
        """Take one entry of ``services``. Entries of the same name add up."""
        place = f"services[{position}]"
        key = self._file_key
        try:
            entry = fields.mapping(value)
            if any(fields.nearest(odd, _SERVICE_KEYS) in _NAME_KEYS - entry.keys() for odd in entry.keys() - _SERVICE_KEYS):
                fields.mapping(entry, _SERVICE_KEYS)  # whose records these are is not known: a misspelt `namespace` is no default
            namespace = fields.part(entry, "namespace", fields.name) if "namespace" in entry else DEFAULT_NAMESPACE
            service = ServiceName(namespace, fields.part(entry, "name", fields.name))
            key = group_key(self._file_key, service)
            fields.mapping(entry, _SERVICE_KEYS)
            tags = fields.part(entry, "tags", fields.tags)
            instances = fields.part(entry, "instances", fields.sequence)
        except MistakeError as error:
            self._reject(key, error.under(place))
            return
        taken = self._instances.setdefault(service, {})
        for number, instance in enumerate(instances):
            self._instance(service, tags, taken, instance, f"{place}.instances[{number}]")

    def _instance(
        self,
        service: ServiceName,
        service_tags: tuple[str, ...],
        taken: dict[str, ServiceInstance | None],
        value: Value,
        place: str,
    ) -> None:
        identity: str | None = None
        try:
            entry = fields.mapping(value)
            endpoint: fields.Endpoint | None = None
            if "id" in entry:
                own = fields.part(entry, "id", fields.name)
            else:
                fields.mapping(entry, _INSTANCE_KEYS)  # a misspelt `id` must not pass for none
                endpoint = fields.endpoint(entry)
                own = endpoint.derived_id
            identity = _take(taken, service, own)
            fields.mapping(entry, _INSTANCE_KEYS)  # a misspelt `address` is told as such, not as none
            endpoint = endpoint or fields.endpoint(entry)
            taken[identity] = self._build(service, service_tags, identity, endpoint, entry)
        except MistakeError as error:
            # Where no id can be read, or the same one again, any of the service's may have been meant: a place under
            # the group's key stands for it, so that what the group lacks is kept.
            self._reject(identity or f"{group_key(self._file_key, service)}/{place}", error.under(place))

    def _build(
        self,
        service: ServiceName,
        service_tags: tuple[str, ...],
        identity: str,
        endpoint: fields.Endpoint,
        entry: dict[str, Any],
    ) -> ServiceInstance:
        tags = fields.part(entry, "tags", fields.tags)
        tags = tuple(dict.fromkeys(service_tags + tags)) if service_tags else tags
        meta = fields.part(entry, "meta", fields.meta)
        return ServiceInstance(
            id=identity,
            namespace=service.namespace,
            service=service.name,
            addresses=endpoint.addresses,
            hostname=endpoint.hostname,
            ports=self._ports.setdefault(endpoint.ports, endpoint.ports),
            health=cast(Health, fields.part(entry, "health", _health)) if "health" in entry else "ready",
            lifecycle=cast(Lifecycle, fields.part(entry, "lifecycle", _lifecycle)) if "lifecycle" in entry else "active",
            weight=fields.part(entry, "weight", fields.weight) if "weight" in entry else 1,
            region=fields.part(entry, "region", fields.optional_label),
            zone=fields.part(entry, "zone", fields.optional_label),
            node=fields.part(entry, "node", fields.optional_label),
            tags=self._tags.setdefault(tags, tags),
            meta=self._meta.setdefault(tuple(meta.items()), meta),
        )


def _take(taken: dict[str, ServiceInstance | None], service: ServiceName, own: str) -> str:
    """The id of an instance, which is taken from now on."""
    identity = f"{service}/{own}"
    if identity in taken:
        raise MistakeError(f"{fields.show(own)} stands twice in {service}", "id")
    taken[identity] = None
    return identity


def _health(value: Value) -> str:
    return fields.choice(value, _HEALTHS)


def _lifecycle(value: Value) -> str:
    return fields.choice(value, _LIFECYCLES)
