"""What the source says as its files are edited, break, go and come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from watchfiles import Change

from bridge.model import Confirmed, Listing
from bridge_plugins.sources.file.reading import GONE_AFTER, RESTLESS
from bridge_plugins.sources.file.source import APPEARING
from tests.unit.file.kit import Reader, document, instance, replace, write


async def read(*patterns: Path | str) -> Reader:
    reader = Reader(*patterns)
    await reader.list()
    return reader


async def test_the_first_listing_is_complete(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1, 2))
    write(tmp_path / "b.json", document(3, name="api"))
    write(tmp_path / ".hidden.yaml", document(4))
    reader = await read(tmp_path / "*.yaml", tmp_path / "b.json")
    assert reader.ids == {"w1", "w2", "w3"}
    assert set(reader.groups) == {f"{tmp_path}/a.yaml/shop/web", f"{tmp_path}/b.json/shop/api"}
    assert not reader.unknown


async def test_nothing_changed_is_confirmed(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1))
    reader = await read(tmp_path / "*.yaml")
    assert await reader.list() == Confirmed()


async def test_an_edit_in_place_is_read_when_it_was_still(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    write(file, document(1, 2))
    await reader.list()
    assert reader.quiet
    reader.clock.now += 0.29
    await reader.list()
    assert reader.quiet
    reader.clock.now += 0.02
    await reader.list()
    assert reader.events == (Listing(str(file), reader.events[0].groups),)
    assert reader.ids == {"w1", "w2"}


async def test_stillness_begins_anew_with_each_change(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1, 2))
    reader = await read(file)
    for size in range(5):
        write(file, document(1) | {"#": "x" * size})
        await reader.list()
        reader.clock.now += 0.2
    assert reader.ids == {"w1", "w2"}
    write(file, document(1, 3))
    await reader.settled()
    assert reader.ids == {"w1", "w3"}


async def test_files_seen_changed_together_are_one_index(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.yaml", document(1, name=name))
    reader = await read(tmp_path / "*.yaml")
    write(tmp_path / "a.yaml", document(1, 2, name="a"))
    write(tmp_path / "b.yaml", document(1, 2, name="b"))
    await reader.settled()
    assert [(type(event), event.scope) for event in reader.events] == [
        (Listing, f"{tmp_path}/a.yaml"),
        (Listing, f"{tmp_path}/b.yaml"),
        (Confirmed, f"{tmp_path}/c.yaml"),
    ]


@pytest.mark.parametrize("how", [write, replace])
async def test_the_same_content_again_is_no_news(tmp_path: Path, how: object) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    how(file, document(1))  # type: ignore[operator]
    os.utime(file)
    await reader.settled()
    assert reader.quiet


async def test_a_rename_into_place_is_read_at_once_where_it_was_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    replace(file, document(1, 2))
    reader.source._notifications._fresh = {str(file): {Change.added}}
    await reader.list()
    assert reader.ids == {"w1", "w2"}


@pytest.mark.parametrize("told", [{Change.added, Change.deleted}, {Change.added, Change.modified}, {Change.modified}])
async def test_any_other_new_file_must_be_still(tmp_path: Path, told: set[Change]) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    replace(file, document(1, 2))
    reader.source._notifications._fresh = {str(file): set(told)}
    await reader.list()
    assert reader.ids == {"w1"}
    await reader.settled()
    assert reader.ids == {"w1", "w2"}


async def test_a_file_made_anew_after_its_deletion_must_be_still(tmp_path: Path) -> None:
    """The deletion was told before, the creation now: no rename."""
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    notifications = reader.source._notifications
    notifications._fresh = {str(file): {Change.deleted}}
    await reader.list()
    file.unlink()
    write(file, document(1, 2))
    notifications._fresh = {str(file): {Change.added}}
    await reader.list()
    assert reader.ids == {"w1"}
    await reader.settled()
    assert reader.ids == {"w1", "w2"}
    replace(file, document(3))
    notifications._fresh = {str(file): {Change.added}}
    await reader.list()
    assert reader.ids == {"w3"}, "what was told before it was read is over"


@pytest.mark.parametrize(
    "content", ["services: [", "", "# nothing\n", "services:\n", b"services: \xff", "services: []\nversion: 1\n"]
)
async def test_a_broken_file_keeps_the_last_good_state(tmp_path: Path, content: str | bytes) -> None:
    file, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    write(file, document(1))
    write(other, document(5, name="api"))
    reader = await read(tmp_path / "*.yaml")
    write(file, content)
    write(other, document(5, 6, name="api"))
    await reader.settled()
    assert reader.ids == {"w1", "w5", "w6"}
    assert reader.unknown.keys() == {str(file)}
    assert reader.unknown[str(file)].startswith(f"{file}: ")
    await reader.list()
    assert reader.events == (Listing(str(file), unknown=reader.events[0].unknown), Confirmed(str(other)))
    write(file, document(1))
    await reader.settled()
    assert not reader.unknown
    assert isinstance(reader.events[0], Listing), "a listing says that it is well again, though it says what it did before"


async def test_a_broken_file_at_the_start_is_unknown(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1))
    write(tmp_path / "b.yaml", "services: [")
    reader = await read(tmp_path / "*.yaml")
    assert reader.ids == {"w1"}
    assert "b.yaml: line 2, column 1: " in reader.unknown[f"{tmp_path}/b.yaml"]


async def test_a_bad_instance_keeps_its_record(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1, 2))
    reader = await read(file)
    bad = document(1, 2, zone="z")
    bad["services"][0]["instances"][1]["ports"] = {"http": 0}
    write(file, bad)
    await reader.settled()
    assert [reader.records[f"shop/web/w{n}"].zone for n in (1, 2)] == ["z", None]
    assert reader.rejected["shop/web/w2"].startswith(f"{file}: services[0].instances[1].ports.http: ")
    assert not reader.unknown
    await reader.list()
    assert reader.quiet
    write(file, document(1, 2))
    await reader.settled()
    assert not reader.rejected


@pytest.mark.parametrize(
    "services",
    [
        [
            {"name": "web", "namespace": "shop", "instances": [instance(1), {"id": 5}]},
            {"name": "api", "instances": [instance(9)]},
        ],
        [{"name": "web", "namespace": "shop"}, {"name": "api", "instances": [instance(9)]}],
        [{"namespace": "shop", "instances": []}, {"name": "api", "instances": [instance(9)]}],
    ],
    ids=["an id", "the instances", "a name"],
)
async def test_what_is_unreadable_keeps_what_it_may_have_been(tmp_path: Path, services: list[object]) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1, 2))
    reader = await read(file)
    write(file, {"services": services})
    await reader.settled()
    assert reader.ids == {"w1", "w2", "w9"}
    assert len(reader.rejected) == 1


async def test_no_services_is_an_empty_listing(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    write(file, {"services": []})
    await reader.settled()
    assert reader.events == (Listing(str(file)),)
    assert not reader.ids


async def test_a_configured_file_that_is_gone_is_let_go_after_five_minutes_and_remains_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    file.unlink()
    await reader.list()
    assert reader.ids == {"w1"}
    assert reader.unknown == {str(file): f"{file}: the file is gone"}
    reader.clock.now += GONE_AFTER - 1
    await reader.list()
    assert reader.ids == {"w1"}
    reader.clock.now += 1
    for _ in range(3):
        await reader.list()
        (event,) = reader.events
        assert isinstance(event, Listing), "told each time, so that a guard can weigh it again"
        assert event.scope == str(file)
        assert not reader.ids
        assert reader.unknown == {f"{file}//missing": f"{file}: the file is gone"}
    write(file, document(2))
    await reader.settled()
    assert reader.ids == {"w2"}
    assert not reader.unknown
    await reader.list()
    assert reader.quiet


async def test_a_matched_file_that_is_gone_is_let_go_after_five_minutes(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(tmp_path / "*.yaml")
    file.unlink()
    await reader.list()
    assert reader.unknown == {str(file): f"{file}: the file is gone"}
    reader.clock.now += GONE_AFTER
    await reader.list()
    assert reader.events == (Listing(str(file)),)
    await reader.list()
    assert reader.quiet, "a glob that once matched is synced and empty"
    assert not reader.ids


async def test_a_file_back_in_time_counts_anew(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    for _ in range(3):
        file.unlink()
        await reader.list()
        reader.clock.now += GONE_AFTER * 0.9
        await reader.list()
        assert reader.ids == {"w1"}
        write(file, document(1))
        await reader.settled()
        assert not reader.unknown


async def test_a_file_never_read_is_never_let_go(tmp_path: Path) -> None:
    reader = await read(tmp_path / "a.yaml")
    reader.clock.now += 10 * GONE_AFTER
    await reader.list()
    await reader.list()
    assert reader.unknown == {f"{tmp_path}/a.yaml": f"{tmp_path}/a.yaml: there is no such file"}
    write(tmp_path / "a.yaml", document(1))
    await reader.settled()
    assert reader.ids == {"w1"}
    assert not reader.unknown


async def test_a_glob_that_never_matched_leaves_its_directory_unknown(tmp_path: Path) -> None:
    reader = await read(tmp_path / "*.yaml")
    assert reader.unknown == {str(tmp_path): f"{tmp_path}/*.yaml: no file matches"}
    await reader.list()
    assert reader.unknown.keys() == {str(tmp_path)}
    write(tmp_path / "a.yaml", document(1))
    await reader.settled()
    assert reader.ids == {"w1"}
    assert reader.unknown.keys() == {str(tmp_path)}, "more files may be on their way"
    write(tmp_path / "b.yaml", document(2))
    await reader.settled()
    reader.clock.now += APPEARING
    await reader.list()
    assert reader.events[0].scope == ""
    assert not reader.unknown
    assert reader.ids == {"w1", "w2"}
    await reader.list()
    assert reader.quiet


async def test_a_glob_that_never_matched_beside_one_that_did_is_unknown_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1))
    reader = await read(tmp_path / "*.yaml", tmp_path / "*.json")
    assert reader.unknown.keys() == {f"{tmp_path}/*.json"}


async def test_a_new_file_of_a_glob_appears(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1))
    reader = await read(tmp_path / "*.yaml")
    write(tmp_path / "b.yaml", document(2, name="api"))
    await reader.settled()
    assert reader.ids == {"w1", "w2"}
    assert [event.scope for event in reader.events] == [f"{tmp_path}/b.yaml", f"{tmp_path}/a.yaml"]


async def test_a_file_that_is_being_written_for_the_first_time_is_no_trouble(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1))
    reader = await read(tmp_path / "*.yaml")
    write(tmp_path / "b.yaml", document(2))
    await reader.list()
    assert reader.quiet


async def test_wildcards_in_directories(tmp_path: Path) -> None:
    for directory in ("eu/shop", "us", ".git"):
        (tmp_path / directory).mkdir(parents=True)
    write(tmp_path / "eu/a.yaml", document(1))
    write(tmp_path / "eu/shop/b.yaml", document(2, name="b"))
    write(tmp_path / "us/a.yaml", document(3, name="c"))
    write(tmp_path / ".git/a.yaml", document(4, name="d"))
    (tmp_path / "us/directory.yaml").mkdir()
    assert (await read(tmp_path / "*" / "a.yaml")).ids == {"w1", "w3"}
    assert (await read(tmp_path / "**" / "*.yaml")).ids == {"w1", "w2", "w3"}
    assert (await read(tmp_path / "[ef]?" / "*.yaml")).ids == {"w1"}


async def test_a_switched_link_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted ConfigMap."""
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        write(tmp_path / f"..{number}" / "a.yaml", document(number))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    reader = await read(tmp_path / "*.yaml")
    assert reader.ids == {"w1"}
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    await reader.settled()
    assert reader.ids == {"w2"}


async def test_the_same_instance_in_two_files_is_one(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", document(1))
    write(tmp_path / "b.yaml", document(1, 2))
    reader = await read(tmp_path / "*.yaml")
    assert len(reader.groups) == 2
    assert reader.records.keys() == {"shop/web/w1", "shop/web/w2"}


async def test_a_file_that_never_rests_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    write(file, document(1))
    reader = await read(file)
    for size in range(int(RESTLESS / 0.25) + 2):
        write(file, "services: []\n#" + "x" * size)
        await reader.list()
        reader.clock.now += 0.25
    assert "changing" in reader.unknown[str(file)]
    assert reader.ids == {"w1"}
    await reader.settled()
    assert not reader.unknown
    assert not reader.ids


async def test_a_first_listing_that_failed_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.yaml", document(1))
    reader = Reader(tmp_path / "a.yaml")

    async def stop(_: float) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(reader.clock, "sleep", stop)
        with pytest.raises(RuntimeError):
            await reader.list()
    reader.clock.now += 1
    await reader.list()
    assert reader.ids == {"w1"}


async def test_a_name_that_is_not_unicode_can_be_a_file(tmp_path: Path) -> None:
    write(tmp_path / os.fsdecode(b"\xff.yaml"), "services: [")
    reader = await read(tmp_path / "*.yaml")
    (key,) = reader.unknown
    assert key == f"{tmp_path}/\\xff.yaml"
    key.encode()
    reader.unknown[key].encode()
