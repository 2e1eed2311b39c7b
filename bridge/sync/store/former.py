"""Rows as former versions of the database have them, and what becomes of them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.msgpack import Decoder

from bridge.model import Health, Lifecycle, Port, ServiceInstance, State
from bridge.sync.store.records import StoredPart, StoredRecord
from bridge.sync.store.rows import POISON, checksum, record_row

BAD = b""
"""A checksum that no row has."""


class PartRow2(Struct, frozen=True, gc=False, array_like=True):
    """An instance as a group showed it, in a row of ``records`` up to version 2."""

    group: str
    namespace: str
    service: str
    addresses: tuple[str, ...]
    hostname: str | None
    health: Health
    lifecycle: Lifecycle
    state: State
    weight: int
    region: str | None
    zone: str | None
    node: str | None
    shape: tuple[tuple[Port, ...], tuple[str, ...], dict[str, str]]


class RecordRow2(Struct, frozen=True, gc=False, array_like=True):
    """The value of a row of ``records`` up to version 2."""

    since: float
    parts: Annotated[tuple[PartRow2, ...], Meta(min_length=1)]


_decode = Decoder(RecordRow2).decode


def record_anew(source: bytes, id: bytes, value: bytes, sum: object) -> tuple[bytes, bytes, bytes, int | bytes]:
    """A row of ``records`` of version 2 as version 3 has it; one that is bad keeps its value, and gets the checksum `BAD`."""
    try:
        if checksum(b"records", source, id, value) != sum:
            return source, id, value, BAD
        row, name, id_ = _decode(value), source.decode(), id.decode()
        parts = tuple([StoredPart(part.group, _instance(name, id_, part)) for part in row.parts])
        _, _, anew, anew_sum = record_row(StoredRecord(name, id_, parts, row.since))
    except POISON:
        return source, id, value, BAD
    return source, id, anew, anew_sum


def _instance(source: str, id: str, row: PartRow2) -> ServiceInstance:
    ports, tags, meta = row.shape
    return ServiceInstance(
        source=source,
        id=id,
        namespace=row.namespace,
        service=row.service,
        addresses=row.addresses,
        hostname=row.hostname,
        ports=ports,
        health=row.health,
        lifecycle=row.lifecycle,
        state=row.state,
        weight=row.weight,
        region=row.region,
        zone=row.zone,
        node=row.node,
        tags=tags,
        meta=meta,
    )
