"""A YAML document as plain data, read so that every mistake has a place and nothing is guessed.

Scalars follow YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): ``no``, ``on`` and dates are text.
Keys are always text. A number with a fraction stays text, too: whether it is a number, a version or a duration without
its unit is for the field to say, and pydantic reads it where a number is wanted.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from bridge.errors import ConfigError, Mistake
from bridge.host.mistakes import Path, render

LONGEST = 1 << 20
"""Characters of a configuration."""

_MOST_VALUES = 100_000
_DEEPEST = 32

_TAG = "tag:yaml.org,2002:"
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class _Loader(yaml.SafeLoader):
    """Composes nodes; its implicit types are those of the core schema that `_Builder` knows."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own way to replace them


_Loader.add_implicit_resolver(_TAG + "bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "int", re.compile("^[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "merge", re.compile("^<<$"), ["<"])


def read_document(text: str) -> tuple[Any, list[Mistake]]:
    """The document and the mistakes that leave it readable: duplicate keys, unknown tags, too much of anything.

    Raises ConfigError with one mistake, with line and column, where it is no YAML at all.
    """
    if len(text) > LONGEST:
        remedy = "Move services into files of a `file` source."
        raise _unreadable("configuration", f"the file has more than {LONGEST} characters", remedy)
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "configuration"
        what = ", ".join(part for part in (error.context, error.problem) if part)
        lines = text.splitlines()
        reference = mark is not None and mark.line < len(lines) and "${" in lines[mark.line]
        remedy = "Inside { } or [ ], put text with ${...} in quotes." if reference else "Correct the text there, or just before."
        raise _unreadable(place, f"this is no YAML: {what}", remedy) from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = f"line {before.count(chr(10)) + 1}, column {error.position - before.rfind(chr(10))}"
        remedy = "Remove it, or write it as an escape in double quotes."
        raise _unreadable(place, "this character is not allowed in YAML", remedy) from error
    except (RecursionError, ValueError, OverflowError) as error:  # PyYAML's own limits: nesting, escapes such as \UFFFFFFFF
        problem = "this YAML is nested too deeply or has an impossible escape"
        raise _unreadable("configuration", problem, "Write it simpler.") from error
    if node is None:
        return {}, []
    builder = _Builder()
    return builder.build(node, ()), builder.mistakes


class _Builder:
    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.values = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.values += 1
        if self.values > _MOST_VALUES or len(path) > _DEEPEST:
            # An alias may stand for itself, or for a billion others: the document ends here.
            problem = "the document is too large or too deep once its aliases are filled in"
            raise _unreadable(_place(node), problem, "Use fewer aliases.")
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._mistake(path, f"the tag `{node.tag}` on line {_line(node)} is not supported", "Remove the tag.")
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged = self._merged(value_node, path) | merged
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._mistake(path, f"the key on line {_line(key_node)} is no text", "Write a plain word as the key.")
                continue
            key = self._text(key_node, path)
            if key in lines:
                problem = f"the key is there twice, on lines {lines[key]} and {_line(key_node)}"
                self._mistake((*path, key), problem, "Keep one of them.")
                continue
            lines[key] = _line(key_node)
            result[key] = self.build(value_node, (*path, key))
        return merged | result

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """What a ``<<`` brings in: a mapping or a list of them, the first of which wins (https://yaml.org/type/merge.html)."""
        built = self.build(node, (*path, "<<"))
        parts = built if isinstance(built, list) else [built]
        if not all(isinstance(part, dict) for part in parts):
            self._mistake(path, f"the `<<` on line {_line(node)} is no mapping", "Give it an alias of a mapping.")
            return {}
        return {key: value for part in reversed(parts) for key, value in part.items()}

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        match node.tag.removeprefix(_TAG):
            case "str":
                return self._text(node, path)
            case "null":
                return None
            case "bool" if node.value in _BOOLS:
                return _BOOLS[node.value]
            case "int" if re.fullmatch("[-+]?[0-9]{1,18}", node.value):
                return int(node.value)
            case _:
                self._mistake(path, f"the tag `{node.tag}` on line {_line(node)} is not supported here", "Remove the tag.")
                return None

    def _text(self, node: yaml.ScalarNode, path: Path) -> str:
        text = str(node.value)
        try:
            text.encode()
        except UnicodeEncodeError:
            self._mistake(path, f"the text on line {_line(node)} is no valid Unicode", "Correct its escapes.")
            return ""
        return text

    def _mistake(self, path: Path, message: str, remedy: str) -> None:
        self.mistakes.append(Mistake(render(path), message, remedy))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _place(node: yaml.Node) -> str:
    return f"line {_line(node)}, column {node.start_mark.column + 1}"


def _unreadable(place: str, message: str, remedy: str) -> ConfigError:
    return ConfigError((Mistake(place, message, remedy),))
