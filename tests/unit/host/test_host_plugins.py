from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import pytest

from bridge.contracts import SourceConfig
from bridge.errors import ConfigError, Mistake
from bridge.host.config import parse_config
from bridge.host.plugins import Plugin, Registry, installed, installed_registry

REPOSITORY = Path(__file__).parents[3]

GOOD = """
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal
from bridge.contracts import SourceConfig

class Good(SourceConfig):
    type: Literal["good"]
    def open(self, ctx): raise NotImplementedError

class Unfinished(SourceConfig):
    type: Literal["unfinished"]

class Odd(SourceConfig):
    type: Literal["odd"]
    what: object()
    def open(self, ctx): raise NotImplementedError

class NoSource:
    pass
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "thirdparty.py").write_text(GOOD)
    (tmp_path / "lacking.py").write_text("import no_such_sdk.client\n")
    (tmp_path / "failing.py").write_text("1 / 0\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("thirdparty", "lacking", "failing"):
            del sys.modules[name]


def declare(site: Path, distribution: str, entry_points: str, extra: str = "") -> None:
    folder = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n{extra}")
    (folder / "entry_points.txt").write_text(entry_points)


def plugin(type: str, target: str, distribution: str = "acme-bridge", kind: str = "source") -> Registry:
    return Registry((Plugin(kind, type, distribution, "1.2", target),))


def refused(registry: Registry, type: str, kind: str = "source") -> Mistake:
    with pytest.raises(ConfigError) as caught:
        registry.load(kind, type, path="sources.web.type")
    (mistake,) = caught.value.mistakes
    assert mistake.path == "sources.web.type"
    return mistake


def test_plugins_are_listed_without_being_imported(site: Path) -> None:
    declare(
        site, "acme-bridge", "[bridge.sources]\ngood = thirdparty:Good\n[bridge.hubs]\nshelf = failing:Hub\n[other]\nx = y:z\n"
    )
    ours = [found for found in installed() if found.distribution == "acme-bridge"]
    assert ours == [
        Plugin("hub", "shelf", "acme-bridge", "1.2", "failing:Hub"),
        Plugin("source", "good", "acme-bridge", "1.2", "thirdparty:Good"),
    ]
    assert ours[1].module == "thirdparty"
    assert not {"thirdparty", "failing"} & set(sys.modules)


def test_only_the_plugin_that_is_named_is_imported(site: Path) -> None:
    declare(site, "acme-bridge", "[bridge.sources]\ngood = thirdparty:Good\nbad = failing:Bad\n")
    loaded = installed_registry().load("source", "good")
    assert issubclass(loaded, SourceConfig)
    assert loaded.__name__ == "Good"
    assert "failing" not in sys.modules


def test_a_name_that_two_distributions_claim_names_both(site: Path) -> None:
    declare(site, "acme-bridge", "[bridge.sources]\ngood = thirdparty:Good\n")
    declare(site, "zeta-bridge", "[bridge.sources]\ngood = thirdparty:Good\n")
    mistake = refused(installed_registry(), "good")
    assert "acme-bridge and zeta-bridge" in mistake.message
    assert "Uninstall" in mistake.remedy


@pytest.mark.parametrize(
    ("type", "remedy"),
    [("goood", "Did you mean `good`? Installed: good."), ("entirely-else", "Installed: good.")],
)
def test_an_unknown_type_tells_what_is_near_and_what_is_there(type: str, remedy: str) -> None:
    assert refused(plugin("good", "thirdparty:Good"), type).remedy == remedy


def test_with_nothing_installed_that_is_said() -> None:
    assert refused(Registry(), "file").remedy == "No source plugin is installed."


@pytest.mark.parametrize(
    ("type", "target", "message"),
    [
        ("other", "thirdparty:Good", 'its `type` is not Literal["other"]'),
        ("unfinished", "thirdparty:Unfinished", "it lacks open"),
        ("none", "thirdparty:NoSource", "it is no subclass of SourceConfig"),
        ("none", "thirdparty", "it is no subclass of SourceConfig"),
        ("none", "thirdparty:Nothing", "cannot be imported: AttributeError"),
        ("none", "failing:Any", "cannot be imported: ZeroDivisionError"),
        ("odd", "thirdparty:Odd", "cannot be imported: PydanticSchemaGenerationError"),
        ("none", "nowhere:Any", "cannot be imported: ModuleNotFoundError"),
    ],
)
@pytest.mark.usefixtures("site")
def test_a_plugin_that_breaks_the_contract_is_named_with_its_distribution(type: str, target: str, message: str) -> None:
    mistake = refused(plugin(type, target), type)
    assert message in mistake.message
    assert "acme-bridge" in mistake.message


@pytest.mark.usefixtures("site")
def test_a_missing_library_is_named_with_the_command_that_installs_it() -> None:
    assert refused(plugin("none", "lacking:Any"), "none").remedy == "Run: pip install no_such_sdk"
    ours = refused(plugin("docker_swarm", "lacking:Any", "envbridge"), "docker_swarm")
    assert "needs no_such_sdk" in ours.message
    assert re.fullmatch(r"Run: pip install (-e )?'.+\[docker\]'", ours.remedy)  # as this run itself was installed


@pytest.mark.parametrize(
    ("direct", "remedy"),
    [
        ('{"url": "file:///opt/my%20bridge", "dir_info": {}}', "Run: pip install '/opt/my bridge[docker]'"),
        ('{"url": "file:///opt/bridge", "dir_info": {"editable": true}}', "Run: pip install -e '/opt/bridge[docker]'"),
        ('{"url": "https://example.org/e.whl", "archive_info": {}}', "Run: pip install 'envbridge[docker]'"),
        ("not json", "Run: pip install 'envbridge[docker]'"),
        ("[]", "Run: pip install 'envbridge[docker]'"),
    ],
)
def test_installed_from_a_checkout_an_extra_comes_from_there(direct: str, remedy: str, site: Path) -> None:
    declare(site, "envbridge", "", "")
    next(site.glob("envbridge-*.dist-info")).joinpath("direct_url.json").write_text(direct)
    assert refused(plugin("docker_swarm", "lacking:Any", "envbridge"), "docker_swarm").remedy == remedy


def test_a_missing_extra_is_told_and_keys_can_be_checked_all_the_same(site: Path) -> None:
    requires = (
        "Requires-Dist: pydantic>=2\nRequires-Dist: no-such-sdk>=31; extra == 'kubernetes'\nRequires-Dist: x; extra == 'aws'\n"
    )
    declare(site, "envbridge", "[bridge.sources]\nkubernetes = failing:Any\n", requires)
    target = "bridge_plugins.sources.kubernetes.config:KubernetesConfig"
    registry = plugin("kubernetes", target, "envbridge")
    mistake = registry.missing_extra("source", "kubernetes", path="sources.web.type")
    assert mistake is not None
    assert mistake.path == "sources.web.type"
    assert "needs no-such-sdk" in mistake.message
    assert mistake.remedy == "Run: pip install 'envbridge[kubernetes]'"
    text = "environment: eu\nsources: {web: {type: kubernetes, publsh: pod, nodes: maybe}}"
    with pytest.raises(ConfigError) as caught:
        parse_config(text, site, {}, registry=registry)
    assert [mistake.path for mistake in caught.value.mistakes] == [
        "sources.web.type",
        "sources.web.nodes",
        "sources.web.publsh",
    ]


def test_nothing_is_missing_of_others_plugins(sample: type[SourceConfig]) -> None:
    assert plugin("kubernetes", "thirdparty:Good").missing_extra("source", "kubernetes") is None
    assert Registry.of({"kubernetes": sample}).missing_extra("source", "kubernetes") is None


@pytest.mark.parametrize("sdk", ["kubernetes", "docker", "boto3"])
def test_no_configuration_class_of_ours_needs_its_sdk(sdk: str, first_party: Registry) -> None:
    code = f"import sys; sys.modules[{sdk!r}] = None\n" + "".join(f"import {one.module}\n" for one in first_party.plugins)
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "plugins"), *sys.path])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, check=True)


def test_kinds_of_later_versions_are_said_to_be_that() -> None:
    assert "not available in this version" in refused(plugin("shelf", "failing:Hub", kind="hub"), "shelf", "hub").message


def test_an_injected_class_comes_before_what_is_installed(sample: type[SourceConfig]) -> None:
    registry = Registry((Plugin("source", "sample", "acme-bridge", "1.2", "failing:Any"),), {("source", "sample"): sample})
    assert registry.load("source", "sample") is sample
    assert registry.types("source") == ["sample"]


def test_an_injected_class_is_checked_too() -> None:
    class Odd(SourceConfig):
        type: Literal["odd"]

    classes: dict[tuple[str, str], Any] = {("source", "odd"): Odd}
    assert "it lacks open" in refused(Registry(classes=classes), "odd").message


def test_what_the_import_system_lists_twice_is_one_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = metadata.EntryPoint("good", "thirdparty:Good", "bridge.sources")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry, entry] if group == "bridge.sources" else [])
    assert installed() == [Plugin("source", "good", "unknown", "unknown", "thirdparty:Good")]
