"""Faults that files and file systems have: nothing is lost, and all is well once they are over."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import TransientError
from bridge_plugins.sources.file import reading
from tests.unit.file.kit import Reader, document, dump, replace, write

LIVE = {"w1", "w2", "w3"}


async def start(directory: Path, name: str = "a.yaml") -> tuple[Reader, Path]:
    file = directory / name
    write(file, document(1, 2, 3))
    reader = Reader(directory / f"*{file.suffix}")
    await reader.list()
    assert reader.ids == LIVE
    return reader, file


async def recovers(reader: Reader, file: Path) -> None:
    """Whole again, the file is read again."""
    replace(file, document(1, 2, 3, 4))
    await reader.settled()
    reader.clock.now += 10
    await reader.list()
    assert reader.ids == {*LIVE, "w4"}
    assert not reader.unknown
    await reader.list()
    assert reader.quiet


def break_open(patch: pytest.MonkeyPatch, number: int) -> None:
    """Opening a file for reading fails, as it does without the right to (which the superuser always has)."""
    genuine = os.open

    def fail(path: Any, *rest: Any, **more: Any) -> int:
        if str(path).endswith(".yaml"):
            raise OSError(number, os.strerror(number), path)
        return genuine(path, *rest, **more)

    patch.setattr(os, "open", fail)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOENT])
async def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    reader, file = await start(tmp_path)
    with monkeypatch.context() as patch:
        break_open(patch, number)
        write(file, document(1))
        for _ in range(3):
            await reader.settled()
            assert reader.ids == LIVE
            assert os.strerror(number) in reader.unknown[str(file)]
    await reader.list()
    assert reader.ids == {"w1"}, "read as soon as it can be, without an edit"
    await recovers(reader, file)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ELOOP])
async def test_a_file_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    reader, file = await start(tmp_path)
    genuine = os.stat

    def fail(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if str(path) == str(file):
            raise OSError(number, os.strerror(number), path)
        return genuine(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        for _ in range(3):
            await reader.list()
            assert os.strerror(number) in reader.unknown[str(file)]
            reader.clock.now += reading.GONE_AFTER
    assert reader.ids == LIVE
    await recovers(reader, file)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to(path)], ids=["directory", "pipe", "loop"])
async def test_something_else_in_its_place(tmp_path: Path, make: Callable[[Path], None]) -> None:
    reader, file = await start(tmp_path)
    file.unlink()
    make(file)
    for _ in range(3):
        await asyncio.wait_for(reader.list(), 10)
        reader.clock.now += reading.GONE_AFTER
        assert reader.ids == LIVE
        assert str(file) in reader.unknown[str(file)]
    if file.is_dir():
        file.rmdir()
    await recovers(reader, file)


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
async def test_a_file_cut_off_at_every_byte_and_written_on(tmp_path: Path, name: str) -> None:
    """However far a writer has come when it pauses: nothing of what it has not written yet is lost before it pauses too long."""
    reader, file = await start(tmp_path, name)
    whole = dump(file, document(1, 2, 3, zone="z"))
    for length in range(len(whole)):
        write(file, whole[:length])
        await reader.list()
        assert reader.ids == LIVE
        reader.clock.now += 0.1
    write(file, whole)
    await reader.settled()
    assert {record.zone for record in reader.records.values()} == {"z"}
    await recovers(reader, file)


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
async def test_a_file_left_cut_off_at_any_byte(tmp_path: Path, name: str) -> None:
    """Cut-off JSON is never valid. Cut-off YAML may be: only then, and only what it lacks, is absent."""
    reader, file = await start(tmp_path, name)
    whole = dump(file, document(1, 2, 3))
    for length in range(len(whole.rstrip())):
        write(file, whole[:length])
        await reader.settled()
        if lost := LIVE - reader.ids:
            services = yaml.safe_load(whole[:length])["services"]
            shown = {entry.get("id") for service in services for entry in service.get("instances") or ()}
            assert name.endswith("yaml")
            assert not lost & shown
        write(file, whole)
        await reader.settled()
    assert reader.ids == LIVE
    await recovers(reader, file)


@pytest.mark.parametrize(
    "content", [b"\xff", b"services: [\xc3]", b"\x00" * 4096, b"\x1f\x8b\x08\x00" + b"x" * 50, b"\xff\xfes\x00e\x00"]
)
async def test_bytes_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    reader, file = await start(tmp_path)
    write(file, content)
    await reader.settled()
    assert reader.ids == LIVE
    assert "line 1, column" in reader.unknown[str(file)]
    await recovers(reader, file)


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=120) | st.text(alphabet="services:[]{}-, \n\"'&*!#|>%@`", max_size=60).map(str.encode))
def test_garbage_never_leaves_less_than_there_was(tmp_path: Path, name: str, content: bytes) -> None:
    async def scenario() -> None:
        reader, file = await start(tmp_path, name)
        write(file, content)
        await reader.settled()
        said_nothing = content.strip().startswith((b"services:", b"{")) and not reader.unknown and not reader.rejected
        assert reader.ids == LIVE or said_nothing
        file.unlink()

    asyncio.run(scenario())


@pytest.mark.parametrize("change", ["grows", "is replaced", "disappears"])
async def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    reader, file = await start(tmp_path)
    genuine = os.open
    meddled: list[str] = []

    def meddle(path: Any, *rest: Any, **more: Any) -> int:
        descriptor = genuine(path, *rest, **more)
        if str(path) == str(file) and not meddled:
            meddled.append(change)
            if change == "grows":
                write(file, document(1, 2, 3, 4))
            elif change == "is replaced":
                replace(file, document(1, 2, 3, 4))
            else:
                file.unlink()
        return descriptor

    with monkeypatch.context() as patch:
        write(file, document(1, 2, 3, zone="z"))
        await reader.list()
        reader.clock.now += 0.3
        patch.setattr(os, "open", meddle)
        await reader.list()
        assert meddled
        assert {record.zone for record in reader.records.values()} == {None}, "what was read is not taken"
        assert reader.ids == LIVE
    await reader.settled()
    assert reader.ids == (LIVE if change == "disappears" else {*LIVE, "w4"})
    await recovers(reader, file)


async def test_the_directory_disappears_and_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "mount"
    directory.mkdir()
    reader, file = await start(directory)
    directory.rename(tmp_path / "away")
    for _ in range(4):
        await reader.list()
        assert reader.ids == LIVE
        assert str(directory) in reader.unknown[str(directory)]
        reader.clock.now += 2 * reading.GONE_AFTER
    directory.mkdir()
    await reader.list()
    assert reader.ids == LIVE, "its time begins when the directory answers again"
    shutil.rmtree(directory)
    (tmp_path / "away").rename(directory)
    await reader.settled()
    assert reader.ids == LIVE
    await recovers(reader, file)


async def test_the_directory_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, file = await start(tmp_path)
    genuine = os.scandir

    def fail(path: Any) -> Any:
        if str(path) == str(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return genuine(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fail)
        file.unlink()
        for _ in range(3):
            await reader.list()
            reader.clock.now += 2 * reading.GONE_AFTER
        assert reader.ids == LIVE
        assert "cannot be read" in reader.unknown[str(tmp_path)]
    await recovers(reader, file)


async def test_the_directory_can_be_entered_but_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New files cannot be seen, but those that are known can still be read, and move on."""
    reader, file = await start(tmp_path)
    other = tmp_path / "b.yaml"
    write(other, document(8, name="other"))
    await reader.settled()
    genuine = os.scandir

    def fail(path: Any) -> Any:
        if str(path) == str(tmp_path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return genuine(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fail)
        write(other, document(9, name="other"))
        await reader.settled()
        assert reader.ids >= {*LIVE, "w9"}
        assert reader.unknown.keys() == {str(tmp_path)}
    write(other, document(name="other"))
    await reader.settled()
    await recovers(reader, file)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
async def test_permission_denied(tmp_path: Path) -> None:
    reader, file = await start(tmp_path)
    write(file, document(1))
    file.chmod(0)
    await reader.settled()
    assert reader.ids == LIVE
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    await recovers(reader, file)


async def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    reader, file = await start(tmp_path)
    with file.open("r+b") as out:
        out.truncate(65 * 1024 * 1024)
    await reader.settled()
    assert reader.ids == LIVE
    assert "larger than 64 MiB" in reader.unknown[str(file)]
    await recovers(reader, file)


async def test_a_file_that_stands_for_billions(tmp_path: Path) -> None:
    reader, file = await start(tmp_path)
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    write(file, "\n".join([*lines, "services: *a11"]))
    await reader.settled()
    assert reader.ids == LIVE
    assert reader.unknown
    await recovers(reader, file)


async def test_a_file_system_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look ends at its deadline, no second thread joins the one that hangs, and that one changes nothing later."""
    import threading

    reader, file = await start(tmp_path)
    released, genuine = threading.Event(), os.stat

    def hang(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if str(path) == str(file):
            released.wait(10)
        return genuine(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", hang)
        patch.setattr(reader.source, "_deadline", 0.05)
        with pytest.raises(TransientError, match="not answered"):
            await reader.list()
        with pytest.raises(TransientError, match="look before"):
            await reader.list()
        released.set()
    for _ in range(200):
        if not reader.source._looking.locked():
            break
        await asyncio.sleep(0.01)
    await recovers(reader, file)
