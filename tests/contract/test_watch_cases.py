"""Single cases of the watchers' rules that chance seldom deals: what wakes whom, what a cursor holds, what a stream is told."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Cursor, Indexes
from bridge.catalog.entry import REMEMBERED_FOR
from bridge.catalog.partition import Partition
from bridge.catalog.query import Query
from bridge.errors import TransientError
from bridge.model import Confirmed, Gone, InstanceGroup, Listing, ServiceInstance, ServiceName
from bridge.serve.http.message import Answer, Request, Stream, Wait
from bridge.serve.http.native import NativeSurface
from bridge.serve.http.stream import StreamFollower
from bridge.serve.http.waiting import SLICE, Waits
from bridge.sync.ingest import Ingest
from bridge.testing import ManualClock, eventually
from tests.contract.watch_world import ScriptedConfig


class Bench:
    """A catalog, what feeds it, and what reads it, with time in hand and without sockets."""

    def __init__(self, *sources: str, ceiling: int = 1_000_000) -> None:
        self.clock = ManualClock()
        self.catalog = Catalog(Indexes("ours", 1, ceiling))
        self.catalog.partitions["eu"] = Partition("eu", "uid", 1)
        self.ingest = Ingest(self.catalog, self.catalog.partitions["eu"], self.clock, logging.getLogger("test.cases"))
        self.surface = NativeSurface(self.catalog, self.clock)
        self.waits = Waits(self.clock)
        self.catalog.on_wake = self.waits.wake
        for source in sources:
            self.add(source)

    def add(self, source: str, **config: Any) -> None:
        self.ingest.add(
            source, ScriptedConfig.model_validate({"guard": "off", "fresh_for": "30s"} | config), scopes=("",), polled=False
        )

    def show(self, source: str, *ids: str, service: str = "web", **fields: Any) -> None:
        group = InstanceGroup(
            service,
            tuple(ServiceInstance(id=f"{service}/{id_}", namespace="shop", service=service, **fields) for id_ in ids),
            (ServiceName("shop", service),),
        )
        self.ingest.accept(source, Listing("", (group,)))

    def tick(self, seconds: float) -> None:
        """Let time pass as the daemon lets it."""
        while seconds > 0:
            self.clock.advance(min(seconds, 1.0))
            self.ingest.tick()
            seconds -= 1.0

    def ask(self, target: str, **headers: str) -> Any:
        path, _, query = target.partition("?")
        return self.surface.answer(Request("GET", path, query, {name.replace("_", "-"): text for name, text in headers.items()}))

    def get(self, target: str, **headers: str) -> Answer:
        reply = self.ask(target, **headers)
        assert isinstance(reply, Answer), reply
        return reply

    def cursor(self, target: str) -> str:
        return cursor_of(self.get(target))

    def block(self, target: str, cursor: str, wait: str = "30s") -> Reader:
        """A blocked reader of ``target``."""
        reply = self.ask(f"{target}{'&' if '?' in target else '?'}after={cursor}&wait={wait}")
        assert isinstance(reply, Wait)
        reader = Reader()
        self.waits.begin(reader, reply)
        return reader

    def follow(self, target: str, channel: Channel, last: str | None = None) -> StreamFollower:
        """A stream of ``target``."""
        headers = {"accept": "text/event-stream"} | ({"last_event_id": last} if last is not None else {})
        reply = self.ask(target, **headers)
        assert isinstance(reply, Stream)
        follower = StreamFollower(channel, reply, self.catalog)
        follower.begin()
        return follower


class Reader:
    """Whoever waits for an answer."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    def finish_later(self, answer: Answer) -> None:
        self.answers.append(answer)

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]


class Channel:
    """Where a stream goes; it keeps up until it is told not to."""

    def __init__(self) -> None:
        self.keeps_up = True
        self.text = ""
        self.ended = False

    def write(self, data: bytes) -> bool:
        self.text += data.decode()
        return self.keeps_up

    def end(self) -> None:
        self.ended = True

    def events(self) -> list[tuple[str, Any]]:
        """What came since the last call."""
        found = []
        for block in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            found.append((fields["event"], json.loads(fields["data"])))
        self.text = ""
        return found

    def names(self) -> list[str]:
        return [name for name, _ in self.events()]


def cursor_of(answer: Answer) -> str:
    return dict(answer.headers)["ETag"][3:-1]


def is_reset(answer: Answer) -> bool:
    return dict(answer.headers).get("Envbridge-Reset") == "true"


async def until(reader: Reader) -> None:
    await eventually("an answer", lambda: reader.answers)


# -- blocked readers


async def test_a_reader_whose_deadline_comes_while_its_view_is_paced_is_told_of_the_change() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    seen = bench.cursor("/v1/instances")
    bench.block("/v1/instances", seen)
    bench.show("a", "1", "2")
    late = bench.block("/v1/instances", bench.cursor("/v1/instances"), "1ms")
    bench.show("a", "1", "2", "3")  # within the gap after the change before
    assert late.statuses == []
    bench.clock.advance(0.01)
    await until(late)
    assert late.statuses == [200]
    assert b"web/3" in late.answers[0].body


async def test_a_change_that_is_taken_back_wakes_nobody() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    bench.block("/v1/instances", bench.cursor("/v1/instances"))
    bench.show("a", "1", "2")
    reader = bench.block("/v1/instances", bench.cursor("/v1/instances"))
    bench.show("a", "1")
    bench.show("a", "1", "2")
    bench.clock.advance(1.0)
    await asyncio.sleep(0.15)
    assert reader.statuses == []
    bench.waits.end_all()
    assert reader.statuses == [304]


async def test_when_the_server_stops_readers_are_told_of_a_paced_change_or_that_there_was_none() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    bench.block("/v1/instances", bench.cursor("/v1/instances"))
    bench.show("a", "1", "2")
    changed = bench.block("/v1/instances", bench.cursor("/v1/instances"))
    quiet = bench.block("/v1/services/shop/web?tag=x", bench.cursor("/v1/services/shop/web?tag=x"))
    bench.show("a", "1", "2", "3")
    bench.waits.end_all()
    assert (changed.statuses, quiet.statuses) == ([200], [304])
    assert bench.waits.blocked == 0


async def test_all_of_many_readers_are_answered_in_slices() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    seen = bench.cursor("/v1/instances")
    readers = [bench.block("/v1/instances", seen) for _ in range(3 * SLICE + 5)]
    bench.show("a", "2")
    assert sum(bool(reader.answers) for reader in readers) == SLICE
    for reader in readers:
        await until(reader)
    assert all(reader.statuses == [200] for reader in readers)
    assert bench.waits.blocked == 0


async def test_answered_reads_do_not_pile_up_until_their_deadlines() -> None:
    bench = Bench("a")
    for number in range(2000):
        bench.clock.advance(1.0)
        bench.show("a", str(number))
        bench.block("/v1/instances", bench.cursor("/v1/instances"), "10m")
    assert len(bench.waits._deadlines) < 4 * SLICE
    bench.waits.end_all()


@pytest.mark.parametrize("path", ["/v1/services/shop/none", "/v1/instances/eu/b/x"])
async def test_a_name_that_nobody_had_may_be_had_by_a_source_that_is_added(path: str) -> None:
    bench = Bench("a")
    bench.show("a", "1")
    reader = bench.block(path, bench.cursor(path))
    assert bench.get(path).status == 404
    bench.add("b")
    await until(reader)
    assert reader.statuses == [503]
    bench.clock.advance(1.0)
    reader = bench.block(path, cursor_of(reader.answers[0]))
    bench.ingest.retire("b", bench.clock.monotonic())
    await until(reader)
    assert reader.statuses == [404]


async def test_an_instance_that_goes_and_comes_as_it_was_is_as_the_first_cursor_saw_it() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    path = "/v1/instances/eu/a/web/1"
    first = bench.cursor(path)
    reader = bench.block(path, first)
    bench.ingest.accept("a", Gone("web"))
    await until(reader)
    assert reader.statuses == [404]
    bench.clock.advance(1.0)
    back = bench.block(path, cursor_of(reader.answers[0]))
    bench.show("a", "1")
    await until(back)
    assert back.statuses == [200]
    assert bench.get(path, if_none_match=f'W/"{first}"').status == 304


async def test_environments_tell_a_source_that_became_stale_while_nothing_else_happened() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    reader = bench.block("/v1/environments", bench.cursor("/v1/environments"))
    bench.tick(29)
    assert reader.statuses == []
    bench.tick(3)
    await until(reader)
    assert json.loads(reader.answers[0].body)[0]["sources"][0]["state"] == "stale"


async def test_an_answer_about_environments_is_as_its_cursor_says_between_two_ticks() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    first = bench.get("/v1/environments")
    bench.clock.advance(2.0)
    assert cursor_of(bench.get("/v1/environments")) == cursor_of(first), "age is no change"
    bench.clock.advance(40.0)
    later = bench.get("/v1/environments")
    assert json.loads(later.body)[0]["sources"][0]["state"] == "stale"
    assert cursor_of(later) != cursor_of(first)


async def test_a_rejection_with_another_reason_is_told() -> None:
    bench = Bench("a")
    bench.ingest.accept("a", Listing("", rejected={"x": "broken"}))
    first = bench.cursor("/v1/environments")
    bench.ingest.accept("a", Listing("", rejected={"x": "torn"}))
    assert bench.cursor("/v1/environments") != first


# -- what a cursor holds


async def test_a_forgotten_view_without_stale_sources_is_not_taken_for_unchanged() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    target = "/v1/services/shop/web?stale=no"
    seen = bench.cursor(target)
    for kind in bench.catalog._views.values():  # as if many others had been asked since
        kind.clear()
    bench.catalog._by_service.clear()
    bench.tick(40)
    answer = bench.get(f"{target}&after={seen}&wait=0s")
    assert answer.status == 200
    assert json.loads(answer.body)["instances"] == []
    assert not is_reset(answer)


TAGS = {
    "ours, unchanged": ('W/"{now}"', 304, False),
    "strong": ('"{now}"', 304, False),
    "among others": ('"x", W/"theirs-4-0000000000000000" ,W/"{now}"', 304, False),
    "any": ("*", 304, False),
    "any, among others": ('"x", *', 304, False),
    "ours, of before": ('W/"{before}"', 200, False),
    "ours of before, among others": ('W/"theirs-4-0000000000000000", W/"{before}"', 200, False),
    "theirs with our content": ('W/"{twin}"', 304, False),
    "theirs": ('W/"theirs-4-0000000000000000"', 200, True),
    "never handed out": ('W/"ours-999-0000000000000000"', 200, True),
    "no cursor": ('"x"', 200, True),
    "nothing": ("", 200, True),
}


@pytest.mark.parametrize(("tags", "status", "reset"), TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("wait", ["", "?wait=0s"])
async def test_if_none_match(tags: str, status: int, reset: bool, wait: str) -> None:
    bench = Bench("a")
    bench.show("a", "1")
    before = bench.cursor("/v1/instances")
    bench.show("a", "2")
    now = bench.cursor("/v1/instances")
    twin = "theirs-77-" + now.rpartition("-")[2]
    answer = bench.get(f"/v1/instances{wait}", if_none_match=tags.format(now=now, before=before, twin=twin))
    assert (answer.status, is_reset(answer)) == (status, reset)


async def test_beyond_the_ceiling_only_the_digest_counts() -> None:
    bench = Bench("a", ceiling=4)
    for number in range(5):
        bench.show("a", str(number))
    text = bench.cursor("/v1/instances")
    assert text.split("-")[1] == "0"
    assert bench.get(f"/v1/instances?after={text}&wait=0s").status == 304
    bench.show("a", "9")
    assert bench.get(f"/v1/instances?after={text}&wait=0s").status == 200


async def test_a_restart_without_a_clean_stop_trusts_no_index_it_may_have_lost() -> None:
    """Cursors of before the gap hold by their index, those in it by their digest only."""
    bench = Bench("a")
    bench.show("a", "1")
    view = bench.catalog.instances_view(Query(), ServiceName("shop", "web"))
    index, digest = view.index, view.digest
    bench.catalog.indexes = Indexes("ours", 500, 1_000, ((index, 400),))
    assert view.holds(Cursor("ours", index, 0))
    assert not view.holds(Cursor("ours", index + 1, 0))
    assert view.holds(Cursor("ours", index + 1, digest))
    assert view.holds(Cursor("ours", 401, 0))
    assert not view.holds(Cursor("ours", 501, 0))


# -- streams


async def test_expired_instances_that_stand_in_are_told_to_streams_of_all_instances() -> None:
    bench = Bench("a")
    bench.add("b", hold="10s")
    bench.show("a", "1")
    bench.show("b", "2")
    channel = Channel()
    bench.follow("/v1/instances", channel)
    last = bench.cursor("/v1/instances")
    for _ in range(20):
        bench.tick(1)
        bench.ingest.accept("a", Confirmed(""))
    assert bench.cursor("/v1/instances") != last
    [_, (name, change)] = channel.events()
    assert (name, change["removed"]) == ("change", ["eu/b/web/2"])
    bench.ingest.accept("a", Gone("web"))
    [(name, change)] = channel.events()
    assert (name, change["removed"], [i["id"] for i in change["added"]]) == ("change", ["eu/a/web/1"], ["web/2"])
    later = Channel()
    bench.follow("/v1/instances", later, last)
    [(name, change)] = later.events()
    assert change["removed"] == ["eu/a/web/1"]
    assert [i["state"] for i in change["added"] + change["updated"]] == ["expired"]


async def test_a_service_that_becomes_degraded_is_another_answer_even_where_its_list_is_the_same() -> None:
    bench = Bench("a")
    bench.add("b", hold="10s")
    bench.show("a", "1")
    bench.show("b", "2")
    for _ in range(20):
        bench.tick(1)
        bench.ingest.accept("a", Confirmed(""))
    target = "/v1/services/shop/web?source=b&state=expired"
    channel = Channel()
    bench.follow(target, channel)
    assert channel.names() == ["snapshot"]
    seen = bench.cursor(target)
    reader = bench.block(target, seen)
    bench.ingest.accept("a", Gone("web"))
    await until(reader)
    assert "degraded" in json.loads(reader.answers[0].body)
    assert channel.names() == ["reset", "snapshot"]
    resumed = Channel()
    bench.follow(target, resumed, seen)
    assert resumed.names() == ["reset", "snapshot"]


async def test_a_stream_without_stale_sources_is_not_resumed_across_a_source_that_became_stale() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    seen = bench.cursor("/v1/instances?stale=no")
    bench.tick(40)
    channel = Channel()
    bench.follow("/v1/instances?stale=no", channel, seen)
    assert channel.events()[-1] == ("snapshot", {"instances": [], "complete": True})


async def test_a_service_forgotten_in_one_environment_while_degraded_in_another_keeps_its_past() -> None:
    bench = Bench()
    bench.add("b", hold="10s")
    bench.show("b", "2")
    bench.catalog.partitions["us"] = Partition("us", "uid2", 1)
    bench.tick(20)
    entry = bench.catalog.services[ServiceName("shop", "web")]
    assert entry.degraded
    entry.emptied_at["us"] = bench.clock.wall() - REMEMBERED_FOR
    bench.catalog.partitions["us"].services = 1
    last = bench.cursor("/v1/instances")
    bench.tick(1)
    bench.ingest.accept("b", Gone("web"))
    channel = Channel()
    bench.follow("/v1/instances", channel, last)
    assert channel.events()[-1][1]["removed"] == ["eu/b/web/2"]


async def test_a_slow_reader_costs_no_more_while_its_view_restarts_again_and_again() -> None:
    bench = Bench("a")
    bench.show("a", *map(str, range(50)))
    channel = Channel()
    follower = bench.follow("/v1/instances?stale=no", channel)
    assert channel.names() == ["snapshot"]
    channel.keeps_up = False
    for _ in range(5):
        bench.tick(40)
        bench.show("a", *map(str, range(50)))
    assert channel.text == ""
    channel.keeps_up = True
    follower.drained()
    events = channel.events()
    assert [name for name, _ in events] == ["reset", "snapshot"]
    assert len(events[-1][1]["instances"]) == 50


async def test_a_slow_reader_gets_the_latest_state_of_what_it_missed() -> None:
    bench = Bench("a")
    bench.show("a", "1", "2")
    channel = Channel()
    follower = bench.follow("/v1/instances", channel)
    channel.keeps_up = False
    channel.text = ""
    for zone in ("x", "y", "z"):
        bench.show("a", "1", "3", zone=zone)
        follower.bookmark()
    assert channel.text == ""
    channel.keeps_up = True
    follower.drained()
    [(name, change)] = channel.events()
    assert name == "change"
    assert [(i["id"], i["zone"]) for i in change["updated"] + change["added"]] == [("web/1", "z"), ("web/3", "z")]
    assert change["removed"] == ["eu/a/web/2"]


async def test_a_reader_that_falls_behind_later_is_told_nothing_twice() -> None:
    bench = Bench("a")
    bench.show("a", "1", "2")
    channel = Channel()
    follower = bench.follow("/v1/instances", channel)
    bench.show("a", "1", "2", "3")
    assert channel.names() == ["snapshot", "change"]
    channel.keeps_up = False
    bench.show("a", "1", "2", "3", "4")
    channel.keeps_up = True
    follower.drained()
    [(_, change)] = channel.events()
    assert [i["id"] for i in change["added"]] == ["web/4"]


@pytest.mark.parametrize("target", ["/v1/services", "/v1/instances", "/v1/services/shop/web"])
async def test_a_resumed_reader_is_told_nothing_of_what_came_back_as_it_was(target: str) -> None:
    bench = Bench("a")
    bench.show("a", "1", "2")
    last = bench.cursor(target)
    bench.show("a", "1", "2", health="unready")
    bench.show("a", "1")
    bench.show("a", "1", "2")
    bench.show("a", "1", "2", "3")
    channel = Channel()
    bench.follow(target, channel, last)
    [(name, change)] = channel.events()
    told = [entry.get("id") or entry["name"] for entry in change["added"] + change["updated"]]
    assert (name, told, change["removed"]) == ("change", ["web" if target == "/v1/services" else "web/3"], [])
    undone = bench.cursor(target)
    bench.show("a", "1", "2", health="unready")
    bench.show("a", "1")
    bench.show("a", "1", "2", "3")
    later = Channel()
    bench.follow(target, later, undone.rpartition("-")[0] + "-0000000000000000")
    assert later.events() == []


async def test_a_stream_of_what_is_not_there_is_a_plain_answer_at_once() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    missing = bench.get("/v1/services/shop/none")
    again = bench.get(f"/v1/services/shop/none?after={cursor_of(missing)}", accept="text/event-stream")
    assert (again.status, is_reset(again)) == (404, False)


async def test_a_stream_ends_where_its_service_is_forgotten() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    channel = Channel()
    bench.follow("/v1/services/shop/web", channel)
    bench.ingest.accept("a", Gone("web"))
    assert channel.names() == ["snapshot", "change"]
    bench.clock.advance(REMEMBERED_FOR + 1)
    bench.ingest.tick()
    assert (channel.names(), channel.ended) == (["reset"], True)


async def test_a_failure_wakes_only_readers_of_environments() -> None:
    bench = Bench("a")
    bench.show("a", "1")
    targets = ("/v1/instances", "/v1/services", "/v1/services/shop/web", "/v1/instances/eu/a/web/1", "/v1/instances?stale=no")
    quiet = [bench.block(target, bench.cursor(target)) for target in targets]
    told = bench.block("/v1/environments", bench.cursor("/v1/environments"))
    bench.ingest.fail("a", "", TransientError("no answer"))
    await until(told)
    assert not any(reader.answers for reader in quiet)
    bench.waits.end_all()
