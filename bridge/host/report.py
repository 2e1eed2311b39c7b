"""The document of ``/v1/status``: this bridge as its operator sees it."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bridge import __version__
from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.catalog.partition import Partition
from bridge.catalog.status import SourceDocument
from bridge.host.jobs import Jobs
from bridge.serve.http.server import HttpServer
from bridge.sync.ingest import RETIRED_REMEDY
from bridge.sync.supervisor import SourceSupervisor
from bridge.sync.writeback import Writeback

SHOWN = 100
"""Rejections, and errors of parts, that are shown of one source."""


@dataclass(frozen=True, slots=True)
class Report:
    """Reads everything once, when somebody asks. began: monotonic seconds; retired_for: seconds a retired source stays."""

    catalog: Catalog
    partition: Partition
    supervisors: Mapping[str, SourceSupervisor]
    jobs: Jobs
    server: HttpServer
    writeback: Writeback
    clock: Clock
    began: float
    retired_for: float

    def document(self, *, ready: bool, warnings: list[str]) -> dict[str, Any]:
        """The document; ``ready`` and ``warnings`` are the daemon's own judgement."""
        now = self.clock.monotonic()
        sources = self.partition.document(now).sources
        return {
            "version": __version__,
            "environment": self.partition.environment,
            "uid": self.partition.uid,
            "epoch": self.partition.epoch,
            "revision": self.partition.revision,
            "uptime_ms": round((now - self.began) * 1000),
            "role": "owner",
            "ready": ready,
            "warnings": warnings,
            "sources": [self._source(source) for source in sources],
            "peers": [],
            "hub": None,
            "exporters": [],
            "jobs": self.jobs.document(),
            "holds": [hold for source in sources if (hold := self._hold(source, now)) is not None],
            "queues": {
                "dirty_rows": self.writeback.depth,
                "blocked_reads": self.server.waits.blocked,
                "connections": len(self.server.connections),
                "views": self.catalog.live_views(),
                "log_changes": len(self.catalog.log),
            },
            "memory": {
                "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "instances": self.partition.instances,
                "services": len(self.catalog.services),
            },
            "store": {"error": self.writeback.error, "rows_written": self.writeback.written},
            "index": self.catalog.indexes.index,
        }

    def _source(self, document: SourceDocument) -> dict[str, Any]:
        status, supervisor = self.partition.statuses[document.name], self.supervisors.get(document.name)
        return {
            **{field: getattr(document, field) for field in document.__struct_fields__},
            "errors": {part or "*": str(error) for part, error in list(status.errors.items())[:SHOWN]},
            "rejections": [{"key": key, "reason": reason} for key, reason in list(status.rejected.items())[:SHOWN]],
            "failures": status.failures,
            **(supervisor.config.describe() if supervisor is not None else {}),
        }

    def _hold(self, source: SourceDocument, now: float) -> dict[str, Any] | None:
        """What is kept of a source against its word, since and until when, and the way out."""
        status, records = self.partition.statuses[source.name], self.partition.sources[source.name]
        if status.retired_at is not None:
            since, until, held, reason = status.retired_at, status.retired_at + self.retired_for, source.instances, "retired"
            remedy = RETIRED_REMEDY
        elif records.held and records.policy is not None:
            times = [hold.since for hold in records.held.values()]
            since, until, held, reason = min(times), max(times) + records.policy.hold_for, source.held, source.held_reason or ""
            remedy = "it is obeyed then, if two further listings agree; at once with `guard: off` on the source"
        else:
            return None
        return {
            "source": source.name,
            "held": held,
            "reason": reason,
            "since": self._at(since, now),
            "until": self._at(until, now),
            "remedy": remedy,
        }

    def _at(self, moment: float, now: float) -> str:
        """A moment of the monotonic clock as RFC 3339."""
        return datetime.fromtimestamp(self.clock.wall() + moment - now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
