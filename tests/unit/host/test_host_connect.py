"""Trying a source once: every kind of source, every way to fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.contracts import PluginContext, SourceConfig
from bridge.errors import ForbiddenError, TransientError
from bridge.host.connect import Outcome, try_source
from bridge.model import Confirmed, InstanceGroup, Listing, Observation, Rejected, ServiceInstance

WEB = ServiceInstance(id="shop/web/1", namespace="shop", service="web")
LISTING = Listing(groups=(InstanceGroup("shop/web", (WEB,)),))
NEVER = object()


async def show(what: Any) -> Observation:
    if what is NEVER:
        await asyncio.Event().wait()
    if isinstance(what, Exception):
        raise what
    return what


class Watched:
    def __init__(self, what: Any) -> None:
        self.what = what
        self.closed = False

    async def watch(self) -> AsyncGenerator[Observation, None]:
        try:
            if self.what is not None:
                yield await show(self.what)
                raise AssertionError("asked for more than the first observation")
        finally:
            self.closed = True


class Polled:
    def __init__(self, what: Any) -> None:
        self.what = what

    async def list(self) -> Observation:
        return await show(self.what)


class Scoped:
    def __init__(self, **scopes: Any) -> None:
        self.what = scopes
        self.scopes = tuple(scopes)

    async def watch_scope(self, scope: str) -> AsyncGenerator[Observation, None]:
        yield await show(self.what[scope])


class Config(SourceConfig):
    type: str = "fake"
    source: Any
    left: list[str] = []

    def open(self, ctx: PluginContext) -> Any:
        @asynccontextmanager
        async def opened() -> AsyncGenerator[Any, None]:
            if isinstance(self.source, Exception):
                raise self.source
            ctx.count("opened")
            try:
                yield self.source
            finally:
                self.left.append(ctx.name)

        return opened()


async def outcome(source: Any, deadline: float = 5.0) -> Outcome:
    return await try_source("main", Config(source=source), "eu", deadline=deadline)


@pytest.mark.parametrize("source", [Watched(LISTING), Polled(LISTING), Scoped(shop=LISTING), Polled((LISTING, Confirmed()))])
async def test_each_kind_of_source_shows_its_instances(source: Any) -> None:
    seen = await outcome(source)
    assert (seen.type, seen.state, seen.reason, seen.instances, seen.ok) == ("fake", "reachable", "", (WEB,), True)


@pytest.mark.parametrize("kind", [Watched, Polled, lambda what: Scoped(a=what, b=what), lambda what: what])
@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (ForbiddenError("may not list"), "forbidden", "may not list"),
        (TransientError("refused"), "failed", "refused"),
        (KeyError("port"), "failed", "KeyError: 'port'"),
        (TimeoutError(), "failed", "no answer within 5 s"),
    ],
)
async def test_what_is_raised_is_the_outcome(kind: Any, error: Exception, state: str, reason: str) -> None:
    seen = await outcome(kind(error))
    assert (seen.state, seen.reason, seen.ok) == (state, reason, False)


@pytest.mark.parametrize("source", [Watched(NEVER), Polled(NEVER), Scoped(a=NEVER, b=LISTING)])
async def test_a_source_that_never_answers_meets_the_deadline(source: Any) -> None:
    seen = await outcome(source, deadline=0.05)
    assert (seen.state, seen.reason) == ("failed", "no answer within 0.05 s")


async def test_the_source_is_closed_whatever_happened() -> None:
    for source in (Watched(LISTING), Watched(NEVER), Watched(TransientError("x"))):
        config = Config(source=source, left=[])
        await try_source("main", config, "eu", deadline=0.05)
        assert source.closed
        assert config.left == ["main"]


async def test_one_forbidden_scope_is_a_part_that_is_unknown() -> None:
    seen = await outcome(Scoped(shop=LISTING, pay=ForbiddenError("may not list pay")))
    assert (seen.state, seen.instances, seen.unknown, seen.ok) == ("reachable", (WEB,), {"pay": "may not list pay"}, False)


async def test_what_a_listing_could_not_tell_is_kept() -> None:
    seen = await outcome(Polled((Listing(unknown={"a": TransientError("cut")}, rejected={"b": "no port"}), Rejected("c", "bad"))))
    assert (seen.unknown, seen.rejected, seen.ok) == ({"a": "cut"}, {"b": "no port", "c": "bad"}, False)


async def test_rejected_objects_alone_are_no_failure() -> None:
    assert (await outcome(Polled(Listing(rejected={"b": "no port"})))).ok


async def test_a_listing_that_knows_nothing_is_a_failure() -> None:
    seen = await outcome(Polled(Listing(unknown={"": ForbiddenError("denied")})))
    assert (seen.state, seen.reason) == ("forbidden", "denied")


@pytest.mark.parametrize("source", [Watched(None), Watched(Confirmed()), Polled(Rejected("a", "b"))])
async def test_a_source_without_a_first_listing_fails(source: Any) -> None:
    seen = await outcome(source)
    assert seen.state == "failed"
    assert "listing" in seen.reason
