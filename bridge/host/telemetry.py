"""Logging: one event, one line, the same keys everywhere; text for people at a terminal, JSON for everything else.

Code logs a constant message and gives the variable parts as fields, ``logger.info("source listed", extra={"source": name})``,
so that lines can be searched and counted. Fields may hold text from anywhere: what could start a second line, or be
obeyed by a terminal, is escaped in both formats. Secrets are `pydantic.SecretStr`, which shows itself to nobody.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from bridge.text import UNSAFE, safe_text

LogFormat = Literal["text", "json", "auto"]
LogLevel = Literal["debug", "info", "warning", "error"]

OURS = ("bridge", "bridge_plugins")
"""Loggers that follow the configured level. Libraries stay at warnings: below, some write headers and bodies."""

_LONGEST = 8192
"""Characters of one text; the rest says nothing that these do not, and costs a log store as much."""

_DEEPEST = 4
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESERVED = frozenset({"ts", "level", "logger", "event", "error", "stack"})
_BARE = re.compile(r"[\w.,:;/@%+*~()\[\]{}-]+")


def configure_logging(format: LogFormat = "auto", level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Send all logging to ``stream`` (stderr by default) in this format; calling it again replaces what it set up before.

    format: ``auto`` is text where the stream is a terminal, else JSON.
    level: the least important lines of our own code that are written; those of libraries are from warnings on.
    """
    stream = stream or sys.stderr
    handler = _Handler(stream)
    handler.setFormatter(TextFormatter() if format == "text" or (format == "auto" and stream.isatty()) else JsonFormatter())
    root = logging.getLogger()
    for former in [existing for existing in root.handlers if isinstance(existing, _Handler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    numeric = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(numeric, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(numeric)
    logging.captureWarnings(True)


class PluginLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger that adds its own fields to those of each line."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, {**kwargs, "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})}}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``ts``, ``level``, ``logger``, ``event``, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        text = json.dumps(event_of(record), ensure_ascii=False, separators=(",", ":"))
        return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class TextFormatter(logging.Formatter):
    """``TS LEVEL LOGGER: EVENT key=value ...`` for people; values with blanks are in quotes."""

    def format(self, record: logging.LogRecord) -> str:
        event = event_of(record)
        ts, level, logger, message = (str(event.pop(key)) for key in ("ts", "level", "logger", "event"))
        fields = "".join(f" {safe_text(key)}={_shown(value)}" for key, value in event.items())
        return f"{ts} {level.upper():<7} {safe_text(logger)}: {safe_text(message)}{fields}"


def event_of(record: logging.LogRecord) -> dict[str, Any]:
    """The record as plain values in the order of the line. A field named like a key of the line itself gets a ``_`` behind it."""
    event: dict[str, Any] = {
        "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": _cut(_message(record)),
    }
    for key, value in vars(record).items():
        if key not in _STANDARD:
            event[f"{key}_" if key in _RESERVED - {"error"} else key] = _plain(value)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        event.setdefault("error", _plain(error))
        event["stack"] = _cut("".join(traceback.format_exception(error)))
    return event


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the base class's name
        """A line that cannot be written has no other place to go; the standard would print the raw record."""


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  # arguments that do not fit the message must not cost the line
        return str(record.msg)


def _plain(value: object, depth: int = 0) -> Any:
    """The value in terms of JSON; what JSON has no word for, as its own text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, BaseException):
        return _cut(f"{type(value).__name__}: {value}" if str(value) else type(value).__name__)
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {_cut(str(key)): _plain(item, depth + 1) for key, item in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth + 1) for item in value]
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _shown(value: object) -> str:
    """A field's value in a line of text: bare where it is one word, else quoted, so that it cannot pass for other fields."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and not _BARE.fullmatch(value):
        text = json.dumps(value, ensure_ascii=False)
    return safe_text(text)
