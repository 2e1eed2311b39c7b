"""The suite for sources. A `World` acts on the backend *around* the adapter, so that the adapter cannot vouch for itself."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from typing import Any, Protocol, runtime_checkable

import pytest

from bridge.aio import SystemClock
from bridge.contracts import PluginContext, PollSource, ScopedSource, Source, SourceConfig
from bridge.model import Confirmed, Listing, ServiceName
from bridge.testing.bridge import InProcessBridge, eventually


@runtime_checkable
class World(Protocol):
    """A backend in a test's hands. Instances are told apart by the names the test gives them, of its own choice.

    deadline: seconds within which a change must have reached the catalog.
    """

    deadline: float

    def config(self) -> SourceConfig:
        """The configuration that observes this world."""
        ...

    async def add(self, service: ServiceName, name: str) -> str:
        """Make a ready instance appear; its id in the catalog."""
        ...

    async def remove(self, service: ServiceName, name: str) -> None:
        """End one instance, for good."""
        ...


@runtime_checkable
class FailingWorld(Protocol):
    """A world that can be made unreachable. `World.add` and `World.remove` work meanwhile, and show once it is mended."""

    async def fail(self) -> None:
        """From now on nothing can be told."""
        ...

    async def mend(self) -> None:
        """It answers again."""
        ...


@runtime_checkable
class HealthWorld(Protocol):
    """A world whose instances have a health."""

    async def set_ready(self, service: ServiceName, name: str, ready: bool) -> None:
        """Flip the readiness of one instance."""
        ...


WEB, API = ServiceName("conformance", "web"), ServiceName("conformance", "api")


_POOLED = ("AnyIO worker thread", "asyncio_")
"""How the names of threads begin that libraries keep as long as the event loop lives, for the next call."""


def _running() -> set[asyncio.Task[Any] | threading.Thread]:
    return {*asyncio.all_tasks(), *(thread for thread in threading.enumerate() if not thread.name.startswith(_POOLED))}


async def _nothing_is_left(others: set[asyncio.Task[Any] | threading.Thread]) -> None:
    """Wait until no task and no thread is there but ``others``; blocking calls may live on until their own time limit."""
    try:
        await eventually("its tasks and threads have ended", lambda: _running() <= others, deadline=30.0)
    except AssertionError as error:
        raise AssertionError(f"{error}; left: {_running() - others}") from None


class OutageConformance:
    """What holds while a backend cannot be asked; part of `SourceConformance`, and of use alone for further kinds of outage."""

    async def test_an_unreachable_backend_is_unknown_and_never_empty(self, world: World) -> None:
        """Nothing is removed while it cannot tell; the state says so; it recovers by itself and finds what changed."""
        if not isinstance(world, FailingWorld):
            pytest.skip("this backend cannot be made unreachable")
        first, second = await world.add(WEB, "w1"), await world.add(WEB, "w2")
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            await eventually("both", lambda: set(bridge.instances) == {first, second}, deadline=world.deadline)
            await world.fail()
            await eventually("a state that tells", lambda: bridge.state() in ("failed", "forbidden", "stale"), deadline=60.0)
            assert set(bridge.instances) == {first, second}
            await world.remove(WEB, "w1")
            third = await world.add(WEB, "w3")
            assert not bridge.removed
            await world.mend()
            await eventually("recovery", lambda: bridge.state() == "synced", deadline=60.0)
            await eventually("what changed", lambda: set(bridge.instances) == {second, third}, deadline=world.deadline)
            assert bridge.removed == [first]

    async def test_an_unreachable_backend_at_the_start_is_not_an_empty_one(self, world: World) -> None:
        """A source that never told anything was never read."""
        if not isinstance(world, FailingWorld):
            pytest.skip("this backend cannot be made unreachable")
        id_ = await world.add(WEB, "w1")
        await world.fail()
        async with InProcessBridge(world.config()) as bridge:
            await eventually("a failure", lambda: bridge.state() in ("failed", "forbidden"), deadline=60.0)
            assert bridge.status is not None
            assert not bridge.status.read
            assert not bridge.services
            await world.mend()
            await eventually("the instance", lambda: set(bridge.instances) == {id_}, deadline=60.0)

    async def test_it_lets_go_of_an_unreachable_backend(self, world: World) -> None:
        """Leaving while nothing answers takes seconds (`InProcessBridge` sees to it), and no thread or task is left behind."""
        if not isinstance(world, FailingWorld):
            pytest.skip("this backend cannot be made unreachable")
        await world.add(WEB, "w1")
        others = _running()
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            await world.fail()
            await eventually("a state that tells", lambda: bridge.state() in ("failed", "forbidden", "stale"), deadline=60.0)
        await world.mend()  # a fake in this loop has tasks of its own that wait for the other end
        await _nothing_is_left(others)


class SourceConformance(OutageConformance):
    """Subclass it in a test module whose ``world`` fixture yields a fresh `World`."""

    async def test_it_opens_as_one_of_the_three_kinds(self, world: World) -> None:
        """`open` yields a source, and leaving it releases its threads and tasks."""
        others = _running()
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
        await _nothing_is_left(others)

    async def test_the_first_listing_shows_everything_and_only_that(self, world: World) -> None:
        """What stands before the start is listed whole, in one go."""
        expected = {await world.add(WEB, "w1"), await world.add(WEB, "w2"), await world.add(API, "a1")}
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            await eventually("all instances", lambda: set(bridge.instances) == expected, deadline=world.deadline)
            assert {WEB, API} <= bridge.services
            assert not bridge.removed

    async def test_records_are_well_formed(self, world: World) -> None:
        """Addresses are addresses, ids name their service, and nothing claims an origin of its own."""
        id_ = await world.add(WEB, "w1")
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            instance = await eventually("the instance", lambda: bridge.instances.get(id_), deadline=world.deadline)
            assert instance is not None
            assert instance.service_name == WEB
            assert (instance.environment, instance.source) == ("test", "source")
            assert instance.health == "ready"
            assert instance.lifecycle == "active"
            assert instance.addresses or instance.hostname
            for address in instance.addresses:
                ipaddress.ip_address(address)
            assert all(0 < port.port < 65536 for port in instance.ports)

    async def test_changes_arrive(self, world: World) -> None:
        """What appears and what ends reaches the catalog within the world's deadline."""
        first = await world.add(WEB, "w1")
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            second = await world.add(WEB, "w2")
            await eventually("the new instance", lambda: {first, second} <= set(bridge.instances), deadline=world.deadline)
            await world.remove(WEB, "w1")
            await eventually("the end of the old one", lambda: set(bridge.instances) == {second}, deadline=world.deadline)
            assert bridge.removed == [first]

    async def test_the_last_instance_of_a_service_goes_alone(self, world: World) -> None:
        """A service that empties takes nothing else with it."""
        rest = {await world.add(WEB, "w1"), await world.add(WEB, "w2")}
        last = await world.add(API, "a1")
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            await eventually("all instances", lambda: set(bridge.instances) == {*rest, last}, deadline=world.deadline)
            await world.remove(API, "a1")
            await eventually("the end of one", lambda: set(bridge.instances) == rest, deadline=world.deadline)
            assert bridge.removed == [last]

    async def test_readiness_arrives(self, world: World) -> None:
        """A flip of health is an update, never an end."""
        if not isinstance(world, HealthWorld):
            pytest.skip("this backend has no health")
        id_ = await world.add(WEB, "w1")
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            for ready in (False, True):
                await world.set_ready(WEB, "w1", ready)
                await eventually(
                    f"ready is {ready}",
                    lambda ready=ready: id_ in bridge.instances and (bridge.instances[id_].health == "ready") is ready,  # type: ignore[misc]
                    deadline=world.deadline,
                )
            assert not bridge.removed

    async def test_looking_again_changes_nothing(self, world: World) -> None:
        """A restart of the adapter over the same world causes no change."""
        ids = {await world.add(WEB, "w1"), await world.add(API, "a1")}
        async with InProcessBridge(world.config()) as bridge:
            await bridge.listed()
            await eventually("all instances", lambda: set(bridge.instances) == ids, deadline=world.deadline)
            seen = dict(bridge.instances)
            revision = bridge.partition.revision
            await bridge.__aexit__(None, None, None)
            await bridge.__aenter__()
            heard = bridge.ingest.accepted
            await eventually("another listing", lambda: bridge.ingest.accepted > heard, deadline=30.0)
            assert bridge.instances == seen
            assert bridge.partition.revision == revision


class PollSourceConformance(SourceConformance):
    """What holds for a `PollSource` besides."""

    async def test_the_first_poll_lists_and_the_second_confirms(self, world: World) -> None:
        """An unchanged poll tells so instead of saying everything again."""
        await world.add(WEB, "w1")
        context = PluginContext("test", "source", logging.getLogger("bridge.testing"), SystemClock(), _ignore)
        async with world.config().open(context) as source:
            assert isinstance(source, PollSource)
            assert not isinstance(source, Source | ScopedSource)
            first = await source.list()
            events = first if isinstance(first, tuple) else (first,)
            assert any(isinstance(event, Listing) and event.groups for event in events)
            second = await source.list()
            events = second if isinstance(second, tuple) else (second,)
            assert all(isinstance(event, Confirmed) or (isinstance(event, Listing) and not event.groups) for event in events)


def _ignore(event: str, amount: int = 1) -> None:  # a plugin may count; this suite does not look
    pass
