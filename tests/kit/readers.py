"""Readers that go on through restarts of the daemon, and write down what they were told is there no more.

A `Follower` streams and resumes by `Last-Event-ID`, a `Blocker` waits with its cursor, a `Poller` just asks. All follow
`/v1/instances` with no instance hidden. What one of them had and has no longer is a `Removal`, whatever told it: an event,
a snapshot after a reset, or a shorter list. Times are seconds of the monotonic clock.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Set
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from tests.kit.daemon import EVERYTHING, Daemon, Event, by_ref
from tests.kit.servers.process import wait_for

PATH = "/v1/instances"
PATIENCE = 60.0
LOST_TAIL = 1.0
"""What became known so shortly before a kill may be unknown after it, until its source was read again."""

_CURSOR = re.compile(r"(.+)-(\d+)-([0-9a-f]{16})")
_PAUSE = 0.02
_SILENCE = 15.0
_REFUSALS = (OSError, http.client.HTTPException)


class Removal(NamedTuple):
    """An instance that a reader had from ``learnt`` until ``lost``."""

    ref: str
    learnt: float
    lost: float


class Reader(ABC):
    """One reader in a thread of its own, from the first answer it gets to the end of its ``with`` block.

    present: refs it has. removals: what it lost. resets: how often it was told to begin anew. lineages: in order.
    answers: how many it got. thinnest: the fewest instances an answer had.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.present: dict[str, float] = {}
        self.removals: list[Removal] = []
        self.resets = 0
        self.answers = 0
        self.thinnest = 0
        self.lineages: list[str] = []
        self._index = 0
        self._ending = threading.Event()
        self._pool = ThreadPoolExecutor(1, type(self).__name__)
        self._reading: Future[None] | None = None

    def __enter__(self) -> Self:
        reading = self._reading = self._pool.submit(self._run)
        wait_for(f"a first answer for the {type(self).__name__}", lambda: self.answers or reading.done(), PATIENCE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ending.set()
        self._pool.shutdown(wait=False)  # one that reads ends with its connection, when the daemon does

    @abstractmethod
    def follow(self) -> None:
        """Read until the connection ends or `ending`. Raises OSError or HTTPException where it breaks."""

    @property
    def ending(self) -> bool:
        """Whether it is to end."""
        return self._ending.is_set()

    def check(self, ended: Collection[str] = (), kills: Iterable[float] = ()) -> None:
        """Raises AssertionError where something was removed that is not in ``ended``, or the reader met what must not be.

        kills: when the daemon was killed; what was learnt in the second before is forgiven (see `LOST_TAIL`).
        """
        kills = list(kills)
        wrong = [
            removal
            for removal in list(self.removals)
            if removal.ref not in ended
            and not any(removal.learnt <= kill + _PAUSE and kill - removal.learnt <= LOST_TAIL for kill in kills)
        ]
        assert not wrong, f"{type(self).__name__}: removed, but alive: {wrong[:5]} of {len(wrong)}"
        if self._reading is not None and self._reading.done():
            raise AssertionError(f"{type(self).__name__} ended by itself") from self._reading.exception()

    def wait(self, refs: Set[str], timeout: float = PATIENCE) -> None:
        """Wait until it has exactly these. Raises TimeoutError."""
        wait_for(f"the {type(self).__name__}'s agreement", lambda: self.present.keys() == refs, timeout, 0.05)

    def take_all(self, refs: Iterable[str]) -> None:
        """An answer that is the whole state."""
        refs = set(refs)
        self.drop(self.present.keys() - refs)
        self.put(refs)
        self.thinnest = len(refs) if not self.answers else min(self.thinnest, len(refs))
        self.answers += 1

    def put(self, refs: Iterable[str]) -> None:
        """These are there."""
        now = time.monotonic()
        for ref in refs:
            self.present.setdefault(ref, now)

    def drop(self, refs: Iterable[str]) -> None:
        """These are there no more."""
        now = time.monotonic()
        for ref in list(refs):
            learnt = self.present.pop(ref, None)
            if learnt is not None:
                self.removals.append(Removal(ref, learnt, now))

    def note_cursor(self, text: str) -> None:
        """Indexes never go back within a lineage."""
        match = _CURSOR.fullmatch(text)
        assert match, f"no cursor: {text}"
        lineage, index = match[1], int(match[2])
        if self.lineages[-1:] != [lineage]:
            assert lineage not in self.lineages, f"lineage {lineage} came back"
            self.lineages.append(lineage)
            self._index = 0
        assert index >= self._index >= 0, f"index {index} after {self._index} in lineage {lineage}"
        assert index >= 1, "indexes begin at 1"
        self._index = index

    def pause(self, seconds: float = _PAUSE) -> None:
        """Wait, but not past the end."""
        self._ending.wait(seconds)

    def _run(self) -> None:
        while not self.ending:
            with contextlib.suppress(*_REFUSALS):
                self.follow()
            self.pause()


class Follower(Reader):
    """Follows the stream; reconnects with the id of the last event."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon)
        self.connections = 0
        self._last: str | None = None
        self._snapshot: set[str] | None = None

    def follow(self) -> None:
        self._snapshot = None if self._last else set()
        with self.daemon.stream(PATH, last_event_id=self._last, timeout=_SILENCE, **EVERYTHING) as events:
            self.connections += 1
            for event in events:
                if self.ending:
                    return
                self._apply(event)

    def _apply(self, event: Event) -> None:
        match event.type:
            case "reset":
                self.resets += 1
                self._snapshot = set()
            case "snapshot":
                assert self._snapshot is not None, "a snapshot without a reset"
                self._snapshot |= by_ref(event.data["instances"]).keys()
                if event.data.get("complete"):
                    self.take_all(self._snapshot)
                    self._snapshot = None
            case "change":
                assert self._snapshot is None, "a change before its snapshot"
                self.put(by_ref([*event.data["added"], *event.data["updated"]]))
                self.drop(event.data["removed"])
        if event.id:
            self.note_cursor(event.id)
            self._last = event.id


class Blocker(Reader):
    """Waits with the cursor of its last answer, ``rest`` seconds after that."""

    def __init__(self, daemon: Daemon, rest: float = 0.0) -> None:
        super().__init__(daemon)
        self._rest = rest
        self._cursor: str | None = None

    def follow(self) -> None:
        if self._cursor is None:
            reply = self.daemon.get(PATH, timeout=_SILENCE, **EVERYTHING)
        else:
            reply = self.daemon.blocking(PATH, self._cursor, "1s", timeout=_SILENCE, **EVERYTHING)
        self.note_cursor(reply.cursor)
        if reply.status == 304:
            return
        assert reply.status == 200, reply
        if "envbridge-reset" in reply.headers:
            self.resets += 1
        self.take_all(by_ref(reply.body["instances"]))
        self._cursor = reply.cursor
        self.pause(self._rest)


class Poller(Reader):
    """Asks every ``every`` seconds, without a cursor."""

    def __init__(self, daemon: Daemon, every: float = 0.1) -> None:
        super().__init__(daemon)
        self._every = every

    def follow(self) -> None:
        reply = self.daemon.get(PATH, timeout=_SILENCE, **EVERYTHING)
        assert reply.status == 200, reply
        self.note_cursor(reply.cursor)
        self.take_all(by_ref(reply.body["instances"]))
        self.pause(self._every)
