"""One instance out of what several groups say of it, whatever their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, ip_address

from msgspec.structs import replace

from bridge.model import Health, ServiceInstance, State

_HEALTH_RANK: dict[Health, int] = {"ready": 0, "unknown": 1, "unready": 2}
_STATE_RANK: dict[State, int] = {"listed": 0, "down": 1, "expired": 2}


def address_order(address: str) -> tuple[int, int, str]:
    """Sort key: IPv4 before IPv6, then by value; what is no address at all comes last."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return (2, 0, address)
    return (0 if isinstance(parsed, IPv4Address) else 1, int(parsed), address)


def merge(parts: Sequence[ServiceInstance]) -> ServiceInstance:
    """The instance that ``parts`` (one or more, of one id) describe together.

    Sets are united; ready wins over unknown over unready, active over draining, listed over all else, the larger weight,
    and of single values the first in order of text, so that the result does not depend on the order of ``parts``.
    """
    if len(parts) == 1:
        return parts[0]
    first = min(parts, key=lambda part: (part.namespace, part.service))
    meta: dict[str, str] = {}
    for part in parts:
        for key, value in part.meta.items():
            meta[key] = min(value, meta.get(key, value))
    return replace(
        first,
        addresses=tuple(sorted({address for part in parts for address in part.addresses}, key=address_order)),
        hostname=_first(part.hostname for part in parts),
        ports=tuple(
            sorted(
                {
                    (port.name, port.port, port.protocol, port.app_protocol): port for part in parts for port in part.ports
                }.values(),
                key=lambda port: (port.name or "", port.port, port.protocol, port.app_protocol or ""),
            )
        ),
        health=min((part.health for part in parts), key=_HEALTH_RANK.__getitem__),
        state=min((part.state for part in parts), key=_STATE_RANK.__getitem__),
        lifecycle="active" if any(part.lifecycle == "active" for part in parts) else "draining",
        weight=max(part.weight for part in parts),
        region=_first(part.region for part in parts),
        zone=_first(part.zone for part in parts),
        node=_first(part.node for part in parts),
        tags=tuple(sorted({tag for part in parts for tag in part.tags})),
        meta=dict(sorted(meta.items())),
    )


def _first(values: Iterable[str | None]) -> str | None:
    return min((value for value in values if value is not None), default=None)
