"""What a stream of instances adds up to, and how each event differs from what was known before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bridge.client.sse import Event
from bridge.errors import ApiError

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One instance that came, changed or went. ``before`` and ``after`` are its documents, None where there is none."""

    change: Literal["added", "updated", "removed"]
    key: str
    before: Document | None
    after: Document | None

    @property
    def instance(self) -> Document:
        """The document that describes it best: as it is, or as it was last seen."""
        return self.after or self.before or {}

    @property
    def fields(self) -> dict[str, tuple[Any, Any]]:
        """The fields of an update whose values differ: before and after."""
        if self.before is None or self.after is None:
            return {}
        names = dict.fromkeys((*self.before, *self.after))
        pairs = {name: (self.before.get(name), self.after.get(name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


class InstanceView:
    """Remembers the instances of a stream by ``environment/source/id``.

    complete: whether a whole snapshot was seen.
    stale: environments that the last bookmark called stale.
    """

    def __init__(self) -> None:
        self.complete = False
        self.stale: tuple[str, ...] = ()
        self._known: dict[str, Document] = {}
        self._arriving: dict[str, Document] | None = None

    def apply(self, event: Event) -> list[Difference]:
        """Take an event in and say what is different now; what was known already makes no difference.

        A snapshot counts once its last piece is there; one that broke off is forgotten at the next ``open`` or ``reset``.
        Raises ApiError for an event that is not as the API promises.
        """
        if event.type in ("open", "reset"):
            self._arriving = None
            return []
        try:
            document = json.loads(event.data)
            if event.type == "snapshot":
                return self._snapshot(document)
            if event.type == "change":
                return self._change(document)
            if event.type == "bookmark":
                self.stale = tuple(str(name) for name in document.get("stale", ()))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise ApiError(f"a {event.type} event is not as promised: {type(error).__name__} {error}") from error
        return []

    def _snapshot(self, document: Document) -> list[Difference]:
        if self._arriving is None:
            self._arriving = {}
        self._arriving.update((_key(instance), instance) for instance in document["instances"])
        if document.get("complete") is not True:
            return []
        arrived, self._arriving, self.complete = self._arriving, None, True
        gone = [key for key in self._known if key not in arrived]
        return self._remove(gone) + self._put(arrived.items())

    def _change(self, document: Document) -> list[Difference]:
        put = [*document.get("added", ()), *document.get("updated", ())]
        return self._remove(document.get("removed", ())) + self._put((_key(instance), instance) for instance in put)

    def _put(self, entries: Iterable[tuple[str, Document]]) -> list[Difference]:
        differences: list[Difference] = []
        for key, after in entries:
            before = self._known.get(key)
            if before != after:
                self._known[key] = after
                differences.append(Difference("added" if before is None else "updated", key, before, after))
        return differences

    def _remove(self, keys: Iterable[str]) -> list[Difference]:
        gone = ((key, self._known.pop(key, None)) for key in keys)
        return [Difference("removed", key, before, None) for key, before in gone if before is not None]


def _key(instance: Document) -> str:
    return f"{instance['environment']}/{instance['source']}/{instance['id']}"
