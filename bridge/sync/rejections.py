"""What of a source is rejected now, object by object, and why; each is told once in the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from bridge.catalog.records import SourceRecords
from bridge.model import Gone, InstanceGroup, Listing, Rejected, SourceEvent, covers

LONGEST = 1024
"""Characters of a reason; it may quote what the source said."""

LOGGED = 10
"""Rejected objects that one observation writes to the log by name."""


class Rejections:
    """The rejections of one source. A rejection ends when what it belongs to is told again without it, or ends."""

    def __init__(self, source: str, logger: logging.Logger) -> None:
        self._source = source
        self._logger = logger
        self._known: dict[str, tuple[str, str]] = {}  # key -> (the group or scope it belongs to, reason)

    def note(self, events: Sequence[SourceEvent], records: SourceRecords) -> dict[str, str]:
        """Follow events that belong together, already folded into ``records``; key -> reason as it stands then."""
        former = self._reasons()
        for event in events:
            match event:
                case Listing():
                    self._note_listing(event, records)
                case InstanceGroup() if self._known:
                    ids = {instance.id for instance in event.instances}
                    self._end([key for key, (place, _) in self._known.items() if event.key in (key, place) or key in ids])
                case Gone():
                    self._end([key for key, (place, _) in self._known.items() if event.key in (key, place)])
        group = next((event.key for event in events if isinstance(event, InstanceGroup)), None)
        for event in events:
            if isinstance(event, InstanceGroup):
                group = event.key  # what is rejected behind a group was seen in it
            elif isinstance(event, Rejected):
                self._known[event.key] = (group or event.key, event.reason[:LONGEST])
        current = self._reasons()
        if current != former:
            self._tell(former, current)
        return current

    def _note_listing(self, listing: Listing, records: SourceRecords) -> None:
        if self._known:
            shown = {instance.id for group in listing.groups for instance in group.instances}
            self._end([key for key, (place, _) in self._known.items() if covers(listing.scope, place) or key in shown])
        for key, reason in listing.rejected.items():
            record = records.records.get(key)
            place = key if covers(listing.scope, key) else listing.scope
            self._known[key] = (record.parts[0][0] if record is not None else place, reason[:LONGEST])

    def _end(self, keys: list[str]) -> None:
        for key in keys:
            del self._known[key]

    def _reasons(self) -> dict[str, str]:
        return {key: reason for key, (_, reason) in self._known.items()}

    def _tell(self, former: Mapping[str, str], current: Mapping[str, str]) -> None:
        new = [key for key, reason in current.items() if former.get(key) != reason]
        for key in new[:LOGGED]:
            self._logger.warning("object rejected", extra={"source": self._source, "key": key, "reason": current[key]})
        if len(new) > LOGGED:
            self._logger.warning("further objects rejected", extra={"source": self._source, "count": len(new) - LOGGED})
        if over := len(former.keys() - current.keys()):
            fields = {"source": self._source, "count": over, "left": len(current)}
            self._logger.info("objects no longer rejected", extra=fields)
