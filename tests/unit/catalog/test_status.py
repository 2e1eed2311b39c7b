"""A source's state, freshness and what of it was never read."""

from __future__ import annotations

import itertools

import pytest

from bridge.catalog.status import SourceStatus, state_of
from bridge.errors import ContractError, ForbiddenError, SourceError, TransientError
from bridge.model import Origin

DENIED, FAILED = ForbiddenError("denied"), TransientError("no answer")


def expected(retired: bool, read: bool, error: SourceError | None, stale: bool) -> str:
    """The table of the contract, read from its top."""
    rows = [
        (retired, "retired"),
        (error is DENIED, "forbidden"),
        (error is not None, "failed"),
        (not read, "starting"),
        (stale, "stale"),
    ]
    return next((state for applies, state in rows if applies), "synced")


@pytest.mark.parametrize(
    ("retired", "read", "error", "stale"),
    list(itertools.product([False, True], [False, True], [None, FAILED, DENIED, ContractError("odd")], [False, True])),
)
def test_the_state_by_precedence(retired: bool, read: bool, error: SourceError | None, stale: bool) -> None:
    assert state_of(retired=retired, read=read, error=error, stale=stale) == expected(retired, read, error, stale)


def status(*scopes: str, fresh_for: float = 30.0) -> SourceStatus:
    return SourceStatus(Origin("eu", "main"), "test", scopes=scopes or ("",), fresh_for=fresh_for)


def test_a_life() -> None:
    source = status()
    assert (source.state(0), source.age_ms(0), source.read, source.listed) == ("starting", None, False, False)
    source.fail("", FAILED, 1)
    assert (source.state(1), source.failing_since) == ("failed", 1)
    source.recover("")
    source.hear("", 2)
    assert (source.state(2), source.age_ms(2.5), source.failing_since, source.listed) == ("synced", 500, None, True)
    assert source.state(32.0) == "synced"
    assert source.state(32.1) == "stale"
    source.fail("", DENIED, 40)
    assert source.state(40) == "forbidden"
    source.recover("")
    source.hear("", 41)
    assert source.state(41) == "synced"
    source.retired_at = 42
    assert (source.state(42), source.is_stale(42)) == ("retired", True)


def test_it_is_as_fresh_as_its_least_fresh_scope() -> None:
    source = status("a", "b")
    source.hear("a", 10)
    assert (source.read, source.listed, source.age_ms(10)) == (True, False, 0)
    source.hear("b", 20)
    source.hear("a", 30)
    assert source.listed
    assert source.age_ms(30) == 10_000


def test_an_unknown_part_keeps_its_scope_from_being_confirmed() -> None:
    source = status()
    source.hear("", 1)
    source.listing("", {"pay": FAILED}, frozenset({"pay"}), 10)
    source.hear("", 10)
    assert (source.state(10), source.age_ms(10), source.unread) == ("failed", 9_000, {"pay"})
    source.listing("", {}, frozenset(), 20)
    source.hear("", 20)
    assert (source.state(20), source.age_ms(20), source.unread) == ("synced", 0, set())


def test_a_denial_decides_over_an_earlier_failure() -> None:
    source = status("a", "b")
    source.fail("a", FAILED, 1)
    source.fail("b", DENIED, 2)
    assert source.error is DENIED
    source.recover("b")
    assert source.state(3) == "failed"


def test_what_came_from_disk_is_stale_until_every_scope_was_heard() -> None:
    source = status("a", "b")
    source.restore(5.0, frozenset())
    assert (source.read, source.listed, source.state(6), source.age_ms(6)) == (True, True, "stale", 1_000)
    source.hear("a", 7)
    assert source.state(7) == "stale"
    source.hear("b", 8)
    assert source.state(8) == "synced"


def test_our_own_pause_is_not_its_silence() -> None:
    source = status()
    source.hear("", 0)
    source.excuse(100.0)
    assert source.state(120) == "synced"
    assert source.state(131) == "stale"
    source.hear("", 131)
    assert source.state(162) == "stale"


def test_a_document_tells_the_first_rejection_where_there_is_no_error() -> None:
    source = status()
    source.hear("", 0)
    source.rejected = {"a": "broken", "b": "torn"}
    document = source.document(1.0, instances=3, held=0, held_reason=None)
    assert (document.rejected, document.last_error, document.age_ms) == (2, "broken", 1_000)
