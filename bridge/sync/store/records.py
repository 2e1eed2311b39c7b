"""What goes into the store and comes out of it."""

from __future__ import annotations

from msgspec import Struct

from bridge.model import ServiceInstance, ServiceName


class StoredPart(Struct, frozen=True, gc=False):
    """An instance as one group showed it.

    The instance's environment is the store's, its source and id are the record's: they are stored once, there.
    """

    group: str
    instance: ServiceInstance


class StoredRecord(Struct, frozen=True, gc=False):
    """One instance of a source. ``parts``: at least one. ``since``: wall seconds when it was first listed."""

    source: str
    id: str
    parts: tuple[StoredPart, ...]
    since: float


class StoredGroup(Struct, frozen=True, gc=False):
    """A group and the services it stands for; groups exist without instances, too."""

    source: str
    key: str
    services: tuple[ServiceName, ...] = ()


class StoredSource(Struct, frozen=True, gc=False):
    """A source: when it was last confirmed and when it was retired (wall seconds), and the scopes never read."""

    name: str
    type: str
    confirmed_at: float | None = None
    unread: tuple[str, ...] = ()
    retired_at: float | None = None


class StoredService(Struct, frozen=True, gc=False):
    """A service: the index of its last change, and when its last instance went (wall seconds), if it did."""

    namespace: str
    name: str
    index: int
    emptied_at: float | None = None


class Identity(Struct, frozen=True, gc=False):
    """Whose database it is (semantics 4.5), and the lineage of its cursors (4.6, W1).

    epoch: of this opening; greater than that of every earlier one.
    """

    environment: str
    uid: str
    lineage: str
    epoch: int


class Snapshot(Struct, frozen=True, gc=False):
    """Everything a database holds when it is opened.

    index: the last one stored. floor: counting goes on from here. gaps: ranges ``(low, high]``, ascending, of indexes that
    count as never handed out. rebuilt: why the database was moved aside and made anew, None where it was not.
    """

    identity: Identity
    revision: int
    index: int
    floor: int
    gaps: tuple[tuple[int, int], ...] = ()
    sources: tuple[StoredSource, ...] = ()
    groups: tuple[StoredGroup, ...] = ()
    records: tuple[StoredRecord, ...] = ()
    services: tuple[StoredService, ...] = ()
    rebuilt: str | None = None


class Batch(Struct, frozen=True, gc=False):
    """Final states to store in one transaction with the index and the revision they belong to.

    Removed are records by (source, id), groups by (source, key), sources by name, services by (namespace, name).
    """

    index: int
    revision: int
    put_records: tuple[StoredRecord, ...] = ()
    removed_records: tuple[tuple[str, str], ...] = ()
    put_groups: tuple[StoredGroup, ...] = ()
    removed_groups: tuple[tuple[str, str], ...] = ()
    put_sources: tuple[StoredSource, ...] = ()
    removed_sources: tuple[str, ...] = ()
    put_services: tuple[StoredService, ...] = ()
    removed_services: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """Rows it puts or removes."""
        return (
            len(self.put_records)
            + len(self.removed_records)
            + len(self.put_groups)
            + len(self.removed_groups)
            + len(self.put_sources)
            + len(self.removed_sources)
            + len(self.put_services)
            + len(self.removed_services)
        )
