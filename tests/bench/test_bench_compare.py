"""`--compare`: what moved beyond its spread, what cannot be judged, and what is refused. No bench is run here."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.bench import __main__ as command
from tests.bench import machine
from tests.bench.compare import compare
from tests.bench.goals import Goal
from tests.bench.results import Curve, Line, Report, Result, load
from tests.bench.session import Measure, Session

ONCE = "measured once in one of the runs: whether anything moved cannot be judged; "


def result_of(*ours: float) -> Result:
    return Result.of("b", "time", "ms", ours, [10.0] * len(ours), goal=Goal("ratio <= 1"), against="it")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ((9.0, 10.0, 11.0), (10.5, 10.9, 12.0), ["nothing moved beyond its spread"]),
        ((9.0, 10.0, 11.0), (15.0, 20.0, 21.0), ["moved: b / time / it: 1.00 -> 2.00 x (+100 %, WORSE)"]),
        ((9.0, 10.0, 11.0), (4.0, 5.0, 6.0), ["moved: b / time / it: 1.00 -> 0.500 x (-50 %, better)"]),
        ((10.0,), (11.9,), [f"{ONCE}nothing differs by more than 20 %"]),
        ((9.0, 10.0, 11.0), (11.9,), [f"{ONCE}nothing differs by more than 20 %"]),
        ((10.0,), (13.0,), [f"{ONCE}these differ by more than 20 %", "differs: b / time / it: 1.00 -> 1.30 x (+30 %)"]),
    ],
)
def test_only_what_moved_beyond_both_spreads_is_told(
    tmp_path: Path, old: tuple[float, ...], new: tuple[float, ...], said: list[str]
) -> None:
    Report({"cpu": "x"}, [result_of(*old)]).write(tmp_path / "old.json")
    assert compare(load(tmp_path / "old.json"), Report({"cpu": "x"}, [result_of(*new)])) == said


def test_another_machine_new_and_missing_results_are_told() -> None:
    old, new = Report({"cpu": "x"}, [result_of(1.0)]), Report({"cpu": "y"}, [Result.of("b", "other", "s", [1.0])])
    told = compare(old, new)
    assert told[0].startswith("another machine (cpu)")
    assert told[1:] == ["new: b / other", "missing: b / time / it"]


def growing(*points: tuple[float, float], name: str = "envbridge") -> Report:
    return Report({}, curves=[Curve("growth", "cost", "readers", "ms", [Line(name, points)])])


def test_points_of_curves_are_compared_by_x(tmp_path: Path) -> None:
    growing((100, 1.0), (1000, 2.0), (5000, 9.0)).write(tmp_path / "old.json")
    old = load(tmp_path / "old.json")
    assert compare(old, growing((1000, 3.0), (100, 1.2))) == [
        "differs: growth / cost / envbridge, 1 000 readers: 2.00 -> 3.00 ms (+50 %)"
    ]
    assert compare(old, growing((100, 1.2))) == ["no point of a curve differs by more than 25 %"]
    assert compare(old, growing((100, 1.0), name="other")) == ["new: growth / cost / other", "missing: growth / cost / envbridge"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The last line of what a wrong usage is answered with."""
    with pytest.raises(SystemExit, match="2"):
        command.main(arguments)
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "{}",
        "[]",
        "\udcff",
        '{"machine": {}, "results": [{"bench": "b"}]}',
        '{"machine": {}, "results": [], "curves": 1}',
    ],
)
def test_what_is_no_report_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (tmp_path / "old.json").write_bytes(text.encode(errors="surrogateescape"))
    assert f"--compare: {tmp_path}/old.json is no bench.json: " in refusal(capsys, "--compare", str(tmp_path / "old.json"))


def test_a_report_that_cannot_be_read_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refusal(capsys, "--compare", str(tmp_path / "none.json"))
    assert "Is a directory" in refusal(capsys, "--compare", str(tmp_path))


@pytest.mark.parametrize(
    ("quick", "said"), [(True, "of a quick run, this is a full one"), (False, "of a full run, this is a quick")]
)
def test_a_quick_run_is_not_compared_with_a_full_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: bool, said: str
) -> None:
    Report({"quick": quick}).write(tmp_path / "old.json")
    assert said in refusal(capsys, "--compare", str(tmp_path / "old.json"), *([] if quick else ["--quick"]))


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench that costs nothing, and a command that leaves this process as it is."""

    def run(session: Session) -> None:
        session.compare([Measure("t", "time", "ms")], lambda: {"t": 2.0})

    monkeypatch.setattr(command, "found", lambda: {"b": SimpleNamespace(NAME="b", __doc__="`b`: of 100,000.", run=run)})
    monkeypatch.setattr(machine.Cores, "take_load", lambda self: None)
    monkeypatch.setattr(machine, "allow_files", lambda: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("NO_PROXY", "example.org")


@pytest.mark.usefixtures("run_here")
def test_a_report_is_read_before_it_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "bench.json"
    Report({"quick": True}, [Result.of("b", "time", "ms", [1.0])]).write(kept)
    assert command.main(["--quick", "--out", str(tmp_path), "--compare", str(kept)]) == 0
    assert "differs: b / time: 1.00 -> 2.00 ms (+100 %)" in capsys.readouterr().out
    assert load(kept).results[0].ours == 2.0


@pytest.mark.usefixtures("run_here")
def test_a_quick_picture_names_no_full_sizes(tmp_path: Path) -> None:
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
    picture = (tmp_path / "b.svg").read_text()
    assert "b: a smoke test" in picture
    assert "100,000" not in picture


@pytest.mark.usefixtures("run_here")
@pytest.mark.parametrize(
    ("present", "then"), [("", "127.0.0.1,localhost"), ("example.org", "example.org,127.0.0.1,localhost"), ("*", "*")]
)
def test_no_proxy_is_asked_for_what_is_here(monkeypatch: pytest.MonkeyPatch, present: str, then: str) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("NO_PROXY", present)
    machine.bypass_proxies()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == then
