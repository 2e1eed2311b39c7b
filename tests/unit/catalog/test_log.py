"""How far the change log reaches back."""

from __future__ import annotations

import pytest

from bridge.catalog import log as log_module
from bridge.catalog.log import MAX_AGE, Change, ChangeLog
from bridge.model import ServiceInstance


def change(index: int, at: float = 0.0, weight: int = 1) -> Change:
    instance = ServiceInstance(id="1", namespace="shop", service="web")
    return Change(index, at, ((None, instance),) * weight, ())


def since(log: ChangeLog, index: int) -> list[int] | None:
    changes = log.since(index)
    return None if changes is None else [change.index for change in changes]


def test_it_tells_what_came_after_in_order() -> None:
    log = ChangeLog(5)
    for index in (6, 8, 11):
        log.append(change(index))
    assert since(log, 4) is None
    assert since(log, 5) == [6, 8, 11]
    assert since(log, 7) == [8, 11]
    assert since(log, 8) == [11]
    assert since(log, 11) == since(log, 99) == []


def test_age_moves_its_floor() -> None:
    log = ChangeLog(1)
    log.append(change(2, at=1000.0))
    log.append(change(3, at=1001.0))
    log.trim(1000.0 + MAX_AGE)
    assert since(log, 1) == [2, 3]
    log.trim(1000.5 + MAX_AGE)
    assert since(log, 1) is None
    assert since(log, 2) == [3]
    log.trim(1e9)
    assert (log.floor, len(log), since(log, 2), since(log, 3)) == (3, 0, None, [])


def test_size_moves_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "MAX_CHANGES", 10)
    log = ChangeLog(1)
    for index in range(2, 8):
        log.append(change(index, weight=3))
    assert (len(log), log.floor) == (9, 4)
    log.append(change(8, weight=0))
    assert (len(log), since(log, 7)) == (10, [8])
    log.append(change(9, weight=11))
    assert (len(log), log.floor, since(log, 8), since(log, 9)) == (0, 9, None, [])
