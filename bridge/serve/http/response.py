"""The bytes of a response's head. Pure functions."""

from __future__ import annotations

from bridge.serve.http.message import TITLES, VARY, Answer
from bridge.serve.http.negotiate import EVENTS

END = b"\r\n"
CLOSE = b"Connection: close\r\n\r\n"
"""What follows `answer_head`: the connection stays, or it does not."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LINES = {status: f"HTTP/1.1 {status} {title}\r\n" for status, title in {**TITLES, 200: "OK", 304: "Not Modified"}.items()}


def answer_head(answer: Answer, date: str) -> bytes:
    """The status line and the fields of ``answer``, but for the connection's own. ``date``: the Date field's line."""
    lines = [_LINES.get(answer.status) or f"HTTP/1.1 {answer.status} Status\r\n", date]
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers]
    if answer.status != 304:
        lines.append(f"Content-Length: {len(answer.body)}\r\n")
    return "".join(lines).encode("latin-1")


def stream_head(date: str) -> bytes:
    """The whole head of a stream of events, which ends with its connection."""
    return (
        f"{_LINES[200]}{date}Content-Type: {EVENTS}\r\nCache-Control: no-cache\r\n"
        f"{VARY[0]}: {VARY[1]}\r\nX-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
    ).encode()
