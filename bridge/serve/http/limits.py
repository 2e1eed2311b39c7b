"""What a client may take of the listener: one frozen object, every value of it on by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Limit = Literal[
    "connections",
    "connections_per_address",
    "handshake",
    "target_size",
    "header_size",
    "body_size",
    "malformed",
    "pipelining",
    "slow_request",
    "slow_reader",
    "idle",
]
"""The name of a limit, as `/metrics` shows it."""

LIMITS: tuple[Limit, ...] = get_args(Limit)


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    connections, per_loopback, per_address: open at once in all, from one loopback address, and from one other address.
    target_size, header_size, header_fields, body_size: of one request. Of a body in chunks, twice ``body_size`` with its framing.
    pipelined: requests of a connection that wait for their turn; more are not read.
    handshake: for TLS. request: from its first byte to its last, or from the invitation to send its body.
    reader: without taking any of the bytes that wait for it. idle: between two requests.
    """

    connections: int = 20_000
    per_loopback: int = 10_000
    per_address: int = 1_000
    target_size: int = 8 * 1024
    header_size: int = 16 * 1024
    header_fields: int = 128
    body_size: int = 1024 * 1024
    pipelined: int = 64
    handshake: float = 5.0
    request: float = 10.0
    reader: float = 30.0
    idle: float = 75.0
