from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from bridge.host.telemetry import OURS, JsonFormatter, TextFormatter, configure_logging
from bridge.text import UNSAFE, name_problem, safe_text

HOSTILE = "a\nb\r\x1b[31m\x7f\x85\u2028\u202e\ud800"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Account(BaseModel):
    user: str
    password: SecretStr


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in ("", *OURS)}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)


def record(event: str = "source listed", *args: object, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("bridge.sync", level, __file__, 1, event, args, None)
    made.created = 1700000000.0625
    vars(made).update(fields)
    return made


def as_json(made: logging.LogRecord) -> Any:
    return json.loads(JsonFormatter().format(made))


def test_a_line_of_json_begins_with_the_stable_keys() -> None:
    line = JsonFormatter().format(record(source="web", instances=3))
    assert line.startswith('{"ts":"2023-11-14T22:13:20.062Z","level":"info","logger":"bridge.sync","event":"source listed",')
    assert line.endswith('"source":"web","instances":3}')


def test_a_line_of_text_has_the_same_in_the_same_order() -> None:
    line = TextFormatter().format(record(source="web", reason="no answer", level=logging.WARNING))
    assert line == '2023-11-14T22:13:20.062Z WARNING bridge.sync: source listed source=web reason="no answer"'


@pytest.mark.parametrize(
    ("value", "in_json", "in_text"),
    [
        (None, None, "null"),
        (True, True, "true"),
        (1.5, 1.5, "1.5"),
        (float("nan"), "nan", "nan"),
        ("", "", '""'),
        ("a=b", "a=b", '"a=b"'),
        ('a"b', 'a"b', '"a\\"b"'),
        ("10.0.0.1:80", "10.0.0.1:80", "10.0.0.1:80"),
        ("zürich", "zürich", "zürich"),
        (["a", 1], ["a", 1], '["a", 1]'),
        ({"a": ("b",)}, {"a": ["b"]}, '{"a": ["b"]}'),
        (ValueError("no"), "ValueError: no", '"ValueError: no"'),
        (TimeoutError(), "TimeoutError", "TimeoutError"),
        (SecretStr("hunter2"), "**********", "**********"),
        (Account(user="a", password=SecretStr("hunter2")), "user='a' password=SecretStr('**********')", None),
        ([SecretStr("hunter2")], ["**********"], '["**********"]'),
        ([[[[[["deep"]]]]]], [[[["[['deep']]"]]]], None),
        ("x" * 9000, "x" * 8192 + "... (9000 characters)", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_values_of_fields(value: object, in_json: object, in_text: str | None) -> None:
    assert as_json(record(field=value))["field"] == in_json
    if in_text is not None:
        assert TextFormatter().format(record(field=value)).endswith(f" field={in_text}")


def test_a_field_cannot_take_the_place_of_a_key() -> None:
    made = record()
    vars(made).update(ts="forged", level="forged", event="forged")
    line = as_json(made)
    assert line["event"] == "source listed"
    assert line["ts_"] == line["level_"] == line["event_"] == "forged"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
@given(text=st.text() | st.just(HOSTILE) | st.text(alphabet=HOSTILE + '=" '))
def test_no_text_starts_a_line_or_reaches_the_terminal_raw(formatter: logging.Formatter, text: str) -> None:
    line = formatter.format(record(text, field=text, nested={text: [text]}, error=ValueError(text)))
    assert not UNSAFE.search(line)


@given(text=st.text())
def test_json_keeps_the_value(text: str) -> None:
    assert as_json(record(field=text))["field"] == text


def test_a_field_cannot_pass_for_others_in_text() -> None:
    line = TextFormatter().format(record(source='web level=error x="', next="y"))
    assert re.findall(r" (\w+)=", re.sub(r'"(?:[^"\\]|\\.)*"', "", line)) == ["source", "next"]


def test_an_exception_is_on_the_same_line() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        made = record("defect")
        made.exc_info = (type(error), error, error.__traceback__)
    for formatter in (JsonFormatter(), TextFormatter()):
        assert not UNSAFE.search(formatter.format(made))
    line = as_json(made)
    assert line["error"].startswith("ValueError: a\nb")
    assert "Traceback" in line["stack"]


def test_arguments_that_do_not_fit_the_message_cost_nothing() -> None:
    assert as_json(record("%d and %d", "x"))["event"] == "%d and %d"


@pytest.mark.parametrize(
    ("format", "stream", "is_json"),
    [("auto", io.StringIO, True), ("auto", Terminal, False), ("json", Terminal, True), ("text", io.StringIO, False)],
)
@pytest.mark.usefixtures("logging_as_before")
def test_the_format_is_configured_or_follows_the_terminal(format: Any, stream: type[io.StringIO], is_json: bool) -> None:
    out = stream()
    configure_logging(format, "info", out)
    logging.getLogger("bridge.test").info("hello", extra={"a": 1})
    assert out.getvalue().startswith("{") is is_json
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["ours debug", "ours warning", "plugin debug", "library warning"]),
        ("info", ["ours warning", "library warning"]),
        ("error", []),
    ],
)
@pytest.mark.usefixtures("logging_as_before")
def test_libraries_never_log_below_warnings(level: Any, shown: list[str]) -> None:
    out = io.StringIO()
    configure_logging("json", level, out)
    logging.getLogger("bridge.test").debug("ours debug")
    logging.getLogger("bridge.test").warning("ours warning")
    logging.getLogger("bridge_plugins.sources.file").debug("plugin debug")
    logging.getLogger("botocore.endpoint").debug("library debug")
    logging.getLogger("urllib3").info("library info")
    logging.getLogger("botocore.endpoint").warning("library warning")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == shown


@pytest.mark.usefixtures("logging_as_before")
def test_setting_up_again_replaces_the_former() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("json", "info", first)
    configure_logging("json", "info", second)
    logging.getLogger("bridge").info("once")
    assert (first.getvalue().count("\n"), second.getvalue().count("\n")) == (0, 1)


@pytest.mark.usefixtures("logging_as_before")
def test_warnings_are_lines_like_others() -> None:
    out = io.StringIO()
    configure_logging("json", "info", out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nthing", stacklevel=1)
    assert json.loads(out.getvalue())["logger"] == "py.warnings"


@pytest.mark.usefixtures("logging_as_before")
def test_a_stream_that_is_gone_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    configure_logging("json", "info", out)
    out.close()
    logging.getLogger("bridge").info("into the void", extra={"secret": "hunter2"})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("", ""),
        ("plain é 日本 \u00a0", "plain é 日本 \u00a0"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x00\x7f\x9b", "\\x1b[2J\\x00\\x7f\\x9b"),
        ("\u202eabc\u2066\u200f\u061c", "\\u202eabc\\u2066\\u200f\\u061c"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800", "\\ud800"),
        ("\\n", "\\n"),
        ("👩\u200d💻", "👩\u200d💻"),
    ],
)
def test_safe_text(text: str, safe: str) -> None:
    assert safe_text(text) == safe
    assert safe_text(safe) == safe


@given(st.text(alphabet=st.characters()))
def test_safe_text_leaves_nothing_unsafe(text: str) -> None:
    assert not UNSAFE.search(safe_text(text))
    safe_text(text).encode()


@pytest.mark.parametrize("name", ["eu", "a.b", "日本", "x" * 255, "é" * 127, "a b", "\u202e"])
def test_good_names(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("a/b", "`/`"),
        ("a\n", "control"),
        ("\x7f", "control"),
        ("x" * 256, "256"),
        ("é" * 128, "256"),
        ("\ud800", "Unicode"),
    ],
)
def test_bad_names(name: str, problem: str) -> None:
    assert problem in (name_problem(name) or "")
