"""What a reader accepts: format and compression (RFC 9110, section 12.5)."""

from __future__ import annotations

from functools import lru_cache

JSON = "application/json"
MSGPACK = "application/msgpack"
EVENTS = "text/event-stream"


def _weights(header: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in header.split(",")[:64]:
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if name:
            weights[name] = weight
    return weights


@lru_cache(maxsize=1024)
def media_type(accept: str) -> str:
    """JSON, msgpack or the event stream: the one named with the largest weight; JSON where none is named."""
    weights = _weights(accept)
    named = [(weights[kind], kind) for kind in (JSON, MSGPACK, EVENTS) if weights.get(kind, 0) > 0]
    return max(named, key=lambda pair: pair[0])[1] if named else JSON


@lru_cache(maxsize=1024)
def takes_gzip(accept_encoding: str) -> bool:
    """Whether gzip is accepted."""
    weights = _weights(accept_encoding)
    return weights.get("gzip", weights.get("*", 0.0)) > 0
