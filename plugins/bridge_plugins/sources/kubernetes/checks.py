"""What of an endpoint can be used. The API server validates most of it; servers that only speak its language may not.

The rules are those of the field documentation of discovery/v1 and of ``k8s.io/apimachinery/pkg/util/validation``.
"""

from __future__ import annotations

import re
import socket
from functools import lru_cache

from .wire import Endpoint, is_name

_FAMILIES = {"IPv4": (socket.AF_INET,), "IPv6": (socket.AF_INET6,), None: (socket.AF_INET, socket.AF_INET6)}
_LABEL = r"[a-z0-9](?:[-_a-z0-9]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(_LABEL, re.IGNORECASE)
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.IGNORECASE)
_LONGEST_DOMAIN = 254
_SHOWN = 80
_is_place = lru_cache(maxsize=4096)(is_name)
"""As `is_name`, for nodes and zones: they repeat."""


def is_ip(text: str, address_type: str | None = None) -> bool:
    """Whether a text is an address of a family: IPv4, IPv6 without a zone (``%eth0``), or either (None)."""
    for family in _FAMILIES.get(address_type, ()):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def is_domain(text: str) -> bool:
    """Whether a text is a name of the DNS, with ``_`` as SRV names have it."""
    return len(text) <= _LONGEST_DOMAIN and _DOMAIN.fullmatch(text) is not None


def endpoint_fault(endpoint: Endpoint, address_type: str | None) -> str | None:
    """Why an endpoint cannot be an instance, naming the field; None where it can. Runs for each endpoint of each slice."""
    address = endpoint.addresses[0] if endpoint.addresses else None
    if address is None:
        return "it has no address"
    if not (is_domain(address) if address_type == "FQDN" else is_ip(address, address_type)):
        return f"its address {_shown(address)} is no {address_type or 'IP'} address"
    if endpoint.hostname and _HOSTNAME.fullmatch(endpoint.hostname) is None:
        return f"its hostname {_shown(endpoint.hostname)} is no DNS label"
    if endpoint.node_name and not _is_place(endpoint.node_name):
        return f"its nodeName {_shown(endpoint.node_name)} is no name"
    if endpoint.zone and not _is_place(endpoint.zone):
        return f"its zone {_shown(endpoint.zone)} is no name"
    return None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
