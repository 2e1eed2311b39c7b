"""From what pydantic finds to what a person can act on: a path, what is wrong and what stands there, what to do.

A value is shown as it was written, before references were filled in, and never where it is, or may carry, a secret.

A validator that raises ``ValueError("problem; Remedy.")`` decides both texts; anything else gets the field's description as
its remedy. Every key of a configuration therefore has a description.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bridge.contracts import Guard
from bridge.errors import Mistake
from bridge.text import safe_text

Path = tuple[str | int, ...]

_PLAIN_KEY = re.compile(r"[\w-]+")
_LONGEST_VALUE = 60

_WORDS: dict[type[BaseModel], tuple[str, ...]] = {Guard: ("off",)}
"""Words that may stand where a mapping is expected."""

_TEXTS: dict[str, tuple[str, str]] = {
    "string_type": ("must be text", ""),
    "string_unicode": ("must be valid Unicode", ""),
    "int_type": ("must be a whole number", ""),
    "int_parsing": ("must be a whole number", ""),
    "int_parsing_size": ("must be a smaller whole number", ""),
    "int_from_float": ("must be a whole number", ""),
    "float_type": ("must be a number", ""),
    "float_parsing": ("must be a number", ""),
    "finite_number": ("must be a finite number", ""),
    "bool_type": ("must be true or false", ""),
    "bool_parsing": ("must be true or false", ""),
    "dict_type": ("must be a mapping", "Write `key: value` lines below it."),
    "model_type": ("must be a mapping", "Write `key: value` lines below it."),
    "model_attributes_type": ("must be a mapping", "Write `key: value` lines below it."),
    "list_type": ("must be a list", "Write it as [a, b]."),
    "tuple_type": ("must be a list", "Write it as [a, b]."),
    "set_type": ("must be a list", "Write it as [a, b]."),
    "path_type": ("must be a path, which is text", ""),
    "greater_than": ("must be more than {gt}", ""),
    "greater_than_equal": ("must be {ge} or more", ""),
    "less_than": ("must be less than {lt}", ""),
    "less_than_equal": ("must be {le} or less", ""),
    "string_too_short": ("needs {min_length} or more characters", ""),
    "string_too_long": ("can have no more than {max_length} characters", ""),
    "string_pattern_mismatch": ("does not have the form {pattern}", ""),
    "too_short": ("needs {min_length} or more entries", ""),
    "too_long": ("can have no more than {max_length} entries", ""),
    "union_tag_not_found": ("lacks the key {discriminator}", ""),
    "url_parsing": ("must be a URL", ""),
}

_WITHOUT_VALUE = ("is missing", "there is no such key")


def render(path: Path) -> str:
    """The path as people write it: ``sources.web.relabel[0].to``; a key that is no plain word as ``["shop.local"]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f'["{safe_text(part)}"]'
    return text or "configuration"


def safe(mistake: Mistake) -> Mistake:
    """The mistake fit for a terminal, whatever text it quotes."""
    return Mistake(*map(safe_text, mistake))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that comes nearest to ``word``, whatever the case of either; None where none comes near."""
    by_case = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(word.casefold(), list(by_case), 1)
    return by_case[near[0]] if near else None


def near_match(word: str, known: Iterable[str]) -> str:
    """``Did you mean `refresh`? `` with a blank behind it, or nothing."""
    near = nearest(word, known)
    return f"Did you mean `{near}`? " if near is not None else ""


def from_pydantic(
    error: ValidationError, model: type[BaseModel], data: object, prefix: Path = (), *, written: object = None
) -> list[Mistake]:
    """One mistake for each place; what several alternatives of one field complain of is one mistake.

    model, data: what was validated against what; ``prefix`` is where that lies in the whole configuration.
    written: the whole configuration before references were filled in, to show values from; ``data`` where there is none.
    """
    places: dict[Path, list[Mistake]] = {}
    for item in error.errors(include_url=False):
        path = _place(item["loc"], model, data)
        places.setdefault(path, []).append(_translate(item, path, model, render(prefix + path)))
    merged = []
    for path, mistakes in places.items():
        if _only_short(mistakes) and any(len(path) < len(other) and other[: len(path)] == path for other in places):
            continue  # pydantic counts the valid entries alone, and the others have mistakes of their own
        value = "" if _is_secret(model, path) else _quoted(data, path) if written is None else _quoted(written, prefix + path)
        merged.append(_merge(mistakes, value))
    return merged


def show(value: object) -> str:
    """A value in backticks, as it is written in YAML.

    ``""`` where it is none to quote: no scalar, empty, long, or with an ``@``, before which credentials stand.
    """
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if not isinstance(value, str | int | float):
        return ""
    text = str(value)
    return "" if not text or len(text) > _LONGEST_VALUE or "@" in text else f"`{text}`"


def tells(unset: Iterable[Mistake], mistake: Mistake) -> bool:
    """Whether ``mistake`` may only be there because a reference, at its place or below it, is ``unset``, which was told.

    The keys of one list entry (a rule) depend on each other: there, one reference may spoil them all.
    """
    for other in unset:
        beyond = other.path.removeprefix(mistake.path)
        if other.path.startswith(mistake.path) and beyond[:1] in ("", ".", "["):
            return True
        entry, _, key = other.path.rpartition(".")
        if entry.endswith("]") and key and mistake.path.startswith(f"{entry}."):
            return True
    return False


def fields_at(model: Any, path: Path) -> dict[str, FieldInfo]:
    """The keys that may stand in the mapping at ``path`` below ``model``; none where it is no model's mapping."""
    return {field.alias or name: field for one in _models_at(model, path) for name, field in one.model_fields.items()}


def without_nulls(model: Any, data: object) -> object:
    """The data without keys of models that have no value: ``guard:`` with nothing behind it is the default, not "off"."""
    if isinstance(data, list):
        return [without_nulls(_union(_below(model, index)), item) for index, item in enumerate(data)]
    if not isinstance(data, Mapping):
        return data
    known = fields_at(model, ())
    kept = {key: value for key, value in data.items() if value is not None or key not in known}
    return {key: without_nulls(_union(_below(model, key)), value) for key, value in kept.items()}


def _translate(item: ErrorDetails, path: Path, model: type[BaseModel], at: str) -> Mistake:
    kind, context = item["type"], item.get("ctx", {})
    siblings = fields_at(model, path[:-1])
    if kind == "extra_forbidden":
        listed = f"The keys here are: {', '.join(siblings)}."
        return Mistake(at, "there is no such key", near_match(str(path[-1]), siblings) + listed)
    expected = _expected(path, model)
    if kind == "missing":
        return Mistake(at, "is missing", f"Add it. {expected}".rstrip())
    if kind in ("value_error", "assertion_error"):
        problem, *remedy = re.split(r"; (?=[A-Z])", str(context.get("error", "is wrong")), maxsplit=1)
        return Mistake(at, problem, remedy[0] if remedy else expected or "Correct the value.")
    value = item["input"]
    if kind in ("model_type", "model_attributes_type") and (words := _words(model, path)):
        near = near_match(value, words) if isinstance(value, str) else ""
        listed = " or ".join(f"`{word}`" for word in words)
        return Mistake(at, f"must be a mapping or {listed}", f"{near}{_TEXTS[kind][1]}")
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        near = near_match(value, choices) if isinstance(value, str) else ""
        listed = " or ".join(f"`{choice}`" for choice in choices)
        return Mistake(at, f"must be {listed}", f"{near}{expected}" or "Choose one of them.")
    if kind not in _TEXTS:
        return Mistake(at, item["msg"].replace("Input should", "it should", 1), expected or "Correct the value.")
    message, advice = _TEXTS[kind]
    if kind == "string_type" and isinstance(value, bool | int | float):
        advice = "Put the value in quotes."
    return Mistake(at, message.format_map(context), advice or expected or "Correct the value.")


def _merge(mistakes: list[Mistake], value: str) -> Mistake:
    """What the alternatives of one field say, and the value that stands there, unless they quote it already."""
    message = ", or ".join(dict.fromkeys(mistake.message for mistake in mistakes))
    bare = value.strip("`")
    there = len(bare) > 1 and re.search(rf"(?<![\w.-]){re.escape(bare)}(?![\w.-])", message)
    if value and value not in message and not there and not message.startswith(_WITHOUT_VALUE):
        message += f", not {value}" if message.startswith("must be ") else f" (here: {value})"
    return Mistake(mistakes[0].path, message, mistakes[0].remedy)


def _only_short(mistakes: list[Mistake]) -> bool:
    return all(mistake.message.startswith("needs ") for mistake in mistakes)


def _quoted(data: object, path: Path) -> str:
    """What stands at ``path`` of the data, in backticks; ``""`` for nothing, and for what cannot be quoted."""
    for part in path:
        try:
            data = data[part]  # type: ignore[index]  # whatever it is
        except (IndexError, KeyError, TypeError):
            return ""
    return show(data)


def _words(model: type[BaseModel], path: Path) -> list[str]:
    return [word for one in _models_at(model, path) for word in _WORDS.get(one, ())]


def _is_secret(model: type[BaseModel], path: Path) -> bool:
    return any(SecretStr in _unwrap(one) for end in range(1, len(path) + 1) for one in _annotations_at(model, path[:end]))


def _expected(path: Path, model: type[BaseModel]) -> str:
    """What the key nearest to ``path`` is for."""
    for end in range(len(path), 0, -1):
        key = path[end - 1]
        field = fields_at(model, path[: end - 1]).get(str(key)) if isinstance(key, str) else None
        if field is not None and field.description:
            return f"Expected: {field.description}"
    return ""


def _place(loc: tuple[int | str, ...], model: type[BaseModel], data: object) -> Path:
    """Where in the data an error is: pydantic's location without the names of the alternatives it tried."""
    path: Path = ()
    here = data
    for part in loc:
        if isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        elif isinstance(here, Mapping) and (part in here or part in fields_at(model, path)):
            here = here.get(part)
        else:
            continue
        path = (*path, part)
    return path


def _annotations_at(model: Any, path: Path) -> list[Any]:
    annotations = [model]
    for part in path:
        annotations = [below for annotation in annotations for below in _below(annotation, part)]
    return annotations


def _models_at(model: Any, path: Path) -> list[type[BaseModel]]:
    return [one for annotation in _annotations_at(model, path) for one in _unwrap(annotation) if _is_model(one)]


def _unwrap(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, without ``Annotated`` and type aliases."""
    if hasattr(annotation, "__metadata__"):
        return _unwrap(annotation.__origin__)
    origin = get_origin(annotation)
    if origin is Union or type(annotation).__name__ == "UnionType":
        return [one for argument in get_args(annotation) for one in _unwrap(argument)]
    return [annotation]


def _below(annotation: Any, part: str | int) -> list[Any]:
    """The annotations of what is at ``part`` (a key or an index) of such a value."""
    found: list[Any] = []
    for one in _unwrap(annotation):
        arguments = get_args(one)
        if _is_model(one):
            found += [field.annotation for name, field in one.model_fields.items() if part in (field.alias or name, name)]
        elif arguments and isinstance(part, int):
            found.append(arguments[0])
        elif len(arguments) == 2:
            found.append(arguments[1])
    return found


def _union(annotations: list[Any]) -> Any:
    return Union[tuple(annotations)] if annotations else None  # noqa: UP007  # their number is known only here


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
