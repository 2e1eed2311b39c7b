"""Cutting lists and lines of a watch into their objects without reading them: reading each object is what checks it.

What Go's encoder writes between objects is known. A text that looks like that *inside* an object cuts it too early, and
the piece, the mere beginning of an object, is then no JSON. So in order, up to the first piece that is no JSON, every piece is
an object of the list; one that is shows that the list has to be read as a whole to be told apart.
"""

from __future__ import annotations

_ITEMS = b'"items":['
_END = b"]}"
_ENDPOINTS = b'"endpoints":['
_PORTS = b'],"ports":'
_LINES = tuple((b'{"type":"%s","object":' % name.encode(), name) for name in ("MODIFIED", "ADDED", "DELETED"))


def cut_list(body: bytes) -> tuple[bytes, list[memoryview]] | None:
    """A list without its objects, and these, as views of ``body``; None where it is not written as usual."""
    first, end = body.find(_ITEMS) + len(_ITEMS), body.rfind(_END)
    if not len(_ITEMS) <= first <= end or body[end + len(_END) :].strip():
        return None
    empty = body[:first] + _END
    if first == end:
        return empty, []
    colon = body.find(b":", first, end)
    # Each object begins with the key that the first one begins with.
    between = b"}," + body[first : colon + 1]
    if not between.startswith(b'},{"'):
        return None
    view, pieces, start = memoryview(body), [], first
    while (found := body.find(between, start, end)) >= 0:
        pieces.append(view[start : found + 1])
        start = found + 2
    pieces.append(view[start:end])
    return empty, pieces


def cut_line(line: bytes) -> tuple[str, memoryview] | None:
    """The type and the object of a line of a watch; None where it is none of an object, or is not written as usual."""
    for head, name in _LINES:
        if line.startswith(head) and line.startswith(b"{", len(head)) and line.endswith(b"}}"):
            return name, memoryview(line)[len(head) : -1]
    return None


def cut_slice(text: bytes) -> tuple[bytes, bytes] | None:
    """An EndpointSlice without its endpoints, and the list of these; None where it is not written as usual.

    Where the first is an object with an empty list, and the second a list, both are what the text says.
    """
    first = text.find(_ENDPOINTS) + len(_ENDPOINTS) - 1
    last = text.rfind(_PORTS) if first >= len(_ENDPOINTS) else -1
    if last < first:
        return None
    return text[: first + 1] + text[last:], text[first : last + 1]
