"""Cursors: their form, which of them were handed out here, and what the digest of a set is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.catalog.cursor import Cursor, Indexes, combine, item_digest, parse_cursor

CURSOR = Cursor("a1b2", 42, 0x0123456789ABCDEF)
TEXT = "a1b2-42-0123456789abcdef"


@pytest.mark.parametrize("text", [TEXT, f'"{TEXT}"', f'W/"{TEXT}"', f'  W/"{TEXT}" '])
def test_a_cursor_is_read_with_the_marks_of_an_etag(text: str) -> None:
    assert parse_cursor(text) == CURSOR
    assert str(CURSOR) == TEXT


NONE = [
    "", "x", "-", "--", "a1b2-42", "a1b2-42-", "a1b2--0123456789abcdef", "-42-0123456789abcdef", f"{TEXT}0", f"x {TEXT}",
    "a1b2-42-0123456789ABCDEF", "A1B2-42-0123456789abcdef", f"a1b2-{'9' * 21}-0123456789abcdef", "a1b2--1-0123456789abcdef",
    "a1b2-٤٢-0123456789abcdef", f"{TEXT}\n{TEXT}", "a1b2-4 2-0123456789abcdef", "*",
]  # fmt: skip


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_cursor(text: str) -> None:
    assert parse_cursor(text) is None


@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_none(text: str) -> None:
    cursor = parse_cursor(text)
    assert cursor is None or parse_cursor(str(cursor)) == cursor


HANDED_OUT = {
    "the first": ("ours", 1, True),
    "the last": ("ours", 100, True),
    "none yet": ("ours", 101, False),
    "zero": ("ours", 0, False),
    "another lineage": ("theirs", 50, False),
    "before a gap": ("ours", 20, True),
    "in a gap": ("ours", 21, False),
    "the end of a gap": ("ours", 40, False),
    "behind a gap": ("ours", 41, True),
    "in the next gap": ("ours", 60, False),
}


@pytest.mark.parametrize(("lineage", "index", "handed_out"), HANDED_OUT.values(), ids=HANDED_OUT)
def test_which_were_handed_out(lineage: str, index: int, handed_out: bool) -> None:
    indexes = Indexes("ours", 100, 10_000, ((20, 40), (59, 61)))
    assert indexes.handed_out(Cursor(lineage, index, 0)) is handed_out


def test_an_index_beyond_the_ceiling_is_not_shown() -> None:
    indexes = Indexes("ours", 9, 10)
    assert indexes.shown(indexes.advance()) == 10
    beyond = indexes.shown(indexes.advance())
    assert not indexes.handed_out(Cursor("ours", beyond, 0))


@given(st.lists(st.binary(max_size=8), max_size=8), st.randoms(use_true_random=False))
def test_a_digest_is_of_the_set_and_follows_changes(items: list[bytes], random: object) -> None:
    digests = [item_digest(item) for item in items]
    shuffled = digests.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a Random
    assert combine(*shuffled) == combine(*digests)
    if digests:
        assert combine(combine(*digests), -digests[0]) == combine(*digests[1:])
    assert 0 <= combine(*digests) < 2**64
