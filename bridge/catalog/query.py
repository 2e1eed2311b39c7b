"""What a reader asks: parameters become a frozen, normalised query that equal readers share.

Unknown is told, not ignored: a parameter or value nobody knows is an error that names the nearest valid one.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bridge.contracts import parse_duration
from bridge.errors import QueryError
from bridge.model import ServiceInstance

Resource = Literal["services", "service", "instances", "instance", "environments"]

SETS = ("environment", "source", "namespace", "tag", "zone", "node", "port")
CHOICES: dict[str, tuple[str, ...]] = {
    "health": ("ready", "unready", "unknown", "any"),
    "lifecycle": ("active", "draining", "any"),
    "state": ("listed", "down", "expired", "any"),
    "stale": ("yes", "no"),
}
FILTERS = (*SETS, *CHOICES, "near", "limit", "page")
READS = ("after", "wait")
MAX_WAIT = 600.0
DEFAULT_WAIT = 300.0
_DIGITS = re.compile(r"[0-9]{1,30}")
_LONGEST_QUOTED = 60
"""Characters of a wrong value that its error repeats."""

Values = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Query:
    """Normalised filters of one read; empty tuples take everything. ``limit`` counts entries, ``page`` is where they begin.

    Values inside one filter are alternatives, filters all hold. ``health`` and the like are never empty: ``any`` became all.
    """

    environment: Values = ()
    source: Values = ()
    namespace: Values = ()
    tag: Values = ()
    zone: Values = ()
    node: Values = ()
    port: Values = ()
    meta: tuple[tuple[str, Values], ...] = ()
    health: Values = ("ready",)
    lifecycle: Values = ("active",)
    state: Values = ("listed",)
    stale: bool = True
    near: Values = ()
    limit: int | None = None
    page: tuple[str, ...] | None = None
    filtered: bool = field(default=False)
    """Whether any filter beyond environment and namespace was given: such a list of services has no empty ones."""

    @property
    def paged(self) -> bool:
        """Whether only a part of the list was asked for."""
        return self.limit is not None or self.page is not None

    def reaches(self, environment: str, source: str) -> bool:
        """Whether instances of this source can be in the answer at all."""
        return (not self.environment or environment in self.environment) and (not self.source or source in self.source)

    def matches(self, instance: ServiceInstance, *, degraded: bool = False) -> bool:
        """Whether ``instance`` is asked for; ``degraded``: expired instances stand in for listed ones of its service."""
        return (
            instance.health in self.health
            and instance.lifecycle in self.lifecycle
            and (instance.state in self.state or (degraded and instance.state == "expired" and "listed" in self.state))
            and (not self.environment or instance.environment in self.environment)
            and (not self.source or instance.source in self.source)
            and (not self.namespace or instance.namespace in self.namespace)
            and (not self.zone or instance.zone in self.zone)
            and (not self.node or instance.node in self.node)
            and (not self.tag or any(tag in self.tag for tag in instance.tags))
            and (not self.port or any(port.name in self.port for port in instance.ports))
            and (not self.meta or all(instance.meta.get(key) in values for key, values in self.meta))
        )

    def distance(self, instance: ServiceInstance) -> int:
        """Rank by ``near``: the position of the first value that is its environment or zone, those of none last."""
        for rank, value in enumerate(self.near):
            if value in (instance.environment, instance.zone):
                return rank
        return len(self.near)


@dataclass(frozen=True, slots=True)
class Reading:
    """How an answer is waited for: ``after`` a cursor, for at most ``wait`` seconds (None: not at all)."""

    after: str | None = None
    wait: float | None = None


def nearest(word: str, valid: Iterable[str]) -> str:
    """The valid word most like ``word``, or that begins with it."""
    choices = list(valid)
    begun = [choice for choice in choices if word and choice.startswith(word)]
    return (begun or difflib.get_close_matches(word, choices, n=1, cutoff=0.0) or choices)[0]


def parse(resource: Resource, parameters: Sequence[tuple[str, str]]) -> tuple[Query, Reading]:
    """The query and the reading that decoded ``parameters`` ask of ``resource``.

    Raises QueryError naming the parameter for an unknown name (with the nearest valid one), a wrong value of a closed
    set, a limit, page or duration that is none, and a single-valued parameter given twice.
    """
    valid = (*FILTERS, *READS) if resource in ("services", "service", "instances") else READS
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        is_meta = valid is not READS and name.startswith("meta.") and len(name) > 5
        if name not in valid and not is_meta:
            names = [*valid, *(["meta.<key>"] if valid is not READS else [])]
            raise QueryError(
                f"unknown parameter; did you mean {nearest(name, names)!r}? Valid: {', '.join(names)}", parameter=name
            )
        given.setdefault(name, []).append(value)
    for name in ("stale", "limit", "page", *READS):
        if len(given.get(name, ())) > 1:
            raise QueryError(f"{name!r} was given more than once", parameter=name)
    everything = resource == "services"
    query = Query(
        **{name: tuple(sorted(set(given.get(name, ())))) for name in SETS},
        meta=tuple(sorted((name[5:], tuple(sorted(set(values)))) for name, values in given.items() if name.startswith("meta."))),
        health=_choice(given, "health", "any" if everything else "ready"),
        lifecycle=_choice(given, "lifecycle", "any" if everything else "active"),
        state=_choice(given, "state", "listed"),
        stale=_choice(given, "stale", "yes") == ("yes",),
        near=tuple(dict.fromkeys(given.get("near", ()))),
        limit=_limit(given),
        page=_page(given, 2 if resource == "services" else 6),
        filtered=any(name not in ("environment", "namespace", "near", "limit", "page", *READS) for name in given),
    )
    return query, Reading(after=given["after"][0] if "after" in given else None, wait=_wait(given))


def _choice(given: dict[str, list[str]], name: str, default: str) -> Values:
    valid = CHOICES[name]
    values = given.get(name, [default])
    for value in values:
        if value not in valid:
            near = f"did you mean {nearest(value, valid)!r}? Valid: {', '.join(valid)}"
            raise QueryError(f"no value of {name!r}: {value[:_LONGEST_QUOTED]!r}; {near}", parameter=name)
    return tuple(value for value in valid if value != "any" and (value in values or "any" in values))


def _limit(given: dict[str, list[str]]) -> int | None:
    if "limit" not in given:
        return None
    text = given["limit"][0]
    if not _DIGITS.fullmatch(text) or int(text) < 1:
        raise QueryError("'limit' is a whole number of at least 1", parameter="limit")
    return int(text)


def _wait(given: dict[str, list[str]]) -> float | None:
    if "wait" not in given:
        return DEFAULT_WAIT if "after" in given else None
    text = given["wait"][0]
    try:
        return min(parse_duration(text), MAX_WAIT)
    except ValueError as error:
        raise QueryError("'wait' is a duration such as 500ms, 30s or 5m", parameter="wait") from error


def encode_page(position: Sequence[str]) -> str:
    """An opaque page token that leads on behind ``position``, the sort key of the last entry shown."""
    return base64.urlsafe_b64encode(b"\x01" + "\x00".join(position).encode()).decode().rstrip("=")


def _page(given: dict[str, list[str]], length: int) -> tuple[str, ...] | None:
    if "page" not in given:
        return None
    text = given["page"][0]
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        position = tuple(raw[1:].decode().split("\x00"))
        if raw[:1] == b"\x01" and len(position) == length:
            return position
    except (binascii.Error, UnicodeError):
        pass
    raise QueryError("'page' is not one that an answer's 'next' gave", parameter="page")
