"""What a reader of a source would hold after each observation: the simplest consumer that obeys the contract."""

from __future__ import annotations

from bridge.model import Confirmed, Gone, InstanceGroup, Listing, Observation, Rejected, SourceEvent, covers


class Ledger:
    """Instance ids by group key, and what was said beside them."""

    def __init__(self) -> None:
        self.groups: dict[str, frozenset[str]] = {}
        self.services: set[str] = set()
        self.rejected: dict[str, str] = {}
        self.unknown: list[str] = []
        self.listings = 0
        self.confirmed = 0

    @property
    def ids(self) -> set[str]:
        """All instances held."""
        return set().union(*self.groups.values())

    def apply(self, observation: Observation) -> None:
        """Take in what a source yielded."""
        for event in observation if isinstance(observation, tuple) else (observation,):
            self._apply(event)

    def _apply(self, event: SourceEvent) -> None:
        match event:
            case Listing():
                self._listing(event)
            case InstanceGroup():
                self._put(event)
            case Gone():
                self.groups.pop(event.key, None)
            case Rejected():
                self.rejected[event.key] = event.reason
            case Confirmed():
                self.confirmed += 1

    def _put(self, group: InstanceGroup, kept: frozenset[str] = frozenset()) -> None:
        self.groups[group.key] = frozenset(instance.id for instance in group.instances) | kept
        self.services.update(str(name) for name in group.services)

    def _listing(self, listing: Listing) -> None:
        self.listings += 1
        self.unknown = list(listing.unknown)
        self.rejected = dict(listing.rejected)
        missing = set(listing.unchanged) - set(self.groups)
        assert not missing, f"unchanged, but never yielded: {missing}"
        present = {group.key for group in listing.groups} | set(listing.unchanged)
        for key in list(self.groups):
            kept = key in self.rejected or any(covers(scope, key) for scope in self.unknown)
            if covers(listing.scope, key) and key not in present and not kept:
                del self.groups[key]
        for group in listing.groups:
            before = self.groups.get(group.key, frozenset())
            unsure = any(covers(scope, group.key) for scope in self.unknown)
            self._put(group, before if unsure else before & set(self.rejected))
