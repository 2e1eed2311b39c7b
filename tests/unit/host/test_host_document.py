from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.host.document import LONGEST, read_document
from bridge.host.interpolate import interpolate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# nothing", {}),
        ("a: 1", {"a": 1}),
        ("a: -0\nb: 007\nc: 0x1f\nd: 1_000\ne: 12:30", {"a": 0, "b": "007", "c": "0x1f", "d": "1_000", "e": "12:30"}),
        ("a: 123456789012345678901234567890", {"a": "123456789012345678901234567890"}),
        ("a: 1.10\nb: 1e3\nc: .inf", {"a": "1.10", "b": "1e3", "c": ".inf"}),
        ("a: true\nb: off\nc: Yes\nd: FALSE", {"a": True, "b": "off", "c": "Yes", "d": False}),
        ("a:\nb: ~\nc: null\nd: ''", {"a": None, "b": None, "c": None, "d": ""}),
        ("1: a\ntrue: b\n~: c\n1.5: d", {"1": "a", "true": "b", "~": "c", "1.5": "d"}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("a: !!str 1\nb: !!int '2'", {"a": "1", "b": 2}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("b: {<<: [{p: 1}, {p: 2, q: 2}]}", {"b": {"p": 1, "q": 2}}),
        ("a: ' << '\n'<<': 1", {"a": " << ", "<<": 1}),
        ('{"a": [1, "b\\u00e9"]}', {"a": [1, "b\u00e9"]}),
    ],
)
def test_scalars_follow_the_core_schema_and_keys_are_text(text: str, expected: Any) -> None:
    assert read_document(text) == (expected, [])


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("a: 1\nb: 2\na: 3", "a", "lines 1 and 3"),
        ("s:\n  - x\n  - a: 1\n    a: 2", "s[1].a", "lines 3 and 4"),
        ("'1': a\n1: b", "1", "lines 1 and 2"),
        ("? [a]\n: 1", "configuration", "the key on line 1 is no text"),
        ("a: !!python/object:os.system x", "a", "the tag `tag:yaml.org,2002:python/object:os.system`"),
        ("a: !!binary aGVsbG8=", "a", "not supported"),
        ("a: !!int x", "a", "not supported"),
        ("a: !!set {b}", "a", "not supported"),
        ("a: !mine [1]", "a", "the tag `!mine` on line 1"),
        ("a: {<<: 5}", "a", "the `<<` on line 1 is no mapping"),
        ('a: "\\ud800"', "a", "no valid Unicode"),
        ('"\\udfff": 1', "configuration", "no valid Unicode"),
    ],
)
def test_what_leaves_the_rest_readable_is_told_beside_it(text: str, path: str, message: str) -> None:
    data, mistakes = read_document(text)
    assert isinstance(data, dict)
    (mistake,) = mistakes
    assert mistake.path == path
    assert message in mistake.message


NESTED = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("a: [1", "line 1, column 6", "this is no YAML"),
        ("a: b: c", "line 1, column 5", "mapping values are not allowed here"),
        ("a: 1\n\tb: 2", "line 2, column 1", "this is no YAML"),
        ("a: 1\n---\nb: 2", "line 2, column 1", "expected a single document"),
        ("a: *x", "line 1, column 4", "undefined alias"),
        ("a: 1\nb: \x07", "line 2, column 4", "not allowed in YAML"),
        ("\x00", "line 1, column 1", "not allowed in YAML"),
        ("%YAML 9.9\n---\na", "line 1, column 1", "this is no YAML"),
        ('a: "\\U7fffffff"', "configuration", "impossible escape"),
        ("[" * 2000, "configuration", "nested too deeply"),
        ("a: &a [*a]", "line 1, column 4", "too large or too deep"),
        (NESTED, None, "too large or too deep"),
        ("a" * (LONGEST + 1), "configuration", "more than"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_document_is_one_mistake_with_its_place(text: str, path: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_document(text)
    (mistake,) = caught.value.mistakes
    assert path is None or mistake.path == path
    assert message in mistake.message


def test_a_reference_in_braces_without_quotes_is_explained() -> None:
    with pytest.raises(ConfigError) as caught:
        read_document("a: {b: ${C}}")
    assert "in quotes" in caught.value.mistakes[0].remedy


ENV = {"A": "1", "EMPTY": "", "NESTED": "${A}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("$A", "$A"),
        ("$", "$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${NONE:-}", ""),
        ("${NONE:-a b:-$c}", "a b:-$c"),
        ("${NESTED}", "${A}"),
        ("{name}$", "{name}$"),
    ],
)
def test_references_are_filled_in(text: str, expected: str) -> None:
    assert interpolate({"k": [text, 5, None, True]}, ENV) == ({"k": [expected, 5, None, True]}, [])


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("${NONE}", ["the environment variable NONE is not set"]),
        ("${NONE}${A}${OTHER}", ["the environment variable NONE is not set", "the environment variable OTHER is not set"]),
        ("${", ["a `${` is not followed by a variable's name and `}`"]),
        ("${1}", ["a `${` is not followed by a variable's name and `}`"]),
        ("${A", ["a `${` is not followed by a variable's name and `}`"]),
        ("${A-b}", ["a `${` is not followed by a variable's name and `}`"]),
    ],
)
def test_references_that_cannot_be_filled_in_are_mistakes(text: str, messages: list[str]) -> None:
    _, mistakes = interpolate({"k": [text]}, ENV)
    assert [mistake.message for mistake in mistakes] == messages
    assert {mistake.path for mistake in mistakes} == {"k[0]"}


def test_keys_are_left_alone() -> None:
    assert interpolate({"${A}": "x"}, ENV) == ({"${A}": "x"}, [])
