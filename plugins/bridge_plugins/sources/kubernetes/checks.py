"""What of an endpoint can be used. The API server validates most of it; servers that only speak its language may not.

The rules are those of the field documentation of discovery/v1 and of ``k8s.io/apimachinery/pkg/util/validation``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable

from .rows import Row
from .wire import LONGEST_NAME, is_name

_FAMILIES = {"IPv4": (socket.AF_INET,), "IPv6": (socket.AF_INET6,), None: (socket.AF_INET, socket.AF_INET6)}
_OCTET = r"(?:1[0-9]{0,2}+|2(?:[0-4][0-9]?+|5[0-5]?+|[6-9])?+|[3-9][0-9]?+|0)"
_IPV4_EACH = re.compile(rf"(?:{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET},)*+")
"""What `is_ip` takes for IPv4, for many at once; each alternative is told by its first digit."""
_LABEL = r"[a-z0-9](?:[-_a-z0-9]{0,61}[a-z0-9])?"
_HOSTNAME = re.compile(_LABEL, re.IGNORECASE)
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.IGNORECASE)
_LONGEST_DOMAIN = 254
_IN_NAMES = bytes(set(range(ord(" "), ord("~") + 1)) - {ord("/")})
"""The characters of ASCII that names may have (`is_name`)."""
_PLACES_KEPT = 10_000
_places: set[str | None] = set()
_SHOWN = 80


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


def are_usable(rows: list[Row], address_type: str | None) -> bool:
    """Whether each of these endpoints can be an instance; also no where only looking at each could tell.

    Runs for each endpoint there is: what nearly all of them pass is asked of many at once.
    """
    if not rows:
        return True
    addresses, uids, hostnames, nodes, zones, _ = zip(*rows, strict=True)
    if not _are_addresses(addresses, address_type):
        return False
    if any(hostnames) and not all(_HOSTNAME.fullmatch(hostname) for hostname in hostnames if hostname):
        return False
    return _are_names(uids) and _are_places(nodes) and _are_places(zones)


def row_fault(row: Row, address_type: str | None) -> str | None:
    """Why an endpoint cannot be an instance, naming the field; None where it can."""
    address, uid, hostname, node, zone, _ = row
    if address is None:
        return "it has no address"
    if not (is_domain(address) if address_type == "FQDN" else is_ip(address, address_type)):
        return f"its address {_shown(address)} is no {address_type or 'IP'} address"
    if hostname and _HOSTNAME.fullmatch(hostname) is None:
        return f"its hostname {_shown(hostname)} is no DNS label"
    if node and not is_name(node):
        return f"its nodeName {_shown(node)} is no name"
    if zone and not is_name(zone):
        return f"its zone {_shown(zone)} is no name"
    if uid and not is_name(uid):
        return "the uid of its target is none"
    return None


def _are_addresses(addresses: tuple[str | None, ...], address_type: str | None) -> bool:
    given = [address for address in addresses if address is not None]
    if len(given) < len(addresses):
        return False
    if address_type == "IPv4":
        joined = ",".join(given) + ","
        return joined.count(",") == len(given) and _IPV4_EACH.fullmatch(joined) is not None
    return all(is_domain(address) if address_type == "FQDN" else is_ip(address, address_type) for address in given)


def _are_names(texts: Iterable[str | None]) -> bool:
    """Whether all of these that are there are names; also no where one is not of ASCII."""
    given = [text for text in texts if text]
    joined = "".join(given)
    if not joined.isascii() or joined.encode().translate(None, _IN_NAMES):
        return False
    return not given or len(max(given, key=len)) <= LONGEST_NAME


def _are_places(texts: Collection[str | None]) -> bool:
    """As `_are_names`, for nodes and zones: they repeat."""
    if not _places.issuperset(texts):
        new = {text for text in texts if text}
        if not _are_names(new):
            return False
        if len(_places) > _PLACES_KEPT:
            _places.clear()
        _places.update(new, ("", None))
    return True


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
