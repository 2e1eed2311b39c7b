"""Follows the catalog to disk: a dirty set instead of a queue, one transaction for data and index."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.catalog.log import Change
from bridge.catalog.partition import Partition
from bridge.catalog.records import Changes
from bridge.errors import StoreError
from bridge.model import ServiceName
from bridge.sync.store import Batch, Store, StoredGroup, StoredPart, StoredRecord, StoredService, StoredSource

DELAY = 0.03
"""Seconds changes are collected for before they are written."""

RETRY = 2.0
RESERVE_BELOW = 5_000
"""A new ceiling of indexes is reserved when fewer than this are left."""


SLICE = 250
"""Rows put together before other work of the loop has its turn."""

T = TypeVar("T")


async def _slices(items: Iterable[T]) -> AsyncGenerator[T, None]:
    for number, item in enumerate(items, 1):
        yield item
        if number % SLICE == 0:
            await asyncio.sleep(0)


class Writeback:
    """Keeps the disk like the catalog; slow disks coalesce, and ingest never waits for them."""

    def __init__(self, catalog: Catalog, partition: Partition, store: Store, clock: Clock) -> None:
        self._catalog = catalog
        self._partition = partition
        self._store = store
        self._clock = clock
        self._logger = logging.getLogger("bridge.writeback")
        self._records: dict[tuple[str, str], None] = {}
        self._groups: dict[tuple[str, str], None] = {}
        self._services: dict[ServiceName, None] = {}
        self._sources: dict[str, None] = {}
        self._written_sources: set[str] = set()
        self._writing = 0
        self._dirty = asyncio.Event()
        self.error: str | None = None
        self.written = 0

    @property
    def depth(self) -> int:
        """Rows not on disk yet: waiting, or being written."""
        return self._writing + len(self._records) + len(self._groups) + len(self._services)

    def mark(self, source: str, changes: Changes, change: Change | None) -> None:
        """Note what a change of ``source`` made dirty."""
        for before, after in changes.pairs.values():
            for instance in (before, after):
                if instance is not None:
                    self._records[instance.source, instance.id] = None
        for id_ in changes.moved:
            self._records[source, id_] = None
        for key in changes.groups:
            self._groups[source, key] = None
        for name in changes.stands:  # no reader sees its last group go, yet from then on it is only remembered
            self._services[name] = None
        if change is not None:
            for touch in change.touches:
                self._services[touch.service] = None
        self._sources[source] = None
        self._dirty.set()

    def mark_services(self, change: Change) -> None:
        """Note services a change touched that came from no source."""
        for touch in change.touches:
            self._services[touch.service] = None
        self._dirty.set()

    async def mark_sources(self) -> None:
        """Note that the sources' times of confirmation moved (periodically)."""
        for name in {*self._partition.statuses, *self._written_sources}:
            self._sources[name] = None
        self._dirty.set()

    async def run(self) -> None:
        """Write for ever; a disk that refuses is told once and tried again."""
        while True:
            await self._dirty.wait()
            await self._clock.sleep(DELAY)
            self._dirty.clear()
            await self._flush_or_wait()

    async def flush(self) -> None:
        """Write everything dirty now. Raises StoreError; what was dirty stays so."""
        taken = (self._records, self._groups, self._services, self._sources)
        self._writing = self.depth
        self._records, self._groups, self._services, self._sources = {}, {}, {}, {}
        try:
            await self._store.write(await self._batch(*taken))
            if self._catalog.indexes.ceiling - self._catalog.indexes.index < RESERVE_BELOW:
                await self._store.reserve(self._catalog.indexes.index)
                self._catalog.indexes.ceiling = self._store.ceiling()
        except BaseException:  # also when cancelled: what was not written is still to be written
            records, groups, services, sources = taken
            self._records, self._groups = records | self._records, groups | self._groups
            self._services, self._sources = services | self._services, sources | self._sources
            raise
        finally:
            self._writing = 0

    async def _flush_or_wait(self) -> None:
        try:
            await self.flush()
        except StoreError as error:
            if self.error is None:
                self._logger.error("state cannot be written", extra={"reason": str(error)})
            self.error = str(error)
            await self._clock.sleep(RETRY)
            self._dirty.set()
            return
        if self.error is not None:
            self._logger.info("state is written again", extra={"rows": self.depth})
        self.error = None

    async def _batch(
        self,
        records: dict[tuple[str, str], None],
        groups: dict[tuple[str, str], None],
        services: dict[ServiceName, None],
        sources: dict[str, None],
    ) -> Batch:
        """What is dirty as it is now, put together in slices between which other work has its turn, and changes may come.

        Index and sources are those at the beginning, and services come after their records: what is stored may be ahead of the
        index stored with it, never behind, so that after a crash no cursor holds that saw something else, and no source
        counts as read whose records are not there.
        """
        index, revision = self._catalog.indexes.index, self._partition.revision
        put_sources = [self._stored_source(name) for name in sources if name in self._partition.statuses]
        removed_sources = [name for name in sources if name not in self._partition.statuses]
        put_records, removed_records = [], []
        async for source, id_ in _slices(records):
            held = self._partition.sources.get(source)
            record = held.records.get(id_) if held is not None else None
            if record is None:
                removed_records.append((source, id_))
            else:
                parts = tuple([StoredPart(key, part) for key, part in record.parts])
                put_records.append(StoredRecord(source, id_, parts, record.since))
        put_groups, removed_groups = [], []
        async for source, key in _slices(groups):
            held = self._partition.sources.get(source)
            group = held.groups.get(key) if held is not None else None
            if group is None:
                removed_groups.append((source, key))
            else:
                put_groups.append(StoredGroup(source, key, group.services))
        put_services, removed_services = [], []
        async for name in _slices(services):
            entry = self._catalog.services.get(name)
            if entry is None:
                removed_services.append((name.namespace, name.name))
            else:
                emptied = entry.emptied_at.get(self._partition.environment)
                put_services.append(StoredService(name.namespace, name.name, entry.index, emptied))
        self._written_sources = (self._written_sources | {row.name for row in put_sources}) - set(removed_sources)
        self.written += len(put_records) + len(removed_records)
        return Batch(
            index=index,
            revision=revision,
            put_records=tuple(put_records),
            removed_records=tuple(removed_records),
            put_groups=tuple(put_groups),
            removed_groups=tuple(removed_groups),
            put_sources=tuple(put_sources),
            removed_sources=tuple(removed_sources),
            put_services=tuple(put_services),
            removed_services=tuple(removed_services),
        )

    def _stored_source(self, name: str) -> StoredSource:
        status = self._partition.statuses[name]
        wall, now = self._clock.wall(), self._clock.monotonic()
        at = status.confirmed_at()
        return StoredSource(
            name=name,
            type=status.type,
            confirmed_at=None if at is None else wall - (now - at),
            unread=tuple(sorted(status.unread)),
            retired_at=None if status.retired_at is None else wall - (now - status.retired_at),
        )
