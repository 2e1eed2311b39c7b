"""When what is asked, and how calls are spread, by an injected clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge_plugins.sources.cloud_map.schedule import Bucket, Intervals, Plan, phase

INTERVALS = Intervals(refresh=5.0, health=15.0, sweep=300.0)


def asked(plan: Plan, polls: list[float], *, checked: bool, intervals: Intervals = INTERVALS) -> list[float]:
    """The polls that discover."""
    found = []
    for now in polls:
        if plan.ask(now, intervals, checked=checked) == "instances":
            plan.discovered(now, intervals, "srv-1")
            found.append(now)
    return found


def settled(now: float = 0.0) -> Plan:
    """A plan past its first, early, discovery."""
    plan = Plan()
    plan.discovered(now, INTERVALS, "srv-1")
    plan.discovered(now, INTERVALS, "srv-1")
    return plan


def test_a_new_service_is_discovered_at_once() -> None:
    assert Plan().ask(0.0, INTERVALS, checked=False) == "instances"


@pytest.mark.parametrize(
    ("polls", "expected"),
    [
        ([5.0, 10.0, 15.0, 20.0, 25.0, 30.0], [15.0, 30.0]),
        ([5.1, 10.3, 15.2, 20.1, 25.3, 30.4], [15.2, 30.4]),
        ([4.0, 8.0, 12.0, 16.0], [12.0]),  # at 16 it would be late
    ],
)
def test_health_is_never_asked_later_than_its_interval(polls: list[float], expected: list[float]) -> None:
    refresh = polls[1] - polls[0] if polls[0] == 4.0 else 5.0
    assert asked(settled(), polls, checked=True, intervals=Intervals(refresh, 15.0, 300.0)) == expected


def test_a_service_without_checks_is_discovered_by_the_sweep_only() -> None:
    polls = [5.0 * number for number in range(1, 121)]
    assert asked(settled(), polls, checked=False) == [300.0, 600.0]


def test_the_first_interval_is_cut_at_a_point_of_each_services_own() -> None:
    firsts = set()
    for number in range(50):
        plan = Plan()
        plan.discovered(0.0, INTERVALS, f"srv-{number}")
        assert plan.sweep_at is not None
        assert 0 < plan.sweep_at <= 300.0
        firsts.add(plan.sweep_at)
    assert len(firsts) > 40
    assert phase("srv-1") == phase("srv-1")


@pytest.mark.parametrize(("rate", "at_once"), [(1, 1), (10, 1), (100, 10), (500, 50)])
def test_a_bucket_spreads_calls_evenly_and_allows_its_rate(rate: int, at_once: int) -> None:
    bucket = Bucket(rate)
    delays = [bucket.reserve(100.0, 1000.0) for _ in range(3 * rate + at_once)]
    assert sum(delay == pytest.approx(0.0) for delay in delays) == at_once
    assert delays[-1] == pytest.approx(3.0, abs=1.0 / rate)
    assert delays == sorted(delays, key=lambda delay: delay or 0.0)


def test_a_turn_that_comes_too_late_is_not_reserved() -> None:
    bucket = Bucket(1)
    assert [bucket.reserve(0.0, 2.0) for _ in range(5)] == [0.0, 1.0, 2.0, None, None]
    assert bucket.reserve(3.0, 4.0) == 0.0


def test_idle_time_is_no_credit() -> None:
    bucket = Bucket(10)
    reserve: Callable[[], float | None] = lambda: bucket.reserve(1000.0, 2000.0)  # noqa: E731
    assert [reserve() for _ in range(3)] == pytest.approx([0.0, 0.1, 0.2])
