"""The pure functions that make tables."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_bridge import instance

from bridge.cli import output, tables


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0, "0ms"),
        (999, "999ms"),
        (1000, "1s"),
        (119_000, "119s"),
        (120_000, "2m"),
        (7_200_000, "2h"),
        (172_800_000, "2d"),
    ],
)
def test_durations_are_short(milliseconds: int | None, text: str) -> None:
    assert tables.duration(milliseconds) == text


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ([], ""),
        (None, ""),
        ([{"name": "http", "port": 80}], "http:80"),
        ([{"name": None, "port": 53, "protocol": "UDP"}, {"name": "a", "port": 1, "protocol": "TCP"}], "53/UDP, a:1"),
    ],
)
def test_ports_name_what_is_not_usual(listed: Any, text: str) -> None:
    assert tables.ports(listed) == text


@pytest.mark.parametrize(
    ("changes", "text", "colour"),
    [
        ({}, "ready", "green"),
        ({"health": "unready"}, "unready", "red"),
        ({"health": "unknown"}, "unknown", "yellow"),
        ({"lifecycle": "draining"}, "ready, draining", "yellow"),
        ({"state": "down"}, "ready, down", "red"),
        ({"state": "expired"}, "ready, expired", "yellow"),
    ],
)
def test_a_status_has_the_colour_of_its_worst_part(changes: dict[str, str], text: str, colour: str) -> None:
    shown = tables.state(tables.instance_status(instance(**changes)))
    assert (shown.plain, shown.style) == (text, colour)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"state": "synced", "rejected": 1, "last_error": "a.yaml: broken"}, "1 rejected: a.yaml: broken"),
        ({"state": "stale", "rejected": 3, "last_error": "a.yaml: broken"}, "3 rejected, the first: a.yaml: broken"),
        ({"state": "failed", "rejected": 3, "last_error": "refused"}, "refused"),
        ({"state": "forbidden", "rejected": 1, "last_error": "denied"}, "denied"),
        ({"state": "synced", "rejected": 0, "last_error": None}, "-"),
        (
            {"state": "synced", "rejected": 1, "held_reason": "all would go", "last_error": "broken"},
            "all would go; 1 rejected: broken",
        ),
    ],
)
def test_a_rejection_does_not_read_as_a_failure(source: dict[str, Any], told: str) -> None:
    document = [{"name": "eu", "state": "live", "sources": [{"name": "paper"} | source]}]
    (sheet,) = tables.environments(document, True)
    assert sheet.rows[0][-1].plain == told


def test_a_hostname_stands_in_for_addresses() -> None:
    assert tables.where(instance(addresses=[], hostname="web.example.org")) == "web.example.org"


def test_what_a_pipe_reads_is_never_cut_or_padded() -> None:
    long = "x" * 5000
    text = tables.render([tables.table(["A", "B"], [[long, ""], ["", long]])], colour=False, width=None)
    head, first, second = text.splitlines()
    assert first.split() == [long, "-"]
    assert second.endswith(long)
    assert head == head.rstrip()


@pytest.mark.parametrize("width", [30, 50, 80, 81, 200])
def test_a_terminal_is_never_exceeded_and_no_word_is_wrapped(width: int) -> None:
    rows = [["eu-west-1", "10.20.30.40, fd00::1234", "ready, draining", "x" * 100], ["us", "-", "ready", "web"]]
    text = tables.render([tables.table(["ENVIRONMENT", "ADDRESSES", "STATUS", "ID"], rows)], colour=False, width=width)
    lines = text.splitlines()
    assert len(lines) == 3  # a row is a line
    assert max(map(len, lines)) <= width
    assert (lines[1][-1] == "\u2026") is (width < 160)


def test_what_decides_is_cut_last() -> None:
    rows = [["x" * 40, "unready, draining", "y" * 40]]
    text = tables.render([tables.table(["ADDRESSES", "STATUS", "ID"], rows)], colour=False, width=50)
    assert "unready, draining" in text


def test_reasons_wrap_between_words() -> None:
    reason = "the server is not reachable from here as nothing answers"
    lines = tables.render([tables.table(["NAME", "REASON"], [["paper", reason]])], colour=False, width=40).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(line[7:].strip() for line in lines[1:]) == reason


@pytest.mark.parametrize("title", ["", "sources"])
@pytest.mark.parametrize("columns", [["NAME", "漢字"], []])
def test_a_pipe_reads_what_a_wide_terminal_shows(columns: list[str], title: str) -> None:
    sheet = tables.table(columns, [["漢", "a b"], [None, 3], ["x" * 40, ""]], title=title)
    assert tables.render([sheet, sheet], colour=False, width=None) == tables.render([sheet, sheet], colour=False, width=500)


def test_an_empty_table_is_its_head() -> None:
    assert tables.render([tables.table(["A", "B"], [])], colour=False, width=None) == "A  B\n"
    assert tables.render([tables.table([], [])], colour=False, width=None) == ""


def test_colours_only_where_asked() -> None:
    part = tables.instances({"instances": [instance()]}, False)
    assert "\x1b[" not in tables.render(part, colour=False, width=80)
    assert "\x1b[32m" in tables.render(part, colour=True, width=None)


def test_markup_is_text() -> None:
    text = tables.render([tables.table(["[red]H"], [["[link=x]y[/link]"]], title="[b]t")], colour=True, width=None)
    assert "[red]H" in text
    assert "[link=x]y[/link]" in text
    assert "[b]t" in text


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_no_color_is_honoured(
    terminal: bool, environment: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert output.coloured() is expected
    assert output.paint("x", "red") == ("\x1b[31mx\x1b[0m" if expected else "x")


@pytest.mark.parametrize("text", ["\x7f", "\x9b", "\u202e", "é", "\ud800", "\n"])
def test_json_and_yaml_are_printable_ascii_on_one_value(text: str) -> None:
    for shown in (output.to_json({"k": text}), output.to_yaml({"k": text})):
        assert shown.isascii()
        assert all(character.isprintable() or character == "\n" for character in shown)
