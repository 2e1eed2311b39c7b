"""The bench harness itself: goals, medians, missing references, what moved, pictures. No bench is run here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.bench import __main__ as command
from tests.bench.goals import Goal
from tests.bench.machine import Cores
from tests.bench.picture import picture
from tests.bench.profile import summary
from tests.bench.results import Curve, Line, Report, Result
from tests.bench.session import Figures, Measure, Session
from tests.bench.table import number, table, verdict
from tests.bench.wrk import Load, parse
from tests.kit.servers.process import ServerUnavailable

WRK = """Running 1s test @ http://127.0.0.1:1/
  Latency Distribution
     50%  610.00us
     99%    1.18ms
  52345 requests in 1.00s, 90.00MB read
Requests/sec:  52301.25
"""


@pytest.mark.parametrize(
    ("text", "ours", "reference", "met"),
    [
        ("ratio >= 0.9", 9.0, 10.0, True),
        ("ratio >= 0.9", 8.9, 10.0, False),
        ("ratio >= 0.9", 9.0, None, None),
        ("ours <= 3", 3.0, None, True),
        ("ours <= 3", 3.1, 10.0, False),
        ("ratio <= 2 or difference <= 2", 3.0, 1.0, True),
        ("ratio <= 2 or difference <= 2", 3.1, 1.0, False),
        ("ratio <= 0.5 and ours <= 900", 901.0, 2000.0, False),
        ("ratio <= 0.5 and ours <= 900", 901.0, None, None),
    ],
)
def test_a_goal_is_met_or_not_or_unknown(text: str, ours: float, reference: float | None, met: bool | None) -> None:
    assert Goal(text).met(ours, reference) is met


@pytest.mark.parametrize("text", ["", "ratio > 1", "ours <= x", "ratio <= 1 or ours <= 2 and ours >= 1", "speed <= 1"])
def test_what_is_no_goal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"goal|either"):
        Goal(text)


def session_of(report: Report, repetitions: int = 3) -> Session:
    return Session("b", report, Cores(0, 0), quick=False, repetitions=repetitions, say=lambda text: None)


def test_repetitions_are_interleaved_and_become_medians_with_their_spread() -> None:
    report, calls = Report({}), list[str]()
    own, other = iter([1.0, 5.0, 2.0]), iter([10.0, 10.0, 40.0])

    def ours() -> Figures:
        calls.append("ours")
        return {"t": next(own)}

    def theirs(subject: str) -> Figures:
        calls.append(subject)
        return {"t": next(other)}

    with session_of(report) as session:
        goal = Goal("ratio <= 0.2")
        session.compare([Measure("t", "time", "ms", goal, scale=1000)], ours, session.reference("it", lambda: "theirs"), theirs)
    assert calls == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    [result] = report.results
    assert (result.ours, result.reference, result.ratio, result.met) == (2000.0, 10000.0, 0.2, True)
    assert result.spread.ours == (1000.0, 5000.0)
    assert result.spread.ratio == (0.05, 0.5)


def test_a_missing_reference_is_said_and_never_invented() -> None:
    report = Report({})

    def missing() -> str:
        raise ServerUnavailable("not on this machine")

    with session_of(report, 1) as session:
        reference = session.reference("nginx", missing)
        session.compare([Measure("t", "time", "ms", Goal("ratio <= 1"))], lambda: {"t": 1.0}, reference, lambda _: {"t": 2.0})
    [result] = report.results
    assert (result.reference, result.ratio, result.met, result.why) == (None, None, None, "not on this machine")
    assert "b: no nginx: not on this machine" in table(report)


def test_a_reference_that_fails_does_not_cost_our_figure() -> None:
    report = Report({})

    def theirs(subject: str) -> Figures:
        raise RuntimeError("broken")

    with session_of(report) as session:
        session.compare([Measure("t", "time", "ms")], lambda: {"t": 1.0}, session.reference("it", lambda: ""), theirs)
    assert (report.results[0].ours, report.results[0].reference) == (1.0, None)
    assert "broken" in (report.results[0].why or "")


def test_what_was_measured_before_a_failure_is_kept() -> None:
    report, own = Report({}), iter([1.0])
    with pytest.raises(StopIteration), session_of(report) as session:
        session.compare([Measure("t", "time", "ms")], lambda: {"t": next(own)})
    assert [result.ours for result in report.results] == [1.0]


def result_of(*ours: float, goal: str | None = "ratio <= 1") -> Result:
    return Result.of("b", "time", "ms", ours, [10.0] * len(ours), goal=Goal(goal) if goal else None, against="it")


def test_a_quick_run_judges_no_goal_and_looks_like_no_failure() -> None:
    report = Report({"quick": True})
    with Session("b", report, Cores(0, 0), quick=True, repetitions=1, say=lambda text: None) as session:
        session.compare([Measure("t", "time", "ms", Goal("ours <= 1"))], lambda: {"t": 2.0})
    assert report.results[0].met is None
    assert table(report).splitlines()[-1].endswith("ours <= 1 ms  -")
    assert verdict(report) == "A smoke test, no claim: goals are not judged."


def test_the_table_ends_with_the_curves_and_the_goals_are_counted() -> None:
    curve = Curve("growth", "cost", "readers", "ms", [Line("envbridge", [(100, 1.5), (1000, 2.0)])])
    report = Report({}, [result_of(9.0), result_of(11.0), result_of(1.0, goal=None)], [curve])
    assert [line.rpartition("  ")[2] for line in table(report).splitlines()[2:4]] == ["yes", "NO"]
    assert table(report).splitlines()[-1] == "growth: cost (envbridge), ms by readers: 1.50 at 100, 2.00 at 1 000"
    assert verdict(report) == "1 of 2 goals met."
    report.results.append(Result.of("b", "rate", "1/s", [2.0], goal=Goal("ratio >= 1"), against="it", why="not here"))
    assert verdict(report) == "1 of 3 goals met, 1 unknown."


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ours <= 5", "ours <= 5 ms"),
        ("ratio >= 0.9", "ratio >= 0.9"),
        ("ratio <= 2 or difference <= 2.5", "ratio <= 2 or difference <= 2.5 ms"),
    ],
)
def test_a_goal_is_shown_with_its_unit(text: str, shown: str) -> None:
    assert Goal(text).shown("ms") == shown


def test_the_document_has_the_fields_that_readers_rely_on(tmp_path: Path) -> None:
    Report({"cpu": "x"}, [result_of(1.0)], failures={"c": "broken"}).write(tmp_path / "bench.json")
    document = json.loads((tmp_path / "bench.json").read_text())
    assert {"machine", "results", "curves", "failures"} <= document.keys()
    fields = {"bench", "name", "ours", "reference", "unit", "ratio", "goal", "met", "spread"}
    assert fields <= document["results"][0].keys()


def texts(picture: str) -> list[tuple[float, float, str]]:
    """Where each text stands (x, y), and the text."""
    found = ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    return [(float(element.attrib["x"]), float(element.attrib["y"]), element.text or "") for element in found]


def test_a_long_title_takes_two_lines_and_moves_the_rest_down() -> None:
    short, long = picture("a title", [result_of(1.0)]), picture("a title of words " * 6, [result_of(1.0)])
    assert all(len(text) <= 82 for _, _, text in texts(long))
    assert [y for _, y, text in texts(long) if text == "time"] > [y for _, y, text in texts(short) if text == "time"]


def test_goal_and_value_of_a_bar_are_on_different_lines() -> None:
    [goal] = [y for _, y, text in texts(picture("a", [result_of(10.0)])) if "ratio <= 1" in text]
    assert goal not in [y for _, y, text in texts(picture("a", [result_of(10.0)])) if text.endswith(" ms")]


def test_a_spread_is_a_line_over_the_bar_and_one_repetition_has_none() -> None:
    assert picture("a", [result_of(1.0, 2.0, 3.0)]).count('<line class="spread"') == 1
    assert "<line" not in picture("a", [result_of(1.0)])


def test_a_picture_is_well_formed_and_shows_every_figure_and_curve() -> None:
    grows = [Line("envbridge", [(1000, 0.5), (1_000_000, 0.6)]), Line("a < b", [(1000, 0.0), (1_000_000, 5.0)])]
    curve = Curve("b", "cost per change", "instances", "\u00b5s", grows)
    missing = Result.of("b", "rate", "1/s", [2.0], goal=Goal("ratio >= 1"), against="<it>", why="not here")
    text = picture("a & b", [result_of(1.0), missing], [curve, Curve("b", "nothing", "x", "s", [])])
    words = " ".join(element.text or "" for element in ElementTree.fromstring(text).iter())
    for expected in ("a & b", "time", "0.100 x", "no <it> on this machine", "cost per change", "a < b"):
        assert expected in words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (0.25, "0.250"), (2.0, "2.00"), (15.25, "15.2"), (150.2, "150"), (1234567.0, "1 234 567")],
)
def test_numbers_have_three_digits_or_are_whole(value: float, text: str) -> None:
    assert number(value) == text


def test_wrk_is_understood() -> None:
    assert parse(WRK) == Load(52345, 90.0 * 1024**2, 52301.25, 1.18 * 1e-3)


@pytest.mark.parametrize("output", ["", WRK + "  Non-2xx or 3xx responses: 3\n", WRK + "  Socket errors: connect 1\n"])
def test_wrk_runs_with_errors_are_no_result(output: str) -> None:
    with pytest.raises(RuntimeError):
        parse(output)


def test_a_profile_leaves_imports_out() -> None:
    lines = summary(
        ["main (a.py:1);work (b.py:2) 3", "main (a.py:1);work (b.py:9) 1", "x (<frozen importlib._bootstrap>:1);y (c.py:1) 9"]
    )
    assert lines[0].endswith("of 4 samples")
    assert lines[1:] == ["100.0% 100.0%  work (b.py)"]


def test_every_bench_has_a_name_a_title_and_a_run() -> None:
    for name, module in command.found().items():
        assert name == module.NAME
        assert module.__doc__
        assert callable(module.run)


def test_an_unknown_bench_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["raed"])
    assert "unknown: raed; there are read, wait" in capsys.readouterr().err
