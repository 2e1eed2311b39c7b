"""What the head of a request must be, beyond what the parser looks at (RFC 9112, RFC 9110). Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from functools import lru_cache

_AUTHORITY = r"(?:\[[0-9A-Fa-f:.]+(?:%25[\w.~-]+)?\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
_HOST = re.compile(_AUTHORITY + r"(?<!,)[ \t]*", re.ASCII)
"""RFC 9110, section 7.2; two fields were joined by a comma and a space, which are in no host."""

_ABSOLUTE = re.compile(
    rf"https?://(?P<authority>(?=[^:/?#]){_AUTHORITY})(?P<path>/[^?#]*)?(?P<rest>(?:[?#].*)?)", re.ASCII | re.I
)

FRAMING = frozenset(("content-length", "transfer-encoding", "expect"))
"""The fields that say whether and when a body comes."""


def fault(version: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """The status and the reason to refuse a request with, None where its head is in order.

    version: as in ``1.1``. headers: names in lower case, fields given more than once joined by ``", "``.
    """
    if version not in ("1.1", "1.0", "0.9"):
        return 505, "only HTTP/1.1 and HTTP/1.0 are spoken here"
    host = headers.get("host")
    if host is None:
        if version == "1.1":
            return 400, "a request in HTTP/1.1 needs a Host field"
    elif not _is_host(host):
        return 400, "the Host field is malformed or was given more than once"
    if FRAMING.isdisjoint(headers):
        return None
    if "transfer-encoding" in headers:
        codings = _members(headers["transfer-encoding"])
        if version != "1.1":
            return 400, f"HTTP/{version} has no Transfer-Encoding"
        if codings[-1] != "chunked":
            return 400, "the last Transfer-Encoding must be 'chunked'"
        if len(codings) > 1:
            return 501, "no Transfer-Encoding but 'chunked' is understood"
    if "expect" in headers and any(member != "100-continue" for member in _members(headers["expect"])):
        return 417, "no expectation but '100-continue' can be met"
    return None


@lru_cache(maxsize=256)
def _is_host(field: str) -> bool:
    return _HOST.fullmatch(field) is not None


def body_length(headers: Mapping[str, str]) -> int:
    """Bytes of body that are announced; 0 where none are, or in chunks."""
    return int(headers.get("content-length", 0))


def awaits_continue(version: str, headers: Mapping[str, str]) -> bool:
    """Whether the client sends its body only when it is told to (RFC 9110, section 10.1.1)."""
    return "expect" in headers and version == "1.1" and ("transfer-encoding" in headers or body_length(headers) > 0)


def origin_form(method: str, target: str, headers: MutableMapping[str, str]) -> str | None:
    """The path and query of a ``target`` that does not begin with one; None where it is malformed (RFC 9112, section 3.2).

    Of a target in absolute form the authority takes the place of the Host field.
    """
    if method == "CONNECT" or (method == "OPTIONS" and target == "*"):
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    headers["host"] = match["authority"]
    return (match["path"] or "/") + match["rest"]


def _members(field: str) -> list[str]:
    return [member.strip().lower() for member in field.split(",")]
