"""From bytes to plain data: both notations, the errors' places, and bombs."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_plugins.sources.file import document
from bridge_plugins.sources.file.document import DocumentError, Number, parse


def load(text: str | bytes, *, is_json: bool = False) -> Any:
    return parse(text.encode() if isinstance(text, str) else text, is_json=is_json)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: text", {"a": "text"}),
        ("a: 8080", {"a": Number("8080")}),
        ("a: '8080'", {"a": "8080"}),
        ("a: 1.10", {"a": Number("1.10")}),
        ("a: 0x1F", {"a": Number("0x1F")}),
        ("a: -1e3", {"a": Number("-1e3")}),
        ("a: [true, False, TRUE]", {"a": [True, False, True]}),
        ("a: [yes, no, on, off, y]", {"a": ["yes", "no", "on", "off", "y"]}),
        ("a: [22:22, 2024-01-01, 1_000, 10.0.0.1, -]", {"a": ["22:22", "2024-01-01", "1_000", "10.0.0.1", "-"]}),
        ("a:\nb: ~\nc: null\nd: 'null'", {"a": None, "b": None, "c": None, "d": "null"}),
        ("a: !!str 12", {"a": "12"}),
        ("80: x\ntrue: y", {"80": "x", "true": "y"}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": "1"}, "c": {"b": "1"}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": "1", "c": "2"}, "d": {"b": "1", "c": "3"}}),
        ("a: {<<: [{b: 1}, {b: 2, c: 3}]}", {"a": {"b": "1", "c": "3"}}),
        ("\ufeffa: b", {"a": "b"}),
        ("---\na: b\n...\n", {"a": "b"}),
        ("services: []", {"services": []}),
    ],
)
def test_yaml_is_read_by_the_core_schema(text: str, value: Any) -> None:
    assert load(text) == value


@pytest.mark.parametrize("text", ["a: 8080", "a: 1.10"])
def test_a_number_is_told_from_text(text: str) -> None:
    assert type(load(text)["a"]) is Number
    assert type(load(text.replace("a: ", 'a: "') + '"')["a"]) is str


def test_json_keeps_the_spelling_of_numbers() -> None:
    value = load('{"a": [1.10, 8080, true, null, "x", 1e5]}', is_json=True)
    assert value == {"a": ["1.10", "8080", True, None, "x", "1e5"]}
    assert [type(each) for each in value["a"]] == [Number, Number, bool, type(None), str, Number]


@pytest.mark.parametrize(
    ("text", "is_json", "told"),
    [
        ("", False, "the file is empty"),
        ("# only a comment\n", False, "the file is empty"),
        ("  \n", True, "the file is empty"),
        ("a: [\n  : :\n", False, "line 2, column"),
        ("a:\n\t- b\n", False, "line 2, column 1: "),
        ("a: 1\nb: 2\na: 3\n", False, "line 3, column 1: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", False, "line 1, column 11: the key 'b' stands twice"),
        ("a: 1\n---\nb: 2\n", False, "line 2, column 1: a second document"),
        ("a: !!python/object:os.system {}", False, "line 1, column 4: the tag"),
        ("a: !secret x", False, "line 1, column 4: the tag '!secret'"),
        ("? [a]\n: b", False, "line 1, column 3: a key must be plain text"),
        ("a: *b", False, "line 1, column 4: the alias 'b' has no anchor"),
        ("a: &a [*a]", False, "line 1, column 8: the alias 'a' has no anchor"),
        ("a: {<<: 5}", False, "line 1, column 5: `<<`"),
        ("a: b\nc: \x07\n", False, "line 2, column 4: a character"),
        ("a: é\nc: é\x01\n", False, "line 2, column 5: a character"),
        (b"a: b\nc: \xff\n", False, "line 2, column 4: not UTF-8"),
        ("a: " + "[" * 40, False, "line 1, column 35: more than 32 collections"),
        ('{"a": 1,\n "b" 2}', True, "line 2, column 6: "),
        ('{"a": 1,\n "a": 2}', True, "line 2, column 2: the key 'a' stands twice"),
        ('{"a": NaN}', True, "NaN is no JSON"),
        ("[" * 100_000, True, "collections within each other"),
        ('{"a": 1} x', True, "line 1, column 10: "),
        ("a: b", True, "line 1, column 1: "),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str | bytes, is_json: bool, told: str) -> None:
    with pytest.raises(DocumentError) as failure:
        load(text, is_json=is_json)
    assert told in str(failure.value)


def test_aliases_cannot_stand_for_billions() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(DocumentError, match="stand for more than"):
        load("\n".join(lines))


def test_many_aliases_of_something_small_are_fine() -> None:
    assert len(load("m: &m {team: x}\nall: [" + ", ".join(["*m"] * 20_000) + "]")["all"]) == 20_000


def test_a_file_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "SIZE_LIMIT", 10)
    with pytest.raises(DocumentError, match="larger than"):
        load("a: 123456789")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_what_json_wrote_is_read_back(value: Any) -> None:
    assert load(json.dumps(value, ensure_ascii=False).encode("utf-8"), is_json=True) == value


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")), st.booleans())
def test_garbage_is_an_error_of_the_document_or_plain_data(data: bytes, is_json: bool) -> None:
    with contextlib.suppress(DocumentError):
        parse(data, is_json=is_json)
