"""A source that is opened over records of one before it: what vanished meanwhile vanished just now."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import move

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_plugins.sources.file.reading import GONE_AFTER
from bridge_plugins.sources.file.scan import fits, scan
from bridge_plugins.sources.file.source import APPEARING
from tests.unit.file.kit import Reader, document, write


@pytest.fixture
async def reader(tmp_path: Path) -> Reader:
    """Has read two files, and starts anew over their records."""
    write(tmp_path / "a.yaml", document(1))
    write(tmp_path / "b.yaml", document(2, name="api"))
    reader = Reader(tmp_path / "*.yaml")
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    reader.restart(tmp_path / "*.yaml")
    return reader


async def test_a_file_that_vanished_while_nobody_looked_is_let_go_after_five_minutes(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").unlink()
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    assert reader.unknown == {f"{tmp_path}/b.yaml": f"{tmp_path}/b.yaml: the file is gone"}
    reader.clock.now += GONE_AFTER - 1
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    reader.clock.now += 1
    await reader.list()
    assert reader.ids == {"w1"}
    assert not reader.unknown
    await reader.list()
    assert reader.quiet


async def test_a_file_that_is_back_in_time_is_read(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").unlink()
    await reader.list()
    write(tmp_path / "b.yaml", document(3, name="api"))
    await reader.settled()
    assert reader.ids == {"w1", "w3"}
    assert not reader.unknown


async def test_a_glob_whose_files_all_vanished_is_empty_after_five_minutes(reader: Reader, tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).unlink()
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    assert reader.unknown.keys() == {f"{tmp_path}/a.yaml", f"{tmp_path}/b.yaml"}
    reader.clock.now += GONE_AFTER
    await reader.list()
    assert not reader.ids
    await reader.list()
    assert reader.quiet, "it once matched, so it is synced and empty"


async def test_a_literal_path_that_vanished_is_let_go_and_remains_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = Reader(file)
    await reader.list()
    file.unlink()
    reader.restart(file)
    await reader.list()
    assert reader.ids == {"w1"}
    reader.clock.now += GONE_AFTER
    await reader.list()
    assert not reader.ids
    assert reader.unknown == {f"{file}//missing": f"{file}: the file is gone"}


async def test_a_directory_that_cannot_be_read_lets_nothing_go(reader: Reader, tmp_path: Path) -> None:
    hidden = tmp_path.with_name("hidden")
    move(tmp_path, hidden)
    await reader.list()
    reader.clock.now += 2 * GONE_AFTER
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    move(hidden, tmp_path)
    await reader.settled()
    reader.clock.now += APPEARING
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    assert not reader.unknown


async def test_a_file_that_no_pattern_names_any_more_is_absent_at_once(reader: Reader, tmp_path: Path) -> None:
    reader.restart(tmp_path / "a*.yaml")
    await reader.list()
    assert reader.ids == {"w1"}
    assert not reader.unknown


async def test_a_file_that_is_there_but_broken_is_unknown(reader: Reader, tmp_path: Path) -> None:
    write(tmp_path / "b.yaml", "services: [")
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    assert "line 2" in reader.unknown[f"{tmp_path}/b.yaml"]


async def test_a_file_that_is_there_but_just_being_written_is_unknown(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "b.yaml"

    async def write_on(seconds: float) -> None:
        reader.clock.now += seconds
        write(file, "services: []\n# more is to come")

    monkeypatch.setattr(reader.clock, "sleep", write_on)
    await reader.list()
    assert reader.ids == {"w1", "w2"}
    assert reader.unknown.keys() == {str(file)}


async def test_a_name_that_is_not_unicode_is_recalled(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.yaml")
    write(odd, document(1))
    write(tmp_path / "a.yaml", document(2, name="api"))
    reader = Reader(tmp_path / "*.yaml")
    await reader.list()
    reader.restart(tmp_path / "*.yaml")
    await reader.list()
    assert not reader.unknown
    odd.unlink()
    reader.restart(tmp_path / "*.yaml")
    await reader.list()
    assert reader.unknown.keys() == {f"{tmp_path}/\\xff.yaml"}
    write(odd, document(1, 3))
    await reader.settled()
    reader.clock.now += GONE_AFTER
    await reader.list()
    assert reader.ids == {"w1", "w2", "w3"}
    assert not reader.unknown


NAMES = st.sampled_from(["a", "b.yaml", ".hidden", "c[1]", "d"])
PARTS = st.sampled_from(["*", "**", "a", "?", "*.yaml", ".*", "[ad]", "c[[]1]", "b.yaml"])


@given(st.lists(NAMES, min_size=1, max_size=3), st.lists(PARTS, min_size=1, max_size=4))
def test_what_fits_a_pattern_is_what_a_scan_finds(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], parts: list[str]
) -> None:
    root = tmp_path_factory.mktemp("scan")
    file = root.joinpath(*names)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    pattern = f"{root}/{'/'.join(parts)}"
    found = scan([pattern], frozenset())
    assert fits(pattern, str(file)) is (str(file) in found.files)
