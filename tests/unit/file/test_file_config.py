"""The configuration, and that the configurations we ship are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bridge.contracts import PollHints, PollSource
from bridge.model import Listing
from bridge_plugins.sources.file.config import FileConfig
from tests.unit.file.kit import FakeClock, Reader, context, write

CONFIG = Path(__file__).parents[3] / "config"


def sources(file: str) -> dict[str, FileConfig]:
    found: dict[str, Any] = yaml.safe_load((CONFIG / file).read_text())["sources"]
    return {name: FileConfig.model_validate(each, context={"base_dir": CONFIG}) for name, each in found.items()}


def test_paths_start_at_the_configurations_folder() -> None:
    config = FileConfig.model_validate(
        {"type": "file", "paths": ["a/*.yaml", "/b.json"]}, context={"base_dir": Path("/etc/bridge")}
    )
    assert config.paths == ("/etc/bridge/a/*.yaml", "/b.json")
    assert config.refresh == 5.0
    assert config.describe() == {"paths": ["/etc/bridge/a/*.yaml", "/b.json"]}


@pytest.mark.parametrize(
    "wrong", [{}, {"paths": []}, {"paths": [""]}, {"paths": ["a"], "refresh": "0s"}, {"paths": ["a"], "path": "b"}]
)
def test_mistakes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FileConfig.model_validate({"type": "file"} | wrong)


async def test_trouble_names_files_as_they_are_configured(tmp_path: Path) -> None:
    for folder in ("services", "empty"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "services" / "torn.yaml", "services: [")
    given = {
        "type": "file",
        "paths": ["services/*.yaml", "late/*.yaml", "empty/*.yaml", "none.yaml", f"{tmp_path.parent}/no.yaml"],
    }
    config = FileConfig.model_validate(given, context={"base_dir": tmp_path})
    async with config.open(context(FakeClock())) as source:
        for told in (await source.list(), await source.list()):
            listings = [part for part in (told if isinstance(told, tuple) else (told,)) if isinstance(part, Listing)]
            named = {str(error).partition(": ")[0] for listing in listings for error in listing.unknown.values()}
            assert named == {"empty/*.yaml", "late", "none.yaml", "services/torn.yaml", f"{tmp_path.parent}/no.yaml"}


async def test_a_rejection_names_its_file(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", {"services": [{"name": "web", "instances": [{"id": "a", "adress": "10.0.0.1"}]}]})
    for paths, name in (["a.yaml"], "a.yaml"), (["*.yaml"], "a.yaml"), ([f"{tmp_path}/sub/../a.yaml"], "sub/../a.yaml"):
        (tmp_path / "sub").mkdir(exist_ok=True)
        config = FileConfig.model_validate({"type": "file", "paths": paths}, context={"base_dir": tmp_path})
        async with config.open(context(FakeClock())) as source:
            listing = await source.list()
        assert isinstance(listing, Listing)
        told = f"{name}: services[0].instances[0]: unknown key 'adress', did you mean `address`?"
        assert listing.rejected == {"default/web/a": told}


def test_two_readings_of_one_configuration_are_equal(tmp_path: Path) -> None:
    read = [FileConfig.model_validate({"type": "file", "paths": ["a"]}, context={"base_dir": tmp_path}) for _ in range(2)]
    assert read[0] == read[1]


async def test_it_opens_a_poll_source_with_hints() -> None:
    async with FileConfig(type="file", paths=("/a.yaml",)).open(context(FakeClock())) as source:
        assert isinstance(source, PollSource)
        assert isinstance(source, PollHints)


def test_the_example_uses_the_plugin() -> None:
    assert set(sources("examples/file.yaml")) == {"machines"}


async def test_the_quickstarts_shop_has_something_of_everything() -> None:
    reader = Reader(*sources("quickstart.yaml")["shop"].paths)
    await reader.list()
    assert not reader.unknown
    assert not reader.rejected
    records = reader.records.values()
    assert {str(record.service_name) for record in records} == {"shop/web", "shop/api", "shop/cart", "shop/payments"}
    assert {record.health for record in records} == {"ready", "unready"}
    assert {record.lifecycle for record in records} == {"active", "draining"}
    assert "shop/cart/10.20.2.11:7000" in reader.records
