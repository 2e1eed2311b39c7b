"""From disk to memory: the last known good state, exactly as it was served, and as old as it is."""

from __future__ import annotations

from collections.abc import Iterable

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.catalog.entry import ServiceEntry
from bridge.catalog.partition import Partition
from bridge.catalog.record import Record
from bridge.catalog.records import SourceRecords
from bridge.catalog.status import SourceStatus
from bridge.model import ServiceName
from bridge.sync.store import Snapshot, StoredRecord
from bridge.sync.store.loading import collector_paused


@collector_paused()
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
    _restore_records(catalog, partition, snapshot.records)
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
    for known, entry in list(catalog.services.items()):
        entry.index = entry.index or snapshot.floor
        if entry.known:
            entry.degrade()
        else:
            del catalog.services[known]
    partition.services = len(catalog.services)


def _restore_records(catalog: Catalog, partition: Partition, stored: Iterable[StoredRecord]) -> None:
    """Fill the sources and services; together what one group alone shows of one service, as nearly all is."""
    alike: dict[tuple[str, str, str, str], dict[str, Record]] = {}
    for record in stored:
        parts = record.parts
        if len(parts) > 1:
            records = partition.sources.get(record.source)
            if records is not None:
                instance = records.restore(record.id, tuple([(part.group, part.instance) for part in parts]), record.since)
                _entry(catalog, instance.service_name).change(((None, instance),))
            continue
        instance, group = parts[0].instance, parts[0].group
        key = (record.source, group, instance.namespace, instance.service)
        members = alike.get(key)
        if members is None:
            members = alike[key] = {}
        members[record.id] = Record(instance, group, record.since)
    for (source, group, namespace, name), members in alike.items():
        records = partition.sources.get(source)
        if records is not None:
            service = ServiceName(namespace, name)
            records.restore_members(group, service, members)
            _entry(catalog, service).arrive([record.instance for record in members.values()])


def _entry(catalog: Catalog, name: ServiceName) -> ServiceEntry:
    entry = catalog.services.get(name)
    if entry is None:
        entry = catalog.services[name] = ServiceEntry(name)
    return entry
