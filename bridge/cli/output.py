"""Where text leaves the process: data to stdout, everything else to stderr, nothing raw."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from enum import StrEnum
from typing import Any, TextIO

from bridge.text import safe_text

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "dim": "2"}


class Format(StrEnum):
    """How a document is shown. ``table`` is for people, ``wide`` has all its columns, the others are the document itself."""

    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"


def write(text: str) -> None:
    """Write data to stdout, flushed, so that whoever follows a pipe has it at once. Raises OSError: full, or nobody reads."""
    _write(sys.stdout, text)


def complain(message: str, *lines: str) -> None:
    """Write an error to stderr, further lines indented below; the texts may come from anywhere."""
    _tell("error:", "red", message, lines)


def warn(message: str, *lines: str) -> None:
    """Write to stderr what is done all the same, but dangerous; the texts may come from anywhere."""
    _tell("warning:", "yellow", message, lines)


def note(message: str, *lines: str) -> None:
    """Write to stderr what is no error but worth knowing; the texts may come from anywhere."""
    _tell("note:", "yellow", message, lines)


def coloured(stream: TextIO | None = None) -> bool:
    """Whether the stream (stdout by default) is a terminal that shows colours, and nobody set ``NO_COLOR`` (no-color.org)."""
    stream = stream or sys.stdout
    terminal = stream is not None and stream.isatty()  # None: closed before we were started
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour (red, green, yellow, dim) where the stream shows them; ``""`` is none."""
    if not colour or not coloured(stream):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def width_for(output: Format) -> int | None:
    """Columns that a table has to fit into: those of the terminal that stdout is.

    None, no limit, for ``wide``, and where stdout is no terminal: what a pipe reads is never cut or wrapped.
    """
    import shutil

    if output is Format.wide or sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def to_json(document: Any, *, indent: int | None = 2) -> str:
    """The document as JSON, a line end behind it. Only printable ASCII: escapes carry the rest, C1 and bidi controls too."""
    import json

    return json.dumps(document, indent=indent, ensure_ascii=True).replace("\x7f", "\\u007f") + "\n"


def to_yaml(document: Any) -> str:
    """The document as YAML, in printable ASCII like `to_json`; what is there twice is written twice, never as an alias."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    return str(yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=False, default_flow_style=False))


def abandon_stdout() -> None:
    """Let what is still buffered for a closed pipe or a full disk go nowhere, so that the interpreter ends in silence."""
    if sys.stdout is None:
        return
    with contextlib.suppress(OSError, ValueError):  # stdout may be no file, or closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)


def _tell(kind: str, colour: str, message: str, lines: tuple[str, ...]) -> None:
    below = "".join(f"  {safe_text(line)}\n" for line in lines)
    with contextlib.suppress(OSError):  # there is no other place to say it
        _write(sys.stderr, f"{paint(kind, colour, sys.stderr)} {safe_text(message)}\n{below}")


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
