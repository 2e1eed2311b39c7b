"""How a Service wants to be shown: its own fields and what is written on it under ``envbridge.io/``."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from .shapes import Service

Publish = Literal["pod", "cluster-ip", "node-port", "load-balancer"]

PREFIX = "envbridge.io/"
_META = "meta."
_MODES: tuple[str, ...] = get_args(Publish)
_SHOWN = 80


class Policy(Struct, frozen=True):
    """What of a Service bears on its instances.

    publish: what stands for the Service. weight, tags, meta: go to each instance. publish_not_ready: the API says
    ready for all endpoints, so that `serving` has to tell the health. target_ports: numeric target ports by port name.
    external_name: whether an ExternalName Service is published.
    """

    publish: Publish = "pod"
    weight: int = 1
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    publish_not_ready: bool = False
    target_ports: dict[str, int] = {}
    external_name: bool = False


def service_policy(service: Service, publish: Publish) -> tuple[Policy, tuple[str, ...]]:
    """The policy of a Service, and what on it was not understood (and is as if it were not there).

    publish: the mode where the Service names none. Labels and annotations under ``envbridge.io/`` count; annotations win.
    """
    wishes = _under_prefix(service.metadata.labels) | _under_prefix(service.metadata.annotations)
    spec = service.spec
    mode: Publish = publish
    weight, external_name, tags, complaints = 1, False, "", []
    meta = {key.removeprefix(_META): value for key, value in wishes.items() if key.startswith(_META) and key != _META}
    for key, value in wishes.items():
        match key:
            case "publish" if value in _MODES:
                mode = value  # type: ignore[assignment]  # one of the literals, by the guard
            case "weight" if value.isascii() and value.isdecimal() and len(value) <= 9:
                weight = int(value)
            case "external-name" if value in ("true", "false"):
                external_name = value == "true"
            case "tags":
                tags = value
            case _ if key not in meta and key.removeprefix(_META) not in meta:
                complaints.append(f"{PREFIX}{key[:_SHOWN]}: {value[:_SHOWN]!r} is not understood")
    publish_not_ready = bool(spec and spec.publish_not_ready_addresses)
    if publish_not_ready:
        meta["publishNotReadyAddresses"] = "true"
    policy = Policy(
        publish=mode,
        weight=weight,
        tags=tuple(dict.fromkeys(tag for part in tags.split(",") if (tag := part.strip()))),
        meta=meta,
        publish_not_ready=publish_not_ready,
        target_ports=_target_ports(service),
        external_name=external_name,
    )
    return policy, tuple(complaints)


def _under_prefix(entries: dict[str, str] | None) -> dict[str, str]:
    if not entries:
        return {}
    return {key.removeprefix(PREFIX): value for key, value in entries.items() if key.startswith(PREFIX)}


def _target_ports(service: Service) -> dict[str, int]:
    ports = service.spec.ports if service.spec else None
    return {
        port.name or "": port.target_port
        for port in ports or ()
        if isinstance(port.target_port, int) and 0 < port.target_port <= 65535
    }
