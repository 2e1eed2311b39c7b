"""Blocked readers: objects in their view's set, one timer for all deadlines, answers in slices."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from typing import Protocol

from bridge.aio import Clock
from bridge.catalog.cursor import Cursor
from bridge.catalog.view import View
from bridge.serve.http.message import Answer, Wait

SLICE = 64
"""Readers answered before other work of the loop gets its turn."""


class Reader(Protocol):
    """Whoever gets the answer."""

    def finish_later(self, answer: Answer) -> None:
        """Take the answer."""
        ...


class BlockedRead:
    """One reader that waits for its view to differ from what it saw."""

    __slots__ = ("deadline", "done", "reader", "wait")

    def __init__(self, reader: Reader, wait: Wait, deadline: float) -> None:
        self.reader = reader
        self.wait = wait
        self.deadline = deadline
        self.done = False

    def __lt__(self, other: BlockedRead) -> bool:
        return self.deadline < other.deadline

    def finish(self) -> None:
        """Answer with the view as it is, or that it is as it was."""
        self.take(self.wait.answer(not self.wait.view.holds(self.wait.cursor)))

    def take(self, answer: Answer) -> None:
        """Answer so."""
        self.done = True
        self.wait.view.waiters.discard(self)
        self.reader.finish_later(answer)


class Waits:
    """All blocked readers. A view that flaps is answered at most every ``View.min_gap`` seconds, a first change at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadlines: list[BlockedRead] = []
        self._timer: asyncio.TimerHandle | None = None
        self._paced: dict[View, asyncio.TimerHandle] = {}
        self.blocked = 0

    def begin(self, reader: Reader, wait: Wait) -> BlockedRead | None:
        """Have ``reader`` wait; None where it was answered already."""
        now = self._clock.monotonic()
        read = BlockedRead(reader, wait, now + wait.seconds)
        view = wait.view
        view.waiters.add(read)
        if not view.holds(wait.cursor):
            if now - view.woken_at >= view.min_gap:
                view.woken_at = now
                read.finish()
                return None
            self._pace(view, now)
        self.blocked += 1
        if len(self._deadlines) > 2 * self.blocked + SLICE:  # reads that were answered long before their deadline
            self._deadlines = [read for read in self._deadlines if not read.done]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, read)
        if self._deadlines[0] is read:
            self._schedule()
        return read

    def cancel(self, read: BlockedRead) -> None:
        """The reader went away."""
        read.done = True
        read.wait.view.waiters.discard(read)
        self.blocked -= 1

    def wake(self, views: Sequence[View]) -> None:
        """These views changed: answer their readers, now or when their pace allows."""
        now = self._clock.monotonic()
        for view in views:
            if now - view.woken_at >= view.min_gap:
                self._answer(view)
            else:
                self._pace(view, now)

    def end_all(self) -> None:
        """Answer every reader as if its deadline had come."""
        for read in self._deadlines:
            if not read.done:
                read.finish()
        self._deadlines.clear()
        self.blocked = 0
        for handle in self._paced.values():
            handle.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _pace(self, view: View, now: float) -> None:
        if view not in self._paced:
            delay = max(0.0, view.woken_at + view.min_gap - now)
            self._paced[view] = asyncio.get_running_loop().call_later(delay, self._answer, view)

    def _answer(self, view: View) -> None:
        self._paced.pop(view, None)
        view.woken_at = self._clock.monotonic()
        self._answer_slice(list(view.waiters))

    def _answer_slice(self, reads: list[object]) -> None:
        """Answer the last of ``reads`` that are due, and the rest when other work had its turn."""
        answers: dict[Callable[[View, bool], Answer], Answer] = {}
        held: dict[Cursor, bool] = {}
        for _ in range(min(SLICE, len(reads))):
            read = reads.pop()
            if not isinstance(read, BlockedRead) or read.done:
                continue
            wait = read.wait
            if (holds := held.get(wait.cursor)) is None:
                holds = held[wait.cursor] = wait.view.holds(wait.cursor)
            if holds:
                continue
            if (answer := answers.get(wait.render)) is None:
                answer = answers[wait.render] = wait.answer(True)
            self.blocked -= 1
            read.take(answer)
        if reads:
            asyncio.get_running_loop().call_soon(self._answer_slice, reads)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._deadlines and self._deadlines[0].done:
            heapq.heappop(self._deadlines)
        if self._deadlines:
            delay = max(0.0, self._deadlines[0].deadline - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._expire)

    def _expire(self) -> None:
        now = self._clock.monotonic()
        due = 0
        while self._deadlines and (self._deadlines[0].done or self._deadlines[0].deadline <= now) and due < SLICE:
            read = heapq.heappop(self._deadlines)
            if not read.done:
                due += 1
                self.blocked -= 1
                read.finish()
        self._schedule()
