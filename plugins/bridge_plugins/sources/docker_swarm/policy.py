"""How a service wants to be shown: what is written on it in labels under the configured prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from msgspec import Struct

Publish = Literal["host", "task-overlay", "ingress", "vip"]

_MODES: tuple[str, ...] = get_args(Publish)
_PROTOCOLS = ("tcp", "udp", "sctp")
_META = "meta."
_PORT = "port."
_WEIGHT_DIGITS = 9
_SHOWN = 80

PortKey = tuple[int, str]
"""A target port and its protocol in lower case."""


class Settings(Struct, frozen=True):
    """What the configuration says for all services. network: name or id, or None where none was named."""

    publish: Publish = "host"
    network: str | None = None
    label_prefix: str = "envbridge."


class Policy(Struct, frozen=True):
    """What of a service's labels bears on its instances. ports: names by target port; an empty name is none."""

    publish: Publish = "host"
    network: str | None = None
    weight: int = 1
    zone: str | None = None
    region: str | None = None
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    ports: dict[PortKey, str] = {}


def service_policy(labels: Mapping[str, str] | None, settings: Settings) -> tuple[Policy, tuple[str, ...]]:
    """The policy of a service, and what on it was not understood (and is as if it were not there)."""
    prefix = settings.label_prefix
    wishes = {key[len(prefix) :]: value for key, value in (labels or {}).items() if key.startswith(prefix)}
    publish, network, weight = settings.publish, settings.network, 1
    zone: str | None = None
    region: str | None = None
    tags: tuple[str, ...] = ()
    ports: dict[PortKey, str] = {}
    complaints = []
    for key, value in wishes.items():
        match key:
            case "publish" if value in _MODES:
                publish = value  # type: ignore[assignment]  # one of the literals, by the guard
            case "network" if value:
                network = value
            case "weight" if value.isascii() and value.isdecimal() and len(value) <= _WEIGHT_DIGITS:
                weight = int(value)
            case "zone":
                zone = value or None
            case "region":
                region = value or None
            case "tags":
                tags = tuple(dict.fromkeys(tag for part in value.split(",") if (tag := part.strip())))
            case _ if key.startswith(_PORT) and (port := _port_key(key[len(_PORT) :])) is not None:
                ports[port] = value
            case _ if not key.startswith(_META) or key == _META:
                complaints.append(f"the label {prefix + key[:_SHOWN]!r}: {value[:_SHOWN]!r} is not understood")
    policy = Policy(publish, network, weight, zone, region, tags, meta_labels(labels, prefix), ports)
    return policy, tuple(complaints)


def meta_labels(labels: Mapping[str, str] | None, prefix: str) -> dict[str, str]:
    """The meta entries among labels: those under ``<prefix>meta.``, without it."""
    start = prefix + _META
    return {key[len(start) :]: value for key, value in (labels or {}).items() if key.startswith(start) and key != start}


def _port_key(text: str) -> PortKey | None:
    """``8080`` or ``8080/udp``; None for anything else."""
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdecimal() and len(number) <= 5 and 0 < int(number) <= 65535):
        return None
    return (int(number), protocol or "tcp") if (protocol or "tcp") in _PROTOCOLS else None
