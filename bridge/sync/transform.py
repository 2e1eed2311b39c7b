"""The one transform pipeline between a source and its partition: rename, relabel, filter, choose addresses, stamp.

Order: `namespaces`, `naming`, `relabel`, `include`/`exclude`; then tags, meta and networks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import translate
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from msgspec import structs

from bridge.contracts import Relabel, SourceConfig
from bridge.errors import BridgeError
from bridge.model import ServiceInstance, ServiceName
from bridge.sync.fitness import instance_fault
from bridge.text import name_problem

_FIELD = re.compile(r"\{([^{}]*)\}")
_NAME_FIELDS = frozenset({"namespace", "name", "environment"})


class UnfitError(BridgeError):
    """An instance that cannot be taken; the text says why."""


class Transform:
    """The pipeline of one source. `apply` works on what the plugin yields, in the source's own names."""

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
        self._checked: dict[tuple[str, str], str | None] = {}

    def apply(self, instance: ServiceInstance) -> ServiceInstance | None:
        """The instance as the catalog shall have it, None where it is filtered out. Raises UnfitError where it is none."""
        changes: dict[str, Any] = {"environment": self._environment, "source": self._source}
        if self._renames:
            changes["namespace"], changes["service"] = self._rename(instance.namespace, instance.service)
        if self._rules:
            fields = _fields(instance, self._environment) | (
                {"namespace": changes["namespace"], "name": changes["service"]} if self._renames else {}
            )
            for rule in self._rules:
                if not rule.apply(fields, changes, instance):
                    return None
        name = (changes.get("namespace", instance.namespace), changes.get("service", instance.service))
        if not self._admits(name):
            return None
        if self._tags:
            changes["tags"] = tuple(dict.fromkeys((*changes.get("tags", instance.tags), *self._tags)))
        if self._meta:
            changes["meta"] = {**self._meta, **changes.get("meta", instance.meta)}
        if self._networks:
            changes["addresses"] = self._choose(instance)
        stamped = structs.replace(instance, **changes)
        self._check(stamped, name)
        return stamped

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

    def _check(self, instance: ServiceInstance, name: tuple[str, str]) -> None:
        fault = self._name_fault(name) or instance_fault(instance)
        if fault is not None:
            raise UnfitError(fault)


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
