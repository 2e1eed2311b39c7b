"""What a bench is given: how large to be, where to start servers, and how to record what it finds."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from tests.bench.goals import Goal
from tests.bench.machine import Cores
from tests.bench.results import Curve, Line, Report, Result
from tests.kit.servers.binaries import KINDS, find
from tests.kit.servers.process import ServerFailed, ServerProcess, ServerUnavailable

T = TypeVar("T")
_SLOW = 10.0
"""Seconds after which the user is told why nothing seems to happen."""

Figures = Mapping[str, float]
"""What one repetition measured, by `Measure.key`."""


class Startable(Protocol):
    """Something that a `ServerProcess` is started by: `Daemon`, and the servers of the kit."""

    @property
    def process(self) -> ServerProcess:
        """The process, not started yet."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Any: ...


S = TypeVar("S", bound=Startable)


@dataclass(frozen=True)
class Measure:
    """One figure of each repetition, and what it should be. ``scale`` multiplies it (seconds to "ms": 1000)."""

    key: str
    name: str
    unit: str
    goal: Goal | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Reference(Generic[T]):
    """What ours is held against; ``why`` says why it cannot be had, and there is no subject then."""

    name: str
    subject: T | None = None
    why: str | None = None


class Session:
    """One run of one bench. As a context manager it ends what `enter` and `serve` began."""

    def __init__(
        self, bench: str, report: Report, cores: Cores, *, quick: bool, repetitions: int, say: Callable[[str], None]
    ) -> None:
        """``say`` tells the user of progress; ``quick`` is a smoke test, never a claim."""
        self.bench, self.quick, self.repetitions, self.cores, self.say = bench, quick, repetitions, cores, say
        self._report = report
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self._folders = 0
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def scale(self, full: int, quick: int) -> int:
        """How many of something: ``full``, or ``quick`` in a smoke test."""
        return quick if self.quick else full

    def folder(self) -> Path:
        """A new, empty folder; it goes with the session."""
        self._folders += 1
        made = self._folder / str(self._folders)
        made.mkdir()
        return made

    # -- what runs

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that is left at the end of the bench."""
        return self._stack.enter_context(context)

    def pin(self, server: S) -> S:
        """Have a server that is not started yet run on the server's core."""
        self.cores.bind_server(server.process)
        return server

    def serve(self, server: S) -> S:
        """Start a server on the server's core; it ends with the bench."""
        self.pin(server)
        self._stack.enter_context(server)
        return server

    def reference(self, name: str, make: Callable[[], T], kinds: Sequence[str] = ()) -> Reference[T]:
        """What ``make`` makes, or why it cannot be had. ``kinds`` (of `tests.kit.servers`) are found or installed first."""
        slow = f"{self.bench}: {', '.join(kinds)}: being installed or built, which takes minutes the first time"
        notice = threading.Timer(_SLOW, self.say, [slow])
        notice.start()
        try:
            for program in dict.fromkeys(program for kind in kinds for program in KINDS[kind]):
                find(program)
            return Reference(name, make())
        except (ServerUnavailable, ServerFailed) as error:
            why = str(error).strip() or type(error).__name__
            self.say(f"{self.bench}: no {name}: {why}")
            return Reference(name, why=why)
        finally:
            notice.cancel()

    # -- what was found

    def compare(
        self,
        measures: Sequence[Measure],
        ours: Callable[[], Figures],
        reference: Reference[T] | None = None,
        theirs: Callable[[T], Figures] | None = None,
    ) -> None:
        """Repeat ours and the reference, interleaved, and record the medians and the spread of each measure.

        ``theirs`` gets the reference's subject, and may measure fewer figures than ``ours``. Where it raises, the reference is
        missing from there on, with the reason; what ``ours`` raises ends the bench, and what was measured until then is kept.
        """
        own: list[Figures] = []
        other: list[Figures] = []
        why = reference.why if reference is not None else None
        against = reference.name if reference is not None else None

        def measure_ours() -> None:
            own.append(ours())

        def measure_theirs() -> None:
            nonlocal why
            if reference is None or theirs is None or reference.subject is None or why is not None:
                return
            try:
                other.append(theirs(reference.subject))
            except Exception as error:  # noqa: BLE001  # told in the results; ours is worth knowing without it
                why = f"it failed: {type(error).__name__}: {error}"
                self.say(f"{self.bench}: {against}: {why}")

        try:
            for repetition in range(self.repetitions):
                steps = [measure_ours, measure_theirs]
                for step in reversed(steps) if repetition % 2 else steps:
                    step()
        finally:
            for measure in measures:
                if own and measure.key in own[0]:
                    self._record(measure, own, [] if why else other, against, why)

    def _record(
        self, measure: Measure, own: Sequence[Figures], other: Sequence[Figures], against: str | None, why: str | None
    ) -> None:
        mine = [figures[measure.key] * measure.scale for figures in own]
        theirs = [figures[measure.key] * measure.scale for figures in other if measure.key in figures]
        if other and not theirs:
            against = None  # the reference has no such figure
        judged = not self.quick
        self._report.results.append(
            Result.of(
                self.bench, measure.name, measure.unit, mine, theirs, goal=measure.goal, against=against, why=why, judged=judged
            )
        )

    def curve(self, name: str, *, x: str, unit: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
        """Record how a figure grows: points (x, y) by the line's name, ours first."""
        self._report.curves.append(Curve(self.bench, name, x, unit, [Line(key, list(points)) for key, points in lines.items()]))
