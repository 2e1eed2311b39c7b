"""What moved since an older run, beyond the spread of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.bench.goals import Goal
from tests.bench.results import Range, Report, Result
from tests.bench.table import number

_MACHINE = ("cpu", "cores", "kernel", "python")
_FIGURE_PERCENT = 20
_POINT_PERCENT = 25
"""What is measured once has no spread: smaller differences than these are not worth a line."""

_Key = tuple[str, ...]


def compare(old: Report, new: Report) -> list[str]:
    """One line per figure that moved, appeared or is missing, and one that says so where nothing did.

    A figure moved where its new median lies outside the old repetitions, and the old one outside the new. What was measured
    once, in either run, cannot be judged: it is said to differ, beyond a fifth. So are the points of curves, beyond a quarter.
    The ratio to the reference is held against the old ratio, since absolute figures move with the machine; where there is
    none, our own figure.
    """
    lines = []
    other = [name for name in _MACHINE if old.machine.get(name) != new.machine.get(name)]
    if other:
        lines.append(f"another machine ({', '.join(other)}): figures without a reference say little")
    lines += _figures(old, new)
    lines += _points(old, new)
    before, now = dict.fromkeys(_keys(old)), dict.fromkeys(_keys(new))
    lines += [f"new: {' / '.join(key)}" for key in now if key not in before]
    benches = {key[0] for key in now}
    return lines + [f"missing: {' / '.join(key)}" for key in before if key not in now and key[0] in benches]


def _figures(old: Report, new: Report) -> list[str]:
    before = {_key(result): result for result in old.results}
    pairs = [(before[key], result) for result in new.results if (key := _key(result)) in before]
    judged = [pair for pair in pairs if min(result.repetitions for result in pair) > 1]
    once = [pair for pair in pairs if pair not in judged]
    lines = []
    if judged:
        lines += [line for pair in judged if (line := _moved(*pair))] or ["nothing moved beyond its spread"]
    if once:
        differ = [line for pair in once if (line := _differs(*pair))]
        shown = (
            f"these differ by more than {_FIGURE_PERCENT} %" if differ else f"nothing differs by more than {_FIGURE_PERCENT} %"
        )
        lines += [f"measured once in one of the runs: whether anything moved cannot be judged; {shown}", *differ]
    return lines


def _points(old: Report, new: Report) -> list[str]:
    """The points of the curves, by x. Each is measured once."""
    before = {(curve.bench, curve.name, line.name, x): y for curve in old.curves for line in curve.lines for x, y in line.points}
    lines, common = [], 0
    for curve in new.curves:
        for line in curve.lines:
            for x, y in line.points:
                was = before.get((curve.bench, curve.name, line.name, x))
                common += was is not None
                if was is not None and _apart(was, y, _POINT_PERCENT):
                    name = f"{curve.bench} / {curve.name} / {line.name}, {number(x)} {curve.x}"
                    lines.append(f"differs: {name}: {number(was)} -> {number(y)} {curve.unit} ({_change(was, y)})")
    return lines or ([f"no point of a curve differs by more than {_POINT_PERCENT} %"] if common else [])


def _keys(report: Report) -> Iterator[_Key]:
    """Of all figures and lines: their bench first."""
    yield from map(_key, report.results)
    for curve in report.curves:
        for line in curve.lines:
            yield curve.bench, curve.name, line.name


def _key(result: Result) -> _Key:
    return (result.bench, result.name, result.against) if result.against else (result.bench, result.name)


def _moved(old: Result, new: Result) -> str | None:
    was, is_now, unit = _held(old, new)
    if _inside(is_now, _spread(old, unit)) or _inside(was, _spread(new, unit)):
        return None
    verdict = ""
    if new.goal is not None:
        verdict = ", better" if (is_now < was) == Goal(new.goal).less_is_better else ", WORSE"
    return f"moved: {' / '.join(_key(new))}: {number(was)} -> {number(is_now)} {unit} ({_change(was, is_now)}{verdict})"


def _differs(old: Result, new: Result) -> str | None:
    was, is_now, unit = _held(old, new)
    if not _apart(was, is_now, _FIGURE_PERCENT):
        return None
    return f"differs: {' / '.join(_key(new))}: {number(was)} -> {number(is_now)} {unit} ({_change(was, is_now)})"


def _held(old: Result, new: Result) -> tuple[float, float, str]:
    """What is held against each other, and its unit: the ratios ("x"), or our own figures."""
    if old.ratio is not None and new.ratio is not None:
        return old.ratio, new.ratio, "x"
    return old.ours, new.ours, new.unit


def _spread(result: Result, unit: str) -> Range:
    return result.spread.ratio if unit == "x" and result.spread.ratio is not None else result.spread.ours


def _change(was: float, is_now: float) -> str:
    return f"{(is_now / was - 1) * 100:+.0f} %" if was else "from nothing"


def _apart(was: float, is_now: float, percent: float) -> bool:
    return abs(is_now - was) > percent / 100 * abs(was)


def _inside(value: float, spread: Sequence[float]) -> bool:
    return spread[0] <= value <= spread[1]
