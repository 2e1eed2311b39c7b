"""The store's thread: blocking calls one after another, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Thread
from typing import Any, TypeVar

from bridge.errors import StoreError

T = TypeVar("T")
WAITING = 4
"""Calls that may wait; one caller that awaits each of its calls never comes near."""


class Writer:
    """A daemon thread that runs what it is given, in order.

    tend: called in the thread after each call, and again after as many seconds as it returned, if it returned any.
    """

    def __init__(self, name: str) -> None:
        self.tend: Callable[[], float | None] = lambda: None
        self._jobs: Queue[tuple[Future[Any], Callable[[], Any]] | None] = Queue(WAITING)
        Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Queue a call. Raises StoreError when the thread hangs in an earlier one."""
        future: Future[T] = Future()
        try:
            self._jobs.put_nowait((future, job))
        except Full:
            raise StoreError("the disk has not answered earlier writes. Look at its health; the bridge tries again.") from None
        return future

    async def call(self, job: Callable[[], T], *, deadline: float) -> T:
        """Run a call in the thread and wait for it.

        deadline: seconds; past it StoreError is raised. A call that runs goes on nonetheless, one that waits is dropped.
        Raises what ``job`` raises.
        """
        future = asyncio.wrap_future(self.submit(job))
        try:
            async with asyncio.timeout(deadline):
                return await future
        except TimeoutError:
            raise StoreError(
                f"the disk has not answered for {deadline:.0f} s. Look at its health; the bridge tries again."
            ) from None

    def stop(self) -> None:
        """End the thread once it has run what waits; one that hangs ends with the process."""
        with suppress(Full):
            self._jobs.put_nowait(None)

    def _run(self) -> None:
        pause: float | None = None
        while self._run_next(pause):
            pause = self.tend()

    def _run_next(self, pause: float | None) -> bool:
        """Run the next call, or return after ``pause`` seconds without one; False when there will be none."""
        try:
            waiting = self._jobs.get(timeout=pause)
        except Empty:
            return True
        if waiting is None:
            return False
        future, job = waiting
        if not future.set_running_or_notify_cancel():
            return True
        try:
            future.set_result(job())
        except BaseException as error:  # noqa: BLE001  # handed to the awaiting side, whatever it is
            future.set_exception(error)
        return True
