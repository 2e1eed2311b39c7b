"""From a file's bytes to plain data. Pure, and safe on bytes that nobody vouches for.

YAML is read as events, never as a tree of nodes: at 100,000 instances the nodes alone would take a gigabyte. Scalars
are those of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema), of which JSON is a part: ``no`` and
``22:22`` are text, and a number keeps the spelling it was written with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

SIZE_LIMIT = 64 * 1024 * 1024
"""Bytes of one file. 100,000 instances take about 20 MiB."""

DEPTH_LIMIT = 32
"""YAML collections within each other. The format needs seven."""

ALIASED_LIMIT = 5_000_000
"""Values that the aliases of one file stand for, together: a few lines can stand for billions."""

Value = Any
"""None, bool, `Number`, str, or a list or dict (with text as keys) of these."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_START = frozenset("0123456789+-.")
_NUMBER = re.compile(
    r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
    r"|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"


class Number(str):
    """A number as it was written (``8080``, ``1.10``): nothing is lost where it is wanted as text."""

    __slots__ = ()


class DocumentError(Exception):
    """The file cannot be read as a whole; the text has the line and the column where there are any."""


def parse(data: bytes, *, is_json: bool) -> Value:
    """The one document in ``data``, UTF-8.

    Raises DocumentError when it is none, is too large, has a key twice, or expands to more than the limits allow.
    """
    if len(data) > SIZE_LIMIT:
        raise DocumentError(f"larger than {SIZE_LIMIT // 1024 // 1024} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _at(data.count(b"\n", 0, error.start), error.start - data.rfind(b"\n", 0, error.start) - 1, "not UTF-8") from None
    del data
    return _parse_json(text) if is_json else _parse_yaml(text)


def _at(line: int, column: int, problem: str) -> DocumentError:
    """An error at a place counted from 0, told as editors count: from 1."""
    return DocumentError(f"line {line + 1}, column {column + 1}: {problem}")


# --- JSON ---


class _DuplicateKeyError(Exception):
    """Holds the key."""


def _parse_json(text: str) -> Value:
    if not text.strip():
        raise DocumentError("the file is empty")
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_no_constant,
        )
    except json.JSONDecodeError as error:
        raise _at(error.lineno - 1, error.colno - 1, error.msg) from None
    except RecursionError:
        raise DocumentError("too many collections within each other") from None
    except _DuplicateKeyError as error:
        # The JSON decoder does not say where. JSON is YAML, whose reader does.
        _parse_yaml(text)
        raise DocumentError(f"the key {_quote(str(error))} stands twice") from None


def _unique(pairs: list[tuple[str, Value]]) -> dict[str, Value]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKeyError(key)
            seen.add(key)
    return mapping


def _no_constant(name: str) -> NoReturn:
    raise DocumentError(f"{name} is no JSON")


# --- YAML ---


def _parse_yaml(text: str) -> Value:
    builder = _Builder(yaml.parse(text, Loader=_LOADER))
    try:
        return builder.document()
    except yaml.reader.ReaderError as error:  # its position counts bytes or characters, by the parser in use
        raise _at(*_place_of(text, error.character), "a character that YAML does not allow") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise _at(mark.line, mark.column, problem) if mark else DocumentError(problem) from None
    except yaml.YAMLError as error:
        raise DocumentError(str(error)) from None


def _place_of(text: str, character: object) -> tuple[int, int]:
    """Line and column of the first ``character`` (its number, or itself)."""
    found = text.find(chr(character) if isinstance(character, int) else str(character))
    offset = max(found, 0)
    return text.count("\n", 0, offset), offset - text.rfind("\n", 0, offset) - 1


class _Builder:
    """Builds plain data from a stream of YAML events."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Value, int]] = {}
        self._values = 0
        self._aliased = 0
        self._texts: dict[str, str] = {}
        self._numbers: dict[str, Number] = {}

    def document(self) -> Value:
        next(self._events)  # the stream's start
        if type(next(self._events)) is not yaml.DocumentStartEvent:
            raise DocumentError("the file is empty")
        value = self._value(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if type(event) is not yaml.StreamEndEvent:
            raise _error(event, "a second document starts; a file holds one")
        return value

    def _value(self, event: Any, depth: int) -> Value:
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._alias(event)
        anchor = event.anchor
        before = self._values
        self._values += 1
        value: Value
        if kind is yaml.ScalarEvent:
            value = self._scalar(event)
        elif depth >= DEPTH_LIMIT:
            raise _error(event, f"more than {DEPTH_LIMIT} collections within each other")
        elif kind is yaml.MappingStartEvent:
            value = self._mapping(event, depth + 1)
        else:
            value = self._sequence(event, depth + 1)
        if anchor is not None:
            self._anchors[anchor] = (value, self._values - before)
        return value

    def _alias(self, event: Any) -> Value:
        known = self._anchors.get(event.anchor)
        if known is None:
            raise _error(event, f"the alias {_quote(event.anchor)} has no anchor before it")
        value, size = known
        self._values += size
        self._aliased += size
        if self._aliased > ALIASED_LIMIT:
            raise _error(event, f"the aliases stand for more than {ALIASED_LIMIT} values")
        return value

    def _sequence(self, event: Any, depth: int) -> list[Value]:
        _only_tag(event, "seq")
        items: list[Value] = []
        events = self._events
        while type(event := next(events)) is not yaml.SequenceEndEvent:
            items.append(self._value(event, depth))
        return items

    def _mapping(self, event: Any, depth: int) -> dict[str, Value]:
        _only_tag(event, "map")
        mapping: dict[str, Value] = {}
        merged: list[Value] = []
        texts = self._texts
        events = self._events
        while type(event := next(events)) is not yaml.MappingEndEvent:
            if type(event) is not yaml.ScalarEvent:
                raise _error(event, "a key must be plain text")
            key = texts.setdefault(event.value, event.value)
            if key == _MERGE and event.implicit[0]:
                merged.append((event, self._value(next(events), depth)))
                continue
            if key in mapping:
                raise _error(event, f"the key {_quote(key)} stands twice")
            event = next(events)
            if type(event) is yaml.ScalarEvent and event.anchor is None:  # nearly always
                self._values += 1
                mapping[key] = self._scalar(event)
            else:
                mapping[key] = self._value(event, depth)
        for place, value in merged:
            self._merge(place, mapping, value)
        return mapping

    def _merge(self, place: Any, mapping: dict[str, Value], value: Value) -> None:
        """The merge key (https://yaml.org/type/merge.html): what a mapping lacks it takes from others, the first first."""
        for other in value if isinstance(value, list) else [value]:
            if not isinstance(other, dict):
                raise _error(place, "`<<` takes a mapping, or a list of mappings")
            for key, inherited in other.items():
                mapping.setdefault(key, inherited)

    def _scalar(self, event: Any) -> Value:
        text: str = event.value
        if event.implicit[0]:  # written plainly: without quotes, without a tag
            if text in _CONSTANTS:
                return _CONSTANTS[text]
            if text[0] in _NUMBER_START and _NUMBER.fullmatch(text):
                return self._numbers.get(text) or self._numbers.setdefault(text, Number(text))
        elif event.tag not in (None, "!", _TAG + "str"):
            raise _error(event, f"the tag {_quote(event.tag)} is not supported")
        return self._texts.setdefault(text, text)


def _only_tag(event: Any, name: str) -> None:
    if event.tag not in (None, "!", _TAG + name):
        raise _error(event, f"the tag {_quote(event.tag)} is not supported")


def _error(event: Any, problem: str) -> DocumentError:
    return _at(event.start_mark.line, event.start_mark.column, problem)


def _quote(text: str) -> str:
    """Untrusted text for a message: one line, and short."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
