"""Where observations become changes of the catalog: transform, fold, publish.

An observation is applied whole or not at all, under one index; a large listing under several, service by service, and what
it lacks last. What the pipeline cannot take is rejected one by one and keeps its old record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

from msgspec import structs

from bridge.aio import Clock
from bridge.catalog.catalog import Catalog
from bridge.catalog.guard import GuardPolicy
from bridge.catalog.log import Change
from bridge.catalog.partition import Partition
from bridge.catalog.record import Changes
from bridge.catalog.records import SourceRecords
from bridge.catalog.status import SourceStatus
from bridge.contracts import SourceConfig
from bridge.errors import SourceError, TransientError
from bridge.model import (
    Confirmed,
    InstanceGroup,
    Listing,
    Observation,
    Origin,
    Rejected,
    SourceEvent,
)
from bridge.sync.application import PIECE, Application, Pieces
from bridge.sync.rejections import Rejections
from bridge.sync.review import Review
from bridge.sync.transform import Transform

RETIRED_REMEDY = "put it back to undo; where it only got another name, give that one `renamed_from`"

PAUSE = 3.0
"""A gap between two ticks (seconds) above which the process itself was paused, and deadlines are put off."""


def guard_policy(config: SourceConfig) -> GuardPolicy | None:
    """The guard that ``config`` asks for; None where it is off."""
    if config.guard is None:
        return None
    return GuardPolicy(config.guard.share, config.guard.floor, config.guard.for_, config.guard_only_when_emptied)


def fresh_for(config: SourceConfig, *, polled: bool) -> float:
    """Seconds without confirmation after which a source is stale."""
    if config.fresh_for is not None:
        return config.fresh_for
    return max(30.0, 3 * (config.refresh or 0.0)) if polled else 90.0


@dataclass(slots=True)
class Feed:
    """One configured source as ingest sees it.

    refused: what our own rules reject, by group: id -> reason. turn: held while an observation is applied.
    """

    status: SourceStatus
    records: SourceRecords
    transform: Transform
    max_instances: int
    hold: float | None
    rejections: Rejections
    refused: dict[str, dict[str, str]] = field(default_factory=dict)
    relisted_at: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    application: Application | None = None

    def conclude(self) -> None:
        """End what is being applied, now."""
        if self.application is not None:
            self.application.end()


class Ingest:
    """The writer of our own partition."""

    def __init__(self, catalog: Catalog, partition: Partition, clock: Clock, logger: logging.Logger) -> None:
        self.catalog = catalog
        self.partition = partition
        self.feeds: dict[str, Feed] = {}
        self.on_changes: Callable[[str, Changes, Change | None], None] = lambda _source, _changes, _change: None
        self.on_forgotten: Callable[[Change], None] = lambda _change: None
        self.on_linger: Callable[[float], None] = lambda _due: None
        self.on_listing: Callable[[bool], None] = lambda _begins: None
        self.accepted = 0
        self._listings = 0
        self._clock = clock
        self._logger = logger
        self.review = Review(catalog, partition, clock, logger)
        self._ticked = clock.monotonic()

    # -- sources

    def add(self, name: str, config: SourceConfig, *, scopes: tuple[str, ...] | None, polled: bool) -> Feed:
        """Take on a configured source; records it has already (from disk, or before a reload) stay.

        scopes: None while the source was not opened yet, so that nobody knows.
        """
        self._conclude(name)
        if scopes is None:
            scopes = (self.partition.statuses[name].scopes if name in self.partition.statuses else ()) or ("",)
        origin = Origin(self.partition.environment, name)
        records = self.partition.sources.get(name)
        if records is None:
            records = self.partition.sources[name] = SourceRecords(guard_policy(config), scopes)
        records.policy, records.scopes = guard_policy(config), scopes
        status = self.partition.statuses.get(name)
        if status is None:
            status = SourceStatus(origin, config.type, scopes=scopes, fresh_for=0.0)
            self.partition.statuses[name] = status
        status.declare(config.type, scopes, fresh_for(config, polled=polled))
        if "" not in scopes:
            status.recover("")  # it could not be opened before; no observation of a part would end that
        hold = None if config.hold == "forever" else float(config.hold)
        transform, rejections = Transform(config, self.partition.environment, name), Rejections(name, self._logger)
        feed = Feed(status, records, transform, config.max_instances, hold, rejections)
        feed.relisted_at = self._clock.monotonic()
        self.feeds[name] = feed
        self.review()
        return feed

    def retire(self, name: str, now: float) -> None:
        """A source is no longer configured: its records stay for a while, and say so. One that has none goes at once."""
        self._conclude(name)
        self.feeds.pop(name, None)
        if not (self.partition.sources[name].records or self.partition.sources[name].groups):
            self.drop(name)
            return
        self.partition.statuses[name].retired_at = now
        self._logger.warning(
            "source retired",
            extra={"source": name, "instances": len(self.partition.sources[name].records), "remedy": RETIRED_REMEDY},
        )
        self.review()

    def drop(self, name: str) -> None:
        """Remove a retired source with all its records."""
        records = self.partition.sources[name]
        self._publish(name, records.clear(self._clock.monotonic()))
        del self.partition.sources[name], self.partition.statuses[name]
        self.on_changes(name, Changes(), None)
        self.review()

    def rename(self, former: str, name: str) -> None:
        """Hand the records of ``former`` over to ``name`` under one index."""
        if former not in self.partition.sources or name in self.partition.sources:
            return
        self._conclude(former)
        old, status = self.partition.sources.pop(former), self.partition.statuses.pop(former)
        records = SourceRecords(old.policy, old.scopes)
        changes = Changes()
        for id_, record in old.records.items():
            parts = tuple((key, structs.replace(part, source=name)) for key, part in record.parts)
            changes.pairs[f"{former}/{id_}"] = (record.instance, None)
            changes.pairs[f"{name}/{id_}"] = (None, records.restore(id_, parts, record.since))
        for key, group in old.groups.items():
            records.restore_group(key, group.services)
            changes.groups[key] = None
        status.origin = Origin(self.partition.environment, name)
        status.retired_at = None
        self.partition.sources[name], self.partition.statuses[name] = records, status
        self._publish(name, changes)
        self.on_changes(former, Changes(groups=dict.fromkeys(old.groups)), None)  # nothing is left there

    # -- what a source says

    def accept(self, name: str, observation: Observation, *, scope: str = "", listing: bool = False) -> None:
        """As `apply`, at once."""
        application = Application(self._steps(name, observation, scope, listing))
        while application.step():
            pass

    async def apply(self, name: str, observation: Observation, *, scope: str = "", listing: bool = False) -> None:
        """Apply one observation of the source ``name``, heard on its declared ``scope``; others have their turn meanwhile.

        listing: a `Confirmed` counts as a complete listing for the guard (polls).
        Raises TransientError where it leads beyond ``max_instances``, ContractError where it breaks the contract; then
        nothing was changed. Cancelled, what was begun is ended first.
        """
        feed = self.feeds[name]
        async with feed.turn:
            feed.application = application = Application(self._steps(name, observation, scope, listing))
            try:
                while application.step():  # noqa: ASYNC110  # it is a step of work that is awaited, no event
                    await asyncio.sleep(0)
            finally:
                application.end()
                feed.application = None

    def _steps(self, name: str, observation: Observation, scope: str, listing: bool) -> Iterator[bool]:
        feed, now = self.feeds[name], self._clock.monotonic()
        events: list[SourceEvent] = []
        pieces = Pieces()
        for event in observation if isinstance(observation, tuple) else (observation,):
            if isinstance(event, Listing):
                events.append((yield from self._transform_listing(feed, event, pieces)))
            else:
                events += self._transform(feed, event)
        self._check_size(feed, events)
        strange = _strange(feed, events)
        if len(events) == 1 and isinstance(event := events[0], Listing) and pieces.size > PIECE:
            changes = Changes()
            yield from self._fold_pieces(name, feed.records, event, pieces, now)
        else:
            changes = feed.records.fold(events, now, self._clock.wall())
        if events:
            feed.status.recover(scope)
        for event in events:
            if isinstance(event, Listing):
                feed.status.listing(event.scope, event.unknown, strange.intersection(event.unknown), now)
        feed.status.rejected = feed.rejections.note(events, feed.records)
        if any(_tells(event) for event in events):
            feed.status.hear(scope, now)
        if listing:
            for event in events:
                if isinstance(event, Confirmed):
                    feed.records.relist(event.scope, changes, now)
        if feed.hold is not None:
            changes.absorb(feed.records.mark("listed", scope))
        self._publish(name, changes)
        self.accepted += len(events)
        if any(isinstance(event, InstanceGroup) for event in events):
            self._schedule_settling(feed)
        self.review(name)

    def _fold_pieces(self, name: str, records: SourceRecords, listing: Listing, pieces: Pieces, now: float) -> Iterator[bool]:
        """Apply a listing piece by piece: first what it shows, then what it lacks."""
        wall = self._clock.wall()
        records.check((listing,))
        self._listings += 1
        if self._listings == 1:
            self.on_listing(True)
        try:
            records.begin_listing(listing, now)
            for piece in pieces.cut():
                self._publish(name, records.fold_piece(piece, now, wall))
                yield True
            for changes in records.end_listing(listing, now, PIECE):
                self._publish(name, changes)  # before others have their turn: records are never ahead of what is published
                yield True
        finally:
            self._listings -= 1
            if not self._listings:
                self.on_listing(False)

    def fail(self, name: str, scope: str, error: SourceError) -> None:
        """A source could not tell ``scope``; nothing is removed, its state says so."""
        self.feeds[name].status.fail(scope, error, self._clock.monotonic())
        self.review(name)

    def settle(self) -> None:
        """Let go of what lingered long enough."""
        now = self._clock.monotonic()
        for name, feed in self.feeds.items():
            changes, due = feed.records.settle(now)
            if changes:
                self._publish(name, changes)
            if due is not None:
                self.on_linger(due)

    def tick(self) -> None:
        """What time alone changes: freshness, expiry, services forgotten. Called about once a second."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        gap, self._ticked = now - self._ticked, now
        for name, feed in self.feeds.items():
            if gap > PAUSE:
                feed.status.excuse(gap)
            if feed.hold is not None and feed.status.unconfirmed_for(now) > feed.hold:
                self._publish(name, feed.records.mark("expired"))
        forgotten = self.catalog.forget_emptied(now=now, wall=wall)
        if forgotten is not None:
            self.on_forgotten(forgotten)
        self.catalog.log.trim(now)
        self.review()

    def due_for_relisting(self) -> list[str]:
        """Sources whose guard waits for a further complete listing, asked for twice within the time it holds."""
        now, due = self._clock.monotonic(), []
        for name, feed in self.feeds.items():
            policy = feed.records.policy
            if not feed.records.held or policy is None:
                feed.relisted_at = now
            elif now - feed.relisted_at >= policy.hold_for / 2:
                feed.relisted_at = now
                due.append(name)
        return due

    # -- steps

    def _publish(self, name: str, changes: Changes) -> None:
        if changes:
            now, wall = self._clock.monotonic(), self._clock.wall()
            change = self.catalog.publish(self.partition, changes, now=now, wall=wall)
            self.on_changes(name, changes, change)

    def _schedule_settling(self, feed: Feed) -> None:
        due = feed.records.settling_due()
        if due is not None:
            self.on_linger(due)

    def _check_size(self, feed: Feed, events: list[SourceEvent]) -> None:
        known, most = feed.records.records, feed.max_instances
        told = [group for event in events for group in (event.groups if isinstance(event, Listing) else [event])]
        groups = [group for group in told if isinstance(group, InstanceGroup)]
        if len(known) + sum(len(group.instances) for group in groups) <= most:
            return
        shown = {instance.id for group in groups for instance in group.instances}
        new = sum(id_ not in known for id_ in shown)
        if new and len(known) + new - len(feed.records.replaced(events) - shown) > most:
            raise TransientError(
                f"the source shows more than max_instances ({most}); its last good state stays. Raise max_instances"
            )

    def _conclude(self, name: str) -> None:
        if (feed := self.feeds.get(name)) is not None:
            feed.conclude()

    def _transform_listing(self, feed: Feed, listing: Listing, pieces: Pieces) -> Generator[bool, None, Listing]:
        rejected: dict[str, str] = dict(listing.rejected)
        for key in listing.unchanged:  # the source does not know what was refused here
            rejected.update(feed.refused.get(key, {}))
        groups: list[InstanceGroup] = []
        size = 0
        for raw in listing.groups:
            group = self._group(feed, raw, rejected)
            groups.append(group)
            pieces.add(group)
            size += len(raw.instances) + 1  # a group without instances is work, too
            if size >= PIECE:
                size = 0
                yield False
        return structs.replace(listing, groups=tuple(groups), rejected=rejected)

    def _transform(self, feed: Feed, event: SourceEvent) -> list[SourceEvent]:
        if not isinstance(event, InstanceGroup):
            return [event]
        rejected: dict[str, str] = {}
        return [self._group(feed, event, rejected), *(Rejected(key, reason) for key, reason in rejected.items())]

    def _group(self, feed: Feed, group: InstanceGroup, rejected: dict[str, str]) -> InstanceGroup:
        instances, faults = feed.transform.admit(group.instances, feed.records.records, feed.records.groups.get(group.key))
        if faults:
            raw = {instance.id: instance for instance in group.instances}
            refused = {id_: f"{raw[id_].namespace}/{raw[id_].service} {id_}: {fault}" for id_, fault in faults.items()}
            feed.refused[group.key] = refused
            rejected.update(refused)
        elif feed.refused:
            feed.refused.pop(group.key, None)
        services = tuple(name for raw_name in group.services if (name := feed.transform.service(raw_name)) is not None)
        return InstanceGroup(group.key, instances, services)


def _strange(feed: Feed, events: Iterable[SourceEvent]) -> frozenset[str]:
    """The parts that listings could not tell, and of which no group was ever seen."""
    unknown = {part for event in events if isinstance(event, Listing) for part in event.unknown}
    return frozenset(part for part in unknown if not feed.records.has_under(part))


def _tells(event: SourceEvent) -> bool:
    """Whether the event tells anything: a listing whose every part is unknown does not."""
    return not isinstance(event, Listing) or bool(event.groups or event.unchanged or event.gone or not event.unknown)
