"""Slices as they are kept, and their groups: rendered when a slice is read, and again only as far as something changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from bridge.model import Origin, ServiceName

from .difference import difference
from .mapping import NodeFacts, SliceGroup, group_from_rows, spliced
from .policy import Policy
from .rows import SliceRows, ready_nodes, rows_of, splice, unpack
from .shapes import SliceContent
from .wire import SliceFrame, read_endpoints, read_frame

REMEMBERED = 32 * 2**20
"""Bytes: the slices of about 100,000 endpoints."""
_REFERENCE = 8

Digest = tuple[int, int]
"""Hash and length of an object's text: another text has another one."""


def digest_of(text: bytes) -> Digest:
    """The digest of an object's text, in this process."""
    return hash(text), len(text)


class SliceRecord(Struct):
    """A slice as it is kept: packed, because most are read again only when their Service changes."""

    key: str
    name: ServiceName
    digest: Digest
    packed: bytes
    ready_on: frozenset[str] | None = None

    def ready_nodes(self) -> frozenset[str]:
        """As `rows.ready_nodes`."""
        if self.ready_on is None:
            self.ready_on = ready_nodes(unpack(self.packed).rows)
        return self.ready_on


class SliceInput(NamedTuple):
    """Everything that the group of a slice is rendered from: equal input, equal group. places: digest of where Nodes are."""

    packed: bytes
    name: ServiceName
    policy: Policy
    places: bytes


class Rendered(NamedTuple):
    """A group, what it was rendered from, and the slice's text (empty where it was not at hand) and number of endpoints."""

    made_from: SliceInput
    mapped: SliceGroup
    text: bytes
    endpoints: int

    @property
    def cost(self) -> int:
        """Bytes that it takes to remember it."""
        return len(self.text) + len(self.mapped.group.instances) * _REFERENCE


class Renderer:
    """Renders slices. Of an endpoint that did not change the same instance is used again, which the core notices at once.

    most: bytes to remember the slices that were rendered last: what they said, and their groups. (As a rule the catalog holds
    the same instances; they cost nothing then.)
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._size = 0
        self._recent: dict[str, Rendered] = {}

    def render(
        self,
        key: str,
        made_from: SliceInput,
        nodes: Mapping[str, NodeFacts],
        origin: Origin,
        rows: SliceRows | None = None,
        text: bytes = b"",
    ) -> SliceGroup:
        """The group of a slice (`mapping.group_from_rows`). rows, text: what was packed in ``made_from``, where it is at hand."""
        former = self._recent.get(key)
        if former is not None and former.made_from == made_from:
            return former.mapped
        if former is not None and former.made_from.packed == made_from.packed:
            text = text or former.text
        content = unpack(made_from.packed) if rows is None else rows
        mapped = group_from_rows(key, made_from.name, content, made_from.policy, nodes, origin)
        self._remember(key, Rendered(made_from, mapped, text, len(content.rows)))
        return mapped

    def change(
        self, key: str, made_from: SliceInput, frame: SliceFrame, text: bytes, nodes: Mapping[str, NodeFacts], origin: Origin
    ) -> tuple[SliceInput, SliceGroup] | None:
        """What a slice is now, where only the endpoints that changed had to be read; None where that does not do.

        made_from: what it was rendered from before. frame, text: how it is now.
        """
        former = self._recent.get(key)
        if former is None or former.made_from != made_from or former.mapped.rejected:
            return None
        if former.endpoints != len(former.mapped.group.instances):
            return None  # some are told twice: an endpoint's place is not its instance's
        before = read_frame(former.text)
        if before is None:
            return None
        found = difference(bytes(before.endpoints), bytes(frame.endpoints), former.endpoints)
        endpoints = None if found is None else read_endpoints(found.text)
        if found is None or endpoints is None:
            return None
        rows = rows_of(SliceContent(frame.address_type, endpoints, frame.ports))
        packed = splice(made_from.packed, found.head, found.tail, rows)
        if packed is None:
            return None
        between = group_from_rows(key, made_from.name, rows, made_from.policy, nodes, origin)
        mapped = spliced(former.mapped, found.head, found.tail, between)
        if mapped is None:
            return None
        now = made_from._replace(packed=packed)
        self._remember(key, Rendered(now, mapped, text, found.head + len(rows.rows) + found.tail))
        return now, mapped

    def _remember(self, key: str, rendered: Rendered) -> None:
        self.forget(key)
        self._recent[key] = rendered
        self._size += rendered.cost
        while self._size > self._most:
            self.forget(next(iter(self._recent)))

    def forget(self, key: str) -> None:
        """Forget a slice, which is gone."""
        former = self._recent.pop(key, None)
        if former is not None:
            self._size -= former.cost
