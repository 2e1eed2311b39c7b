"""run, check, plugins, schema: the commands around a configuration. The host's own modules are stood in for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from scripted_bridge import ScriptedBridge, instance, problem

from bridge.contracts import PluginContext, SourceConfig
from bridge.errors import ConfigError, ForbiddenError, Mistake, TransientError
from bridge.model import InstanceGroup, Listing, ServiceInstance

Cli = Callable[..., Any]
ROOT = Path(__file__).parents[3]


class ListConfig(SourceConfig):
    """A source that lists what its tests hand it, or raises it."""

    type: str = "list"
    shows: Any = Listing()

    def open(self, ctx: PluginContext) -> Any:
        @asynccontextmanager
        async def opened() -> AsyncGenerator[Any, None]:
            yield self

        return opened()

    async def list(self) -> Any:
        if isinstance(self.shows, Exception):
            raise self.shows
        return self.shows


def listing(*ids: str, **also: Any) -> Listing:
    made = (ServiceInstance(id=f"shop/web/{own}", namespace="shop", service="web") for own in ids)
    return Listing(groups=(InstanceGroup("shop/web", tuple(made)),), **also)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the host's modules answer: ``config`` (or ``mistakes``), ``plugins``, ``code``; ``ran`` has the daemon's arguments."""
    script = SimpleNamespace(config=None, mistakes=(), plugins=[], code=0, ran=None, notes=[])

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    def load_config(path: Path, *, thorough: bool = False) -> Any:
        if script.mistakes:
            raise ConfigError(tuple(script.mistakes))
        return script.config

    def run_daemon(config_path: Path, *, log_format: str | None, log_level: str | None) -> int:
        load_config(config_path)
        script.ran = (config_path, log_format, log_level)
        return script.code

    module("bridge.host.app", run_daemon=run_daemon)
    module("bridge.host.config", load_config=load_config, schema=lambda: {"title": "é"})
    module("bridge.host.doubts", notes=lambda config: script.notes)
    module("bridge.host.plugins", installed=lambda: script.plugins)
    return script


def configured(**sources: Any) -> SimpleNamespace:
    made = {name: given if isinstance(given, SourceConfig) else ListConfig(shows=given) for name, given in sources.items()}
    return SimpleNamespace(environment="eu", sources=made)


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# ------------------------------------------------------------- run, plugins, schema


@pytest.mark.parametrize(
    ("arguments", "handed_on"),
    [([], (None, None)), (["--log-format", "json"], ("json", None)), (["--log-level", "DEBUG"], (None, "debug"))],
)
def test_run_hands_its_options_to_the_daemon(host: SimpleNamespace, cli: Cli, arguments: list[str], handed_on: Any) -> None:
    host.code = 3
    assert cli("run", "bridge.yaml", *arguments).exit_code == 3
    assert host.ran == (Path("bridge.yaml"), *handed_on)


@pytest.mark.parametrize("command", ["run", "check"])
def test_every_mistake_is_told_and_ends_with_2(host: SimpleNamespace, cli: Cli, command: str) -> None:
    host.mistakes = [Mistake("sources.a.typ", "unknown key", "Did you mean `type`?"), Mistake("serve", "\x1b[2J", "Remove it.")]
    result = cli(command, "bridge.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    first, second = result.stderr.splitlines()
    assert "sources.a.typ: unknown key. Did you mean `type`?" in first
    assert "serve: \\x1b[2J. Remove it." in second


@pytest.mark.parametrize(
    "arguments", [["run"], ["check"], ["run", "a", "--log-format", "xml"], ["check", "a", "--against", "nonsense"]]
)
def test_wrong_usage_ends_with_2(host: SimpleNamespace, cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).exit_code == 2


def test_plugins_names_type_and_distribution(host: SimpleNamespace, cli: Cli) -> None:
    host.plugins = [
        SimpleNamespace(kind="source", type="file", distribution="envbridge", version="1.0", module="bridge_plugins.f")
    ]
    assert words(cli("plugins").stdout)[1] == ["source", "file", "envbridge", "1.0", "bridge_plugins.f"]
    assert json.loads(cli("plugins", "-o", "json").stdout) == [vars(host.plugins[0])]


def test_schema_is_json(host: SimpleNamespace, cli: Cli) -> None:
    assert json.loads(cli("schema").stdout) == {"title": "é"}


def test_the_daemon_is_started_without_what_only_tables_need() -> None:
    code = "import sys, bridge.cli; print(sorted({'rich', 'yaml', 'http.client', 'bridge.cli.tables'} & set(sys.modules)))"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


# ------------------------------------------------------------- check


def test_a_good_configuration_is_summed_up(host: SimpleNamespace, cli: Cli) -> None:
    host.config = configured(a=Listing(), b=Listing())
    result = cli("check", "bridge.yaml")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "OK: environment eu, sources: 2 list\n", "")


def test_what_is_worth_knowing_is_a_note_and_no_error(host: SimpleNamespace, cli: Cli) -> None:
    host.config, host.notes = configured(), ["sources: there is none"]
    result = cli("check", "bridge.yaml")
    assert (result.exit_code, result.stdout) == (0, "OK: environment eu, sources: none\n")
    assert result.stderr == "note: sources: there is none\n"


def test_connect_shows_each_source_and_ends_with_1_when_one_fails(host: SimpleNamespace, cli: Cli) -> None:
    host.config = configured(
        good=listing("1", "2", rejected={"shop/web/3": "no address"}),
        denied=ForbiddenError("may not list pods"),
        gone=TransientError("refused"),
    )
    result = cli("check", "bridge.yaml", "--connect")
    assert result.exit_code == 1
    rows = {row[0]: row[1:] for row in words(result.stdout) if row}
    assert rows["good"] == ["list", "reachable", "2", "0", "1", "-"]
    assert rows["denied"][:2] == ["list", "forbidden"]
    assert rows["gone"][1:] == ["failed", "0", "0", "0", "refused"]
    assert "OK" not in result.stdout
    assert result.stderr == "error: 2 of 3 sources cannot be read as a whole: denied (forbidden), gone (failed)\n"
    assert "shop/web/3: no address" in result.stdout
    assert "may not list pods" in result.stdout


def test_connect_of_sources_that_all_can_be_read_ends_with_0(host: SimpleNamespace, cli: Cli) -> None:
    host.config = configured(good=listing("1", rejected={"x": "broken"}))
    result = cli("check", "bridge.yaml", "--connect")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "OK: environment eu, sources: 1 list, each read as a whole"


def test_connect_with_a_part_that_cannot_be_told_ends_with_1(host: SimpleNamespace, cli: Cli) -> None:
    host.config = configured(part=listing("1", unknown={"pay": ForbiddenError("may not list pay")}))
    result = cli("check", "bridge.yaml", "--connect")
    assert result.exit_code == 1
    assert ["part", "list", "partial", "1", "1", "0", "pay:", "may", "not", "list", "pay"] in words(result.stdout)
    assert result.stdout.count("may not list pay") == 1


def test_connect_names_a_place_once_and_several_parts_one_by_one(host: SimpleNamespace, cli: Cli) -> None:
    unknown = {"/etc/a.yaml": TransientError("a.yaml: line 2: no mapping"), "/b.yaml": TransientError("gone")}
    host.config = configured(part=listing("1", unknown=unknown, rejected={"shop/web/2": "shop/web/2: no address"}))
    out = cli("check", "bridge.yaml", "--connect").stdout
    assert " a.yaml: line 2: no mapping, and 1 more\n" in out
    assert "unknown in part:\n  a.yaml: line 2: no mapping\n  /b.yaml: gone\n" in out
    assert "rejected in part:\n  shop/web/2: no address\n" in out


def test_against_tells_which_sources_would_go(host: SimpleNamespace, cli: Cli, bridge: ScriptedBridge) -> None:
    host.config = configured(kept=Listing(), new_name=ListConfig(renamed_from="old_name"))
    served = [
        instance("shop/web/1", source="kept"),
        instance("shop/web/2", source="dropped"),
        instance("shop/web/3", source="dropped", health="unready"),
        instance("shop/web/4", source="old_name"),
        instance("shop/web/5", source="elsewhere", environment="us"),
    ]
    bridge.on("/v1/instances", {"instances": served[:2], "next": "p"}, {"instances": served[2:], "next": None})
    bridge.on("/v1/environments", [{"name": "eu", "sources": [{"name": "dropped", "type": "file"}]}])
    result = cli("check", "bridge.yaml", "--against", bridge.url)
    assert result.exit_code == 0
    rows = {row[0]: row[1:] for row in words(result.stdout) if row}
    assert rows["dropped"][:3] == ["2", "2", "0"]
    assert rows["kept"][:3] == ["1", "?", "?"]
    assert rows["new_name"][:6] == ["1", "?", "?", "renamed", "from", "old_name;"]
    assert rows["total"] == ["4", "at", "least", "2", "?"]
    assert "elsewhere" not in result.stdout
    assert ["shop/web/3"] in words(result.stdout)
    assert bridge.asked[0].query["health"] == bridge.asked[0].query["lifecycle"] == bridge.asked[0].query["state"] == "any"


def test_against_tells_of_a_rename_that_is_not_told_to_be_one(host: SimpleNamespace, cli: Cli, bridge: ScriptedBridge) -> None:
    host.config = configured(new=Listing(), kept=Listing())
    bridge.on("/v1/instances", {"instances": [instance("shop/web/1", source="old")], "next": None})
    sources = [{"name": name, "type": "list"} for name in ("old", "kept")]
    bridge.on(
        "/v1/environments", [{"name": "us", "sources": [{"name": "old", "type": "file"}]}, {"name": "eu", "sources": sources}]
    )
    result = cli("check", "bridge.yaml", "--against", bridge.url)
    assert result.exit_code == 0
    assert "if `new` is the same under a new name, give it `renamed_from: old`" in result.stdout


def test_against_with_connect_compares_every_instance(host: SimpleNamespace, cli: Cli, bridge: ScriptedBridge) -> None:
    hidden = InstanceGroup("shop/hidden", (ServiceInstance(id="shop/web/2", namespace="shop", service="hidden"),))
    shown = (*listing("1", "3").groups, hidden)
    host.config = configured(main=ListConfig(shows=Listing(groups=shown), exclude=("shop/hidden",)))
    bridge.on("/v1/instances", {"instances": [instance(f"shop/web/{n}") for n in (1, 2, 9)], "next": None})
    result = cli("check", "bridge.yaml", "--connect", "--against", bridge.url)
    assert result.exit_code == 0
    assert ["main", "3", "2", "1"] in [row[:4] for row in words(result.stdout)]
    assert ["shop/web/2"] in words(result.stdout)
    assert ["shop/web/9"] in words(result.stdout)


def test_against_a_bridge_that_refuses_ends_with_1(host: SimpleNamespace, cli: Cli, bridge: ScriptedBridge) -> None:
    host.config = configured()
    bridge.on("/v1/instances", problem(403, "Forbidden", "no token"))
    result = cli("check", "bridge.yaml", "--against", bridge.url)
    assert result.exit_code == 1
    assert "Forbidden: no token" in result.stderr


def test_against_another_environment_says_so(host: SimpleNamespace, cli: Cli, bridge: ScriptedBridge) -> None:
    host.config = configured(main=Listing())
    bridge.on("/v1/instances", {"instances": [], "next": None})
    result = cli("check", "bridge.yaml", "--against", bridge.url)
    assert result.exit_code == 0
    assert "shows no instance of environment eu" in result.stderr
