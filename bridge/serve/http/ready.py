"""Answers as ready bytes, found by the bytes of the request: what was just answered is answered again without a look at it.

Equal requests have equal answers as long as the view they read, what is known of the sources, and who may read are as they
were. Only ages move on by themselves, so that an entry lives for a hundredth of a second.
"""

from __future__ import annotations

from bridge.catalog.catalog import Catalog
from bridge.catalog.view import View

LIFE = 0.01
"""Seconds an answer is given again; the ages in its head are of a moment so long ago at most."""

LARGEST_REQUEST = 4096
"""Bytes of a request that is remembered."""

MOST = 1024
"""Entries at most; they are dropped together, since none lives long."""


class ReadyAnswer:
    """The bytes of one answer, and what they depend on."""

    __slots__ = ("_catalog", "_index", "_revised", "_until", "_view", "data", "status")

    def __init__(self, catalog: Catalog, view: View, status: int, data: bytes, until: float) -> None:
        self.status = status
        self.data = data
        self._catalog = catalog
        self._view = view
        self._index = view.index
        self._revised = catalog.revised
        self._until = until

    def holds(self, now: float) -> bool:
        """Whether it is still the answer. ``now``: monotonic seconds."""
        view = self._view
        return now < self._until and view.index == self._index and not view.forgotten and self._catalog.revised == self._revised


class ReadyAnswers:
    """Those of a server, apart for readers on loopback and elsewhere: who may read differs."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.loopback: dict[bytes, ReadyAnswer] = {}
        self.elsewhere: dict[bytes, ReadyAnswer] = {}

    def keep(self, request: bytes, view: View, status: int, data: bytes, *, loopback: bool, now: float) -> None:
        """Remember that ``request``, alone and whole, was answered by ``data``."""
        if len(request) > LARGEST_REQUEST:
            return
        entries = self.loopback if loopback else self.elsewhere
        if len(entries) >= MOST:
            entries.clear()
        entries[request] = ReadyAnswer(self._catalog, view, status, data, now + LIFE)

    def clear(self) -> None:
        """Forget all: who may read changed, or their time is over."""
        self.loopback.clear()
        self.elsewhere.clear()
