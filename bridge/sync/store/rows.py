"""How rows go to disk: keys in columns, the rest as msgpack, and a checksum over all of it (`reader` has the way back).

SQLite's own checks let flipped bits inside a value pass, so a row counts only when its checksum and its decoding agree.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from sqlite3 import Connection
from typing import Annotated, Any, TypeVar

from msgspec import Meta, MsgspecError, Raw, Struct
from msgspec.msgpack import Encoder

from bridge.model import Health, Lifecycle, Port, State
from bridge.sync.store.records import StoredGroup, StoredRecord, StoredService, StoredSource

_logger = logging.getLogger("bridge.store")
_encode = Encoder().encode
T = TypeVar("T")

POISON = (TypeError, ValueError, OverflowError, RecursionError, struct.error, MsgspecError)
"""What decoding or encoding a bad row can raise."""


def checksum(table: bytes, *columns: bytes) -> bytes:
    """64 bits over a row: its table, its keys and its values, so that it can neither change nor move unnoticed."""
    return blake2b(b"\0".join((table, *columns)), digest_size=8).digest()


def source_sum(name: bytes, value: bytes, retired_at: float | None) -> bytes:
    """The checksum of a row of ``sources``."""
    retired = b"" if retired_at is None else struct.pack(">d", retired_at)
    return checksum(b"sources", name, value, retired)


def gap_sum(low: int, high: int) -> bytes:
    """The checksum of a row of ``gaps``."""
    return checksum(b"gaps", b"%d" % low, b"%d" % high)


Shape = tuple[tuple[Port, ...], tuple[str, ...], dict[str, str]]
"""Ports, tags and meta: equal for all instances of one version of a service."""


class PartRow(Struct, frozen=True, gc=False, array_like=True):
    """A `StoredPart` without what its record and the store say already.

    ``shape`` is a `Shape`, which stays encoded: it repeats.
    """

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
    shape: Raw


class RecordRow(Struct, frozen=True, gc=False, array_like=True):
    """The value of a row of ``records``."""

    since: float
    parts: Annotated[tuple[PartRow, ...], Meta(min_length=1)]


class SourceRow(Struct, frozen=True, gc=False, array_like=True):
    """The value of a row of ``sources``."""

    type: str
    confirmed_at: float | None
    unread: tuple[str, ...]


class ServiceRow(Struct, frozen=True, gc=False, array_like=True):
    """The value of a row of ``services``."""

    index: int
    emptied_at: float | None


def put_records(conn: Connection, records: Iterable[StoredRecord]) -> None:
    """Store records; one that cannot be encoded is logged and left out, and costs no other."""
    conn.executemany("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)", _encodable(_record_row, records))


def put_groups(conn: Connection, groups: Iterable[StoredGroup]) -> None:
    """Store groups, as `put_records` does."""
    conn.executemany("INSERT OR REPLACE INTO instance_groups VALUES (?, ?, ?, ?)", _encodable(_group_row, groups))


def put_sources(conn: Connection, sources: Iterable[StoredSource]) -> None:
    """Store sources, as `put_records` does."""
    conn.executemany(
        "INSERT OR REPLACE INTO sources (name, value, checksum, retired_at) VALUES (?, ?, ?, ?)", _encodable(_source_row, sources)
    )


def put_services(conn: Connection, services: Iterable[StoredService]) -> None:
    """Store services, as `put_records` does."""
    conn.executemany("INSERT OR REPLACE INTO services VALUES (?, ?, ?, ?)", _encodable(_service_row, services))


def put_gaps(conn: Connection, gaps: Iterable[tuple[int, int]]) -> None:
    """Store exactly these gaps."""
    conn.execute("DELETE FROM gaps")
    conn.executemany("INSERT INTO gaps VALUES (?, ?, ?)", ((low, high, gap_sum(low, high)) for low, high in gaps))


def put_meta(conn: Connection, key: str, value: Any) -> None:
    """Store a row of the database about itself."""
    blob = _encode(value)
    row = (key, blob, checksum(b"meta", key.encode(), blob))
    conn.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", row)


def _record_row(record: StoredRecord) -> tuple[str, str, bytes, bytes]:
    if not record.parts:
        raise ValueError("a record needs a part")
    parts = []
    for part in record.parts:
        it = part.instance
        if it.id != record.id or it.source != record.source:
            raise ValueError(f"the part of group {part.group!a} is of another instance")
        shape: Shape = (it.ports, it.tags, it.meta)
        parts.append(
            PartRow(
                part.group,
                it.namespace,
                it.service,
                it.addresses,
                it.hostname,
                it.health,
                it.lifecycle,
                it.state,
                it.weight,
                it.region,
                it.zone,
                it.node,
                Raw(_encode(shape)),
            )
        )
    value = _encode(RecordRow(record.since, tuple(parts)))
    return record.source, record.id, value, checksum(b"records", record.source.encode(), record.id.encode(), value)


def _group_row(group: StoredGroup) -> tuple[str, str, bytes, bytes]:
    value = _encode(group.services)
    return group.source, group.key, value, checksum(b"instance_groups", group.source.encode(), group.key.encode(), value)


def _source_row(source: StoredSource) -> tuple[str, bytes, bytes, float | None]:
    value = _encode(SourceRow(source.type, source.confirmed_at, source.unread))
    return source.name, value, source_sum(source.name.encode(), value, source.retired_at), source.retired_at


def _service_row(service: StoredService) -> tuple[str, str, bytes, bytes]:
    value = _encode(ServiceRow(service.index, service.emptied_at))
    namespace, name = service.namespace, service.name
    return namespace, name, value, checksum(b"services", namespace.encode(), name.encode(), value)


def _encodable(encode: Callable[[T], tuple[Any, ...]], items: Iterable[T]) -> Iterator[tuple[Any, ...]]:
    for item in items:
        try:
            row = encode(item)
        except POISON as error:
            _logger.warning("row cannot be stored", extra={"row": ascii(item)[:200], "error": ascii(error)})
            continue
        yield row
