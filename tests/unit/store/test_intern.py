"""One copy of what repeats."""

from __future__ import annotations

from bridge.intern import Interner
from bridge.model import Port, ServiceName


def test_equal_values_become_one() -> None:
    interner = Interner()
    assert interner.text("".join(["a", "b"])) is interner.text("".join(["a", "b"]))
    assert interner.items((Port("http", 80),)) is interner.items((Port("http", 80),))
    assert interner.mapping({"a": "b"}) is interner.mapping({"a": "b"})


def test_what_only_looks_equal_stays_two() -> None:
    interner = Interner()
    assert list(interner.mapping({"a": "1", "b": "2"})) != list(interner.mapping({"b": "2", "a": "1"}))
    assert type(interner.items(("shop", "web"))) is tuple
    assert type(interner.items(ServiceName("shop", "web"))) is ServiceName


def test_pool_stays_within_its_limit() -> None:
    interner = Interner(limit=10)
    for number in range(100):
        interner.mapping({"number": str(number)})
        assert len(interner) <= 10
