"""A run's findings as a table for the terminal."""

from __future__ import annotations

from tests.bench.goals import Goal
from tests.bench.results import Range, Report, Result

_HEADS = ("bench", "figure", "ours", "reference", "", "ratio", "goal", "met")


def number(value: float) -> str:
    """A figure in three digits, or whole where it has more: "0.123", "1.23", "12.3", "12 345"."""
    for bound, digits in ((0.01, 4), (1, 3), (10, 2), (100, 1)):
        if abs(value) < bound:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}".replace(",", " ")


def goal(result: Result) -> str:
    """The goal with its unit; empty where there is none."""
    return Goal(result.goal).shown(result.unit) if result.goal is not None else ""


def table(report: Report) -> str:
    """All figures, one per line, with the spread of the repetitions behind each median; then missing references, and curves."""
    lines = []
    if report.results or not report.curves:
        rows = [_HEADS, *(_row(result, report.quick) for result in report.results)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
        lines = ["  ".join(_cell(text, widths[i], i in (2, 3, 5)) for i, text in enumerate(row)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
    missing = dict.fromkeys(f"{result.bench}: no {result.against}: {result.why}" for result in report.results if result.why)
    return "\n".join([*lines, *missing, *_curves(report)])


def verdict(report: Report) -> str:
    """How many goals are met; empty where there are none."""
    goals = [result.met for result in report.results if result.goal is not None]
    if report.quick:
        return "A smoke test, no claim: goals are not judged."
    unknown = goals.count(None)
    return f"{goals.count(True)} of {len(goals)} goals met{f', {unknown} unknown' if unknown else ''}." if goals else ""


def _row(result: Result, quick: bool) -> tuple[str, ...]:
    reference = "missing" if result.why else "-"
    if result.reference is not None:
        reference = f"{number(result.reference)}{_spread(result.spread.reference)}"
    ratio = f"{number(result.ratio)}{_spread(result.spread.ratio)}" if result.ratio is not None else "-"
    ours = f"{number(result.ours)}{_spread(result.spread.ours)} {result.unit}"
    return result.bench, result.name, ours, reference, result.against or "", ratio, goal(result), _met(result, quick)


def _met(result: Result, quick: bool) -> str:
    """Whether the goal is met, in a word; empty where there is no goal."""
    if result.goal is None:
        return ""
    return "-" if quick else {True: "yes", False: "NO", None: "unknown"}[result.met]


def _curves(report: Report) -> list[str]:
    """One line of text per line of each curve."""
    lines = []
    for curve in report.curves:
        for line in curve.lines:
            figures = ", ".join(f"{number(y)} at {number(x)}" for x, y in line.points)
            lines.append(f"{curve.bench}: {curve.name} ({line.name}), {curve.unit} by {curve.x}: {figures}")
    return lines


def _spread(spread: Range | None) -> str:
    if spread is None or spread[0] == spread[1]:
        return ""
    return f" ({number(spread[0])}..{number(spread[1])})"


def _cell(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
