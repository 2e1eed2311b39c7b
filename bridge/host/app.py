"""The composition root: builds everything from the configuration, runs it, reloads it, and stops it in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import ssl
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bridge import __version__
from bridge.aio import Clock, SystemClock
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.contracts import PluginContext, SourceConfig
from bridge.errors import ConfigError, StoreError
from bridge.host.config import BridgeConfig, load_config
from bridge.host.credentials import Credentials, read_tokens, tls_context
from bridge.host.jobs import Jobs
from bridge.host.report import Report
from bridge.host.telemetry import LogFormat, LogLevel, PluginLogger, configure_logging
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.server import HttpServer
from bridge.serve.http.system import SystemSurface
from bridge.sync.ingest import Ingest
from bridge.sync.restore import restore
from bridge.sync.store import Snapshot, Store
from bridge.sync.supervisor import SourceSupervisor
from bridge.sync.writeback import Writeback

if TYPE_CHECKING:
    from bridge.host.metrics import Metrics

DRAIN = 3.0
"""Seconds the daemon goes on accepting after SIGTERM, so that balancers see `/readyz` and turn away."""

READY_AFTER_FAILING = 30.0
"""Seconds after which a source that only fails no longer holds readiness back."""

RETIRED_FOR = 300.0
"""Seconds the records of a source that is no longer configured stay."""

SWITCH_INTERVAL = 0.0005
"""Seconds a busy thread (disk, SDKs) may keep the event loop from the interpreter; a tenth of the default."""

_logger = logging.getLogger("bridge.app")


def run_daemon(config_path: Path, *, log_format: LogFormat | None = None, log_level: LogLevel | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code: 0, 1 when it could not run, 2 for the configuration."""
    import uvloop

    hangups: list[int] = []  # by default, a daemon told to reload while it starts would end
    signal.signal(signal.SIGHUP, lambda number, _frame: hangups.append(number))
    config = load_config(config_path)
    log = LogOverrides(log_format, log_level)
    log.configure(config)
    clock = SystemClock()
    try:
        tokens, tls = read_tokens(config.serve.http.token_file), tls_context(config.serve.http.tls)
    except (OSError, ValueError) as error:
        _logger.error(
            "credentials cannot be read", extra={"reason": str(error), "remedy": "correct `serve.http.tls` and `token_file`"}
        )
        return 1
    try:
        store, snapshot = Store.open(
            config.data_dir, environment=config.environment, environment_uid=config.environment_uid, clock=clock
        )
    except StoreError as error:
        _logger.error("data directory cannot be used", extra={"reason": str(error), "data_dir": str(config.data_dir)})
        return 1
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        daemon = Daemon(config_path, config, store, snapshot, clock, tokens=tokens, tls=tls, log=log)
        gc.freeze()  # what was imported and restored stays: looking at it at every collection would hold the loop
        return runner.run(daemon.run(hangups))


@dataclass(frozen=True, slots=True)
class LogOverrides:
    """What the command line says of the log; it stays when the configuration changes."""

    format: LogFormat | None = None
    level: LogLevel | None = None

    def configure(self, config: BridgeConfig) -> None:
        """Set the log up as ``config`` says, where the command line says nothing."""
        configure_logging(self.format or config.log.format, self.level or config.log.level)


class Daemon:
    """One bridge. ``tokens``, ``tls``: the listener's credentials, already read."""

    def __init__(
        self,
        config_path: Path,
        config: BridgeConfig,
        store: Store,
        snapshot: Snapshot,
        clock: Clock,
        *,
        tokens: frozenset[bytes] = frozenset(),
        tls: ssl.SSLContext | None = None,
        log: LogOverrides = LogOverrides(),
    ) -> None:
        self._config_path = config_path
        self._config = config
        self._tls = tls
        self._log = log
        self._store = store
        self._clock = clock
        self._began = clock.monotonic()
        self._stopping = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._supervisors: dict[str, SourceSupervisor] = {}
        identity = snapshot.identity
        lost = any(high == snapshot.floor for _, high in snapshot.gaps)  # then the floor itself was never handed out
        indexes = Indexes(identity.lineage, max(1, snapshot.floor + lost), store.ceiling(), snapshot.gaps)
        self.catalog = Catalog(indexes)
        self.partition = Partition(identity.environment, identity.uid, identity.epoch, snapshot.revision)
        self.catalog.partitions[identity.environment] = self.partition
        restore(self.catalog, self.partition, snapshot, clock)
        self.ingest = Ingest(self.catalog, self.partition, clock, logging.getLogger("bridge.ingest"))
        self.writeback = Writeback(self.catalog, self.partition, store, clock)
        self.jobs = Jobs()
        surfaces = (NativeSurface(self.catalog, clock), SystemSurface(self, __version__))
        http = config.serve.http
        self.server = HttpServer(self.catalog, surfaces, clock, tokens=tokens, insecure=http.insecure)
        self._credentials = Credentials(http, self.server)
        self._plugin_events: Counter[tuple[str, str]] = Counter()
        self._report = Report(
            self.catalog,
            self.partition,
            self._supervisors,
            self.jobs,
            self.server,
            self.writeback,
            clock,
            self._began,
            RETIRED_FOR,
        )
        self._settling: asyncio.TimerHandle | None = None
        self._settling_due = float("inf")
        self._pending: list[str] = []
        if snapshot.rebuilt is not None:
            _logger.error("the database was damaged and made anew", extra={"reason": snapshot.rebuilt})

    # -- running

    async def run(self, hangups: Sequence[int] = ()) -> int:
        """Everything, from the first accept to the last write. ``hangups``: SIGHUPs that came before it could heed them."""
        loop = asyncio.get_running_loop()
        http = self._config.serve.http
        try:
            host, port = await self.server.listen(http.listen.host, http.listen.port, self._tls)
        except OSError as error:
            remedy = "free the port, or give another one as `serve.http.listen`"
            _logger.error("cannot listen", extra={"listen": str(http.listen), "reason": _reason(error), "remedy": remedy})
            await self._store.close()
            return 1
        self.ingest.on_changes = self.writeback.mark
        self.ingest.on_forgotten = self.writeback.mark_services
        self.ingest.on_linger = self._settle_at
        self.ingest.on_listing = self._listing
        self.jobs.every("freshness", 1.0, self._tick)
        self.jobs.every("persist ages", 10.0, self.writeback.mark_sources)
        self.jobs.every("compact database", 3600.0, self._store.compact)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        if hangups:
            loop.call_soon(self.reload)
        _logger.info(
            "started",
            extra={"environment": self.partition.environment, "listen": f"{host}:{port}", "instances": self.partition.instances},
        )
        if http.insecure and not http.listen.is_loopback:
            _logger.warning("listening insecurely: anybody who reaches the port can read", extra={"listen": f"{host}:{port}"})
        serving = [
            asyncio.create_task(self.server.run(), name="serve"),
            asyncio.create_task(self.writeback.run(), name="write back"),
        ]
        self._log_restored()
        self.apply(self._config)
        await self.jobs.load()  # readers are answered meanwhile
        self.jobs.start()
        gc.freeze()  # and what came with the jobs
        await self._stopping.wait()
        await self._stop(serving)
        return 0

    def apply(self, config: BridgeConfig) -> None:
        """Run the sources that ``config`` names: start new and changed ones, retire those it no longer names."""
        for name, source in config.sources.items():
            if source.renamed_from is not None and source.renamed_from not in config.sources:
                self.ingest.rename(source.renamed_from, name)
        for name in list(self._supervisors):
            if config.sources.get(name) != self._supervisors[name].config:
                self._end_source(name)
        now = self._clock.monotonic()
        for name, status in list(self.partition.statuses.items()):
            if name not in config.sources and status.retired_at is None:
                self.ingest.retire(name, now)
        for name, source in config.sources.items():
            if name not in self._supervisors:
                self._start_source(name, source)

    def reload(self) -> None:
        """Read the configuration again; a wrong one is refused, and the old one stays."""
        try:
            config = load_config(self._config_path)
        except ConfigError as error:
            for mistake in error.mistakes:
                _logger.error(
                    "configuration refused", extra={"path": mistake.path, "reason": mistake.message, "remedy": mistake.remedy}
                )
            return
        running = self._config
        self._pending = [
            key
            for key, is_, wanted in (
                ("environment", running.environment, config.environment),
                ("environment_uid", running.environment_uid, config.environment_uid),
                ("data_dir", running.data_dir, config.data_dir),
                ("serve.http", running.serve.http, config.serve.http),
            )
            if is_ != wanted
        ]
        for key in self._pending:
            _logger.warning("a changed key needs a restart", extra={"key": key})
        self._log.configure(config)
        self._credentials.refresh()
        self.apply(config)
        _logger.info("configuration reloaded", extra={"sources": len(config.sources)})

    def _log_restored(self) -> None:
        """Say what is served from disk, and how old it is, before the first source answers."""
        now = self._clock.monotonic()
        for name, status in self.partition.statuses.items():
            if (age_ms := status.age_ms(now)) is not None:
                instances = len(self.partition.sources[name].records)
                _logger.info("restored from disk", extra={"source": name, "instances": instances, "age_s": age_ms // 1000})

    def _start_source(self, name: str, config: SourceConfig) -> None:
        def count(event: str, amount: int = 1) -> None:
            self._plugin_events[name, event] += amount

        logger = PluginLogger(logging.getLogger(f"bridge_plugins.{config.type}"), {"source": name})
        ctx = PluginContext(
            self.partition.environment,
            name,
            logger,
            self._clock,
            count,
            known=lambda: frozenset(self.partition.sources[name].groups),
        )
        supervisor = SourceSupervisor(name, config, ctx, self.ingest, self.jobs)
        self._supervisors[name] = supervisor
        self.ingest.add(name, config, scopes=None, polled=config.silence is None)
        self._tasks[name] = asyncio.create_task(supervisor.run(), name=f"source {name}")

    def _end_source(self, name: str) -> None:
        self._supervisors.pop(name)
        self._tasks.pop(name).cancel()

    async def _tick(self) -> None:
        self.ingest.tick()
        self._credentials.refresh()
        now = self._clock.monotonic()
        for name, status in list(self.partition.statuses.items()):
            if status.retired_at is not None and now - status.retired_at >= RETIRED_FOR:
                self.ingest.drop(name)
        for name in self.ingest.due_for_relisting():
            if name in self._supervisors:
                self._supervisors[name].relist()

    def _settle_at(self, due: float) -> None:
        if self._settling is not None and self._settling_due <= due:
            return
        if self._settling is not None:
            self._settling.cancel()
        self._settling_due = due
        delay = max(0.0, due - self._clock.monotonic())
        self._settling = asyncio.get_running_loop().call_later(delay, self._settle)

    def _listing(self, begins: bool) -> None:
        """While a large listing is applied, nothing but the catalog grows; from then on it is not looked at for garbage."""
        self.writeback.hold(begins)
        if begins:
            gc.disable()
        else:
            gc.freeze()
            gc.enable()

    def _settle(self) -> None:
        self._settling = None
        self.ingest.settle()

    async def _stop(self, serving: list[asyncio.Task[None]]) -> None:
        """Say so first, answer on for a while, end readers, write the last state, and go."""
        _logger.info("stopping")
        self.server.begin_stopping()
        await self._clock.sleep(DRAIN)
        self.jobs.stop()
        for task in self._tasks.values():
            task.cancel()
        await self.server.stop()
        for task in serving:
            task.cancel()
        await asyncio.wait([*self._tasks.values(), *serving], timeout=0.5)
        await self.writeback.mark_sources()
        try:
            async with asyncio.timeout(1.0):
                await self.writeback.flush()
                await self._store.close()
        except (StoreError, TimeoutError) as error:
            _logger.error("the last state could not be written", extra={"reason": str(error)})
        _logger.info("stopped")

    # -- what is shown

    def unready(self) -> list[str] | None:
        """Sources that neither listed, nor were loaded from disk, nor have failed for 30 s; None when there are none."""
        if self._stopping.is_set():
            return ["it is stopping"]
        now = self._clock.monotonic()
        missing = [
            name
            for name, status in self.partition.statuses.items()
            if not status.listed and not (status.failing_since is not None and now - status.failing_since >= READY_AFTER_FAILING)
        ]
        return missing or None

    def warnings(self) -> list[str]:
        """What an operator should know."""
        http = self._config.serve.http
        warnings = []
        if http.insecure:
            warnings.append("serve.http.insecure: anybody who reaches the port can read")
        if self.writeback.error is not None:
            warnings.append("the state cannot be written to disk")
        warnings += [f"{key} was changed in the configuration: it takes effect with a restart" for key in self._pending]
        warnings += [f"source {name}: {status.error}" for name, status in self.partition.statuses.items() if status.error]
        return warnings

    def status(self) -> dict[str, Any]:
        """The document of `/v1/status`."""
        return self._report.document(ready=self.unready() is None, warnings=self.warnings())

    def metrics(self) -> tuple[bytes, str]:
        """The exposition, and its content type."""
        return self._metrics.render()

    @cached_property
    def _metrics(self) -> Metrics:
        from bridge.host.metrics import Metrics  # brings prometheus_client along, which only a scrape needs

        return Metrics(self.catalog, self.ingest, self.writeback, self.server, self._clock.monotonic, self._plugin_events)


def _reason(error: OSError) -> str:
    """The operating system's own words, without the address that asyncio adds to them."""
    return error.strerror.rpartition(": ")[2] if error.errno and error.strerror else str(error)
