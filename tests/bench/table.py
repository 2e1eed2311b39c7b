"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.results import Range, Result

_HEADS = ("bench", "figure", "ours", "reference", "", "ratio", "goal", "met")


def number(value: float) -> str:
    """A figure in three digits, or whole where it has more: "0.123", "1.23", "12.3", "12 345"."""
    for bound, digits in ((0.01, 4), (1, 3), (10, 2), (100, 1)):
        if abs(value) < bound:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}".replace(",", " ")


def met(result: Result) -> str:
    """Whether the goal is met, in a word; empty where there is no goal."""
    if result.goal is None:
        return ""
    return {True: "yes", False: "NO", None: "unknown"}[result.met]


def table(results: Sequence[Result]) -> str:
    """All results, one per line, with the spread of the repetitions behind each median; then the references that are missing."""
    rows = [_HEADS, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(_cell(text, widths[i], i in (2, 3, 5)) for i, text in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    missing = dict.fromkeys(f"{result.bench}: no {result.against}: {result.why}" for result in results if result.why)
    return "\n".join([*lines, *missing])


def _row(result: Result) -> tuple[str, ...]:
    reference = "missing" if result.why else "-"
    if result.reference is not None:
        reference = f"{number(result.reference)}{_spread(result.spread.reference)}"
    ratio = f"{number(result.ratio)}{_spread(result.spread.ratio)}" if result.ratio is not None else "-"
    ours = f"{number(result.ours)}{_spread(result.spread.ours)} {result.unit}"
    return result.bench, result.name, ours, reference, result.against or "", ratio, result.goal or "", met(result)


def _spread(spread: Range | None) -> str:
    if spread is None or spread[0] == spread[1]:
        return ""
    return f" ({number(spread[0])}..{number(spread[1])})"


def _cell(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
