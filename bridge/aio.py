"""The toolbox between blocking code, time and the event loop. It speaks no word of the domain."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from importlib import import_module
from typing import Protocol, TypeVar

T = TypeVar("T")
_importing = threading.Lock()


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def monotonic(self) -> float:
        """Seconds that only grow; for durations and deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch; for what is shown or stored, never for decisions between hosts."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return ``seconds`` later."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def in_thread(function: Callable[[], T], *, deadline: float, name: str = "call") -> T:
    """Run a blocking call in a daemon thread of its own.

    deadline: seconds; past it TimeoutError is raised and the thread's later result dropped, so the call must have
        socket timeouts of its own to end at all.
    Raises whatever ``function`` raises.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # T may itself be None

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function()
        except BaseException as failure:  # noqa: BLE001  # handed to the awaiting side, whatever it is
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)
        result = error = None  # a failure knows this frame: a cycle would keep what the call held, sockets for instance

    threading.Thread(target=run, name=name, daemon=True).start()
    async with asyncio.timeout(deadline):
        return await future


async def import_modules(*modules: str, deadline: float) -> None:
    """Import SDKs on their first use, beside the event loop and one after the other, whoever asks.

    Two that import the same third library in two threads at once may find it half made: where each waits for a module that
    the other is at, the import system hands one of them what there is, and that failure stays.
    deadline: seconds; TimeoutError past it. Raises ImportError.
    """

    def run() -> None:
        with _importing:
            for module in modules:
                import_module(module)

    await in_thread(run, deadline=deadline, name=f"import {modules[0]}")


async def iterate(
    produce: Callable[[], Iterable[T]], *, close: Callable[[], None], limit: int = 256, name: str = "stream"
) -> AsyncGenerator[list[T], None]:
    """Iterate over a blocking iterable in a daemon thread; yield what has come in since the last turn, in order.

    close: called from the event loop when the consumer stops early; must make the blocked iteration end (shut the socket).
    limit: items waiting at most; beyond it the thread waits, so memory stays bounded.
    Raises what the iterable raises, after everything before it was yielded; ends when it ends.
    """
    loop = asyncio.get_running_loop()
    waiting: deque[T] = deque()
    room = threading.Semaphore(limit)
    wake = asyncio.Event()
    failure: list[BaseException] = []
    stopped = False
    ended = False

    def end() -> None:
        nonlocal ended
        ended = True
        wake.set()

    def run() -> None:
        try:
            for item in produce():
                while not room.acquire(timeout=1.0):
                    if stopped:
                        return
                if stopped:
                    return
                waiting.append(item)
                if len(waiting) == 1:
                    loop.call_soon_threadsafe(wake.set)
        except BaseException as error:  # noqa: BLE001  # handed to the consuming side, whatever it is
            if not stopped:
                failure.append(error)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(end)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        while True:
            await wake.wait()
            wake.clear()
            batch: list[T] = []
            while waiting:
                batch.append(waiting.popleft())
            if batch:
                room.release(len(batch))
                yield batch
            if ended and not waiting:
                if failure:
                    raise failure.pop()  # and not kept: see `in_thread`
                return
            if waiting or ended:
                wake.set()
    finally:
        stopped = True
        close()
