"""What moved since an older run, beyond the spread of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.goals import Goal
from tests.bench.results import Result
from tests.bench.table import number

Object = dict[str, Any]
_MACHINE = ("cpu", "cores", "kernel", "python")


def compare(old: Object, machine: Mapping[str, Any], results: Sequence[Result]) -> list[str]:
    """One line per result that moved, appeared or is missing, and one that says so where nothing did.

    A result moved where its new median lies outside the old repetitions, and the old one outside the new. The ratio to the
    reference is held against the old ratio, since absolute figures move with the machine; where there is none, our own figure.
    old: a document of `results.load`. Raises KeyError, TypeError or ValueError where its results are not of that form.
    """
    lines = []
    other = [name for name in _MACHINE if old.get("machine", {}).get(name) != machine.get(name)]
    if other:
        lines.append(f"another machine ({', '.join(other)}): figures without a reference say little")
    before = {_key(row): row for row in old["results"]}
    now = {_key(asdict(result)): result for result in results}
    moved = [line for key, result in now.items() if key in before and (line := _moved(before[key], result)) is not None]
    lines += moved or ["nothing moved beyond its spread"]
    lines += [f"new: {' / '.join(filter(None, key))}" for key in now if key not in before]
    benches = {result.bench for result in results}
    lines += [f"missing: {' / '.join(filter(None, key))}" for key in before if key not in now and key[0] in benches]
    return lines


def _key(row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    return row["bench"], row["name"], row.get("against")


def _moved(old: Object, new: Result) -> str | None:
    row = asdict(new)
    what = "ratio" if old["ratio"] is not None and new.ratio is not None else "ours"
    was, is_now = float(old[what]), float(row[what])
    if _inside(is_now, old["spread"][what]) or _inside(was, row["spread"][what]):
        return None
    change = f"{(is_now / was - 1) * 100:+.0f} %" if was else "from nothing"
    shown = f"{number(was)} -> {number(is_now)}" + (" x" if what == "ratio" else f" {new.unit}")
    verdict = ""
    if new.goal is not None:
        verdict = ", better" if (is_now < was) == Goal(new.goal).less_is_better else ", WORSE"
    return f"moved: {new.bench} / {new.name}{f' / {new.against}' if new.against else ''}: {shown} ({change}{verdict})"


def _inside(value: float, spread: Sequence[float]) -> bool:
    return spread[0] <= value <= spread[1]
