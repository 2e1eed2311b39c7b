"""Periodic jobs: late is run late, not left out."""

from __future__ import annotations

import asyncio
import time

import pytest

from bridge.host.jobs import Jobs


async def test_a_job_that_comes_due_while_the_loop_is_busy_runs_once_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Jobs()
    jobs.start()
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    jobs.every("poll", 1.2, run)
    time.sleep(2.35)  # noqa: ASYNC251  # the loop is held up, and the job late by more than a second
    async with asyncio.timeout(0.5):
        await ran.wait()
    jobs.stop()
    assert not caplog.records


async def test_a_job_that_is_still_running_is_not_run_twice() -> None:
    jobs = Jobs()
    jobs.start()
    running = most = 0

    async def run() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.3)
        running -= 1

    jobs.every("slow", 0.05, run)
    async with asyncio.timeout(5.0):
        while jobs.document()[0]["runs"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    jobs.stop()
    assert most == 1


async def test_a_job_that_fails_is_counted_and_runs_again() -> None:
    jobs = Jobs()
    jobs.start()

    async def run() -> None:
        raise ValueError("no")

    cancel = jobs.every("bad", 0.05, run)
    async with asyncio.timeout(5.0):
        while jobs.document()[0]["failures"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert jobs.document()[0]["last_result"] == "ValueError: no"
    cancel()
    assert jobs.document() == []
    jobs.stop()


async def test_who_ends_late_does_not_end_the_job_of_who_took_its_place() -> None:
    jobs = Jobs()
    jobs.start()
    ran = asyncio.Event()

    async def old() -> None:
        """Of a source that is being closed."""

    async def new() -> None:
        ran.set()

    cancel_old = jobs.every("poll s", 0.05, old)
    cancel_new = jobs.every("poll s", 0.05, new)
    cancel_old()
    async with asyncio.timeout(2.0):
        await ran.wait()
    assert [row["name"] for row in jobs.document()] == ["poll s"]
    cancel_new()
    assert jobs.document() == []
    jobs.stop()


async def test_jobs_that_came_before_the_start_run_after_it() -> None:
    jobs = Jobs()
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    jobs.every("early", 0.05, run)
    gone = jobs.every("gone", 0.05, run)
    assert [(row["name"], row["next_run"]) for row in jobs.document()] == [("early", None), ("gone", None)]
    gone()
    await jobs.load()
    jobs.start()
    async with asyncio.timeout(2.0):
        await ran.wait()
    (row,) = jobs.document()
    assert row["name"] == "early"
    assert row["next_run"] is not None
    jobs.stop()
