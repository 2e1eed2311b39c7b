"""Periodic work on APScheduler, visible in the status: polls, relists, ticks, compaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bridge.aio import import_modules
from bridge.host.doubts import SHORTEST_REFRESH

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

_MODULES = ("apscheduler.schedulers.asyncio", "apscheduler.triggers.interval")
_IMPORT_DEADLINE = 60.0


@dataclass(slots=True)
class Job:
    """What is run how often, in seconds, and how its last run went."""

    run: Callable[[], Awaitable[None]]
    seconds: float
    jitter: float
    runs: int = 0
    failures: int = 0
    last: str | None = None


class Jobs:
    """The scheduler: every job has one instance, missed runs collapse into one, a failure is logged and counted.

    Jobs may be added before it is started; their time begins then.
    """

    def __init__(self) -> None:
        self._scheduler: AsyncIOScheduler | None = None
        self._jobs: dict[str, Job] = {}
        self._logger = logging.getLogger("bridge.jobs")

    async def load(self) -> None:
        """Import the library beside the event loop: it looks through all that is installed. Raises ImportError, TimeoutError."""
        await import_modules(*_MODULES, deadline=_IMPORT_DEADLINE)

    def start(self) -> None:
        """Begin, inside a running event loop."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler  # here, so that `load` can come before it

        # It warns of every run left out because the one before still runs; here that is meant, and `runs` shows it.
        logging.getLogger("apscheduler.scheduler").setLevel(logging.ERROR)
        defaults = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        self._scheduler = AsyncIOScheduler(event_loop=asyncio.get_running_loop(), timezone=UTC, job_defaults=defaults)
        self._scheduler.start()
        for name, job in self._jobs.items():
            self._schedule(name, job)

    def stop(self) -> None:
        """End; jobs under way are left to their owners."""
        if self._scheduler is not None and self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def every(self, name: str, seconds: float, run: Callable[[], Awaitable[None]], *, jitter: float = 0.0) -> Callable[[], None]:
        """Run ``run`` every ``seconds`` (give or take ``jitter``) and show it as ``name``; returns what ends it."""
        job = self._jobs[name] = Job(run, max(seconds, SHORTEST_REFRESH), jitter)
        self._schedule(name, job)

        def cancel() -> None:
            if self._jobs.get(name) is not job:
                return  # somebody else has taken the name since
            del self._jobs[name]
            if self._scheduler is not None and self._scheduler.get_job(name) is not None:
                self._scheduler.remove_job(name)

        return cancel

    def document(self) -> list[dict[str, Any]]:
        """Every job with its next run and last result."""
        now = datetime.now(UTC)
        rows = []
        for name, job in sorted(self._jobs.items()):
            scheduled = self._scheduler.get_job(name) if self._scheduler is not None else None
            next_run = getattr(scheduled, "next_run_time", None)
            rows.append(
                {
                    "name": name,
                    "next_run": next_run.isoformat() if next_run else None,
                    "next_run_ms": max(0, round((next_run - now).total_seconds() * 1000)) if next_run else None,
                    "runs": job.runs,
                    "failures": job.failures,
                    "last_result": job.last,
                }
            )
        return rows

    def _schedule(self, name: str, job: Job) -> None:
        """Hand the job to the scheduler, if there is one yet."""
        if self._scheduler is None:
            return
        from apscheduler.triggers.interval import IntervalTrigger  # as in `start`

        trigger = IntervalTrigger(seconds=job.seconds, jitter=job.jitter or None, timezone=UTC)
        self._scheduler.add_job(self._run, trigger, args=(name, job), id=name, name=name, replace_existing=True)

    async def _run(self, name: str, job: Job) -> None:
        job.runs += 1
        try:
            await job.run()
            job.last = "ok"
        except Exception as error:  # one failed run must not end the job
            job.failures += 1
            job.last = f"{type(error).__name__}: {error}"
            self._logger.exception("job failed", extra={"job": name})
