"""How rows come back from disk: checked, decoded, and sharing what repeats.

A row counts only where its checksum fits and it decodes; the others are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from sys import intern
from typing import TypeVar

from msgspec import Raw
from msgspec.msgpack import Decoder
from msgspec.structs import replace

from bridge.intern import LIMIT, Interner
from bridge.model import ServiceInstance, ServiceName
from bridge.sync.store.records import StoredGroup, StoredPart, StoredRecord, StoredService, StoredSource
from bridge.sync.store.rows import (
    POISON,
    AlikeRow,
    RecordRow,
    ServiceRow,
    SourceRow,
    checksum,
    gap_sum,
    record_seed,
    record_sum,
    source_sum,
)

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


class _RecordsOfSource:
    """Rows of ``records`` of one source. What most of a group have in common is known by its bytes, and decoded only once."""

    def __init__(self, source: str, environment: str, interner: Interner) -> None:
        self._source = intern(source)
        self._environment = environment
        self._seed = record_seed(source)
        self._items, self._mapping = interner.items, interner.mapping
        self._decode = Decoder(RecordRow).decode
        self._decode_alike = Decoder(AlikeRow).decode
        self._known: dict[bytes, tuple[str, ServiceInstance]] = {}
        self._no_meta = interner.mapping({})

    def read(self, id: bytes, value: bytes, sum: int) -> StoredRecord:
        """One row. Raises one of `POISON` where it is bad."""
        if record_sum(self._seed, id, value) != sum:
            raise BadRowError
        id_ = id.decode()
        alike, addresses, hostname, node, meta, since, others = self._decode(value)
        parts: tuple[StoredPart, ...] = (self._part(id_, alike, addresses, hostname, node, meta),)
        if others:
            parts += tuple([self._part(id_, *other) for other in others])
        return StoredRecord(self._source, id_, parts, since)

    def _part(
        self, id: str, encoded: Raw, addresses: tuple[str, ...], hostname: str | None, node: str | None, meta: dict[str, str]
    ) -> StoredPart:
        key = bytes(encoded)
        group, alike = self._known.get(key) or self._learn(key)
        instance = replace(
            alike,
            id=id,
            addresses=addresses,
            hostname=hostname,
            node=intern(node) if node is not None else None,
            meta=self._mapping(meta) if meta else self._no_meta,
        )
        return StoredPart(group, instance)

    def _learn(self, encoded: bytes) -> tuple[str, ServiceInstance]:
        """The group, and an instance that has what most of the group have in common."""
        row = self._decode_alike(encoded)
        alike = ServiceInstance(
            environment=self._environment,
            source=self._source,
            id="",
            namespace=intern(row.namespace),
            service=intern(row.service),
            ports=self._items(row.ports),
            health=row.health,
            lifecycle=row.lifecycle,
            state=row.state,
            weight=row.weight,
            region=intern(row.region) if row.region is not None else None,
            zone=intern(row.zone) if row.zone is not None else None,
            tags=self._items(row.tags),
        )
        if len(self._known) >= LIMIT:
            self._known.clear()
        self._known[encoded] = intern(row.group), alike
        return self._known[encoded]


class Reader:
    """Reads the tables of a connection whose ``text_factory`` is bytes; ``bad`` counts the rows that do not count, by table."""

    def __init__(self, conn: Connection, *, environment: str, interner: Interner) -> None:
        self._conn = conn
        self._environment = intern(environment)
        self._interner = interner
        self._services = Decoder(tuple[ServiceName, ...]).decode
        self._source = Decoder(SourceRow).decode
        self._service = Decoder(ServiceRow).decode
        self.bad: dict[str, int] = {}

    def records(self) -> tuple[StoredRecord, ...]:
        """The good rows of ``records``."""
        rows = []
        bad = 0
        of_sources: dict[bytes, _RecordsOfSource] = {}
        for source, id_, value, sum_ in self._conn.execute("SELECT source, id, value, checksum FROM records"):
            try:
                of_source = of_sources.get(source)
                if of_source is None:
                    of_source = of_sources[source] = _RecordsOfSource(source.decode(), self._environment, self._interner)
                rows.append(of_source.read(id_, value, sum_))
            except POISON:
                bad += 1
        if bad:
            self.bad["records"] = bad
        return tuple(rows)

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

    def _read_group(self, source: bytes, key: bytes, value: bytes, sum: bytes) -> StoredGroup:
        if checksum(b"instance_groups", source, key, value) != sum:
            raise BadRowError
        services = tuple([ServiceName(intern(namespace), intern(name)) for namespace, name in self._services(value)])
        return StoredGroup(intern(source.decode()), intern(key.decode()), services)

    def _read_source(self, name: bytes, value: bytes, sum: bytes, retired_at: float | None) -> StoredSource:
        if source_sum(name, value, retired_at) != sum:
            raise BadRowError
        row = self._source(value)
        return StoredSource(intern(name.decode()), row.type, row.confirmed_at, row.unread, retired_at)

    def _read_service(self, namespace: bytes, name: bytes, value: bytes, sum: bytes) -> StoredService:
        if checksum(b"services", namespace, name, value) != sum:
            raise BadRowError
        row = self._service(value)
        return StoredService(intern(namespace.decode()), intern(name.decode()), row.index, row.emptied_at)

    def _read_gap(self, low: int, high: int, sum: bytes) -> tuple[int, int]:
        if gap_sum(low, high) != sum:
            raise BadRowError
        return low, high
