"""Text from anywhere, made fit for a terminal, a log line or a name."""

from __future__ import annotations

import re

# C0, DEL, C1; marks that reorder text; line and paragraph separators; lone surrogates, which no encoding carries.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""A character that a terminal may obey, that may end a line, or that shows text in another order than it is stored in."""

LONGEST_NAME = 255
"""Bytes of UTF-8 that a name may have."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def safe_text(text: str) -> str:
    r"""The text with every `UNSAFE` character as an escape (``\n``, ``\x1b``, ``\u202e``); on one line whatever it was.

    Backslashes stay as they are, so doing it twice does no harm.
    """
    return text if text.isprintable() else UNSAFE.sub(_escaped, text)


def name_problem(name: str) -> str | None:
    """Why ``name`` cannot name an environment, a source, a namespace or a service; None where it can."""
    if not name:
        return "a name cannot be empty"
    if "/" in name:
        return "a name cannot contain `/`"
    if _CONTROL.search(name):
        return "a name cannot contain control characters"
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "a name must be valid Unicode"
    return f"a name has at most {LONGEST_NAME} bytes, this one has {length}" if length > LONGEST_NAME else None


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
