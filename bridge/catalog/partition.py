"""One environment's records: its sources, at (epoch, revision)."""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import Struct

from bridge.catalog.records import SourceRecords
from bridge.catalog.status import SourceDocument, SourceStatus
from bridge.model import Origin


class EnvironmentDocument(Struct, frozen=True, kw_only=True):
    """An environment as ``/v1/environments`` shows it; ``via`` says how its records come here."""

    name: str
    uid: str
    state: str
    epoch: int
    revision: int
    age_ms: int | None
    services: int
    instances: int
    via: str
    sources: tuple[SourceDocument, ...]


@dataclass(slots=True)
class Partition:
    """Everything one environment's own bridge says.

    ``revision`` grows with each change, ``epoch`` with each owner; ``services`` counts those it knows.
    """

    environment: str
    uid: str
    epoch: int
    revision: int = 0
    services: int = 0
    sources: dict[str, SourceRecords] = field(default_factory=dict)
    statuses: dict[str, SourceStatus] = field(default_factory=dict)

    def origin(self, source: str) -> Origin:
        """The origin of what ``source`` says."""
        return Origin(self.environment, source)

    @property
    def instances(self) -> int:
        """How many instances it holds."""
        return sum(len(records.records) for records in self.sources.values())

    def age_ms(self, now: float) -> int | None:
        """Milliseconds since its least fresh source that was ever read was confirmed."""
        ages = [age for status in self.statuses.values() if (age := status.age_ms(now)) is not None]
        return max(ages, default=None)

    def document(self, now: float) -> EnvironmentDocument:
        """Its row in ``/v1/environments``; our own environment is live as long as we can answer."""
        return EnvironmentDocument(
            name=self.environment,
            uid=self.uid,
            state="live",
            epoch=self.epoch,
            revision=self.revision,
            age_ms=self.age_ms(now),
            services=self.services,
            instances=self.instances,
            via="local",
            sources=tuple(
                status.document(
                    now,
                    instances=len(self.sources[name].records),
                    held=len(self.sources[name].held),
                    held_reason=self.sources[name].held_reason,
                )
                for name, status in sorted(self.statuses.items())
            ),
        )
