"""What readers ask, kept while somebody asks it: equal readers share a view, its index, digest, bytes and waiters.

A view knows when it last changed (its index) and what it contains (its digest). A change asks it once, with the instances
before and after; no match, no wake. Concrete views are in `instances` and `services`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec import Struct

from bridge.catalog.cursor import Cursor, combine, item_digest
from bridge.catalog.log import Change
from bridge.catalog.query import Query, Resource

if TYPE_CHECKING:
    from bridge.catalog.catalog import Catalog

encode_json = msgspec.json.Encoder().encode
encode_msgpack = msgspec.msgpack.Encoder().encode


KEPT_FRAGMENTS = 1000
"""Entries of a view whose encoding is kept from its digest to its body."""

_FRAGMENTS = object()


class Delta(Struct, frozen=True):
    """How a view changed: entries put (new ones and changed ones apart), keys gone, and what the entries were before."""

    added: tuple[Any, ...] = ()
    updated: tuple[Any, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)


class Follower(Protocol):
    """A stream."""

    def follow(self, delta: Delta) -> None:
        """The view changed by ``delta``."""
        ...

    def restart(self) -> None:
        """The view changed in a way no delta tells: begin anew with a snapshot."""
        ...


class Page(Struct, frozen=True):
    """The entries of an answer, and the position a further page begins behind (None: there is none)."""

    items: Sequence[Any]
    next: tuple[str, ...] | None


class View(ABC):
    """One (resource, query) and everybody who waits for it.

    ``status`` is 200, 404 (nothing has that name) or 503 (too little was read to tell); ``degraded``: what it shows of a
    service are expired instances, for want of others. ``bodies`` holds what was rendered of it since it last changed;
    ``forgotten``: it is told of no change any more.
    """

    collection: str
    """The name of the list in the JSON document."""

    min_gap = 0.01
    """Seconds between two answers to blocked readers: a flapping view is paced, a first change goes out at once."""

    def __init__(self, catalog: Catalog, resource: Resource, query: Query, index: int) -> None:
        self.catalog = catalog
        self.resource = resource
        self.query = query
        self.index = index
        self.status = 200
        self.degraded = False
        self.waiters: set[object] = set()
        self.followers: set[Follower] = set()
        self.bodies: dict[Any, Any] = {}
        self.forgotten = False
        self.woken_at = float("-inf")
        self.stale_sensitive = not query.stale
        self._digest: int | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody waits for it."""
        return not (self.waiters or self.followers)

    @property
    def digest(self) -> int:
        """64 bits of its content, computed on demand and followed by deltas from then on."""
        if self._digest is None:
            self._digest = self.compute_digest()
        return self._digest

    def cursor(self) -> Cursor:
        """Where a reader stands who has seen it as it is now."""
        indexes = self.catalog.indexes
        return Cursor(indexes.lineage, indexes.shown(self.index), self.digest)

    def holds(self, cursor: Cursor) -> bool:
        """Whether the view is still as ``cursor`` saw it (rule W3)."""
        if self.index <= cursor.index and self.catalog.indexes.handed_out(cursor):
            return True
        return cursor.digest == self.digest

    def compute_digest(self) -> int:
        """The digest from scratch: of the status alone where there is nothing to show."""
        if self.status != 200:
            return item_digest(f"{self.status} {self.resource}".encode())
        self.bodies.pop(_FRAGMENTS, None)  # it is asked for where the content may have changed
        page, fragments = self.fragments()
        digests = self.digests(page, fragments)
        if self.collection and len(fragments) <= KEPT_FRAGMENTS:
            self.bodies[_FRAGMENTS] = (page, fragments)
        if self.query.paged:
            digests.append(item_digest(repr(page.next).encode()))
        return combine(item_digest(f"{self.resource} {self.degraded}".encode()), *digests)

    def fragments(self) -> tuple[Page, list[bytes]]:
        """The entries to show, and each as JSON; of what was just encoded for the digest, the body is made of the same bytes."""
        kept: tuple[Page, list[bytes]] | None = self.bodies.pop(_FRAGMENTS, None)
        if kept is None:
            page = self.page()
            kept = (page, [encode_json(item) for item in page.items])
        return kept

    def digests(self, page: Page, fragments: Sequence[bytes]) -> list[int]:  # noqa: ARG002  # for who shows more than it counts
        """The digest of each entry."""
        return [item_digest(fragment) for fragment in fragments]

    def digest_of(self, item: Any) -> int:
        """The digest of one entry."""
        return item_digest(encode_json(item))

    @abstractmethod
    def page(self) -> Page:
        """The entries to show, in order."""

    @abstractmethod
    def key(self, item: Any) -> str:
        """What an entry is called in ``removed``."""

    @abstractmethod
    def evaluate_status(self) -> int:
        """200, 404 or 503 as things are now."""

    def evaluate_degraded(self) -> bool:
        """``degraded`` as things are now."""
        return False

    @abstractmethod
    def delta(self, change: Change) -> Delta | None:
        """How ``change``, already applied to the catalog, changes this view; None where it does not."""

    @abstractmethod
    def delta_since(self, changes: Iterable[Change]) -> Delta | None:
        """The net difference that all of ``changes`` (the newest last, all applied) made; None where no delta can tell."""

    def document(self) -> dict[str, Any]:
        """What surrounds the list in the JSON document."""
        return {}

    def rebuild(self) -> None:  # noqa: B027  # most views derive nothing
        """Forget what was derived from earlier deltas."""

    def apply(self, change: Change) -> bool:
        """Take in ``change``; whether the view changed. Followers are told here, waiters by whoever paces them."""
        before = (self.status, self.degraded)
        self._evaluate()
        if (self.status, self.degraded) != before:
            self.rebuild()
            self._touch(change.index, None)
            self.restart()
            return True
        if self.status != 200:
            return False
        delta = self.delta(change)
        if delta is None:
            return False
        if self.query.paged:
            digest, self._digest = self._digest, None
            if digest == self.digest:
                return False
        self._touch(change.index, self._shifted(delta) if self.followers else None)
        for follower in list(self.followers):
            follower.follow(delta)
        return True

    def revise(self, index: int) -> bool:
        """Look at everything anew after something other than records changed; whether the view changed."""
        before, self._digest = self._digest, None
        self.rebuild()
        self._evaluate()
        if before is not None and before == self.digest:
            return False
        self._touch(index, self._digest)
        self.restart()
        return True

    def restart(self) -> None:
        """Have every follower begin anew."""
        for follower in list(self.followers):
            follower.restart()

    def _evaluate(self) -> None:
        self.status, self.degraded = self.evaluate_status(), self.evaluate_degraded()

    def _shifted(self, delta: Delta) -> int | None:
        if self._digest is None:
            return None
        new = sum(self.digest_of(item) for item in (*delta.added, *delta.updated))
        return combine(self._digest, new, -sum(self.digest_of(item) for item in delta.replaced))

    def _touch(self, index: int, digest: int | None) -> None:
        self.index = index
        self._digest = digest
        self.bodies.clear()
