"""The one transform pipeline between a source and its partition: rename, relabel, filter, choose addresses, stamp.

Order: `namespaces`, `naming`, `relabel`, `include`/`exclude`; then tags, meta and networks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from msgspec import structs

from bridge.catalog.record import Group, Record
from bridge.contracts import Relabel, SourceConfig
from bridge.errors import BridgeError
from bridge.model import ServiceInstance, ServiceName
from bridge.sync import fitness
from bridge.text import name_problem

_FIELD = re.compile(r"\{([^{}]*)\}")
_NAME_FIELDS = frozenset({"namespace", "name", "environment"})


class UnfitError(BridgeError):
    """An instance that cannot be taken; the text says why."""


class Transform:
    """The pipeline of one source. It works on what the plugin yields, in the source's own names."""

    def __init__(self, config: SourceConfig, environment: str, source: str) -> None:
        self._environment = environment
        self._source = source
        self._namespaces = config.namespaces
        self._naming = (config.naming.namespace, config.naming.name)
        self._renames = self._naming != ("{namespace}", "{name}") or bool(self._namespaces)
        self._rules = tuple(_Rule(rule) for rule in config.relabel)
        self._include = tuple(re.compile(translate(glob)) for glob in config.include)
        self._exclude = tuple(re.compile(translate(glob)) for glob in config.exclude)
        self._tags = config.tags
        self._meta = config.meta
        self._networks = tuple(ip_network(network, strict=False) for network in config.networks)
        self._plain = not (
            self._renames or self._rules or self._include or self._exclude or self._tags or self._meta or self._networks
        )
        self._checked: dict[tuple[str, str], str | None] = {}

    def apply(self, instance: ServiceInstance) -> ServiceInstance | None:
        """The instance as the catalog shall have it, None where it is filtered out. Raises UnfitError where it is none."""
        admitted, refused = self.admit((instance,), {})
        if refused:
            raise UnfitError(refused[instance.id])
        return admitted[0] if admitted else None

    def admit(
        self, instances: Sequence[ServiceInstance], known: Mapping[str, Record], former: Group | None = None
    ) -> tuple[tuple[ServiceInstance, ...], dict[str, str]]:
        """What a plugin shows of a group, as the catalog shall have it; and what it shall not have: id -> why.

        known: the records there are. What equals its record is given as the record has it: one copy in memory, and "changed?"
        is cheap from then on; it was looked at before. former: the group as it is.
        """
        if former is not None and self._plain and (differences := former.differences(instances)) is not None:
            # Where a source gives the same objects as before, they are as the catalog has them.
            others, refused = self.admit([instances[position] for position in differences], known)
            if len(others) == len(differences):
                admitted = list(instances)
                for position, instance in zip(differences, others, strict=True):
                    admitted[position] = instance
                return tuple(admitted), refused
        shaped, refused = self._shaped(instances)
        fresh = shaped
        if not known.keys().isdisjoint([instance.id for instance in shaped]):
            fresh = []
            for position, instance in enumerate(shaped):
                record = known.get(instance.id)
                if record is not None and record.instance == instance:
                    shaped[position] = record.instance
                else:
                    fresh.append(instance)
        if faults := self._faults(fresh):
            unfit = {id(fresh[position]) for position in faults}
            shaped = [instance for instance in shaped if id(instance) not in unfit]
            refused.update((fresh[position].id, reason) for position, reason in faults.items())
        return tuple(shaped), refused

    def _shaped(self, instances: Sequence[ServiceInstance]) -> tuple[list[ServiceInstance], dict[str, str]]:
        """What is left of ``instances``, shaped; and what cannot be: id -> why."""
        shaped: list[ServiceInstance] = []
        refused: dict[str, str] = {}
        for instance in instances:
            if self._plain and instance.source == self._source and instance.environment == self._environment:
                shaped.append(instance)
                continue
            try:
                shape = self._shape(instance)
            except UnfitError as fault:
                refused[instance.id] = str(fault)
            else:
                if shape is not None:
                    shaped.append(shape)
        return shaped, refused

    def _faults(self, instances: Sequence[ServiceInstance]) -> dict[int, str]:
        found = fitness.faults(instances)
        namespace = service = ""
        fault: str | None = "unseen"
        for position, instance in enumerate(instances):
            if fault is not None or instance.namespace is not namespace or instance.service is not service:
                namespace, service = instance.namespace, instance.service
                fault = self._name_fault((namespace, service))
            if fault is not None:
                found[position] = fault
        return found

    def _shape(self, instance: ServiceInstance) -> ServiceInstance | None:
        """Rename, relabel, filter, choose addresses, stamp; None where it is filtered out. Raises UnfitError."""
        changes: dict[str, Any] = {"environment": self._environment, "source": self._source}
        if self._plain:
            return structs.replace(instance, **changes)
        if self._renames:
            changes["namespace"], changes["service"] = self._rename(instance.namespace, instance.service)
        if self._rules:
            fields = _fields(instance, self._environment) | (
                {"namespace": changes["namespace"], "name": changes["service"]} if self._renames else {}
            )
            for rule in self._rules:
                if not rule.apply(fields, changes, instance):
                    return None
        if not self._admits((changes.get("namespace", instance.namespace), changes.get("service", instance.service))):
            return None
        if self._tags:
            changes["tags"] = tuple(dict.fromkeys((*changes.get("tags", instance.tags), *self._tags)))
        if self._meta:
            changes["meta"] = {**self._meta, **changes.get("meta", instance.meta)}
        if self._networks:
            changes["addresses"] = self._choose(instance)
        return structs.replace(instance, **changes)

    def service(self, name: ServiceName) -> ServiceName | None:
        """The name of a service that may have no instances; None where it is filtered out, or is no name."""
        namespace, service = self._rename(*name) if self._renames else name
        fields = {"namespace": namespace, "name": service, "environment": self._environment}
        changes: dict[str, Any] = {}
        for rule in self._rules:
            if rule.names_only and not rule.apply(fields, changes, None):
                return None
        result = ServiceName(changes.get("namespace", namespace), changes.get("service", service))
        return result if self._admits(result) and self._name_fault(result) is None else None

    def _rename(self, namespace: str, name: str) -> tuple[str, str]:
        namespace = self._namespaces.get(namespace, namespace)
        fields = {"namespace": namespace, "name": name}
        return _fill(self._naming[0], fields), _fill(self._naming[1], fields)

    def _admits(self, name: tuple[str, str]) -> bool:
        text = f"{name[0]}/{name[1]}"
        if self._include and not any(glob.match(text) for glob in self._include):
            return False
        return not any(glob.match(text) for glob in self._exclude)

    def _choose(self, instance: ServiceInstance) -> tuple[str, ...]:
        ranked = []
        for position, address in enumerate(instance.addresses):
            rank = next((n for n, network in enumerate(self._networks) if _contains(network, address)), None)
            if rank is not None:
                ranked.append((rank, position, address))
        if not ranked:
            raise UnfitError(f"none of its addresses ({', '.join(instance.addresses) or 'none'}) lies in `networks`")
        return tuple(address for _, _, address in sorted(ranked))

    def _name_fault(self, name: tuple[str, str]) -> str | None:
        if name not in self._checked:
            if len(self._checked) > 65536:
                self._checked.clear()
            self._checked[name] = name_problem(name[0]) or name_problem(name[1])
        return self._checked[name]


class _Rule:
    """One `relabel` rule, compiled."""

    def __init__(self, rule: Relabel) -> None:
        self._template = rule.from_
        self._match = re.compile(rule.match)
        self._action = rule.action
        self._to = rule.to or ""
        self._value = rule.value or ""
        used = set(_FIELD.findall(self._template))
        self.names_only = used <= _NAME_FIELDS and (rule.action != "set" or self._to in ("namespace", "name"))

    def apply(self, fields: dict[str, str], changes: dict[str, Any], instance: ServiceInstance | None) -> bool:
        """Apply to ``fields`` and ``changes``; whether the instance stays. Raises UnfitError where a weight is no number."""
        match = self._match.fullmatch(_fill(self._template, fields))
        if self._action == "keep":
            return match is not None
        if self._action == "drop":
            return match is None
        if match is not None:
            self._set(match.expand(self._value), fields, changes, instance)
        return True

    def _set(self, value: str, fields: dict[str, str], changes: dict[str, Any], instance: ServiceInstance | None) -> None:
        if self._to == "tag":
            tags = changes.get("tags", instance.tags if instance is not None else ())
            changes["tags"] = tuple(dict.fromkeys((*tags, value)))
        elif self._to == "weight":
            if not value.isascii() or not value.isdigit():
                raise UnfitError(f"relabelling gives the weight {value!r}, which is no whole number")
            changes["weight"] = int(value)
        elif self._to.startswith("meta."):
            meta = changes.get("meta", instance.meta if instance is not None else {})
            changes["meta"] = {**meta, self._to[5:]: value}
            fields[self._to] = value
        else:
            fields[self._to] = value
            changes["service" if self._to == "name" else self._to] = value


def _fields(instance: ServiceInstance, environment: str) -> dict[str, str]:
    fields = {f"meta.{key}": value for key, value in instance.meta.items()}
    fields.update(namespace=instance.namespace, name=instance.service, environment=environment)
    for name, value in (("zone", instance.zone), ("region", instance.region), ("node", instance.node)):
        fields[name] = value or ""
    return fields


def _fill(template: str, fields: Mapping[str, str]) -> str:
    replacement: Callable[[re.Match[str]], str] = lambda match: fields.get(match[1], "")  # noqa: E731  # typed for mypy
    return _FIELD.sub(replacement, template)


def _contains(network: IPv4Network | IPv6Network, address: str) -> bool:
    try:
        return ip_address(address) in network
    except ValueError:
        return False
