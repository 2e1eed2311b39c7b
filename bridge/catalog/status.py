"""What is known of a source as a whole: when it was last confirmed, what is wrong with it, what was never read.

Freshness belongs to the source, never to an instance: silence changes one record here, not 100,000 bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from bridge.errors import ForbiddenError, SourceError
from bridge.model import Origin, covers

SourceState = Literal["starting", "synced", "stale", "failed", "forbidden", "retired"]


class SourceDocument(Struct, frozen=True, kw_only=True):
    """A source as ``/v1/environments`` shows it. Ages in milliseconds; ``age_ms`` is None where it was never read."""

    name: str
    type: str
    state: SourceState
    age_ms: int | None
    instances: int
    rejected: int
    held: int
    held_reason: str | None
    last_error: str | None


def state_of(*, retired: bool, read: bool, error: SourceError | None, stale: bool) -> SourceState:
    """The state by precedence.

    | retired | error     | read | stale | state     |
    |---------|-----------|------|-------|-----------|
    | yes     | any       | any  | any   | retired   |
    | no      | forbidden | any  | any   | forbidden |
    | no      | other     | any  | any   | failed    |
    | no      | none      | no   | any   | starting  |
    | no      | none      | yes  | yes   | stale     |
    | no      | none      | yes  | no    | synced    |
    """
    if retired:
        return "retired"
    if error is not None:
        return "forbidden" if isinstance(error, ForbiddenError) else "failed"
    if not read:
        return "starting"
    return "stale" if stale else "synced"


class SourceStatus:
    """The running record of one source. Times are monotonic seconds of the same clock as the arguments'."""

    def __init__(self, origin: Origin, type_: str, *, scopes: tuple[str, ...] = ("",), fresh_for: float) -> None:
        self.origin = origin
        self.type = type_
        self.scopes = scopes
        self.fresh_for = fresh_for
        self.retired_at: float | None = None
        self.failing_since: float | None = None
        self.failures = 0
        self.errors: dict[str, SourceError] = {}
        self.rejected: dict[str, str] = {}
        self.unread: set[str] = set(scopes)
        self._restored_at: float | None = None
        self._excused = 0.0
        self._confirmed: dict[str, float] = {}

    @property
    def read(self) -> bool:
        """Whether any part of it was ever read, in this run or from disk."""
        return self._restored_at is not None or bool(self._confirmed)

    @property
    def listed(self) -> bool:
        """Whether its first listing is over: loaded from disk, or every scope listed or named unknown once."""
        if self._restored_at is not None:
            return True
        return bool(self._confirmed) and all(scope in self._confirmed or scope in self.errors for scope in self.scopes)

    def declare(self, type_: str, scopes: tuple[str, ...], fresh_for: float) -> None:
        """Take over what the configuration says now; a scope that is new was never read."""
        if self.scopes and scopes != self.scopes:
            never = {scope for scope in scopes if not any(covers(known, scope) for known in self.scopes)}
            never |= {scope for scope in scopes if any(covers(part, scope) for part in self.unread)}
            self.unread = never | {part for part in self.unread if any(covers(scope, part) for scope in scopes)}
            self.errors = {part: error for part, error in self.errors.items() if any(covers(scope, part) for scope in scopes)}
        self.type, self.scopes, self.fresh_for, self.retired_at = type_, scopes, fresh_for, None

    def restore(self, confirmed_at: float, unread: frozenset[str]) -> None:
        """Take over what the disk knows; ``confirmed_at`` may lie before this process began."""
        self._restored_at = confirmed_at
        self.unread = set(unread)

    def hear(self, scope: str, now: float) -> None:
        """A declared scope answered; it counts as confirmed unless a part of it is unknown."""
        if any(covers(scope, part) for part in self.errors):
            if not any(covers(part, scope) for part in self.errors):
                self._confirmed.setdefault(scope, now)
        else:
            self._confirmed[scope] = now
            self._excused = 0.0
            if not self.errors:
                self.failing_since = None

    def listing(self, scope: str, unknown: Mapping[str, SourceError], strange: frozenset[str], now: float) -> None:
        """A listing of ``scope`` told everything but ``unknown``, of which the parts in ``strange`` had no groups before."""
        for part in [part for part in self.errors if covers(scope, part)]:
            del self.errors[part]
        still = {part for part in self.unread if not covers(scope, part) or any(covers(gap, part) for gap in unknown)}
        never = {part for part in unknown if any(covers(whole, part) for whole in self.unread)}
        self.unread = still | never | (strange - set(self.scopes))
        for part, error in unknown.items():
            self.fail(part, error, now)

    def fail(self, scope: str, error: SourceError, now: float) -> None:
        """``scope`` (a declared one, or a part of it) cannot be told, because of ``error``."""
        self.errors[scope] = error
        self.failures += 1
        if self.failing_since is None:
            self.failing_since = now

    def recover(self, scope: str) -> None:
        """What failed for ``scope`` as a whole answers again."""
        self.errors.pop(scope, None)

    @property
    def error(self) -> SourceError | None:
        """The error that decides the state: a denial before any other, then the first."""
        errors = self.errors.values()
        return next((error for error in errors if isinstance(error, ForbiddenError)), next(iter(errors), None))

    def confirmed_at(self) -> float | None:
        """When the least fresh of its scopes was last confirmed; None where nothing was ever read."""
        times = [at for scope in self.scopes if (at := self._confirmed.get(scope, self._restored_at)) is not None]
        return min(times, default=self._restored_at)

    def is_stale(self, now: float) -> bool:
        """Whether it is unconfirmed past ``fresh_for``, or was not confirmed since this process began."""
        at = self.confirmed_at()
        if at is None:
            return False
        since_start = self._restored_at is None or all(scope in self._confirmed for scope in self.scopes)
        return self.retired_at is not None or not since_start or now - at - self._excused > self.fresh_for

    def unconfirmed_for(self, now: float) -> float:
        """Seconds since it was confirmed, our own pauses not counted; 0 where it was never read."""
        at = self.confirmed_at()
        return 0.0 if at is None else now - at - self._excused

    def excuse(self, gap: float) -> None:
        """Our own process stood still for ``gap`` seconds: that is not the source's silence."""
        self._excused += gap

    def state(self, now: float) -> SourceState:
        """Its state; see `state_of`."""
        return state_of(retired=self.retired_at is not None, read=self.read, error=self.error, stale=self.is_stale(now))

    def age_ms(self, now: float) -> int | None:
        """Milliseconds since it was last confirmed."""
        at = self.confirmed_at()
        return None if at is None else max(0, round((now - at) * 1000))

    def document(self, now: float, *, instances: int, held: int, held_reason: str | None) -> SourceDocument:
        """Its row in ``/v1/environments``."""
        error = self.error
        return SourceDocument(
            name=self.origin.source,
            type=self.type,
            state=self.state(now),
            age_ms=self.age_ms(now),
            instances=instances,
            rejected=len(self.rejected),
            held=held,
            held_reason=held_reason,
            last_error=str(error) if error is not None else next(iter(self.rejected.values()), None),
        )
