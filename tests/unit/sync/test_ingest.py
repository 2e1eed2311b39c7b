"""Where observations become changes: what is rejected and why, what the status says, and what time alone changes."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.log import Change
from bridge.catalog.partition import Partition
from bridge.catalog.record import Changes
from bridge.catalog.status import SourceStatus
from bridge.errors import ContractError, ForbiddenError, TransientError
from bridge.model import Confirmed, Gone, Listing, Observation, Origin, Rejected, ServiceName
from bridge.sync.ingest import Ingest, fresh_for, guard_policy
from bridge.testing import ManualClock
from tests.unit.sync.scripted import SOURCE, ScriptedConfig, group, listing

WEB = ServiceName("shop", "web")
DOWN = TransientError("no answer")


class Bench:
    """An ingest with one source, a clock that stands still, and what it told others."""

    def __init__(self, *, scopes: tuple[str, ...] = ("",), polled: bool = False, **keys: Any) -> None:
        self.clock = ManualClock()
        self.partition = Partition("test", "uid", 1)
        self.catalog = Catalog(Indexes("test", 1, 1_000_000))
        self.catalog.partitions["test"] = self.partition
        self.ingest = Ingest(self.catalog, self.partition, self.clock, logging.getLogger("bridge.ingest"))
        self.told: list[tuple[str, Changes, Change | None]] = []
        self.lingering: list[float] = []
        self.ingest.on_changes = lambda source, changes, change: self.told.append((source, changes, change))
        self.ingest.on_linger = self.lingering.append
        self.add(scopes=scopes, polled=polled, **keys)

    def add(self, name: str = SOURCE, *, scopes: tuple[str, ...] | None = ("",), polled: bool = False, **keys: Any) -> None:
        self.ingest.add(name, ScriptedConfig(**keys), scopes=scopes, polled=polled)

    def hear(self, *observations: Observation, scope: str = "", **more: Any) -> None:
        for observation in observations:
            self.ingest.accept(SOURCE, observation, scope=scope, **more)

    def pass_(self, seconds: float, *, step: float = 1.0) -> None:
        """Let time pass as the daemon does: with a tick every ``step`` seconds."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            self.ingest.tick()
            seconds -= step

    @property
    def status(self) -> SourceStatus:
        return self.partition.statuses[SOURCE]

    @property
    def state(self) -> str:
        return self.status.state(self.clock.monotonic())

    @property
    def ids(self) -> set[str]:
        return set(self.partition.sources[SOURCE].records)

    @property
    def listed(self) -> set[str]:
        """Ids whose state is `listed`."""
        records = self.partition.sources[SOURCE].records
        return {id_ for id_, record in records.items() if record.instance.state == "listed"}


class TestRejections:
    """One bad object costs itself."""

    def test_an_unfit_instance_is_rejected_by_name_and_the_others_are_taken(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1", "bad!")))
        assert bench.ids == {"a1"}
        assert bench.state == "synced"
        ((key, reason),) = bench.status.rejected.items()
        assert key == "bad!"
        assert "shop// bad!" in reason

    def test_the_old_record_of_what_is_rejected_stays(self) -> None:
        bench = Bench(guard="off")
        bench.hear(listing(group("shop/a", "a1", "a2")))
        bench.hear(listing(group("shop/a", "a2"), rejected={"a1": "broken"}))
        assert bench.ids == {"a1", "a2"}
        bench.hear((group("shop/a", "a2"), Rejected("a1", "broken")))
        bench.pass_(1.0)
        bench.ingest.settle()
        assert bench.ids == {"a1", "a2"}

    CLEARING = {
        "a listing without it": listing(group("shop/a", "a1")),
        "its group, told again": group("shop/a", "a1"),
        "its group, gone": Gone("shop/a"),
        "an instance of that id": group("shop/b", "bad"),
    }

    def test_a_rejection_belongs_to_the_group_before_it(self) -> None:
        bench = Bench()
        a, b = group("shop/a", "a1"), group("shop/b", "b1")
        bench.hear(listing(a, b), (a, Rejected("bad-a", "broken"), b, Rejected("bad-b", "broken")))
        bench.hear(a)
        assert bench.status.rejected == {"bad-b": "broken"}
        bench.hear(b)
        assert bench.status.rejected == {}

    def test_each_rejection_is_a_line_once_and_so_is_its_end(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        bench = Bench()
        broken = listing(group("shop/a", "a1"), rejected={f"bad{n}": "broken" for n in range(12)})
        bench.hear(broken, broken, listing(group("shop/a", "a1")))
        told = [record for record in caplog.records if "reject" in record.msg]
        assert [record.msg for record in told] == ["object rejected"] * 10 + [
            "further objects rejected",
            "objects no longer rejected",
        ]
        assert (told[0].key, told[0].reason, told[10].count, told[11].count) == ("bad0", "broken", 2, 12)  # type: ignore[attr-defined]

    @pytest.mark.parametrize("clearing", CLEARING.values(), ids=CLEARING)
    def test_a_rejection_ends_with_the_next_word_on_it(self, clearing: Observation) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")), (group("shop/a", "a1"), Rejected("bad", "broken")))
        assert bench.status.rejected == {"bad": "broken"}
        bench.hear(clearing)
        assert bench.status.rejected == {}

    KEEPING = {
        "a confirmation": Confirmed(),
        "another group": group("shop/b", "b1"),
        "a listing of another part": listing(group("pay/c", "c1"), scope="pay"),
        "the end of another group": Gone("shop/b"),
    }

    @pytest.mark.parametrize("event", KEEPING.values(), ids=KEEPING)
    def test_a_rejection_outlives_what_does_not_speak_of_it(self, event: Observation) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1"), group("shop/b", "b1")), Rejected("shop/a", "broken"), event)
        assert bench.status.rejected == {"shop/a": "broken"}


class TestRefusals:
    """What breaks the rules as a whole changes nothing."""

    def test_a_listing_beyond_the_limit_is_refused_and_the_last_one_kept(self) -> None:
        bench = Bench(max_instances=2)
        bench.hear(listing(group("shop/a", "a1", "a2")))
        with pytest.raises(TransientError, match=r"max_instances \(2\)"):
            bench.hear(listing(group("shop/a", "a1", "a2", "a3")))
        with pytest.raises(TransientError, match="max_instances"):
            bench.hear(group("shop/b", "b1"))
        assert bench.ids == {"a1", "a2"}

    def test_at_the_limit_known_instances_still_change(self) -> None:
        bench = Bench(max_instances=2)
        bench.hear(listing(group("shop/a", "a1", "a2")), group("shop/a", "a1", "a2", service="api"))
        assert ServiceName("shop", "api") in bench.catalog.services

    def test_a_broken_contract_changes_nothing(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        with pytest.raises(ContractError):
            bench.hear((group("shop/b", "b1"), listing(unchanged=("shop/never",))))
        assert bench.ids == {"a1"}


class TestStatus:
    """What is known of the source as a whole."""

    def test_the_first_listing_makes_it_read(self) -> None:
        bench = Bench()
        assert (bench.state, bench.status.read, bench.status.listed) == ("starting", False, False)
        bench.hear(listing())
        assert (bench.state, bench.status.read, bench.status.listed) == ("synced", True, True)

    def test_a_failure_is_its_state_until_it_is_heard_again(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        bench.ingest.fail(SOURCE, "", DOWN)
        assert (bench.state, bench.ids) == ("failed", {"a1"})
        bench.ingest.fail(SOURCE, "", ForbiddenError("403"))
        assert bench.state == "forbidden"
        bench.hear(Confirmed())
        assert (bench.state, bench.status.failing_since) == ("synced", None)

    def test_an_unknown_part_is_an_error_and_the_rest_moves_on(self) -> None:
        bench = Bench(guard="off")
        bench.hear(listing(group("shop/a", "a1"), group("pay/b", "b1")))
        bench.hear(listing(group("shop/a", "a2"), unknown={"pay": DOWN}))
        assert (bench.state, bench.ids) == ("failed", {"a2", "b1"})
        assert set(bench.status.errors) == {"pay"}
        bench.hear(listing(group("pay/b", "b2"), scope="pay"))
        assert (bench.state, bench.ids) == ("synced", {"a2", "b2"})

    def test_parts_that_fail_do_not_make_the_whole_fresh(self) -> None:
        bench = Bench(fresh_for="30s")
        bench.hear(listing(group("shop/a", "a1")))
        bench.clock.advance(20.0)
        bench.hear(listing(unchanged=("shop/a",), unknown={"pay": DOWN}))
        assert bench.status.age_ms(bench.clock.monotonic()) == 20_000

    def test_a_part_that_was_never_read_is_named_until_it_is(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1"), unknown={"pay": DOWN}))
        assert bench.status.unread == {"pay"}
        bench.hear(listing(group("shop/a", "a1")))
        assert bench.status.unread == set()

    def test_a_part_that_was_read_before_is_not_unread_when_it_fails(self) -> None:
        bench = Bench()
        bench.hear(listing(group("pay/b", "b1")), listing(unknown={"pay": DOWN}))
        assert (bench.status.unread, bench.ids) == (set(), {"b1"})

    def test_a_part_told_of_only_here_and_there_is_unread_until_it_is_told_whole(self) -> None:
        bench = Bench()
        for _ in range(2):
            bench.hear(listing(group("shop/a"), unknown={"": DOWN}))
            assert bench.status.unread == {""}
        bench.hear(listing(group("shop/a"), unknown={"pay": DOWN}))
        assert bench.status.unread == {"pay"}
        bench.hear(listing(group("shop/a")))
        assert bench.status.unread == set()

    def test_a_source_that_was_read_empty_is_not_unread_when_it_fails(self) -> None:
        bench = Bench()
        bench.hear(Listing(), Listing(unknown={"": DOWN}))
        assert bench.status.unread == set()

    def test_every_failure_of_a_part_counts(self) -> None:
        bench = Bench()
        bench.hear(listing(unknown={"a": DOWN, "b": DOWN}), listing(unknown={"a": DOWN}))
        assert bench.status.failures == 3

    def test_a_listing_that_tells_nothing_is_no_reading(self) -> None:
        bench = Bench()
        bench.hear(listing(unknown={"": DOWN}))
        assert (bench.state, bench.status.read) == ("failed", False)

    def test_each_scope_is_confirmed_alone(self) -> None:
        bench = Bench(scopes=("shop", "pay"), fresh_for="30s")
        bench.hear(listing(scope="shop"), scope="shop")
        assert not bench.status.listed
        bench.hear(listing(scope="pay"), scope="pay")
        assert bench.status.listed
        bench.clock.advance(31.0)
        bench.hear(Confirmed("shop"), scope="shop")
        assert bench.state == "stale"
        bench.hear(Confirmed("pay"), scope="pay")
        assert bench.state == "synced"

    def test_a_failure_to_open_ends_when_the_parts_are_known(self) -> None:
        bench = Bench(scopes=("shop",))
        bench.hear(listing(scope="shop"), scope="shop")
        bench.add(scopes=None)
        bench.ingest.fail(SOURCE, "", DOWN)
        assert bench.state == "failed"
        bench.add(scopes=("shop",))
        assert bench.state == "synced"

    @pytest.mark.parametrize(
        ("keys", "polled", "expected"),
        [
            ({}, False, 90.0),
            ({"refresh": 600.0}, False, 90.0),
            ({}, True, 30.0),
            ({"refresh": 5.0}, True, 30.0),
            ({"refresh": 60.0}, True, 180.0),
            ({"fresh_for": 7.0, "refresh": 60.0}, True, 7.0),
        ],
    )
    def test_how_long_it_counts_as_fresh(self, keys: dict[str, Any], polled: bool, expected: float) -> None:
        assert fresh_for(ScriptedConfig(**keys), polled=polled) == expected

    def test_the_guard_may_be_off(self) -> None:
        assert guard_policy(ScriptedConfig(guard="off")) is None
        policy = guard_policy(ScriptedConfig())
        assert policy is not None
        assert (policy.share, policy.floor, policy.hold_for) == (0.3, 3, 300.0)

    def test_a_change_of_state_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "bridge.ingest")
        bench = Bench()
        bench.hear(listing())
        for _ in range(3):
            bench.ingest.fail(SOURCE, "", DOWN)
            bench.pass_(5.0)
        bench.hear(listing(), Confirmed())
        said = [(record.levelname, record.state) for record in caplog.records if record.msg == "source state changed"]  # type: ignore[attr-defined]
        assert said == [("INFO", "starting"), ("INFO", "synced"), ("WARNING", "failed"), ("INFO", "synced")]


class TestChanges:
    """Who is told of what."""

    def test_an_observation_is_one_change_however_many_events_it_has(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        bench.told.clear()
        bench.hear((group("shop/a", "a1", "a2"), group("shop/b", "b1", service="api"), Confirmed()))
        ((source, changes, change),) = bench.told
        assert (source, set(changes.pairs)) == (SOURCE, {"a2", "b1"})
        assert change is not None
        assert {touch.service for touch in change.touches} == {WEB, ServiceName("shop", "api")}

    def test_the_same_again_tells_nobody(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        index = bench.catalog.indexes.index
        bench.told.clear()
        bench.hear(listing(group("shop/a", "a1")), group("shop/a", "a1"), Confirmed())
        assert (bench.told, bench.catalog.indexes.index) == ([], index)

    def test_what_a_stream_drops_lingers_and_then_goes(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1", "a2")), group("shop/a", "a1"))
        assert bench.ids == {"a1", "a2"}
        assert bench.lingering == [pytest.approx(bench.clock.monotonic() + 0.1)]
        bench.clock.advance(0.2)
        bench.ingest.settle()
        assert bench.ids == {"a1"}


class TestRetiring:
    """Sources that leave the configuration, come back, or change their name."""

    def test_a_retired_source_keeps_its_records_until_it_is_dropped(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        bench.ingest.retire(SOURCE, bench.clock.monotonic())
        assert (bench.state, bench.ids) == ("retired", {"a1"})
        assert Origin("test", SOURCE) in bench.catalog.stale
        bench.ingest.drop(SOURCE)
        assert SOURCE not in bench.partition.sources
        assert SOURCE not in bench.partition.statuses
        assert bench.partition.instances == 0
        assert not bench.catalog.stale

    def test_one_that_has_nothing_to_keep_goes_at_once(self) -> None:
        bench = Bench()
        bench.hear(Listing())
        bench.ingest.retire(SOURCE, bench.clock.monotonic())
        assert SOURCE not in bench.partition.statuses

    def test_a_renamed_source_leaves_nothing_under_its_former_name_on_disk(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        bench.told.clear()
        bench.ingest.rename(SOURCE, "after")
        assert {(source, *changes.groups) for source, changes, _ in bench.told} == {("after", "shop/a"), (SOURCE, "shop/a")}

    def test_one_that_comes_back_is_as_it_was(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        bench.ingest.retire(SOURCE, bench.clock.monotonic())
        bench.add()
        bench.hear(listing(unchanged=("shop/a",)))
        assert (bench.state, bench.ids) == ("synced", {"a1"})

    def test_a_renamed_source_takes_its_records_along_under_one_index(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1", "a2")))
        since = bench.partition.sources[SOURCE].records["a1"].since
        bench.clock.advance(5.0)
        index = bench.catalog.indexes.index
        bench.ingest.feeds.pop(SOURCE)
        bench.ingest.rename(SOURCE, "new")
        assert bench.catalog.indexes.index == index + 1
        assert set(bench.partition.sources) == {"new"}
        record = bench.partition.sources["new"].records["a1"]
        assert (record.instance.source, record.since) == ("new", since)
        assert {i.source for i in bench.catalog.services[WEB].ordered()} == {"new"}
        bench.add("new")
        bench.ingest.accept("new", listing(unchanged=("shop/a",)))
        assert set(bench.partition.sources["new"].records) == {"a1", "a2"}

    @pytest.mark.parametrize(("former", "name"), [("never", "new"), (SOURCE, "taken")])
    def test_a_name_that_is_unknown_or_taken_is_left_alone(self, former: str, name: str) -> None:
        bench = Bench()
        bench.add("taken")
        bench.hear(listing(group("shop/a", "a1")))
        bench.ingest.rename(former, name)
        assert bench.ids == {"a1"}


class TestTime:
    """What nobody says: silence, expiry, and our own pauses."""

    def test_silence_makes_it_stale_and_the_next_word_fresh(self) -> None:
        bench = Bench(fresh_for="30s")
        bench.hear(listing(group("shop/a", "a1")))
        bench.pass_(31.0)
        assert (bench.state, bench.catalog.stale) == ("stale", frozenset({Origin("test", SOURCE)}))
        bench.hear(Confirmed())
        assert (bench.state, bench.catalog.stale) == ("synced", frozenset())

    def test_unconfirmed_instances_stay_for_ever_by_default(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1")))
        bench.pass_(100_000.0, step=2.0)
        assert bench.listed == {"a1"}

    def test_past_the_hold_they_expire_and_come_back_when_confirmed(self) -> None:
        bench = Bench(hold="60s")
        bench.hear(listing(group("shop/a", "a1")))
        bench.ingest.fail(SOURCE, "", DOWN)
        bench.pass_(59.0)
        assert bench.listed == {"a1"}
        bench.pass_(3.0)
        assert (bench.listed, bench.ids) == (set(), {"a1"})
        bench.hear(Confirmed())
        assert bench.listed == {"a1"}

    def test_a_service_of_which_all_expired_is_shown_degraded(self) -> None:
        bench = Bench(hold="60s")
        bench.hear(listing(group("shop/a", "a1")))
        bench.pass_(62.0)
        assert bench.catalog.services[WEB].degraded
        bench.hear(listing(group("shop/a", "a2")))
        assert not bench.catalog.services[WEB].degraded

    def test_our_own_pause_is_not_the_silence_of_the_source(self) -> None:
        bench = Bench(hold="60s", fresh_for="30s")
        bench.hear(listing(group("shop/a", "a1")))
        bench.pass_(20.0)
        bench.clock.advance(3600.0)  # a machine that slept
        bench.ingest.tick()
        assert (bench.state, bench.listed) == ("synced", {"a1"})
        bench.pass_(11.0)
        assert bench.state == "stale"
        bench.pass_(31.0)
        assert bench.listed == set()

    def test_a_service_is_forgotten_a_day_after_its_last_instance(self) -> None:
        bench = Bench(guard="off")
        forgotten: list[Change] = []
        bench.ingest.on_forgotten = forgotten.append
        bench.hear(listing(group("shop/a", "a1")), listing())
        assert WEB in bench.catalog.services
        bench.clock.advance(24 * 3600.0 - 10)
        bench.ingest.tick()
        assert WEB in bench.catalog.services
        bench.pass_(11.0)
        assert WEB not in bench.catalog.services
        assert len(forgotten) == 1


class TestGuard:
    """What a listing lacks beyond reason is held, and looked for again."""

    def test_a_held_removal_asks_for_two_more_listings_within_its_time(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", *(f"a{n}" for n in range(20)))))
        bench.hear(listing(group("shop/a", "a0")))
        assert len(bench.ids) == 20
        asked = []
        for second in range(1, 301):
            bench.clock.advance(1.0)
            if bench.ingest.due_for_relisting():
                asked.append(second)
        assert asked == [150, 300]

    def test_polls_that_confirm_count_as_listings(self) -> None:
        bench = Bench(polled=True)
        bench.hear(listing(group("shop/a", *(f"a{n}" for n in range(20)))), listing=True)
        bench.hear(listing(group("shop/a", "a0")), listing=True)
        bench.clock.advance(150.0)
        bench.hear(Confirmed(), listing=True)
        assert len(bench.ids) == 20
        bench.clock.advance(151.0)
        bench.hear(Confirmed(), listing=True)
        assert bench.ids == {"a0"}

    def test_the_state_is_warned_of_once(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        bench = Bench()
        bench.hear(listing(group("shop/a", *(f"a{n}" for n in range(20)))))
        for _ in range(3):
            bench.hear(listing(group("shop/a", "a0")))
        (line,) = [record for record in caplog.records if record.msg == "guard holds removals"]
        assert line.held == 19  # type: ignore[attr-defined]
        bench.hear(listing(group("shop/a", *(f"a{n}" for n in range(20)))))
        (end,) = [record for record in caplog.records if record.msg == "guard holds nothing any more"]
        assert end.held_before == 19  # type: ignore[attr-defined]


def test_an_empty_listing_is_something_to_tell() -> None:
    bench = Bench()
    bench.hear(Listing())
    assert bench.status.read


def test_an_id_that_a_group_shows_twice_is_one_instance() -> None:
    bench = Bench()
    bench.hear(listing(group("shop/a", "a1", "a1", "a2")), listing(group("shop/a", "a1")))
    assert bench.ids == {"a1"}
    assert sum(bench.partition.sources[SOURCE].sizes.values()) == 1


class TestLimits:
    """What is refused for its size is what the source shows, not what it replaces."""

    def test_replacement_at_the_limit_is_taken(self) -> None:
        bench = Bench(max_instances=3, guard="off")
        bench.hear(listing(group("shop/a", "a1", "a2"), group("shop/b", "b1")))
        bench.hear(listing(group("shop/a", "a3", "a4"), group("shop/c", "c1")))
        bench.hear(group("shop/a", "a5", "a6"))
        bench.clock.advance(1.0)
        bench.ingest.settle()
        assert bench.ids == {"a5", "a6", "c1"}

    def test_what_could_not_be_told_counts(self) -> None:
        bench = Bench(max_instances=3, guard="off")
        bench.hear(listing(group("shop/a", "a1", "a2")))
        with pytest.raises(TransientError, match="max_instances"):
            bench.hear(listing(group("shop/b", "b1", "b2"), unknown={"shop/a": DOWN}))

    def test_a_reason_is_cut(self) -> None:
        bench = Bench()
        bench.hear(listing(group("shop/a", "a1"), rejected={"x": "y" * 5000}))
        assert len(bench.status.rejected["x"]) == 1024
