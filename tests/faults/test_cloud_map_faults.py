"""Cloud Map failing in every way, call by call: nothing is lost, and the next poll recovers."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import Confirmed, Listing
from bridge_plugins.sources.cloud_map.api import Access, Api, connect
from bridge_plugins.sources.cloud_map.schedule import Intervals
from bridge_plugins.sources.cloud_map.source import CloudMapSource
from tests.kit.fakes.cloud_map import FAULTS, OPERATIONS, FakeCloudMap
from tests.unit.cloud_map.kit import Reader, context, credentials, opened

ALL = {"web/i1", "web/i2", "api/i1", "db/i1"}
DENIALS = {"401", "403", "denied"}


class Shop:
    """Three services in two namespaces; `web` and `db` have health checks."""

    def __init__(self, fake: FakeCloudMap) -> None:
        self.fake = fake
        self.space = fake.namespace("shop")
        self.other = fake.namespace("data.local", type_="DNS_PRIVATE", http_name=None)
        self.web = fake.service(self.space, "web", checked=True)
        self.api = fake.service(self.space, "api")
        self.db = fake.service(self.other, "db", checked=True)
        for service, instance in ((self.web, "i1"), (self.web, "i2"), (self.api, "i1"), (self.db, "i1")):
            fake.register(service, instance)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeCloudMap]:
    with FakeCloudMap() as fake:
        yield fake


@pytest.fixture(scope="module")
def api(fake: FakeCloudMap) -> Iterator[Api]:
    """One client for all: building one takes longer than most tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        credentials(monkeypatch)
        api = connect(Access(region="eu-west-1", endpoint_url=fake.url, connections=40))
        yield api
        api.close()


@pytest.fixture
def shop(fake: FakeCloudMap, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    credentials(monkeypatch)
    fake.clear()
    yield Shop(fake)
    fake.mend()


@pytest.fixture
async def source(shop: Shop, api: Api) -> AsyncIterator[CloudMapSource]:
    source = CloudMapSource(api, Intervals(refresh=0.1, health=0.1, sweep=300.0), context(), discover=1000, revision=3000)
    yield source
    await source.close()


async def poll(source: CloudMapSource, reader: Reader) -> SourceError | None:
    """One poll; what it raised, if it did."""
    try:
        reader.apply(await source.list())
    except SourceError as error:
        return error
    return None


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str, seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < end, what
        await asyncio.sleep(0.05)


async def polled_until(source: CloudMapSource, reader: Reader, condition: Callable[[], bool], what: str) -> None:
    async def step() -> bool:
        await poll(source, reader)
        return condition()

    await until(step, what)


def stale_reading(source: CloudMapSource) -> None:
    """Have the next poll read namespaces and services."""
    source._read_at = float("-inf")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_call_that_fails_for_all_loses_nothing_and_recovers(
    shop: Shop, source: CloudMapSource, operation: str, fault: str
) -> None:
    reader = Reader()
    assert await poll(source, reader) is None
    assert reader.ids == ALL
    shop.fake.break_call(operation, fault)
    for _ in range(2):
        stale_reading(source)
        await poll(source, reader)
        assert reader.ids == ALL
    shop.fake.mend()
    shop.fake.register(shop.api, "i2")
    if fault == "throttled":  # the backend said how long to stay away
        source._read_at = 0.0
        for watched in source._services.values():
            watched.not_before = 0.0
    await polled_until(source, reader, lambda: reader.ids == ALL | {"api/i2"} and not reader.unknown, "it recovers")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "hang"])
@pytest.mark.parametrize("operation", ["DiscoverInstancesRevision", "DiscoverInstances"])
async def test_one_service_that_fails_holds_up_no_other(shop: Shop, source: CloudMapSource, operation: str, fault: str) -> None:
    reader = Reader()
    await poll(source, reader)
    shop.fake.break_call(operation, fault, "api")
    shop.fake.register(shop.api, "i2")
    shop.fake.register(shop.web, "i3")
    await polled_until(source, reader, lambda: reader.ids >= ALL | {"web/i3"}, "the others go on")
    key = f"shop/{shop.api}"
    if operation == "DiscoverInstances" and fault == "wrong_type":
        assert reader.rejected.keys() == {f"{key}/Instances[1]"}
    else:
        await polled_until(source, reader, lambda: reader.unknown.keys() == {key}, "it is unknown")
        assert isinstance(reader.unknown[key], ForbiddenError) == (fault in DENIALS)


async def test_one_service_that_hangs_holds_up_no_other(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    await poll(source, reader)
    shop.fake.break_call("DiscoverInstancesRevision", "hang", "api")
    began = time.monotonic()
    await poll(source, reader)
    assert time.monotonic() - began < 1.5
    shop.fake.register(shop.db, "i2")
    for _ in range(3):
        began = time.monotonic()
        await poll(source, reader)
        assert time.monotonic() - began < 1.0
    assert reader.ids == ALL | {"db/i2"}
    assert shop.fake.calls["DiscoverInstancesRevision"] < 20
    await polled_until(source, reader, lambda: f"shop/{shop.api}" in reader.unknown, "it is told as unknown")
    shop.fake.mend()
    shop.fake.register(shop.api, "i2")
    await polled_until(source, reader, lambda: "api/i2" in reader.ids and not reader.unknown, "it recovers")


async def test_a_service_that_hangs_is_not_asked_again_meanwhile(shop: Shop, source: CloudMapSource) -> None:
    await source.list()
    shop.fake.break_call("DiscoverInstances", "hang", "web")
    await source.list()
    calls = shop.fake.calls["DiscoverInstances"]
    shop.fake.set_health(shop.db, "i1", "UNHEALTHY")
    watched = source._services[f"shop/{shop.web}"]
    look = watched.look
    await source.list()
    assert watched.look is look
    assert shop.fake.calls["DiscoverInstances"] > calls  # db was asked
    shop.fake.mend()


@pytest.mark.parametrize("fault", [*FAULTS])
@pytest.mark.parametrize("operation", ["ListNamespaces", "DiscoverInstances"])
async def test_a_start_at_which_everything_fails_is_not_an_empty_listing(
    shop: Shop, source: CloudMapSource, operation: str, fault: str
) -> None:
    if fault == "wrong_type":
        pytest.skip("one object's type: the others are listed")
    if fault == "hang":
        asyncio.get_running_loop().call_later(2.5, shop.fake.mend)
    shop.fake.break_call(operation, fault)
    reader = Reader()
    error = await poll(source, reader)
    assert error is not None
    assert isinstance(error, ForbiddenError) == (fault in DENIALS)
    if fault in DENIALS:
        assert f"servicediscovery:{operation}" in str(error)
    if fault in ("429", "throttled"):
        assert error.retry_after == (3.0 if fault == "throttled" else 1.0)
    shop.fake.mend()
    await polled_until(source, reader, lambda: reader.ids == ALL and not reader.unknown, "it recovers")


async def test_a_service_that_fails_at_the_start_is_unknown(shop: Shop, source: CloudMapSource) -> None:
    shop.fake.break_call("DiscoverInstances", "500", "web")
    observation = await source.list()
    assert isinstance(observation, Listing)
    assert (observation.scope, set(observation.unknown)) == ("", {f"shop/{shop.web}"})
    assert len(observation.groups) == 2


async def test_a_namespace_that_cannot_be_listed_is_unknown_and_keeps_its_services(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    shop.fake.break_call("ListServices", "denied")
    assert isinstance(await poll(source, reader), ForbiddenError)
    shop.fake.mend()
    await poll(source, reader)
    assert reader.ids == ALL
    shop.fake.break_call("ListServices", "500")
    stale_reading(source)
    await polled_until(source, reader, lambda: reader.unknown.keys() == {"shop", "data.local"}, "both are unknown")
    assert reader.ids == ALL
    shop.fake.mend()
    await polled_until(source, reader, lambda: not reader.unknown, "it recovers")
    assert reader.ids == ALL


async def test_a_refused_connection_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials(monkeypatch)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with opened(f"http://127.0.0.1:{closed.getsockname()[1]}") as source:
            with pytest.raises(TransientError):
                await source.list()


async def test_without_credentials_it_is_forbidden(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with opened(shop.fake.url) as source:
        with pytest.raises(ForbiddenError, match="credentials"):
            await source.list()


async def test_nothing_new_is_one_confirmation(source: CloudMapSource) -> None:
    await source.list()
    assert await source.list() == Confirmed("")


async def test_registrations_and_health_arrive(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    await poll(source, reader)
    shop.fake.register(shop.api, "i2", "10.0.0.2")
    shop.fake.deregister(shop.web, "i2")
    shop.fake.set_health(shop.db, "i1", "UNHEALTHY")
    await polled_until(source, reader, lambda: reader.ids == {"web/i1", "api/i1", "api/i2", "db/i1"}, "they arrive")
    await polled_until(source, reader, lambda: reader.instances["db/i1"].health == "unready", "health arrives")


async def test_services_without_checks_are_discovered_only_when_their_revision_moves(shop: Shop) -> None:
    async with opened(shop.fake.url, health_refresh="15s") as source:
        for _ in range(4):
            await source.list()
        assert shop.fake.asked["DiscoverInstances", "api"] == 1
        assert shop.fake.asked["DiscoverInstancesRevision", "api"] == 3


async def test_the_sweep_finds_what_no_revision_tells(shop: Shop) -> None:
    reader = Reader()
    async with opened(shop.fake.url, health_refresh="15s", sweep="50ms") as source:
        await poll(source, reader)
        shop.fake.services[shop.api].instances["i1"].attributes["AWS_INSTANCE_IPV4"] = "10.0.0.9"
        await poll(source, reader)
    assert reader.instances["api/i1"].addresses == ("10.0.0.9",)


async def test_a_deleted_service_is_gone_after_two_lists_without_it(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    await poll(source, reader)
    shop.fake.deregister(shop.api, "i1")
    await poll(source, reader)
    shop.fake.delete_service(shop.api)
    key = f"shop/{shop.api}"
    assert await poll(source, reader) is None
    assert (key in reader.groups, key in reader.unknown, reader.gone) == (True, True, [])
    lists = shop.fake.calls["ListNamespaces"]
    await polled_until(source, reader, lambda: reader.gone == [key], "it is gone")
    assert shop.fake.calls["ListNamespaces"] == lists + 2
    assert (key in reader.groups, key in reader.unknown) == (False, False)
    assert await source.list() == Confirmed("")


async def test_not_found_is_not_believed_while_the_service_is_listed(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    await poll(source, reader)
    shop.fake.services[shop.web].name = "renamed"
    for _ in range(5):
        await poll(source, reader)
    assert (reader.gone, "web/i1" in reader.ids or "renamed/i1" in reader.ids) == ([], True)


async def test_a_service_created_anew_under_its_name_takes_over(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    await poll(source, reader)
    shop.fake.deregister(shop.api, "i1")
    shop.fake.delete_service(shop.api)
    new = shop.fake.service(shop.space, "api")
    shop.fake.register(new, "i9")
    stale_reading(source)
    await polled_until(source, reader, lambda: reader.gone == [f"shop/{shop.api}"], "the old one is gone")
    await polled_until(source, reader, lambda: reader.ids == {"web/i1", "web/i2", "db/i1", "api/i9"}, "the new one is there")


async def test_a_watched_namespace_that_is_not_listed_is_unknown_until_twice(shop: Shop) -> None:
    reader = Reader()
    async with opened(shop.fake.url, namespaces_watched=["shop", "nowhere"]) as source:
        await poll(source, reader)
        assert reader.unknown.keys() == {"nowhere"}
        assert reader.ids == {"web/i1", "web/i2", "api/i1"}
        lists = shop.fake.calls["ListNamespaces"]
        await polled_until(source, reader, lambda: reader.unknown == {}, "it is believed to be absent")
        assert shop.fake.calls["ListNamespaces"] > lists
        assert reader.ids == {"web/i1", "web/i2", "api/i1"}


async def test_a_full_answer_is_doubted_until_the_control_plane_lists_no_more(shop: Shop, source: CloudMapSource) -> None:
    for number in range(1100):
        shop.fake.register(shop.api, f"n{number:04d}", f"10.1.{number // 250}.{number % 250 + 1}")
    reader = Reader()
    key = f"shop/{shop.api}"
    await poll(source, reader)
    assert "possibly truncated at 1000" in str(reader.unknown[key])
    seen = {name for name in reader.ids if name.startswith("api/")}
    assert len(seen) == 1000
    await poll(source, reader)
    assert {name for name in reader.ids if name.startswith("api/")} >= seen
    for number in range(100, 1100):
        if len(shop.fake.services[shop.api].instances) > 1000:
            shop.fake.deregister(shop.api, f"n{number:04d}")
    await polled_until(source, reader, lambda: not reader.unknown, "a full service is no failure")
    assert len([name for name in reader.ids if name.startswith("api/")]) == 1000


async def test_services_found_later_are_told(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    await poll(source, reader)
    new = shop.fake.service(shop.other, "cache")
    shop.fake.register(new, "i1")
    stale_reading(source)
    await polled_until(source, reader, lambda: reader.ids == ALL | {"cache/i1"}, "it is there")


async def test_a_service_with_an_unfit_name_is_rejected_alone(shop: Shop, source: CloudMapSource) -> None:
    bad = shop.fake.service(shop.space, "a/b")
    reader = Reader()
    await poll(source, reader)
    assert reader.ids == ALL
    assert reader.rejected.keys() == {f"shop/{bad}"}
    assert await source.list() == Confirmed("") or not reader.unknown


async def restarted(shop: Shop, api: Api, reader: Reader) -> CloudMapSource:
    """Another source over what a reader knows of one that has ended."""
    source = CloudMapSource(api, Intervals(refresh=0.1, health=0.1, sweep=300.0), context(), discover=1000, revision=3000)
    await poll(source, reader)
    return source


@pytest.mark.parametrize(("operation", "part", "other"), [("ListServices", "shop", "data.local"), ("ListNamespaces", "", None)])
async def test_an_unreadable_entry_after_a_restart_is_unknown_and_removes_nothing(
    shop: Shop, api: Api, source: CloudMapSource, operation: str, part: str, other: str | None
) -> None:
    reader = Reader()
    await poll(source, reader)
    hidden = shop.fake.services[shop.api] if operation == "ListServices" else shop.fake.namespaces[shop.other]
    if isinstance(hidden, dict):
        name, hidden["Name"] = hidden["Name"], 7
    else:
        hidden.extra = {"Id": 7}
    shop.fake.deregister(shop.web, "i2")
    second = await restarted(shop, api, reader)
    try:
        for _ in range(3):
            assert reader.ids == ALL - {"web/i2"}  # what ended is told, whatever else is unknown
            assert set(reader.unknown) == {part}
            assert other is None or other not in reader.unknown
            stale_reading(second)
            await poll(second, reader)
        if operation == "ListNamespaces":
            shop.fake.break_call("ListNamespaces", "500")
            stale_reading(second)
            await poll(second, reader)
            assert reader.ids == ALL - {"web/i2"}
            assert "" in reader.unknown
            shop.fake.mend()
        if isinstance(hidden, dict):
            hidden["Name"] = name
        else:
            hidden.extra = {}
        stale_reading(second)
        await polled_until(second, reader, lambda: not reader.unknown and not reader.rejected, "it recovers")
        assert reader.ids == ALL - {"web/i2"}
        assert await second.list() == Confirmed("")
    finally:
        await second.close()


@pytest.mark.parametrize("operation", ["ListServices", "ListNamespaces"])
async def test_what_went_while_an_entry_was_unreadable_goes_when_the_list_is_whole(
    shop: Shop, api: Api, source: CloudMapSource, operation: str
) -> None:
    reader = Reader()
    await poll(source, reader)
    entry = {"Id": 7, "Name": "x"}
    lists = {"ListServices": ("Services", [{"Id": shop.web, "Name": "web"}, entry]), "ListNamespaces": ("Namespaces", [entry])}
    member, objects = lists[operation]
    shop.fake.answer_raw(operation, "", {member: objects})
    second = await restarted(shop, api, reader)
    try:
        assert reader.ids == ALL
        assert reader.unknown
        shop.fake.raw.clear()
        shop.fake.services.pop(shop.api)
        stale_reading(second)
        await polled_until(second, reader, lambda: reader.ids == ALL - {"api/i1"} and not reader.unknown, "it goes")
    finally:
        await second.close()


async def test_an_answer_that_says_there_is_more_is_not_all_there_is(shop: Shop, source: CloudMapSource) -> None:
    reader = Reader()
    await poll(source, reader)
    shop.fake.answer_raw("DiscoverInstances", "web", {"Instances": [], "InstancesRevision": 99, "NextToken": "a"})
    await polled_until(source, reader, lambda: reader.unknown.keys() == {f"shop/{shop.web}"}, "it is unknown")
    assert reader.ids == ALL


async def test_calls_keep_to_the_rate(shop: Shop) -> None:
    for number in range(30):
        shop.fake.service(shop.space, f"s{number}")
    async with opened(shop.fake.url, rate={"discover": 1000, "revision": 10}, health_refresh="15s") as source:
        await source.list()
        began, before = time.monotonic(), shop.fake.calls["DiscoverInstancesRevision"]
        await source.list()
        took = time.monotonic() - began
        assert shop.fake.calls["DiscoverInstancesRevision"] - before <= 10 * took + 2


async def test_closing_ends_everything_it_started(shop: Shop) -> None:
    async with opened(shop.fake.url) as source:
        await source.list()
        for operation in OPERATIONS:
            shop.fake.break_call(operation, "hang")
        stale_reading(source)
        with pytest.raises(SourceError):
            await source.list()
        began = time.monotonic()
    assert time.monotonic() - began < 1.0
    names = ("look ", "catalogue")
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith(names) and not task.done()] == []
