"""What each kind of evidence does to the records of one source."""

from __future__ import annotations

import pytest

from bridge.catalog.guard import GuardPolicy
from bridge.catalog.records import LINGER, SourceRecords
from bridge.errors import ContractError, TransientError
from bridge.model import Confirmed, Gone, InstanceGroup, Listing, Rejected, ServiceInstance, ServiceName, SourceEvent

POLICY = GuardPolicy()
ERROR = TransientError("no answer")


def inst(id_: str, service: str = "web", **more: object) -> ServiceInstance:
    return ServiceInstance(id=id_, namespace="shop", service=service, addresses=("10.0.0.1",), **more)  # type: ignore[arg-type]


def group(key: str, *ids: str, service: str = "web") -> InstanceGroup:
    return InstanceGroup(key, tuple(inst(i, service) for i in ids), (ServiceName("shop", service),))


class Bench:
    """Records with a clock."""

    def __init__(self, *events: SourceEvent, policy: GuardPolicy | None = POLICY, scopes: tuple[str, ...] = ("",)) -> None:
        self.records = SourceRecords(policy, scopes)
        self.now = 1000.0
        for event in events:
            self.fold(event)

    def fold(self, *events: SourceEvent, after: float = 1.0) -> dict[str, str]:
        """Fold; ids that changed: added, updated or removed."""
        self.now += after
        changes = self.records.fold(events, self.now, self.now)
        return {i: "added" if b is None else "removed" if a is None else "updated" for i, (b, a) in changes.pairs.items()}

    def settle(self, after: float) -> set[str]:
        self.now += after
        changes, _ = self.records.settle(self.now)
        return set(changes.pairs)

    @property
    def ids(self) -> set[str]:
        return set(self.records.records)


FULL = Listing("", (group("a", "1", "2", "3"), group("b", "4", "5", service="api")))


def test_a_listing_adds_what_it_shows() -> None:
    bench = Bench()
    assert bench.fold(FULL) == dict.fromkeys("12345", "added")


def test_the_same_listing_again_changes_nothing() -> None:
    bench = Bench(FULL)
    assert bench.fold(FULL) == {}


KEEPING = {
    "an unknown group": Listing("", (group("a", "1", "2", "3"),), unknown={"b": ERROR}),
    "everything unknown": Listing("", unknown={"": ERROR}),
    "a rejected group": Listing("", (group("a", "1", "2", "3"),), rejected={"b": "broken"}),
    "rejected ids": Listing("", (group("a", "1", "2", "3"), group("b", service="api")), rejected={"4": "x", "5": "y"}),
    "a rejection inside the group": Listing("", (group("a", "1", "2", "3"), group("b", service="api")), rejected={"b/i[0]": "x"}),
    "a shown group whose rest is unknown": Listing(
        "", (group("a", "1"), group("b", "4", "5", service="api")), unknown={"a": ERROR}
    ),
    "unchanged groups": Listing("", unchanged=("a", "b")),
    "a listing of another scope": Listing("c"),
    "a confirmation": Confirmed(""),
    "a rejection": Rejected("a", "broken"),
}


@pytest.mark.parametrize("event", KEEPING.values(), ids=KEEPING)
def test_what_could_not_be_told_is_kept(event: SourceEvent) -> None:
    bench = Bench(FULL, policy=None)
    assert bench.fold(event) == {}
    assert bench.ids == set("12345")


def test_a_group_called_unchanged_that_was_never_seen_breaks_the_contract_and_changes_nothing() -> None:
    bench = Bench(FULL)
    with pytest.raises(ContractError, match="'c'"):
        bench.fold(Listing("", (group("a"),), unchanged=("c",)))
    assert bench.ids == set("12345")


def test_gone_removes_at_once_without_the_guard() -> None:
    bench = Bench(FULL)
    assert bench.fold(Gone("a")) == dict.fromkeys("123", "removed")
    assert bench.fold(Listing("", (group("b", "5", service="api"),), gone=("4",))) == {"4": "removed"}


def test_a_stream_that_drops_an_id_removes_it_after_the_linger() -> None:
    bench = Bench(FULL)
    assert bench.fold(group("a", "1", "2")) == {}
    assert bench.settle(LINGER / 2) == set()
    assert bench.settle(LINGER) == {"3"}


def test_an_endpoint_that_moves_between_groups_never_leaves() -> None:
    bench = Bench(FULL)
    assert bench.fold(group("a", "1", "2")) == {}
    assert bench.fold(group("c", "3"), after=LINGER / 2) == {}
    assert bench.settle(10) == set()
    assert bench.ids == set("12345")
    assert bench.fold(Gone("c")) == {"3": "removed"}


def test_an_id_in_two_groups_goes_with_the_last() -> None:
    bench = Bench(FULL, group("c", "1"))
    assert bench.fold(Gone("c")) == {}
    assert bench.fold(group("a", "2", "3")) == {}
    assert bench.settle(1) == {"1"}


def test_the_merge_of_two_groups_does_not_depend_on_their_order() -> None:
    v4 = InstanceGroup(
        "v4", (ServiceInstance(id="p", namespace="shop", service="web", addresses=("10.0.0.9",), health="unready"),)
    )
    v6 = InstanceGroup("v6", (ServiceInstance(id="p", namespace="shop", service="web", addresses=("fd00::9",)),))
    merged = []
    for events in ((v4, v6), (v6, v4)):
        bench = Bench(*events)
        merged.append(bench.records.records["p"].instance)
    assert merged[0] == merged[1]
    assert merged[0].addresses == ("10.0.0.9", "fd00::9")
    assert merged[0].health == "ready"


def big(count: int, service: str = "web") -> Listing:
    return Listing("", (group("a", *(f"i{n}" for n in range(count)), service=service),))


def test_a_small_loss_is_obeyed_and_a_large_one_held() -> None:
    bench = Bench(big(20))
    assert len(bench.fold(big(14))) == 6
    assert bench.fold(big(3)) == {}
    assert len(bench.records.held) == 11
    assert bench.records.held_reason is not None


def test_replacement_is_no_loss() -> None:
    bench = Bench(big(10))
    replaced = Listing("", (group("a", *(f"new{n}" for n in range(10))),))
    changes = bench.fold(replaced)
    assert sorted(changes.values()) == ["added"] * 10 + ["removed"] * 10


def test_young_instances_that_vanish_are_a_loss_all_the_same() -> None:
    bench = Bench(Listing(""), big(10))
    assert bench.fold(Listing("")) == {}
    assert len(bench.records.held) == 10


def test_turnover_is_no_loss() -> None:
    generations = [Listing("", (group("a", *(f"g{k}-{n}" for n in range(10))),)) for k in range(4)]
    bench = Bench(generations[0])
    for generation in generations[1:]:
        assert len(bench.fold(generation)) == 20
    assert not bench.records.held


def test_a_rollout_that_starts_first_is_no_loss() -> None:
    old, new = [f"old{n}" for n in range(10)], [f"new{n}" for n in range(10)]
    bench = Bench(Listing("", (group("a", *old),)))
    bench.fold(Listing("", (group("a", *old, *new[:5]),)))
    assert len(bench.fold(Listing("", (group("a", *old[5:], *new[:5]),)))) == 5
    bench.fold(Listing("", (group("a", *old[5:], *new),)))
    assert len(bench.fold(Listing("", (group("a", *new),)))) == 5


def test_a_service_that_would_have_none_is_held_alone() -> None:
    many = group("a", *(f"i{n}" for n in range(30)))
    bench = Bench(Listing("", (many, group("b", "4", "5", service="api"))))
    one_less = group("a", *(f"i{n}" for n in range(29)))
    assert bench.fold(Listing("", (one_less,))) == {"i29": "removed"}
    assert set(bench.records.held) == {"4", "5"}


def test_a_single_instance_may_go() -> None:
    bench = Bench(Listing("", (group("a", *map(str, range(10))), group("b", "only", service="api"))))
    assert bench.fold(Listing("", (group("a", *map(str, range(10))),))) == {"only": "removed"}


def test_what_was_draining_goes_at_once() -> None:
    draining = InstanceGroup("a", tuple(inst(str(n), lifecycle="draining") for n in range(10)))
    bench = Bench(Listing("", (draining,)))
    assert len(bench.fold(Listing(""))) == 10


def test_the_end_of_what_was_draining_is_no_loss_by_absence() -> None:
    ids = list(map(str, range(10)))
    mixed = InstanceGroup("a", tuple(inst(i, lifecycle="draining" if int(i) < 5 else "active") for i in ids))
    bench = Bench(Listing("", (mixed,)))
    assert bench.fold(Listing("", (group("a", *ids[6:]),))).keys() >= set(ids[:6])
    assert not bench.records.held


def test_replacement_while_nobody_looked_is_no_loss() -> None:
    bench = Bench()
    for n in range(10):
        bench.records.restore(f"old{n}", (("a", inst(f"old{n}")),), 0.0)
    changed = bench.fold(Listing("", (group("a", *(f"new{n}" for n in range(10))),)))
    assert sorted(changed.values()) == ["added"] * 10 + ["removed"] * 10
    assert not bench.records.held


def test_a_hold_ends_when_seen_again() -> None:
    bench = Bench(big(20))
    bench.fold(Listing(""))
    assert len(bench.records.held) == 20
    assert bench.fold(big(20)) == {}
    assert not bench.records.held
    assert bench.records.held_reason is None


def test_a_hold_is_obeyed_after_five_minutes_and_two_further_listings() -> None:
    bench = Bench(big(20))
    bench.fold(Listing(""))
    assert bench.fold(Listing(""), after=299) == {}
    assert len(bench.fold(Listing(""), after=2)) == 20


def test_time_alone_does_not_end_a_hold() -> None:
    bench = Bench(big(20))
    bench.fold(Listing(""))
    assert bench.fold(Listing(""), after=400) == {}
    assert len(bench.fold(Listing(""), after=1)) == 20


def test_a_group_event_settles_what_was_held_of_it() -> None:
    bench = Bench(big(20))
    bench.fold(Listing(""))
    bench.fold(group("a", "i0"))
    bench.settle(1)
    assert bench.ids == {"i0"}
    assert not bench.records.held


def test_the_emptying_guard_holds_only_what_empties_the_source() -> None:
    policy = GuardPolicy(only_when_emptied=True)
    bench = Bench(FULL, policy=policy)
    assert len(bench.fold(Listing("", (group("a", "1"),)))) == 4
    assert bench.fold(Listing("")) == {}
    assert set(bench.records.held) == {"1"}


def test_groups_outside_every_scope_are_absent() -> None:
    bench = Bench(Listing("", (group("x/a", "1"), group("y/b", "2", service="api"))))
    bench.records.scopes = ("x",)
    assert bench.fold(Listing("x", (group("x/a", "1"),))) == {"2": "removed"}


def test_a_service_without_instances_stands_until_its_group_goes() -> None:
    bench = Bench()
    changes = bench.records.fold([Listing("", (group("a"),))], 1.0, 1.0)
    assert changes.stands == {ServiceName("shop", "web"): 1}
    changes = bench.records.fold([Listing("")], 2.0, 2.0)
    assert changes.stands == {ServiceName("shop", "web"): -1}


def test_a_rejection_beside_its_group_keeps_the_record() -> None:
    bench = Bench(FULL)
    assert bench.fold(group("a", "1", "2"), Rejected("3", "broken")) == {}
    assert bench.settle(10) == set()
    assert "3" in bench.ids


def test_a_record_that_only_changes_its_group_is_told_to_the_disk() -> None:
    bench = Bench(FULL, group("c", "1"))
    changes = bench.records.fold([group("a", "2", "3")], bench.now + 1, 0.0)
    assert not changes.pairs
    assert changes.moved == {"1": None}
