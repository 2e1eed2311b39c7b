"""The system's notifications: that something changed, and what they tell of how it did."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Iterable

from watchfiles import Change, awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from bridge.errors import TransientError

_STEP_MS = 50
"""Without a change for so long, a burst of them is over. An atomic replacement is one burst."""

_BURST_MS = 200
"""A burst that does not end is told after so long."""

_UNTOLD = "Unable to decode"
"""How the library complains of a name that is not UTF-8; whatever else came with it is lost."""


class Notifications:
    """Watches directories, and says when to look again.

    Only `renamed` trusts what a notification says of a file; all else looks for itself.
    """

    def __init__(self) -> None:
        self._directories: frozenset[tuple[str, int, int]] = frozenset()
        self._files: Collection[str] = ()
        self._fresh: dict[str, set[Change]] = {}
        self._past: dict[str, set[Change]] = {}
        self._due: float | None = None
        self._wake = asyncio.Event()

    def follow(self, directories: frozenset[tuple[str, int, int]], files: Collection[str]) -> None:
        """Watch these directories (path, device, inode) from now on, and remember what happens to these files."""
        self._files = files
        if directories != self._directories:
            self._directories = directories
            self._wake.set()

    def _miss(self) -> None:
        """Something was not told: until it is read again, no file is known not to have been deleted meanwhile."""
        for path in self._files:
            self._past.setdefault(path, set()).add(Change.deleted)

    def ask(self, seconds: float) -> None:
        """Have `hints` yield ``seconds``, or less if less was asked before."""
        self._due = seconds if self._due is None else min(self._due, seconds)
        self._wake.set()

    def renamed(self) -> frozenset[str]:
        """The files onto which a rename was told since this was last asked.

        A name that is taken can be *added* only by a rename onto it, unless it was *deleted* before. So a file counts where
        nothing but *added* was told since it was last read.
        """
        fresh, self._fresh = self._fresh, {}
        for path, changes in fresh.items():
            self._past.setdefault(path, set()).update(changes)
        return frozenset(path for path in fresh if self._past[path] == {Change.added})

    def forget(self, paths: Iterable[str]) -> None:
        """These were read just now: what was told of them before is over."""
        for path in paths:
            self._past.pop(path, None)

    async def hints(self) -> AsyncGenerator[float, None]:
        """See `bridge.contracts.PollHints`. Raises TransientError when the system refuses to watch."""
        task: asyncio.Task[None] | None = None
        watched: frozenset[tuple[str, int, int]] = frozenset()
        try:
            while True:
                if task is not None and task.done():
                    task.result()
                    task = None
                if task is None or watched != self._directories:
                    if task is not None:
                        await _end(task)
                    watched = self._directories
                    # A directory whose name is not UTF-8 cannot be watched; it is looked at with every poll.
                    task = self._start(sorted({path for path, _, _ in watched if _is_text(path)}))
                await self._wake.wait()
                self._wake.clear()
                due, self._due = self._due, None
                if due is not None:
                    yield due
        finally:
            if task is not None:
                await _end(task)

    def _start(self, directories: list[str]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._follow(directories), name="file notifications")
        task.add_done_callback(lambda _: self._wake.set())
        return task

    async def _follow(self, directories: list[str]) -> None:
        if not directories:
            await asyncio.Event().wait()
        while True:
            # Once this has come to wait for the system, whatever happened before it listened is looked at.
            asyncio.get_running_loop().call_soon(self.ask, 0.0)
            try:
                await self._listen(directories)
            except (OSError, WatchfilesRustInternalError, ExceptionGroup) as error:
                failure = error.exceptions[0] if isinstance(error, ExceptionGroup) else error  # of the library's task group
                if isinstance(failure, WatchfilesRustInternalError) and _UNTOLD in str(failure):
                    self._miss()
                elif isinstance(failure, OSError | WatchfilesRustInternalError):
                    raise TransientError(f"the system's notifications cannot be had: {failure}") from error
                else:
                    raise

    async def _listen(self, directories: list[str]) -> None:
        changes = awatch(*directories, watch_filter=None, recursive=False, debounce=_BURST_MS, step=_STEP_MS)
        async with contextlib.aclosing(changes):
            async for burst in changes:
                for change, path in burst:
                    if path in self._files:
                        self._fresh.setdefault(path, set()).add(change)
                self.ask(0.0)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, TransientError):  # it is ended whatever it came to
        await task
