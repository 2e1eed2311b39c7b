"""What is known of our sources, besides their records: readers and the log are told where it changed."""

from __future__ import annotations

import logging
from typing import NamedTuple

from msgspec import structs

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.catalog.partition import Partition
from bridge.catalog.status import SourceDocument, SourceStatus
from bridge.model import Origin


class _Shown(NamedTuple):
    """What readers can see of a source but its age and its records."""

    document: SourceDocument
    stale: bool
    read: bool
    unread: bool


class Review:
    """Compares the states of a partition's sources with what was told of them last."""

    def __init__(self, catalog: Catalog, partition: Partition, clock: Clock, logger: logging.Logger) -> None:
        self._catalog = catalog
        self._partition = partition
        self._clock = clock
        self._logger = logger
        self._shown: dict[Origin, _Shown] = {}

    def __call__(self, only: str | None = None) -> None:
        """Tell readers and the log of sources whose state changed. ``only``: the one that something was heard of."""
        now = self._clock.monotonic()
        statuses = self._partition.statuses
        rows = {
            status.origin: self._row(name, status, now)
            for name, status in (statuses.items() if only is None else ((only, statuses[only]),))
        }
        if only is None:
            shown = rows
        elif all(self._shown.get(origin) == row for origin, row in rows.items()):
            return
        else:
            shown = self._shown | rows
        if shown == self._shown:
            return
        for origin, row in rows.items():
            self._tell(origin, self._shown.get(origin), row.document)
        reading = {origin: (row.read, row.unread) for origin, row in shown.items()}
        was_reading = {origin: (row.read, row.unread) for origin, row in self._shown.items()}
        self._shown = shown
        stale = frozenset(origin for origin, row in shown.items() if row.stale)
        self._catalog.revise(now, stale=stale if stale != self._catalog.stale else None, reading=reading != was_reading)

    def _row(self, name: str, status: SourceStatus, now: float) -> _Shown:
        held = self._partition.sources[name]
        document = status.document(now, instances=0, held=len(held.held), held_reason=held.held_reason)
        return _Shown(structs.replace(document, age_ms=None), status.is_stale(now), status.read, bool(status.unread))

    def _tell(self, origin: Origin, before: _Shown | None, document: SourceDocument) -> None:
        former = before.document if before is not None else None
        error = self._partition.statuses[origin.source].error
        restored = former is None and document.state == "stale"  # told as such when it was read from disk
        if not restored and (former is None or former.state != document.state):
            fields = {
                "source": origin.source,
                "state": document.state,
                "before": former and former.state,
                "reason": error and str(error),
            }
            self._logger.log(
                logging.WARNING if document.state in ("failed", "forbidden", "stale") else logging.INFO,
                "source state changed",
                extra={key: value for key, value in fields.items() if value is not None},
            )
        if document.held and not (former and former.held):
            self._logger.warning(
                "guard holds removals",
                extra={"source": origin.source, "held": document.held, "reason": document.held_reason},
            )
        elif former and former.held and not document.held:
            self._logger.info("guard holds nothing any more", extra={"source": origin.source, "held_before": former.held})
