"""What benches found: rows, curves, failures, and the document that `bench.json` holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from tests.bench.goals import Goal

Range = tuple[float, float]
Object = dict[str, Any]


@dataclass(frozen=True)
class Spread:
    """The least and the greatest of the repetitions; those of the ratio are of what was measured one after the other."""

    ours: Range
    reference: Range | None = None
    ratio: Range | None = None


@dataclass(frozen=True)
class Result:
    """One figure. Medians of the repetitions; ``reference`` and ``ratio`` are None where there is no reference.

    met: None where there is no goal, where it needs the reference that is missing, and in a quick run, which judges nothing.
    against: the reference's name. why: why it is missing, None where it is not. repetitions: of ours; one has no spread.
    """

    bench: str
    name: str
    ours: float
    reference: float | None
    unit: str
    ratio: float | None
    goal: str | None
    met: bool | None
    spread: Spread
    against: str | None = None
    why: str | None = None
    repetitions: int = 1

    @classmethod
    def of(
        cls,
        bench: str,
        name: str,
        unit: str,
        ours: Sequence[float],
        reference: Sequence[float] = (),
        *,
        goal: Goal | None = None,
        against: str | None = None,
        why: str | None = None,
        judged: bool = True,
    ) -> Result:
        """The result of repetitions: ``ours[i]`` and ``reference[i]`` were measured one after the other.

        judged: whether to say if the goal is met.
        """
        own, other = median(ours), median(reference) if reference else None
        ratios = [mine / theirs for mine, theirs in zip(ours, reference, strict=False) if theirs]
        spread = Spread(
            (min(ours), max(ours)),
            (min(reference), max(reference)) if reference else None,
            (min(ratios), max(ratios)) if ratios else None,
        )
        ratio = own / other if other else None
        met = goal.met(own, other) if goal is not None and judged else None
        text = goal.text if goal is not None else None
        return cls(bench, name, own, other, unit, ratio, text, met, spread, against, why, len(ours))


@dataclass(frozen=True)
class Line:
    """A line of a chart: (x, y) in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """How a figure grows: ours first, then the references; both axes are logarithmic."""

    bench: str
    name: str
    x: str
    unit: str
    lines: Sequence[Line]


@dataclass
class Report:
    """All that one run found."""

    machine: Object
    results: list[Result] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    """By bench: why it did not end well."""

    @property
    def quick(self) -> bool:
        """Whether it is of a smoke test."""
        return bool(self.machine.get("quick"))

    def write(self, path: Path) -> None:
        """Write the document. Raises OSError."""
        document = {
            "machine": self.machine,
            "results": [asdict(result) for result in self.results],
            "curves": [asdict(curve) for curve in self.curves],
            "failures": [{"bench": bench, "error": error} for bench, error in self.failures.items()],
        }
        written = path.with_name(f"{path.name}.new")
        written.write_text(json.dumps(document, indent=1) + "\n")
        written.replace(path)


@dataclass
class _Document:
    machine: Object
    results: list[Result]
    curves: list[Curve] = field(default_factory=list)


def load(path: Path) -> Report:
    """What `Report.write` wrote, without the failures. Raises OSError, or ValueError where it is none."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
        for result in document.results:
            if result.goal is not None:
                Goal(result.goal)
    except (msgspec.DecodeError, ValueError) as error:
        raise ValueError(f"{path} is no bench.json: {error}") from None
    return Report(document.machine, document.results, document.curves)
