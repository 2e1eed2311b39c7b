"""What an instance must be like to enter the catalog: whatever a plugin lets through, every surface can carry (security 5.3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
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

_MANY = 5
"""Instances that are cheaper to look at together."""


def faults(instances: Sequence[ServiceInstance]) -> dict[int, str]:
    """Why the catalog cannot take some of ``instances`` (their names aside), by position; each text names the field.

    Runs for every new or changed instance: nearly always all of a group are fit, which is told column by column.
    """
    if len(instances) >= _MANY and _are_fit(instances):
        return {}
    return {position: fault for position, instance in enumerate(instances) if (fault := _fault(instance)) is not None}


def _are_fit(instances: Sequence[ServiceInstance]) -> bool:
    """Whether all are surely fit; False may only mean that it cannot be told so cheaply."""
    if not instances:
        return True
    try:
        encoded = encode_json(instances)
    except UnicodeEncodeError:
        return False
    # JSON escapes control characters, so that ASCII without an escape has none but DEL.
    if not encoded.isascii() or b"\\" in encoded or b"\x7f" in encoded:
        return False
    ids = [instance.id for instance in instances]
    addresses = [instance.addresses for instance in instances]
    ports = {id(instance.ports): instance.ports for instance in instances}.values()
    tags = {instance.tags for instance in instances}
    metas = {id(instance.meta): instance.meta for instance in instances}.values()
    labels = set().union(*tags, *metas, *[meta.values() for meta in metas])
    weights = {instance.weight for instance in instances}
    texts: set[str | None] = {instance.hostname for instance in instances}
    texts.update([instance.region for instance in instances])
    texts.update([instance.zone for instance in instances])
    texts.update([instance.node for instance in instances])
    texts.discard(None)
    return (
        "" not in ids
        and _longest(ids) <= MAX_ID
        and _longest(texts) <= MAX_TEXT  # type: ignore[arg-type]  # None was taken out
        and min(weights) >= 0
        and max(weights) <= MAX_WEIGHT
        # No record of ASCII with so few of everything can be too large.
        and _longest(addresses) + _longest(ports) <= _FEW
        and _longest(tags) + _longest(metas) <= _FEW
        and not any(_ports_fault(each) for each in ports)
        and _longest(labels) <= MAX_LABEL
        and all(_is_address(address) for each in addresses for address in each)
    )


def _longest(items: Iterable[Sized]) -> int:
    return max(map(len, items), default=0)


def _fault(instance: ServiceInstance) -> str | None:
    id_, addresses = instance.id, instance.addresses
    if not id_ or len(id_) > MAX_ID or not _is_shown(id_):
        return f"the id is empty, longer than {MAX_ID} characters, or has some that cannot be shown"
    if len(addresses) > MAX_MANY or len(instance.ports) > MAX_MANY:
        return f"more than {MAX_MANY} addresses or ports"
    for address in addresses:
        if not _is_address(address):
            return f"the address {address[:80]!r} is none"
    for text in (instance.hostname, instance.region, instance.zone, instance.node):
        if text is not None and (len(text) > MAX_TEXT or not _is_shown(text)):
            return f"the host name, region, zone or node {text[:80]!r} is too long, or cannot be shown"
    if not 0 <= instance.weight <= MAX_WEIGHT:
        return f"the weight {instance.weight} is not between 0 and {MAX_WEIGHT}"
    return _ports_fault(instance.ports) or _labels_fault(instance.tags, instance.meta) or _size_fault(instance)


def _ports_fault(ports: tuple[Port, ...]) -> str | None:
    return next((fault for port in ports if (fault := _port_fault(port)) is not None), None)


def _port_fault(port: Port) -> str | None:
    if not 0 < port.port < 65536:
        return f"the port {port.port} is not between 1 and 65535"
    if port.protocol not in PROTOCOLS:
        return f"the protocol {port.protocol[:80]!r} is none of {', '.join(sorted(PROTOCOLS))}"
    for text in (port.name, port.app_protocol):
        if text is not None and (len(text) > MAX_TEXT or not _is_shown(text)):
            return f"the port's name {text[:80]!r} is too long, or cannot be shown"
    return None


def _labels_fault(tags: tuple[str, ...], meta: dict[str, str]) -> str | None:
    if len(tags) > MAX_LABELS or len(meta) > MAX_LABELS:
        return f"more than {MAX_LABELS} tags or meta entries"
    for text in (*tags, *meta, *meta.values()):
        if len(text) > MAX_LABEL:
            return f"a tag or meta entry is longer than {MAX_LABEL} characters"
    return None


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
