"""Who may connect: how many in all, how many from one address, and how long until they have said hello."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from bridge.serve.http.client import Client
from bridge.serve.http.limits import Limit, Limits

if TYPE_CHECKING:
    from bridge.serve.http.handover import HandedOver
    from bridge.serve.http.protocol import Connection


class Admission:
    """The connections of a listener."""

    def __init__(self, limits: Limits) -> None:
        self.connections: set[Connection | HandedOver] = set()
        self._limits = limits
        self._per_address: Counter[str] = Counter()
        self._shaking_hands: dict[Connection, float] = {}

    def await_handshake(self, connection: Connection, now: float) -> None:
        """Remember that TLS has begun; `admit` tells its end."""
        self._shaking_hands[connection] = now

    def failed_handshakes(self, now: float) -> int:
        """Forget those that came to nothing, and count them: the event loop tells their protocol not a word."""
        failed = 0
        for connection, began in list(self._shaking_hands.items()):
            if now - began <= self._limits.handshake + 1.0:
                break
            del self._shaking_hands[connection]
            failed += 1
        return failed

    def admit(self, connection: Connection) -> Limit | None:
        """Count a new connection; the limit that it is beyond, if any."""
        self._shaking_hands.pop(connection, None)
        self.connections.add(connection)
        self._per_address[connection.peer] += 1
        if len(self.connections) > self._limits.connections:
            return "connections"
        most = self._limits.per_loopback if connection.loopback else self._limits.per_address
        return "connections_per_address" if self._per_address[connection.peer] > most else None

    def replace(self, connection: Client, heir: Client) -> None:
        """Have ``heir`` stand for the socket that was that of ``connection``."""
        self.connections.discard(connection)
        self.connections.add(heir)  # type: ignore[arg-type]

    def release(self, connection: Client) -> None:
        """Forget a connection that was lost."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._per_address[connection.peer] -= 1
            if not self._per_address[connection.peer]:
                del self._per_address[connection.peer]
