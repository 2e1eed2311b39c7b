"""Tables for people, from the documents of the read API. Pure; every text is taken for untrusted."""

from __future__ import annotations

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
_FAILURES = frozenset({"failed", "forbidden", "retired"})
"""States of a source in which its last error may be its own."""

_UNLIMITED = 1_000_000

PROSE = frozenset({"REASON", "REMEDY", "WHY", "LAST RESULT", "PROBLEM", "SOURCES", "ENVIRONMENTS"})
"""Heads of columns whose texts wrap where a terminal is narrow, as their end may matter most."""

_WHOLE = frozenset({"STATE", "STATUS", "AGE"})
"""Heads of columns whose few words are not cut as long as anything else can be."""

_LEAST = 8
_GAP = 2


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
    width: columns to fit into: texts of `PROSE` columns wrap between words, others are cut with an ellipsis. None: no limit.
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
    made = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=bool(sheet.heads), title_justify="left")
    made.title = Text(sheet.title, style="bold") if sheet.title else None
    heads = sheet.heads or ("",) * max(map(len, sheet.rows), default=0)
    for index, (head, columns) in enumerate(zip(heads, _fitted(sheet, heads, width or _UNLIMITED), strict=True)):
        wraps = head in PROSE or (not sheet.heads and index == len(heads) - 1)
        made.add_column(Text(head, style="bold"), overflow="ellipsis", no_wrap=not wraps, width=columns)
    for row in sheet.rows:
        made.add_row(*row)
    out = StringIO()
    system: Literal["standard"] | None = "standard" if colour else None
    console = Console(file=out, width=width or _UNLIMITED, force_terminal=colour, no_color=not colour, color_system=system)
    console.print(made, crop=False, highlight=False)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().removesuffix("\n").split("\n"))


def _fitted(sheet: Sheet, heads: Sequence[str], width: int) -> list[int]:
    """The columns' widths: as wide as what they hold; where that is too much, the widest give way, down to a least width."""
    room = width - _GAP * (len(heads) - 1)
    cells = [[row[index].cell_len for row in sheet.rows] for index in range(len(heads))]
    wanted = [min(max([cell_len(head), *lengths]), width) for head, lengths in zip(heads, cells, strict=True)]
    least = [wanted[index] if head in _WHOLE else max(cell_len(head), _LEAST) for index, head in enumerate(heads)]
    for floor in (least, [1] * len(heads)):
        while sum(wanted) > room:
            slack = [(size, index) for index, size in enumerate(wanted) if size > floor[index]]
            if not slack:
                break
            wanted[max(slack)[1]] -= 1
    return wanted


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
    columns = ["ENVIRONMENT", "STATE", "AGE", "SERVICES", "INSTANCES"]
    if not wide:
        rows = ([*_environment(entry), *_totals(entry), entry.get("via"), _source_states(entry)] for entry in document)
        return [table([*columns, "REJECTED", "HELD", "VIA", "SOURCES"], rows)]
    columns += ["VIA", "SOURCE", "TYPE", "STATE", "AGE", "INSTANCES", "REJECTED", "HELD", "REASON"]
    rows_of_sources = []
    for entry in document:
        head = [*_environment(entry), cell(entry.get("via"))]
        for source in entry.get("sources") or [{}]:
            rows_of_sources.append([*head, *_source(source)])
            head = [Text("")] * len(head)
    return [table(columns, rows_of_sources)]


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
    ]


def _totals(entry: Document) -> list[int | None]:
    """What its sources reject and hold, together; None where nothing is known of them."""
    sources = entry.get("sources") or ()
    return [sum(source.get(key) or 0 for source in sources) if sources else None for key in ("rejected", "held")]


def _source(source: Document) -> list[Any]:
    reason = "; ".join(str(part) for part in (source.get("held_reason"), last_error(source)) if part)
    age = duration(source.get("age_ms"))
    return [
        source.get("name"),
        source.get("type"),
        state(source.get("state")),
        age,
        *(source.get(key) for key in ("instances", "rejected", "held")),
        reason,
    ]


def last_error(source: Document) -> str | None:
    """Its last error; where that is no failure of the source but the first of its rejections, with their number."""
    error, rejected = source.get("last_error"), source.get("rejected")
    if not error or source.get("state") in _FAILURES or not isinstance(rejected, int) or rejected < 1:
        return error or None
    return f"{rejected} rejected{', the first' if rejected > 1 else ''}: {error}"


def _source_states(entry: Document) -> Text:
    states = Text()
    for source in entry.get("sources") or ():
        states.append(", " if states else "")
        states.append(f"{safe_text(str(source['name']))} ")
        states.append(state(source["state"]))
    return states or Text("-")


def _joined(values: Iterable[Any] | None) -> str:
    return ", ".join(str(value) for value in values or ())
