"""The last known good of the daemon on disk: an SQLite database with a thread of its own.

`records` is what goes in and out, `rows` and `reader` how it goes to disk and comes back, `schema` the versions of the
database, `directory` where it lies, `opening` how it becomes one that can be trusted, `database` what is done to it, `writer`
its thread, `store` the face.
"""

from bridge.sync.store.records import (
    Batch,
    Identity,
    Snapshot,
    StoredGroup,
    StoredPart,
    StoredRecord,
    StoredService,
    StoredSource,
)
from bridge.sync.store.store import Store

__all__ = [
    "Batch",
    "Identity",
    "Snapshot",
    "Store",
    "StoredGroup",
    "StoredPart",
    "StoredRecord",
    "StoredService",
    "StoredSource",
]
