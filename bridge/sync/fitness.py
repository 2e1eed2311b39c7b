"""What an instance must be like to enter the catalog: whatever a plugin lets through, every surface can carry (security 5.3)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from socket import AF_INET, inet_pton

from bridge.catalog.view import encode_json
from bridge.model import Port, ServiceInstance
from bridge.text import UNSAFE

MAX_ID = 2048
"""Characters of an id."""

MAX_LABELS = 64
MAX_LABEL = 1024
"""Characters of a tag, or of a meta entry's key or value."""

MAX_TEXT = 255
"""Characters of any other text."""

MAX_MANY = 256
"""Addresses, or ports, of one instance."""

MAX_WEIGHT = 2**31 - 1

MAX_RECORD = 16 * 1024
"""Bytes of a record as JSON."""

PROTOCOLS = frozenset(("TCP", "UDP", "SCTP"))
_FEW = 4
"""Addresses and ports, or labels, of a record that is surely small."""


def faults(instances: Sequence[ServiceInstance]) -> dict[int, str]:
    """Why the catalog cannot take some of ``instances`` (their names aside), by position; each text names the field.

    Runs for every new or changed instance, hence its shape: one look at the encoded whole spares most looks at its texts,
    and what the one before had, too, was looked at already.
    """
    found: dict[int, str] = {}
    shown = _all_shown(instances)
    ports: tuple[Port, ...] | None = None
    tags: tuple[str, ...] | None = None
    meta: dict[str, str] | None = None
    for position, instance in enumerate(instances):
        fault = _fault(instance, shown)
        if fault is None and instance.ports is not ports:
            fault = _ports_fault(instance.ports, shown)
            ports = instance.ports if fault is None else None
        if fault is None and (instance.tags is not tags or instance.meta is not meta):
            tags, meta = instance.tags, instance.meta
            fault = _labels_fault(tags, meta)
            if fault is not None:
                tags = meta = None
        if fault is None and not (shown and _is_small(instance)):
            fault = _size_fault(instance)
        if fault is not None:
            found[position] = fault
    return found


def _all_shown(instances: Sequence[ServiceInstance]) -> bool:
    """Whether every text of them can be shown, as far as that is told at a glance."""
    try:
        encoded = encode_json(instances)
    except UnicodeEncodeError:
        return False
    # JSON escapes control characters, so that ASCII without an escape has none but DEL.
    return encoded.isascii() and b"\\" not in encoded and b"\x7f" not in encoded


def _fault(instance: ServiceInstance, shown: bool) -> str | None:
    id_, addresses = instance.id, instance.addresses
    if not id_ or len(id_) > MAX_ID or not (shown or _is_shown(id_)):
        return f"the id is empty, longer than {MAX_ID} characters, or has some that cannot be shown"
    if len(addresses) > MAX_MANY or len(instance.ports) > MAX_MANY:
        return f"more than {MAX_MANY} addresses or ports"
    for address in addresses:
        if not _is_address(address):
            return f"the address {address[:80]!r} is none"
    for text in (instance.hostname, instance.region, instance.zone, instance.node):
        if text is not None and (len(text) > MAX_TEXT or not (shown or _is_shown(text))):
            return f"the host name, region, zone or node {text[:80]!r} is too long, or cannot be shown"
    if not 0 <= instance.weight <= MAX_WEIGHT:
        return f"the weight {instance.weight} is not between 0 and {MAX_WEIGHT}"
    return None


def _ports_fault(ports: tuple[Port, ...], shown: bool) -> str | None:
    return next((fault for port in ports if (fault := _port_fault(port, shown)) is not None), None)


def _port_fault(port: Port, shown: bool) -> str | None:
    if not 0 < port.port < 65536:
        return f"the port {port.port} is not between 1 and 65535"
    if port.protocol not in PROTOCOLS:
        return f"the protocol {port.protocol[:80]!r} is none of {', '.join(sorted(PROTOCOLS))}"
    for text in (port.name, port.app_protocol):
        if text is not None and (len(text) > MAX_TEXT or not (shown or _is_shown(text))):
            return f"the port's name {text[:80]!r} is too long, or cannot be shown"
    return None


def _labels_fault(tags: tuple[str, ...], meta: dict[str, str]) -> str | None:
    if len(tags) > MAX_LABELS or len(meta) > MAX_LABELS:
        return f"more than {MAX_LABELS} tags or meta entries"
    for text in (*tags, *meta, *meta.values()):
        if len(text) > MAX_LABEL:
            return f"a tag or meta entry is longer than {MAX_LABEL} characters"
    return None


def _is_small(instance: ServiceInstance) -> bool:
    """Whether no record of ASCII with so few of everything can be too large."""
    return len(instance.addresses) + len(instance.ports) <= _FEW and len(instance.meta) + len(instance.tags) <= _FEW


def _size_fault(instance: ServiceInstance) -> str | None:
    try:
        size = len(encode_json(instance))
    except UnicodeEncodeError:
        return "some of its text is no valid Unicode"
    return f"the record has {size} bytes, more than {MAX_RECORD}" if size > MAX_RECORD else None


def _is_address(text: str) -> bool:
    try:
        inet_pton(AF_INET, text)  # most are: a tenth of the time of what can tell all
    except (OSError, ValueError):  # ValueError: NUL in it
        pass
    else:
        return True
    try:
        ip_address(text)
    except ValueError:
        return False
    return len(text) <= MAX_TEXT and _is_shown(text)  # a scope (fe80::1%eth0) may hold anything


def _is_shown(text: str) -> bool:
    return text.isprintable() or UNSAFE.search(text) is None
