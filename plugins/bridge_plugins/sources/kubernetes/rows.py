"""What an EndpointSlice says in the form in which it is kept: a row for each endpoint, packed.

Packing normalises: equal bytes are an unchanged slice, whatever else of it changed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct

from .shapes import AddressType, Conditions, Endpoint, EndpointPort, SliceContent

Row = tuple[str | None, str | None, str | None, str | None, str | None, Conditions | None]
"""An endpoint: its first address (only that has a meaning), the uid of its target, hostname, node, zone, conditions.

Conditions that say what none would say are None.
"""

_AS_IF_NONE = Conditions(ready=True, serving=True, terminating=False)


class SliceRows(Struct, array_like=True, gc=False):
    """A slice without its metadata. broken: as in `SliceContent`."""

    rows: list[Row]
    address_type: AddressType | None
    ports: list[EndpointPort] | None
    broken: dict[int, str] | None


class _PackedRows(Struct, array_like=True, gc=False):
    """`SliceRows` but for what need not be read."""

    rows: list[Raw]
    address_type: Raw
    ports: Raw
    broken: Raw

    @property
    def others(self) -> list[Raw]:
        """What is not rows."""
        return [self.address_type, self.ports, self.broken]


_ROWS = msgspec.msgpack.Decoder(SliceRows)
_PACKED_ROWS = msgspec.msgpack.Decoder(_PackedRows)


def rows_of(content: SliceContent) -> SliceRows:
    """The rows of a slice as it was read."""
    return SliceRows(_rows(content.endpoints or ()), content.address_type, content.ports, content.broken)


def _rows(endpoints: Iterable[Endpoint]) -> list[Row]:
    return [
        (
            endpoint.addresses[0] if endpoint.addresses else None,
            None if endpoint.target_ref is None else endpoint.target_ref.uid,
            endpoint.hostname,
            endpoint.node_name,
            endpoint.zone,
            None if endpoint.conditions == _AS_IF_NONE else endpoint.conditions,
        )
        for endpoint in endpoints
    ]


def pack(rows: SliceRows) -> bytes:
    """The rows as they are kept."""
    return msgspec.msgpack.encode(rows)


def unpack(packed: bytes) -> SliceRows:
    """What `pack` packed."""
    return _ROWS.decode(packed)


def splice(packed: bytes, head: int, tail: int, between: SliceRows) -> bytes | None:
    """``packed`` with other rows between its first ``head`` and its last ``tail``; None where more than rows would change."""
    kept = _PACKED_ROWS.decode(packed)
    if kept.others != [Raw(msgspec.msgpack.encode(other)) for other in (between.address_type, between.ports, between.broken)]:
        return None
    kept.rows[head : len(kept.rows) - tail] = [Raw(msgspec.msgpack.encode(row)) for row in between.rows]
    return msgspec.msgpack.encode(kept)


def ready_nodes(rows: list[Row]) -> frozenset[str]:
    """The nodes that hold ready endpoints of a slice; ``""`` stands for an endpoint without a node."""
    return frozenset(
        node or ""
        for address, _, _, node, _, conditions in rows
        if address is not None and (conditions is None or conditions.ready is not False)
    )
