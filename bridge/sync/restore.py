"""From disk to memory: the last known good state, exactly as it was served, and as old as it is."""

from __future__ import annotations

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.catalog.entry import ServiceEntry
from bridge.catalog.partition import Partition
from bridge.catalog.records import Pair, SourceRecords
from bridge.catalog.status import SourceStatus
from bridge.model import ServiceName
from bridge.sync.store import Snapshot


def restore(catalog: Catalog, partition: Partition, snapshot: Snapshot, clock: Clock) -> None:
    """Fill an empty catalog and partition from ``snapshot``; nobody is told, since nobody reads yet."""
    now, wall = clock.monotonic(), clock.wall()
    for source in snapshot.sources:
        status = SourceStatus(partition.origin(source.name), source.type, scopes=(), fresh_for=0.0)
        if source.confirmed_at is not None:
            status.restore(now - max(0.0, wall - source.confirmed_at), frozenset(source.unread))
        if source.retired_at is not None:
            status.retired_at = now - max(0.0, wall - source.retired_at)
        partition.statuses[source.name] = status
        partition.sources[source.name] = SourceRecords(None)
    environment = partition.environment
    arrived: dict[ServiceName, list[Pair]] = {}
    for record in snapshot.records:
        records = partition.sources.get(record.source)
        if records is not None:
            parts = tuple((part.group, part.instance) for part in record.parts)
            instance = records.restore(record.id, parts, record.since)
            arrived.setdefault(instance.service_name, []).append((None, instance))
    for name, pairs in arrived.items():
        _entry(catalog, name).change(pairs)
    for group in snapshot.groups:
        records = partition.sources.get(group.source)
        if records is not None:
            records.restore_group(group.key, group.services)
            for service in group.services:
                _entry(catalog, service).stand(environment, 1)
    for row in snapshot.services:
        entry = _entry(catalog, ServiceName(row.namespace, row.name))
        entry.index = row.index
        if row.emptied_at is not None:
            entry.emptied_at[environment] = row.emptied_at
    for name, entry in list(catalog.services.items()):
        entry.index = entry.index or snapshot.floor
        if entry.known:
            entry.degrade()
        else:
            del catalog.services[name]
    partition.services = len(catalog.services)


def _entry(catalog: Catalog, name: ServiceName) -> ServiceEntry:
    entry = catalog.services.get(name)
    if entry is None:
        entry = catalog.services[name] = ServiceEntry(name)
    return entry
