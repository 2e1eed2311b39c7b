"""What ``envbridge status`` shows: the document of ``/v1/status`` as tables, what needs somebody's attention among them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from bridge.cli.tables import Document, Sheet, duration, last_error, state, table
from bridge.text import safe_text

_HOLD = {"source": "SOURCE", "held": "HELD", "since": "SINCE", "until": "UNTIL", "reason": "REASON", "remedy": "REMEDY"}
_REJECTIONS = 20
"""Rejections that are listed of one source."""

_RELATIVE = {"next_run": "next_run_ms"}
"""A time, and the key that has the same as what is left of it: only that is shown."""


def status(document: Document, wide: bool, *, now: datetime | None = None) -> list[Sheet]:
    """Its single values, then a table for each list or map in it that is not empty; what is not there is left out.

    wide: also what is nested deeper.
    now: what times are told relative to.
    """
    now = now or datetime.now(UTC)
    single = [(key, value) for key, value in document.items() if value is not None and not isinstance(value, list | dict)]
    parts = [table((), ((_label(key), _value(key, value)) for key, value in single))] if single else []
    for key, value in document.items():
        if isinstance(value, list | dict) and value:
            if key == "holds" and isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
                parts.append(_holds(value, now))
            else:
                parts.append(_section(_label(key), value, wide))
    if problems := list(_problems(document)):
        parts.append(table(("SOURCE", "PROBLEM"), problems, title="problems"))
    if rejections := [row for source in _sources(document) for row in _rejections(source)]:
        parts.append(table(("SOURCE", "OBJECT", "REASON"), rejections, title="rejections"))
    return parts


def moment(text: Any, now: datetime) -> str:
    """A time (RFC 3339) as people read it: local, and how far away, ``14:05:00 (in 3m)``; any other text as it is."""
    try:
        at = datetime.fromisoformat(text)
        away = (at - now).total_seconds()
        local, today = at.astimezone(), now.astimezone().date()
    except (OverflowError, TypeError, ValueError):
        return "" if text is None else str(text)
    day = "" if local.date() == today else f"{local:%Y-%m-%d} "
    distance = duration(abs(away) * 1000)
    return f"{day}{local:%H:%M:%S} ({f'in {distance}' if away > 0 else f'{distance} ago'})"


def _holds(entries: list[Document], now: datetime) -> Sheet:
    """What is kept although it is absent: how much, since and until when, why, and the way out."""
    keys = [key for key in _HOLD if any(entry.get(key) is not None for entry in entries)]
    keys += [key for key in dict.fromkeys(key for entry in entries for key in entry) if key not in _HOLD]
    rows = (
        [moment(entry.get(key), now) if key in ("since", "until") else _value(key, entry.get(key)) for key in keys]
        for entry in entries
    )
    return table((_HOLD.get(key, _label(key).upper()) for key in keys), rows, title="holds")


def _problems(document: Document) -> Iterable[tuple[Any, Any]]:
    """The last errors of sources, which no column has room for, as far as no warning and no rejection has them."""
    warnings = document.get("warnings")
    told = warnings if isinstance(warnings, list) else []
    for source in _sources(document):
        name, error = source.get("name"), source.get("last_error")
        rejected = any(reason == error for _, reason in _rejected(source))
        if error and not rejected and f"source {name}: {error}" not in told:
            yield name, last_error(source)


def _rejections(source: Document) -> Iterable[tuple[Any, Any, Any]]:
    """What of a source was rejected and why: the first of them, and how many more there are."""
    name, amount, listed = source.get("name"), source.get("rejected"), _rejected(source)
    yield from ((name, key, reason) for key, reason in listed[:_REJECTIONS])
    more = max(len(listed), amount if isinstance(amount, int) else 0) - _REJECTIONS
    if listed and more > 0:
        yield name, None, f"and {more} more"


def _rejected(source: Document) -> list[tuple[Any, Any]]:
    listed = source.get("rejections")
    entries = listed if isinstance(listed, list) else []
    return [(entry.get("key"), entry.get("reason")) for entry in entries if isinstance(entry, dict)]


def _sources(document: Document) -> list[Document]:
    sources = document.get("sources")
    return [source for source in sources if isinstance(source, dict)] if isinstance(sources, list) else []


def _section(title: str, value: list[Any] | dict[str, Any], wide: bool) -> Sheet:
    """A row for each entry where all are objects, else name and value; columns of nothing but nested values are for wide."""
    pairs = list(enumerate(value, 1)) if isinstance(value, list) else list(value.items())
    if isinstance(value, list) and not any(isinstance(entry, dict) for entry in value):
        return table((), ([_value("", entry)] for entry in value), title=title)
    if not all(isinstance(entry, dict) for _, entry in pairs):
        return table((), ((_label(str(key)), _value(str(key), entry)) for key, entry in pairs if entry is not None), title=title)
    entries = [entry if isinstance(value, list) else {"name": key, **entry} for key, entry in pairs]
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    keys = [key for key in keys if _RELATIVE.get(key) not in keys]
    if not wide:
        keys = [key for key in keys if key not in _IN_OTHER_TABLES and any(_is_shown(entry.get(key)) for entry in entries)]
    rows = ([_value(key, entry.get(key)) for key in keys] for entry in entries)
    return table((_label(key).upper() for key in keys), rows, title=title)


_IN_OTHER_TABLES = frozenset({"last_error", "held_reason"})


def _is_shown(value: Any) -> bool:
    return value is not None and not isinstance(value, list | dict)


def _label(key: str) -> str:
    return safe_text(key.removesuffix("_ms").removesuffix("_bytes").replace("_", " "))


def _value(key: str, value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False) if value else None
    if isinstance(value, int | float):
        if key.endswith("_ms"):
            return f"in {duration(value)}" if key == "next_run_ms" else duration(value)
        if key.endswith("_bytes"):
            return f"{value / (1 << 20):.1f} MiB"
    return state(value) if key == "state" else value
