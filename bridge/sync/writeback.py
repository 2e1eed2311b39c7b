"""Follows the catalog to disk: a dirty set instead of a queue, one transaction for data and index."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from bridge.aio import Clock
from bridge.batched import batched
from bridge.catalog.catalog import Catalog
from bridge.catalog.log import Change
from bridge.catalog.partition import Partition
from bridge.catalog.record import Changes
from bridge.errors import BridgeError, StoreError
from bridge.model import ServiceName
from bridge.sync.store import Batch, Store, StoredGroup, StoredPart, StoredRecord, StoredService, StoredSource

DELAY = 0.03
"""Seconds changes are collected for before they are written."""

ENOUGH = 1_000
"""Rows that are written at once."""

RETRY = 2.0
RESERVE_BELOW = 5_000
"""A new ceiling of indexes is reserved when fewer than this are left."""

PIECE = 500
"""Rows put together, and handed to the store, before other work of the loop has its turn."""

ROUNDS = 5
"""How often what changed during a write is written with it, before what is left is put together in one go."""

RESERVE_EVERY = 0.05
"""Seconds between looks at the ceiling while a listing is applied."""


class _ShortError(BridgeError):
    """Indexes run short while the state is being written."""


@dataclass(slots=True)
class Dirty:
    """What is to be written: ids and group keys by source, services, sources."""

    records: dict[str, dict[str, None]] = field(default_factory=dict)
    groups: dict[str, dict[str, None]] = field(default_factory=dict)
    services: dict[ServiceName, None] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows, sources aside."""
        return sum(map(len, self.records.values())) + sum(map(len, self.groups.values())) + len(self.services)

    def absorb(self, other: Dirty) -> None:
        """Add what was taken from here, and not written."""
        for mine, others in ((self.records, other.records), (self.groups, other.groups)):
            for source, keys in others.items():
                mine.setdefault(source, {}).update(keys)
        self.services.update(other.services)
        self.sources.update(other.sources)


class Writeback:
    """Keeps the disk like the catalog; slow disks coalesce, and ingest never waits for them."""

    def __init__(self, catalog: Catalog, partition: Partition, store: Store, clock: Clock) -> None:
        self._catalog = catalog
        self._partition = partition
        self._store = store
        self._clock = clock
        self._logger = logging.getLogger("bridge.writeback")
        self._dirty = Dirty()
        self._written_sources: set[str] = set()
        self._writing = 0
        self._wake = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self.error: str | None = None
        self.written = 0

    @property
    def depth(self) -> int:
        """Rows not on disk yet: waiting, or being written."""
        return self._writing + self._dirty.rows

    def mark(self, source: str, changes: Changes, change: Change | None) -> None:
        """Note what a change of ``source`` made dirty."""
        dirty = self._dirty
        for before, after in changes.pairs.values():
            instance = after or before
            if instance is not None:
                dirty.records.setdefault(instance.source, {})[instance.id] = None
        if changes.moved:
            dirty.records.setdefault(source, {}).update(changes.moved)
        if changes.groups:
            dirty.groups.setdefault(source, {}).update(changes.groups)
        dirty.services.update(dict.fromkeys(changes.stands))  # no reader sees a last group go, yet from then on it is remembered
        dirty.sources[source] = None
        self._mark_touched(change)

    def mark_services(self, change: Change) -> None:
        """Note services a change touched that came from no source."""
        self._mark_touched(change)

    async def mark_sources(self) -> None:
        """Note that the sources' times of confirmation moved (periodically)."""
        self._dirty.sources.update(dict.fromkeys((*self._partition.statuses, *self._written_sources)))
        self._wake.set()

    def hold(self, held: bool) -> None:
        """Begin no write while ``held``: what comes in piece by piece shall be on disk whole."""
        (self._free.clear if held else self._free.set)()

    async def run(self) -> None:
        """Write for ever; a disk that refuses is told once and tried again."""
        while True:
            await self._wake.wait()
            if self._dirty.rows < ENOUGH:
                await self._clock.sleep(DELAY)
            while not self._free.is_set():
                await self._reserve_or_wait()
            self._wake.clear()
            await self._flush_or_wait()

    async def flush(self) -> None:
        """Write everything dirty now. Raises StoreError; what was dirty stays so."""
        taken, self._dirty = self._dirty, Dirty()
        self._writing = taken.rows
        try:
            await self._store.write_pieces(self._batches(taken))
            await self._reserve()
        except BaseException:  # also when cancelled: what was not written is still to be written
            self._dirty.absorb(taken)
            raise
        finally:
            self._writing = 0
        self.written += sum(map(len, taken.records.values()))

    async def _reserve_or_wait(self) -> None:
        """While nothing is to be written, see to it that indexes can be handed out."""
        with contextlib.suppress(StoreError, TimeoutError):  # a disk that refuses is told by the next write
            await self._reserve()
            async with asyncio.timeout(RESERVE_EVERY):
                await self._free.wait()

    @property
    def _is_short(self) -> bool:
        """Whether a new ceiling is to be reserved."""
        return self._catalog.indexes.ceiling - self._catalog.indexes.index < RESERVE_BELOW

    async def _reserve(self) -> None:
        if self._is_short:
            await self._store.reserve(self._catalog.indexes.index)
            self._catalog.indexes.ceiling = self._store.ceiling()

    async def _flush_or_wait(self) -> None:
        try:
            await self.flush()
        except _ShortError:
            self._wake.set()  # when the listing is applied; until then, see `_reserve_or_wait`
            return
        except StoreError as error:
            if self.error is None:
                self._logger.error("state cannot be written", extra={"reason": str(error)})
            self.error = str(error)
            await self._clock.sleep(RETRY)
            self._wake.set()
            return
        if self.error is not None:
            self._logger.info("state is written again", extra={"rows": self.depth})
        self.error = None

    def _batches(self, dirty: Dirty) -> Iterator[Batch]:
        """What is dirty, in pieces between which other work has its turn, and changes may come; ``dirty`` takes those in, too.

        The last piece has what changed since, and is put together in one go: what is stored is what the catalog was then, with
        its index. It waits for a listing that is being applied, of which half is not to be stored. Raises _ShortError where that
        needs more indexes than there are: the store cannot reserve them while it writes.
        """
        batch = partial(Batch, self._catalog.indexes.index, self._partition.revision)
        yield from self._pieces(dirty, batch)
        rounds = 0  # each takes less than the one before, as long as the disk keeps up
        while not self._free.is_set() or (self._dirty.rows > PIECE and rounds < ROUNDS):
            if self._free.is_set():
                rounds += 1
                late, self._dirty = self._dirty, Dirty()
                dirty.absorb(late)
                yield from self._pieces(late, batch)
            elif self._is_short:
                raise _ShortError
            else:
                yield batch()  # nothing: others have their turn
        late, self._dirty = self._dirty, Dirty()
        dirty.absorb(late)
        last = Dirty(late.records, late.groups, late.services, dirty.sources)
        yield self._last(last)

    def _pieces(self, dirty: Dirty, batch: Callable[..., Batch]) -> Iterator[Batch]:
        for source, ids in dirty.records.items():
            for piece in batched(ids, PIECE):
                put, removed = self._stored_records(source, piece)
                yield batch(put_records=put, removed_records=removed)
        for source, keys in dirty.groups.items():
            for piece in batched(keys, PIECE):
                put_groups, removed = self._stored_groups(source, piece)
                yield batch(put_groups=put_groups, removed_groups=removed)
        for names in batched(dirty.services, PIECE):
            put_services, removed = self._stored_services(names)
            yield batch(put_services=put_services, removed_services=removed)

    def _last(self, dirty: Dirty) -> Batch:
        records = [self._stored_records(source, list(ids)) for source, ids in dirty.records.items()]
        groups = [self._stored_groups(source, list(keys)) for source, keys in dirty.groups.items()]
        services = self._stored_services(list(dirty.services))
        put_sources = tuple([self._stored_source(name) for name in dirty.sources if name in self._partition.statuses])
        removed_sources = tuple([name for name in dirty.sources if name not in self._partition.statuses])
        self._written_sources = (self._written_sources | {row.name for row in put_sources}) - set(removed_sources)
        return Batch(
            self._catalog.indexes.index,
            self._partition.revision,
            put_records=tuple([row for put, _ in records for row in put]),
            removed_records=tuple([key for _, removed in records for key in removed]),
            put_groups=tuple([row for put, _ in groups for row in put]),
            removed_groups=tuple([key for _, removed in groups for key in removed]),
            put_services=services[0],
            removed_services=services[1],
            put_sources=put_sources,
            removed_sources=removed_sources,
        )

    def _stored_records(self, source: str, ids: list[str]) -> tuple[tuple[StoredRecord, ...], tuple[tuple[str, str], ...]]:
        """Rows to put, and keys of rows to remove."""
        held = self._partition.sources.get(source)
        records = held.records if held is not None else {}
        put, removed = [], []
        for id_ in ids:
            record = records.get(id_)
            if record is None:
                removed.append((source, id_))
            else:
                parts = record.parts
                if len(parts) == 1:  # nearly always
                    ((key, part),) = parts
                    stored: tuple[StoredPart, ...] = (StoredPart(key, part),)
                else:
                    stored = tuple([StoredPart(key, part) for key, part in parts])
                put.append(StoredRecord(source, id_, stored, record.since))
        return tuple(put), tuple(removed)

    def _stored_groups(self, source: str, keys: list[str]) -> tuple[tuple[StoredGroup, ...], tuple[tuple[str, str], ...]]:
        held = self._partition.sources.get(source)
        groups = held.groups if held is not None else {}
        put = tuple([StoredGroup(source, key, groups[key].services) for key in keys if key in groups])
        return put, tuple([(source, key) for key in keys if key not in groups])

    def _stored_services(self, names: list[ServiceName]) -> tuple[tuple[StoredService, ...], tuple[tuple[str, str], ...]]:
        put, removed = [], []
        for name in names:
            entry = self._catalog.services.get(name)
            if entry is None:
                removed.append((name.namespace, name.name))
            else:
                emptied = entry.emptied_at.get(self._partition.environment)
                put.append(StoredService(name.namespace, name.name, entry.index, emptied))
        return tuple(put), tuple(removed)

    def _mark_touched(self, change: Change | None) -> None:
        if change is not None:
            for touch in change.touches:
                self._dirty.services[touch.service] = None
        self._wake.set()

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
