"""A clock that stands still until it is moved."""

from __future__ import annotations

import asyncio


class ManualClock:
    """Time as a test wants it. `sleep` returns once `advance` has passed its end."""

    def __init__(self, monotonic: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, future))
        await future

    @property
    def sleeping(self) -> list[float]:
        """In how many seconds each sleeper wakes, the next one first."""
        return sorted(end - self._monotonic for end, future in self._sleepers if not future.done())

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, and wake who slept for as long."""
        self._monotonic += seconds
        self._wall += seconds
        due = [future for end, future in self._sleepers if end <= self._monotonic]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._monotonic]
        for future in due:
            if not future.done():
                future.set_result(None)
