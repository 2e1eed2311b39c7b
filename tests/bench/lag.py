"""How late an event loop is: a timer of the kernel's own that the loop has to answer every millisecond."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

TICK = 0.001
_MONOTONIC, _NONBLOCK = 1, os.O_NONBLOCK


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class LoopLag:
    """Inside ``async with``, every millisecond the running loop notes how late it comes to it, in ``late`` (seconds).

    The loop's own timers are as coarse as what is measured, hence timerfd (timerfd_create(2)). A tick that fell into a stall
    counts like any other, as late as it was: one stall of 100 ms is a hundred late ticks.
    """

    def __init__(self) -> None:
        self.late: list[float] = []

    async def __aenter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.timerfd_create(_MONOTONIC, _NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        nanoseconds = int(TICK * 1e9)
        self._due = time.monotonic() + TICK
        libc.timerfd_settime(self._fd, 0, (ctypes.c_long * 4)(0, nanoseconds, 0, nanoseconds), None)
        asyncio.get_running_loop().add_reader(self._fd, self._tick)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _tick(self) -> None:
        ticks, now = int.from_bytes(os.read(self._fd, 8), "little"), time.monotonic()
        for _ in range(ticks):
            self.late.append(max(0.0, now - self._due))
            self._due += TICK
