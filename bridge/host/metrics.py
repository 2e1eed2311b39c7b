"""Prometheus metrics. Counters are plain integers elsewhere; they are read when somebody scrapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from bridge.catalog.catalog import Catalog
from bridge.serve.http.server import HttpServer
from bridge.sync.ingest import Ingest
from bridge.sync.writeback import Writeback

STATES = ("starting", "synced", "stale", "failed", "forbidden", "retired")


class Metrics(Collector):
    """Everything `/metrics` shows; README.md lists the names, which are promises.

    plugin_events: (source, event) -> how often, as plugins count.
    """

    def __init__(
        self,
        catalog: Catalog,
        ingest: Ingest,
        writeback: Writeback,
        server: HttpServer,
        now: Callable[[], float],
        plugin_events: Counter[tuple[str, str]] | None = None,
    ) -> None:
        self._catalog = catalog
        self._ingest = ingest
        self._writeback = writeback
        self._server = server
        self._now = now
        self.plugin_events = Counter() if plugin_events is None else plugin_events
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        """The exposition, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterable[Metric]:
        """Read everything once."""
        yield from self._sources()
        yield from self._catalog_metrics()
        yield from self._serving()

    def _sources(self) -> Iterable[Metric]:
        now, labels = self._now(), ["environment", "source"]
        state = GaugeMetricFamily("envbridge_source_state", "1 for the state the source is in.", labels=[*labels, "state"])
        age = GaugeMetricFamily("envbridge_source_age_seconds", "Time since the source was last confirmed.", labels=labels)
        instances = GaugeMetricFamily("envbridge_source_instances", "Instances of the source.", labels=labels)
        rejected = GaugeMetricFamily("envbridge_source_rejected", "Objects rejected now.", labels=labels)
        held = GaugeMetricFamily("envbridge_source_held", "Removals the guard holds.", labels=labels)
        failures = CounterMetricFamily("envbridge_source_failures", "Failures of a source or of a part of it.", labels=labels)
        for environment, partition in self._catalog.partitions.items():
            for name, status in partition.statuses.items():
                row, records, current = [environment, name], partition.sources[name], status.state(now)
                for possible in STATES:
                    state.add_metric([*row, possible], float(possible == current))
                if (age_ms := status.age_ms(now)) is not None:
                    age.add_metric(row, age_ms / 1000)
                instances.add_metric(row, len(records.records))
                rejected.add_metric(row, len(status.rejected))
                held.add_metric(row, len(records.held))
                failures.add_metric(row, status.failures)
        events = CounterMetricFamily("envbridge_plugin_events", "What plugins count.", labels=["source", "event"])
        for (source, event), amount in self.plugin_events.items():
            events.add_metric([source, event], amount)
        yield from (state, age, instances, rejected, held, failures, events)

    def _catalog_metrics(self) -> Iterable[Metric]:
        instances = GaugeMetricFamily("envbridge_catalog_instances", "Instances in the catalog.", labels=["environment"])
        for name, partition in self._catalog.partitions.items():
            instances.add_metric([name], partition.instances)
        yield instances
        yield GaugeMetricFamily("envbridge_catalog_services", "Services in the catalog.", value=len(self._catalog.services))
        yield GaugeMetricFamily("envbridge_catalog_index", "The index of the last change.", value=self._catalog.indexes.index)
        yield GaugeMetricFamily("envbridge_catalog_log_changes", "Changes in the change log.", value=len(self._catalog.log))
        yield GaugeMetricFamily("envbridge_catalog_views", "Views remembered.", value=self._catalog.live_views())
        yield CounterMetricFamily("envbridge_ingest_events", "Events accepted from sources.", value=self._ingest.accepted)
        yield GaugeMetricFamily("envbridge_store_dirty_rows", "Rows waiting to be written.", value=self._writeback.depth)
        yield CounterMetricFamily("envbridge_store_rows_written", "Rows written.", value=self._writeback.written)
        failing = float(self._writeback.error is not None)
        yield GaugeMetricFamily("envbridge_store_failing", "1 while the state cannot be written.", value=failing)

    def _serving(self) -> Iterable[Metric]:
        replies = CounterMetricFamily("envbridge_http_replies", "Replies by kind and status.", labels=["kind", "status"])
        for (kind, status), amount in self._server.counts.items():
            replies.add_metric([kind, str(status)], amount)
        yield replies
        limited = CounterMetricFamily(
            "envbridge_http_refused", "How often a limit of the listener took effect.", labels=["limit"]
        )
        for limit, times in self._server.limited.items():
            limited.add_metric([limit], times)
        yield limited
        streams = sum(connection.following is not None for connection in self._server.connections)
        yield GaugeMetricFamily("envbridge_http_connections", "Connections open.", value=len(self._server.connections))
        yield GaugeMetricFamily("envbridge_http_blocked_reads", "Readers blocked.", value=self._server.waits.blocked)
        yield GaugeMetricFamily("envbridge_http_streams", "Streams open.", value=streams)
