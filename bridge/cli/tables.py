"""Tables for people, from the documents of the read API. Pure; every text is taken for untrusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.text import safe_text

Document = Mapping[str, Any]

_GOOD = frozenset({"ready", "live", "synced", "listed", "reachable", "ok"})
_DOUBTFUL = frozenset({"unknown", "suspect", "stale", "starting", "draining", "expired", "retired", "held", "partial"})
_BAD = frozenset({"unready", "lost", "failed", "forbidden", "down"})
_UNLIMITED = 1_000_000


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table before anybody decided how wide it is: column heads (none: a table without a head) and rows of texts."""

    heads: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    title: str


def table(columns: Iterable[str], rows: Iterable[Iterable[Any]], *, title: str = "") -> Sheet:
    """A table of any values; None and empty texts show as ``-``."""
    cells = (tuple(value if isinstance(value, Text) else cell(value) for value in row) for row in rows)
    return Sheet(tuple(safe_text(column) for column in columns), tuple(cells), safe_text(title))


def render(sheets: Iterable[Sheet], *, colour: bool, width: int | None) -> str:
    """The text of tables, an empty line between them.

    colour: whether to write ANSI colours.
    width: columns to fold into; None for no limit.
    """
    return "\n".join(_plain(sheet) if width is None and not colour else _rich(sheet, colour, width) for sheet in sheets)


def _plain(sheet: Sheet) -> str:
    """Without limit and colours, as for a pipe: what rich would write, fifty times as fast."""
    lines = [sheet.heads] if sheet.heads else []
    lines += (tuple(text.plain for text in row) for row in sheet.rows)
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)) for line in lines
    )
    title = f"{sheet.title}\n" if sheet.title else ""
    return title + "".join(f"{line.rstrip()}\n" for line in padded)


def _rich(sheet: Sheet, colour: bool, width: int | None) -> str:
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(sheet.heads), title_justify="left")
    made.title = Text(sheet.title, style="bold") if sheet.title else None
    for head in sheet.heads or [""] * max(map(len, sheet.rows), default=0):
        made.add_column(Text(head, style="bold"), overflow="fold", min_width=len(head))
    for row in sheet.rows:
        made.add_row(*row)
    out = StringIO()
    system: Literal["standard"] | None = "standard" if colour else None
    console = Console(file=out, width=width or _UNLIMITED, force_terminal=colour, no_color=not colour, color_system=system)
    console.print(made, crop=False, highlight=False)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().removesuffix("\n").split("\n"))


def cell(value: Any) -> Text:
    """One value as text without markup or control characters."""
    return Text("-" if value is None or value == "" else safe_text(str(value)))


def state(value: Any) -> Text:
    """A state's word, or several with commas between, in the colour of the worst."""
    text = cell(value)
    words = set(text.plain.split(", "))
    text.style = "red" if words & _BAD else "yellow" if words & _DOUBTFUL else "green" if words & _GOOD else ""
    return text


def services(document: Document, wide: bool) -> list[Sheet]:
    """The answer of ``/v1/services``."""
    columns = ["SERVICE", "READY", "UNREADY", "DRAINING", "ENVIRONMENTS"] + (["PORTS", "TAGS"] if wide else [])
    rows = []
    for service in document["services"]:
        counts: Mapping[str, Document] = service["environments"]
        totals = [sum(entry.get(kind, 0) for entry in counts.values()) for kind in ("ready", "unready", "draining")]
        row = [f"{service['namespace']}/{service['name']}", *totals]
        if wide:
            each = (
                f"{name} {entry.get('ready', 0)}/{entry.get('unready', 0)}/{entry.get('draining', 0)}"
                for name, entry in counts.items()
            )
            row += [", ".join(each), _joined(service.get("ports")), _joined(service.get("tags"))]
        else:
            row.append(", ".join(counts))
        rows.append(row)
    return [table(columns, rows)]


def instances(document: Document, wide: bool) -> list[Sheet]:
    """The instances of a service, or of any list of them."""
    columns = ["ENVIRONMENT", "SOURCE", "ADDRESSES", "PORTS", "STATUS", "ZONE", "ID"]
    columns += ["REGION", "NODE", "WEIGHT", "TAGS", "META"] if wide else []
    rows = []
    for one in document["instances"]:
        row = [
            one["environment"],
            one["source"],
            where(one),
            ports(one.get("ports")),
            state(instance_status(one)),
            one.get("zone"),
            one["id"],
        ]
        if wide:
            meta = ", ".join(f"{key}={value}" for key, value in (one.get("meta") or {}).items())
            row += [one.get("region"), one.get("node"), one.get("weight"), _joined(one.get("tags")), meta]
        rows.append(row)
    return [table(columns, rows)]


def environments(document: Sequence[Document], wide: bool) -> list[Sheet]:
    """The answer of ``/v1/environments``; wide has a row for each source."""
    if not isinstance(document, list):
        raise TypeError("environments come as a list")
    columns = ["ENVIRONMENT", "STATE", "AGE", "SERVICES", "INSTANCES", "VIA"]
    if not wide:
        return [table([*columns, "SOURCES"], ([*_environment(entry), _source_states(entry)] for entry in document))]
    columns += ["SOURCE", "TYPE", "STATE", "AGE", "INSTANCES", "REJECTED", "HELD", "REASON"]
    rows = []
    for entry in document:
        head = _environment(entry)
        for source in entry.get("sources") or [{}]:
            rows.append([*head, *_source(source)])
            head = [Text("")] * len(head)
    return [table(columns, rows)]


def status(document: Document, wide: bool) -> list[Sheet]:
    """The answer of ``/v1/status``: its single values, then a table for each list or map in it that is not empty."""
    single = [(key, value) for key, value in document.items() if not isinstance(value, list | dict)]
    parts = [table((), ((_label(key), _value(key, value)) for key, value in single))] if single else []
    for key, value in document.items():
        if isinstance(value, list | dict) and value:
            parts.append(_section(_label(key), value, wide))
    return parts


def where(instance: Document) -> str:
    """Its addresses, or the name that stands for them."""
    return _joined(instance.get("addresses")) or str(instance.get("hostname") or "")


def ports(listed: Iterable[Document] | None) -> str:
    """``http:8080, 9000/UDP``: the name where there is one, the protocol where it is not TCP."""
    texts = []
    for port in listed or ():
        name = f"{port['name']}:" if port.get("name") else ""
        protocol = "" if port.get("protocol", "TCP") == "TCP" else f"/{port['protocol']}"
        texts.append(f"{name}{port['port']}{protocol}")
    return ", ".join(texts)


def instance_status(instance: Document) -> str:
    """What decides whether it is used, in a word or two: its health, and what keeps it out besides."""
    words = [str(instance.get("health", "unknown"))]
    if instance.get("lifecycle", "active") != "active":
        words.append(str(instance["lifecycle"]))
    if instance.get("state", "listed") != "listed":
        words.append(str(instance["state"]))
    return ", ".join(words)


def duration(milliseconds: float | None) -> str:
    """Milliseconds in the largest unit that still tells something: ``850ms``, ``95s``, ``30h``."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds:.0f}ms"
    amount = milliseconds / 1000
    for unit, size in (("s", 60), ("m", 60), ("h", 24)):
        if amount < 2 * size:
            return f"{int(amount)}{unit}"
        amount /= size
    return f"{int(amount)}d"


def _environment(entry: Document) -> list[Any]:
    return [
        entry["name"],
        state(entry["state"]),
        duration(entry.get("age_ms")),
        entry.get("services"),
        entry.get("instances"),
        entry.get("via"),
    ]


def _source(source: Document) -> list[Any]:
    reason = "; ".join(str(source[key]) for key in ("held_reason", "last_error") if source.get(key))
    age = duration(source.get("age_ms"))
    return [
        source.get("name"),
        source.get("type"),
        state(source.get("state")),
        age,
        *(source.get(key) for key in ("instances", "rejected", "held")),
        reason,
    ]


def _source_states(entry: Document) -> Text:
    states = Text()
    for source in entry.get("sources") or ():
        states.append(", " if states else "")
        states.append(f"{safe_text(str(source['name']))} ")
        states.append(state(source["state"]))
    return states or Text("-")


def _section(title: str, value: list[Any] | dict[str, Any], wide: bool) -> Sheet:
    """A row for each entry where all are objects, else name and value; columns of nothing but nested values are for wide."""
    pairs = list(enumerate(value, 1)) if isinstance(value, list) else list(value.items())
    if not all(isinstance(entry, dict) for _, entry in pairs):
        return table((), ((_label(str(key)), _value(str(key), entry)) for key, entry in pairs), title=title)
    entries = [entry if isinstance(value, list) else {"name": key, **entry} for key, entry in pairs]
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    if not wide:
        keys = [key for key in keys if any(not isinstance(entry.get(key), list | dict | None) for entry in entries)]
    rows = ([_value(key, entry.get(key)) for key in keys] for entry in entries)
    return table((_label(key).upper() for key in keys), rows, title=title)


def _label(key: str) -> str:
    return safe_text(key.removesuffix("_ms").removesuffix("_bytes").replace("_", " "))


def _value(key: str, value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False) if value else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if key.endswith("_ms"):
            return duration(value)
        if key.endswith("_bytes"):
            return f"{value / (1 << 20):.1f} MiB"
    return state(value) if key == "state" else value


def _joined(values: Iterable[Any] | None) -> str:
    return ", ".join(str(value) for value in values or ())
