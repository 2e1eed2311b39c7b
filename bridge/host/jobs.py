"""Periodic work on APScheduler, visible in the status: polls, relists, ticks, compaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from bridge.host.doubts import SHORTEST_REFRESH


@dataclass(slots=True)
class JobResult:
    """How a job's last run went."""

    runs: int = 0
    failures: int = 0
    last: str | None = None


class Jobs:
    """The scheduler: every job has one instance, missed runs collapse into one, a failure is logged and counted."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler()
        # It warns of every run left out because the one before still runs; here that is meant, and `runs` shows it.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        self._results: dict[str, JobResult] = {}
        self._logger = logging.getLogger("bridge.jobs")

    def start(self) -> None:
        """Begin, inside a running event loop."""
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        # In one call: each forgets what the one before it set.
        self._scheduler.configure(event_loop=asyncio.get_running_loop(), timezone=UTC, job_defaults=defaults)
        self._scheduler.start()

    def stop(self) -> None:
        """End; jobs under way are left to their owners."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def every(self, name: str, seconds: float, run: Callable[[], Awaitable[None]], *, jitter: float = 0.0) -> Callable[[], None]:
        """Run ``run`` every ``seconds`` (give or take ``jitter``) and show it as ``name``; returns what ends it."""
        result = self._results[name] = JobResult()

        async def once() -> None:
            result.runs += 1
            try:
                await run()
                result.last = "ok"
            except Exception as error:  # one failed run must not end the job
                result.failures += 1
                result.last = f"{type(error).__name__}: {error}"
                self._logger.exception("job failed", extra={"job": name})

        trigger = IntervalTrigger(seconds=max(seconds, SHORTEST_REFRESH), jitter=jitter or None, timezone=UTC)
        self._scheduler.add_job(once, trigger, id=name, name=name, replace_existing=True)

        def cancel() -> None:
            if self._results.get(name) is not result:
                return  # somebody else has taken the name since
            del self._results[name]
            if self._scheduler.get_job(name) is not None:
                self._scheduler.remove_job(name)

        return cancel

    def document(self) -> list[dict[str, Any]]:
        """Every job with its next run and last result."""
        now = datetime.now(UTC)
        rows = []
        for job in sorted(self._scheduler.get_jobs(), key=lambda job: str(job.id)):
            result = self._results.get(job.id, JobResult())
            next_run = getattr(job, "next_run_time", None)
            rows.append(
                {
                    "name": job.id,
                    "next_run": next_run.isoformat() if next_run else None,
                    "next_run_ms": max(0, round((next_run - now).total_seconds() * 1000)) if next_run else None,
                    "runs": result.runs,
                    "failures": result.failures,
                    "last_result": result.last,
                }
            )
        return rows
