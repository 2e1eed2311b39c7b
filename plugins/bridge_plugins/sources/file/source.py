"""The files of one source, looked at together."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple

from bridge.aio import Clock, in_thread
from bridge.contracts import PluginContext
from bridge.errors import TransientError
from bridge.model import Confirmed, InstanceGroup, Listing, Observation, SourceEvent, covers
from bridge_plugins.sources.file.mapping import file_of
from bridge_plugins.sources.file.reading import STILL, FileState, Look, key_of, look, restored
from bridge_plugins.sources.file.scan import Scan, fits, scan
from bridge_plugins.sources.file.watch import Notifications

APPEARING = 5.0
"""Seconds without a file more or less after which a directory that held none at first counts as filled."""


class Round(NamedTuple):
    """One look at everything."""

    scan: Scan
    looks: dict[str, Look]

    @property
    def again(self) -> float | None:
        """Seconds until some file should be looked at again."""
        return min((look.again for look in self.looks.values() if look.again is not None), default=None)


class FileSource:
    """A `PollSource` with `PollHints` over the files that patterns match.

    patterns: absolute; see `scan`. deadline: seconds one look may take.
    base: the directory that relative patterns started at; what is told of a file names it from there.
    """

    def __init__(self, patterns: Sequence[str], ctx: PluginContext, *, deadline: float, base: str = "") -> None:
        self._patterns = tuple(patterns)
        self._base = f"{key_of(base).rstrip('/')}/" if base else ""
        self._clock = ctx.clock
        self._known = ctx.known
        self._deadline = deadline
        self._notifications = Notifications()
        self._looking = threading.Lock()
        self._states: Mapping[str, FileState] = {}
        self._matched: frozenset[str] = frozenset()
        self._told = False
        self._files: frozenset[str] = frozenset()
        self._files_since = 0.0
        self._unread: Mapping[str, TransientError] = {}

    def hints(self) -> AsyncGenerator[float, None]:
        """When to look again: at a change, and when a changed file may have come to rest."""
        return self._notifications.hints()

    async def list(self) -> Observation:
        """What the files say that they did not say the last time.

        First a listing of everything, then one for each file that was read again, that broke or that is missing. Raises
        TransientError when the file system does not answer in time.
        """
        if not self._told:
            return await self._first()
        found = await self._round()
        unread, before = self._still_unread(found.scan), self._unread
        self._unread = unread
        return self._everything(found, unread) if before.keys() - unread.keys() else self._changes(found, unread)

    async def _first(self) -> Listing:
        self._recall()
        found = await self._round()
        if found.again is not None:
            # Every file is new to us, so none was read. It takes a second look to see which of them are at rest.
            await self._clock.sleep(STILL)
            found = await self._round()
        self._unread = self._unread_in(found.scan)
        self._told = True
        return self._everything(found, self._unread)

    def _recall(self) -> None:
        """Expect the files that the catalog holds groups of: one that is missing now vanished, as if we had seen it go."""
        files = {file_of(key) for key in self._known()}
        expected = {pattern: [file for file in files if fits(pattern, file)] for pattern in self._patterns}
        self._states = {file: restored() for found in expected.values() for file in found}
        self._matched |= {pattern for pattern, found in expected.items() if found}

    async def _round(self) -> Round:
        """Look once, and remember what was seen."""
        renamed = self._notifications.renamed()
        try:
            found = await in_thread(lambda: self._look(renamed), deadline=self._deadline, name="file")
        except TimeoutError:
            raise TransientError(f"the file system has not answered for {self._deadline:.0f} s") from None
        looks = found.looks
        # A literal path that is gone stays, as a failure; a match of a wildcard is no more.
        self._states = {path: look.state for path, look in looks.items() if not look.state.gone or path in found.scan.literal}
        self._matched = found.scan.matched
        if found.scan.files != self._files:
            self._files, self._files_since = found.scan.files, self._clock.monotonic()
        self._notifications.forget(path for path, look in looks.items() if look.taken)
        self._notifications.follow(found.scan.directories, looks.keys())
        if found.again is not None:
            self._notifications.ask(found.again)
        return found

    def _look(self, renamed: frozenset[str]) -> Round:
        """Runs in a thread; changes nothing here, so that one which outlives its deadline does no harm."""
        if not self._looking.acquire(blocking=False):
            raise TransientError("the file system has not answered the look before this one")
        try:
            found = scan(self._patterns, self._matched)
            clock: Clock = self._clock
            there = {key_of(path) for path in found.files}
            # A file whose name is not UTF-8 was recalled by its key, which is not its path.
            missing = {path for path in self._states.keys() - found.files if key_of(path) not in there}
            return Round(
                found,
                {
                    path: look(path, self._states.get(path, FileState()), clock, renamed=path in renamed)
                    for path in sorted(found.files | missing)
                },
            )
        finally:
            self._looking.release()

    def _still_unread(self, found: Scan) -> dict[str, TransientError]:
        """What could not be told of directories.

        One that held no file and now does may still be filling, one file after the other (a checkout, a mount): what it
        lacks stays unknown until no file was added for a while.
        """
        unread = self._unread_in(found)
        if self._clock.monotonic() - self._files_since < APPEARING:
            for key in self._unread.keys() - unread.keys():
                unread[key] = self._trouble(key, "files have only begun to appear")
        return unread

    def _unread_in(self, found: Scan) -> dict[str, TransientError]:
        return {key: self._trouble(*problem) for key, problem in found.unread.items()}

    def _name(self, path: str) -> str:
        """What people call a file: as it is configured, relative to the configuration's folder. It is untrusted text."""
        name = key_of(path).removeprefix(self._base)
        return name if name.isprintable() else ascii(name)

    def _trouble(self, path: str, problem: str) -> TransientError:
        return TransientError(f"{self._name(path)}: {problem}")

    def _reasons(self, path: str, rejected: Mapping[str, str]) -> dict[str, str]:
        """What of a file was rejected and why, the file named in each reason."""
        return {key: f"{self._name(path)}: {reason}" for key, reason in rejected.items()} if rejected else {}

    def _everything(self, found: Round, unread: Mapping[str, TransientError]) -> Listing:
        """One listing of the whole source."""
        groups: list[InstanceGroup] = []
        unchanged: list[str] = []
        rejected: dict[str, str] = {}
        unknown = dict(unread)
        for path, (state, mapped, _, _) in found.looks.items():
            if state.gone:
                unknown |= self._still_missing(found, path)
            elif state.problem is not None or not state.read:
                unknown[key_of(path)] = self._trouble(path, state.problem or "it is being written")
            else:
                rejected |= self._reasons(path, state.rejected or {})
                if mapped is not None:
                    groups += mapped.groups
                else:
                    unchanged += state.keys
        return Listing("", tuple(groups), tuple(unchanged), unknown, rejected)

    def _changes(self, found: Round, unread: Mapping[str, TransientError]) -> Observation:
        """What is to be said of each file since the last time; one index."""
        events: list[SourceEvent] = []
        quiet: list[SourceEvent] = []
        unchanged: list[str] = []
        for path, (state, mapped, _, _) in found.looks.items():
            key = key_of(path)
            if state.gone:
                events.append(Listing(key, unknown=self._still_missing(found, path)))
            elif state.problem is not None:
                events.append(Listing(key, unknown={key: self._trouble(path, state.problem)}))
            elif mapped is not None:
                events.append(Listing(key, mapped.groups, rejected=self._reasons(path, mapped.rejected)))
            elif state.read:  # else it has only begun to be written
                quiet.append(Confirmed(key))
                unchanged += state.keys
        for key, error in unread.items():
            known = tuple(group for group in unchanged if covers(key, group))
            events.insert(0, Listing(key, unchanged=known, unknown={key: error}))
        return (*events, *quiet) if events else Confirmed()

    def _still_missing(self, found: Round, path: str) -> dict[str, TransientError]:
        """A configured file that is missing remains a failure after its groups were let go.

        The key lies under the file's and covers no group: no namespace is empty.
        """
        problem = found.looks[path].state.problem
        if path not in found.scan.literal or problem is None:
            return {}
        return {f"{key_of(path)}//missing": self._trouble(path, problem)}
