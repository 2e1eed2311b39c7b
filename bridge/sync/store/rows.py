"""How rows go to disk: keys in columns, the rest as msgpack, and a checksum over all of it (`reader` has the way back).

SQLite's own checks let flipped bits inside a value pass, so a row counts only when its checksum and its decoding agree.
Records outnumber all else by far: what they cost is what writing and starting cost.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from sqlite3 import Connection
from typing import Any, TypeVar
from zlib import crc32

from msgspec import MsgspecError, Raw, Struct
from msgspec.msgpack import Encoder

from bridge.batched import batched
from bridge.model import Health, Lifecycle, Port, ServiceInstance, State
from bridge.sync.store.records import StoredGroup, StoredRecord, StoredService, StoredSource

_logger = logging.getLogger("bridge.store")
_encode = Encoder().encode
T = TypeVar("T")

ROWS = 100
"""Records that one statement stores. Together they cost a third less than alone."""

_PUT_RECORD = "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)"
_PUT_RECORDS = f"{_PUT_RECORD}{', (?, ?, ?, ?)' * (ROWS - 1)}"

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


@lru_cache(1024)
def record_seed(source: str) -> int:
    """Where the checksums of a source's rows of ``records`` begin."""
    return crc32(b"records\0" + source.encode())


def record_sum(seed: int, id: bytes, value: bytes) -> int:
    """The checksum of a row of ``records``, a CRC-32.

    It finds up to three flipped bits in a row of up to 11 KB for certain (Koopman, "32-Bit Cyclic Redundancy Codes for
    Internet Applications", 2002), which no hash does, and all but one of 2^32 other damages, at half the price of a hash.
    The id comes last: a value ends where its msgpack ends, so that no byte can change sides.
    """
    return crc32(value + id, seed)


class AlikeRow(Struct, frozen=True, gc=False, array_like=True):
    """What most instances of a group have in common."""

    group: str
    namespace: str
    service: str
    health: Health
    lifecycle: Lifecycle
    state: State
    weight: int
    region: str | None
    zone: str | None
    ports: tuple[Port, ...]
    tags: tuple[str, ...]


PartRow = tuple[Raw, tuple[str, ...], str | None, str | None, dict[str, str]]
"""A `StoredPart` without what its record and the store say already: an `AlikeRow`, which is known by its bytes, addresses,
host name, node and meta.
"""

RecordRow = tuple[Raw, tuple[str, ...], str | None, str | None, dict[str, str], float, tuple[PartRow, ...]]
"""The value of a row of ``records``: the first `PartRow`, nearly always the only one, then ``since``, then the other parts."""


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
    """Store records; one that cannot be encoded is logged and left out, and costs no other.

    As many as one statement takes are encoded at once, and no more: while a statement runs, other threads run.
    """
    for chunk in batched(_encodable(record_row, records), ROWS):
        if len(chunk) == ROWS:
            conn.execute(_PUT_RECORDS, [*chain.from_iterable(chunk)])
        else:
            conn.executemany(_PUT_RECORD, chunk)


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


def record_row(record: StoredRecord) -> tuple[str, str, bytes, int]:
    """A row of ``records``, its value a `RecordRow` put together without one. Raises one of `POISON` where it cannot be."""
    source, id_ = record.source, record.id
    first, *others = [_part_values(record, part.group, part.instance) for part in record.parts]
    value = _encode((*first, record.since, others))
    return source, id_, value, record_sum(record_seed(source), id_.encode(), value)


def _part_values(record: StoredRecord, group: str, it: ServiceInstance) -> tuple[Any, ...]:
    if it.id != record.id or it.source != record.source:
        raise ValueError(f"the part of group {group!a} is of another instance")
    alike = (
        group,
        it.namespace,
        it.service,
        it.health,
        it.lifecycle,
        it.state,
        it.weight,
        it.region,
        it.zone,
        it.ports,
        it.tags,
    )
    return alike, it.addresses, it.hostname, it.node, it.meta


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
