"""How rows come back from disk: checked, decoded, and sharing what repeats.

A row counts only where its checksum fits and it decodes; the others are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from sqlite3 import Connection
from typing import TypeVar

from msgspec.msgpack import Decoder

from bridge.intern import LIMIT, Interner
from bridge.model import ServiceInstance, ServiceName
from bridge.sync.store.records import StoredGroup, StoredPart, StoredRecord, StoredService, StoredSource
from bridge.sync.store.rows import POISON, PartRow, RecordRow, ServiceRow, Shape, SourceRow, checksum, gap_sum, source_sum

T = TypeVar("T")


class BadRowError(ValueError):
    """A row whose checksum does not fit it."""


def get_meta(conn: Connection, key: str, type: type[T]) -> T | None:
    """A row of the database about itself; None where it is missing or bad. Raises sqlite3.Error."""
    row = conn.execute("SELECT value, checksum FROM meta WHERE key = ?", (key,)).fetchone()
    try:
        if row is None or checksum(b"meta", key.encode(), row[0]) != row[1]:
            return None
        return Decoder(type).decode(row[0])
    except POISON:
        return None


class Reader:
    """Reads the tables of a connection whose ``text_factory`` is bytes; ``bad`` counts the rows that do not count, by table."""

    def __init__(self, conn: Connection, *, environment: str, interner: Interner) -> None:
        self._conn = conn
        self._environment = interner.text(environment)
        self._intern = interner.text
        self._record = Decoder(RecordRow).decode
        self._services = Decoder(tuple[ServiceName, ...]).decode
        self._source = Decoder(SourceRow).decode
        self._service = Decoder(ServiceRow).decode
        self._intern_items, self._intern_mapping = interner.items, interner.mapping
        self._decode_shape = Decoder(Shape).decode
        self._shape = lru_cache(LIMIT)(self._read_shape)  # what repeats is known by its bytes, and not even decoded again
        self.bad: dict[str, int] = {}

    def records(self) -> tuple[StoredRecord, ...]:
        """The good rows of ``records``."""
        return self._read("records", "SELECT source, id, value, checksum FROM records", self._read_record)

    def groups(self) -> tuple[StoredGroup, ...]:
        """The good rows of ``instance_groups``."""
        return self._read("groups", "SELECT source, key, value, checksum FROM instance_groups", self._read_group)

    def sources(self) -> tuple[StoredSource, ...]:
        """The good rows of ``sources``."""
        return self._read("sources", "SELECT name, value, checksum, retired_at FROM sources", self._read_source)

    def services(self) -> tuple[StoredService, ...]:
        """The good rows of ``services``."""
        return self._read("services", "SELECT namespace, name, value, checksum FROM services", self._read_service)

    def gaps(self) -> tuple[tuple[int, int], ...]:
        """The good rows of ``gaps``, ascending."""
        return self._read("gaps", "SELECT low, high, checksum FROM gaps ORDER BY low", self._read_gap)

    def _read(self, table: str, query: str, decode: Callable[..., T]) -> tuple[T, ...]:
        rows = []
        bad = 0
        for columns in self._conn.execute(query):
            try:
                rows.append(decode(*columns))
            except POISON:
                bad += 1
        if bad:
            self.bad[table] = bad
        return tuple(rows)

    def _read_record(self, source: bytes, id: bytes, value: bytes, sum: bytes) -> StoredRecord:
        if checksum(b"records", source, id, value) != sum:
            raise BadRowError
        row = self._record(value)
        source_name, name = self._intern(source.decode()), id.decode()
        parts = tuple([StoredPart(self._intern(part.group), self._instance(source_name, name, part)) for part in row.parts])
        return StoredRecord(source_name, name, parts, row.since)

    def _instance(self, source: str, id: str, part: PartRow) -> ServiceInstance:
        intern = self._intern
        ports, tags, meta = self._shape(bytes(part.shape))
        return ServiceInstance(
            environment=self._environment,
            source=source,
            id=id,
            namespace=intern(part.namespace),
            service=intern(part.service),
            addresses=part.addresses,
            hostname=part.hostname,
            ports=ports,
            health=part.health,
            lifecycle=part.lifecycle,
            state=part.state,
            weight=part.weight,
            region=intern(part.region) if part.region is not None else None,
            zone=intern(part.zone) if part.zone is not None else None,
            node=intern(part.node) if part.node is not None else None,
            tags=tags,
            meta=meta,
        )

    def _read_shape(self, encoded: bytes) -> Shape:
        ports, tags, meta = self._decode_shape(encoded)
        return self._intern_items(ports), self._intern_items(tags), self._intern_mapping(meta)

    def _read_group(self, source: bytes, key: bytes, value: bytes, sum: bytes) -> StoredGroup:
        if checksum(b"instance_groups", source, key, value) != sum:
            raise BadRowError
        intern = self._intern
        services = tuple([ServiceName(intern(namespace), intern(name)) for namespace, name in self._services(value)])
        return StoredGroup(intern(source.decode()), intern(key.decode()), services)

    def _read_source(self, name: bytes, value: bytes, sum: bytes, retired_at: float | None) -> StoredSource:
        if source_sum(name, value, retired_at) != sum:
            raise BadRowError
        row = self._source(value)
        return StoredSource(self._intern(name.decode()), row.type, row.confirmed_at, row.unread, retired_at)

    def _read_service(self, namespace: bytes, name: bytes, value: bytes, sum: bytes) -> StoredService:
        if checksum(b"services", namespace, name, value) != sum:
            raise BadRowError
        row = self._service(value)
        return StoredService(self._intern(namespace.decode()), self._intern(name.decode()), row.index, row.emptied_at)

    def _read_gap(self, low: int, high: int, sum: bytes) -> tuple[int, int]:
        if gap_sum(low, high) != sum:
            raise BadRowError
        return low, high
