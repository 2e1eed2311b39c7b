"""What holds for every plugin, and what the documents promise, checked against the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer

from bridge import __version__
from bridge.catalog.catalog import Catalog
from bridge.catalog.cursor import Indexes
from bridge.catalog.partition import Partition
from bridge.cli.commands import app
from bridge.host.config import load_config
from bridge.host.metrics import STATES, Metrics
from bridge.serve.http import openapi
from bridge.sync.ingest import Ingest
from bridge.testing import ManualClock
from tests.unit.sync.scripted import ScriptedConfig

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "plugins" / "bridge_plugins" / "sources"
ENTRY_POINTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["bridge.sources"]
README = (ROOT / "README.md").read_text()

SDKS = {
    "kubernetes": {"kubernetes"},
    "urllib3": {"kubernetes", "docker_swarm"},
    "requests": {"docker_swarm"},
    "docker": {"docker_swarm"},
    "boto3": {"cloud_map"},
    "botocore": {"cloud_map"},
    "watchfiles": {"file"},
}
"""Library -> the plugins that may import it."""

SECTIONS = ("Name", "Description", "Configuration", "Examples", "Limits")

DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "tests/example_plugin/README.md",
    *(f"plugins/bridge_plugins/sources/{name}/README.md" for name in ENTRY_POINTS),
]

every_plugin = pytest.mark.parametrize("name", ENTRY_POINTS)


def imports(file: Path, *, top_level_only: bool = False) -> set[str]:
    """The top-level packages that a module imports; those for type checkers alone do not count as top level."""
    tree = ast.parse(file.read_text())
    nodes: Iterator[ast.AST] = iter(tree.body) if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


class TestPlugins:
    """Each first-party plugin is built the same way."""

    @every_plugin
    def test_it_has_the_usual_modules(self, name: str) -> None:
        assert ENTRY_POINTS[name].startswith(f"bridge_plugins.sources.{name}.config:")
        for file in ("config.py", "source.py", "mapping.py", "README.md"):
            assert (SOURCES / name / file).is_file(), file

    def test_no_folder_is_without_an_entry_point(self) -> None:
        assert {folder.name for folder in SOURCES.iterdir() if (folder / "config.py").is_file()} == set(ENTRY_POINTS)

    @every_plugin
    def test_it_has_a_manual_page(self, name: str) -> None:
        page = (SOURCES / name / "README.md").read_text()
        assert page.startswith(f"# {name}\n")
        headings = re.findall(r"^## (.+)$", page, re.MULTILINE)
        assert [heading for heading in headings if heading in SECTIONS] == list(SECTIONS)

    @every_plugin
    def test_the_manual_page_has_every_key(self, name: str) -> None:
        page = (SOURCES / name / "README.md").read_text()
        config = load_config(ROOT / "config" / "examples" / f"{name}.yaml").sources
        own = {
            field.alias or key
            for source in config.values()
            for key, field in type(source).model_fields.items()
            if key in type(source).__annotations__ and key != "type"
        }
        missing = {key for key in own if f"`{key}`" not in page}
        assert not missing

    @every_plugin
    def test_its_example_loads_and_is_in_the_readme(self, name: str) -> None:
        config = load_config(ROOT / "config" / "examples" / f"{name}.yaml")
        assert name in {source.type for source in config.sources.values()}
        assert f"plugins/bridge_plugins/sources/{name}/README.md" in README

    @every_plugin
    def test_it_passes_the_suite_for_sources(self, name: str) -> None:
        module = ast.parse((ROOT / "tests" / "contract" / f"test_{name}_conformance.py").read_text())
        suites = {"SourceConformance", "PollSourceConformance"}
        bases = {ast.unparse(base) for node in module.body if isinstance(node, ast.ClassDef) for base in node.bases}
        assert bases & suites

    def test_a_library_is_imported_by_its_own_plugin_alone(self) -> None:
        for file in [*ROOT.glob("bridge/**/*.py"), *ROOT.glob("plugins/**/*.py")]:
            plugin = file.relative_to(SOURCES).parts[0] if file.is_relative_to(SOURCES) else None
            foreign = {library for library in imports(file) if library in SDKS and plugin not in SDKS[library]}
            assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"

    @every_plugin
    def test_a_configuration_costs_no_library(self, name: str) -> None:
        assert not imports(SOURCES / name / "config.py", top_level_only=True) & SDKS.keys()

    @pytest.mark.parametrize("module", ["bridge.host.app", "bridge.cli", "bridge.testing"])
    def test_the_bridge_imports_neither_plugins_nor_their_libraries(self, module: str) -> None:
        unwanted = sorted({"bridge_plugins", *SDKS})
        code = f"import {module}, sys; print(*(name for name in {unwanted} if name in sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
        assert done.stdout.split() == []


class TestPromises:
    """What README.md and CHANGELOG.md say is so."""

    def test_the_version_is_the_newest_of_the_changelog(self) -> None:
        versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
        newest = next(version for version in versions if version.lower() != "unreleased")
        assert __version__ == newest

    def test_every_metric_is_documented_and_every_documented_one_is_there(self) -> None:
        assert documented_metrics().keys() == shown_metrics().keys()

    def test_metrics_have_the_labels_that_the_readme_says(self) -> None:
        shown = shown_metrics()
        for name, labels in documented_metrics().items():
            if labels is not None:
                assert shown[name] == labels, name

    def test_the_readme_names_every_state(self) -> None:
        (line,) = [line for line in README.splitlines() if line.startswith("| `envbridge_source_state{")]
        assert re.findall(r"[a-z]+", line.rpartition(":")[2]) == list(STATES)

    def test_every_command_the_documents_name_is_there_and_the_other_way_round(self) -> None:
        group = typer.main.get_command(app)
        commands = set(cast("Any", group).commands)
        documents = README + (ROOT / "CHANGELOG.md").read_text()
        named = set(re.findall(r"(?<![\w/-])envbridge ([a-z]+)", code_of(documents)))
        assert {"run", "check"} <= named <= commands
        unnamed = {command for command in commands if f"`{command}`" not in documents and f"envbridge {command}" not in documents}
        assert not unnamed

    def test_every_option_the_readme_names_is_there(self) -> None:
        group = cast("Any", typer.main.get_command(app))
        options = {option for command in group.commands.values() for parameter in command.params for option in parameter.opts}
        lines = [line.partition("#")[0] for line in code_of(README).splitlines() if "envbridge" in line or line.startswith("--")]
        named = {option for line in lines for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}
        assert {"--connect"} <= named <= options

    def test_the_readme_lists_the_paths_of_the_api(self) -> None:
        table = README[README.index("## Read it") : README.index("Lists show what is ready")]
        named = {path.partition(" ")[2] if " " in path else path for path in re.findall(r"`((?:GET )?/[^`]*)`", table)}
        assert named == {path for path in openapi.document(__version__)["paths"] if path != "/"}

    @pytest.mark.parametrize("file", DOCUMENTS)
    def test_links_lead_somewhere(self, file: str) -> None:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / file).read_text()):
            assert (ROOT / file).parent.joinpath(target).exists(), target


def code_of(text: str) -> str:
    """What stands in code spans and blocks, one a line."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text))


def documented_metrics() -> dict[str, set[str] | None]:
    """Name -> labels, None where the README does not say them."""
    table = README[README.index("## Watch over it") : README.index("Alert on")]
    found = re.findall(r"`(envbridge_[a-z_]+)(?:\{([a-z,]+)\})?`", table)
    return {name: set(labels.split(",")) if labels else None for name, labels in found}


def shown_metrics() -> dict[str, set[str]]:
    """Name -> labels, as `/metrics` has them of a bridge with one source that has been through everything."""
    clock = ManualClock()
    catalog = Catalog(Indexes("test", 1, 1_000))
    partition = catalog.partitions["test"] = Partition("test", "uid", 1)
    ingest = Ingest(catalog, partition, clock, cast("Any", SimpleNamespace(log=lambda *_, **__: None)))
    ingest.add("source", ScriptedConfig(), scopes=("",), polled=False)
    partition.statuses["source"].hear("", clock.monotonic())
    counts = Counter({("answered", 200): 1})
    server = SimpleNamespace(counts=counts, connections=[], limited={"idle": 1}, waits=SimpleNamespace(blocked=0))
    writeback = SimpleNamespace(depth=0, written=0, error=None)
    metrics = Metrics(catalog, ingest, cast("Any", writeback), cast("Any", server), clock.monotonic)
    metrics.plugin_events["source", "event"] = 1
    return {sample.name: set(sample.labels) for family in metrics.collect() for sample in family.samples}
