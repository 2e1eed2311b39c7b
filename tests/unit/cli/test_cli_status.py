"""`envbridge status`: labels for people, what is held and until when, and no error twice."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.cli.output import to_yaml
from bridge.cli.status import moment, status
from bridge.cli.tables import render

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
HOLD = {"source": "main", "held": 40, "reason": "more than 30% would go at once"}


def lines(document: dict[str, Any], wide: bool = False) -> list[list[str]]:
    return [line.split() for line in render(status(document, wide, now=NOW), colour=False, width=None).splitlines()]


@pytest.mark.parametrize(
    ("more", "head", "row"),
    [
        ({}, ["SOURCE", "HELD", "REASON"], ["main", "40"]),
        (
            {"since": "2026-05-04T11:59:00Z", "until": "2026-05-04T12:04:00Z", "remedy": "guard: off obeys at once"},
            ["SOURCE", "HELD", "SINCE", "UNTIL", "REASON", "REMEDY"],
            ["main", "40", "(60s", "ago)", "(in", "4m)"],
        ),
        ({"since": None, "until": None}, ["SOURCE", "HELD", "REASON"], ["main", "40"]),
        ({"until": "for ever"}, ["SOURCE", "HELD", "UNTIL", "REASON"], ["main", "40", "for", "ever"]),
    ],
)
def test_what_is_held_is_told_with_its_end_and_the_way_out(more: dict[str, Any], head: list[str], row: list[str]) -> None:
    found = lines({"holds": [HOLD | more]})
    assert found[:2] == [["holds"], head]
    told = [word for word in found[2] if word.count(":") != 2]  # times of day are local
    assert told[: len(row)] == row
    assert told[-len(more.get("remedy", HOLD["reason"]).split()) :] == more.get("remedy", HOLD["reason"]).split()


@pytest.mark.parametrize(
    ("text", "end"), [("2026-05-04T12:03:00Z", "(in 3m)"), ("2026-05-06T12:00:00+00:00", "(in 2d)"), ("soon", "soon"), (None, "")]
)
def test_a_moment_is_told_with_its_distance(text: str | None, end: str) -> None:
    assert moment(text, NOW).endswith(end)


def test_a_job_has_one_next_run() -> None:
    job = {"name": "poll", "next_run": "2026-05-04T12:00:05+00:00", "next_run_ms": 5000, "runs": 1, "last_result": "ok"}
    assert lines({"jobs": [job]})[1:] == [["NAME", "NEXT", "RUN", "RUNS", "LAST", "RESULT"], ["poll", "in", "5s", "1", "ok"]]


def test_truth_is_yes_and_what_is_not_there_is_left_out() -> None:
    document = {"ready": True, "leader": False, "hub": None, "store": {"error": None, "rows_written": 3}}
    assert lines(document) == [["ready", "yes"], ["leader", "no"], [], ["store"], ["rows", "written", "3"]]


def test_an_error_is_told_once() -> None:
    sources = [{"name": "a", "state": "failed", "last_error": "gone"}, {"name": "b", "state": "synced", "last_error": "x: no id"}]
    found = lines({"warnings": ["source a: gone"], "sources": sources})
    assert found[:2] == [["warnings"], ["source", "a:", "gone"]]
    assert found[-3:] == [["problems"], ["SOURCE", "PROBLEM"], ["b", "x:", "no", "id"]]
    assert sum("gone" in line for line in found) == 1


def rejecting(amount: int, listed: int, **more: Any) -> dict[str, Any]:
    rejections = [{"key": f"shop/web/{n}", "reason": f"a.yaml: services[{n}]: broken"} for n in range(listed)]
    return {"name": "paper", "state": "synced", "rejected": amount, "rejections": rejections} | more


def test_every_rejection_is_listed_once() -> None:
    found = lines({"sources": [rejecting(2, 2, last_error="a.yaml: services[0]: broken"), {"name": "b", "rejections": []}]})
    assert ["problems"] not in found
    assert found[-4:] == [
        ["rejections"],
        ["SOURCE", "OBJECT", "REASON"],
        ["paper", "shop/web/0", "a.yaml:", "services[0]:", "broken"],
        ["paper", "shop/web/1", "a.yaml:", "services[1]:", "broken"],
    ]


@pytest.mark.parametrize(("amount", "listed", "more"), [(20, 20, None), (21, 21, "1"), (500, 100, "480"), (21, 30, "10")])
def test_of_many_rejections_twenty_are_listed_and_the_others_counted(amount: int, listed: int, more: str | None) -> None:
    found = lines({"sources": [rejecting(amount, listed)]})
    assert sum("broken" in line for line in found) == 20
    assert found[-1] == ["paper", "-", "and", more, "more"] if more else "broken" in found[-1]


@pytest.mark.parametrize("odd", [{"rejections": 3}, {"rejections": [3, {}]}, {"rejected": [1]}, {"rejections": {"a": 1}}])
def test_rejections_of_another_shape_do_no_harm(odd: dict[str, Any]) -> None:
    assert lines({"sources": [rejecting(1, 1) | odd]})


def test_yaml_has_no_aliases() -> None:
    shared = {"a": [1]}
    assert to_yaml({"x": shared, "y": shared}) == "x:\n  a:\n  - 1\ny:\n  a:\n  - 1\n"
