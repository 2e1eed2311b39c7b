"""The commands around a configuration: run, check, plugins, schema."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.options import CaFile, Output, TokenFile, client_for
from bridge.cli.output import Format, coloured, note, terminal_width, to_json, to_yaml, write


class LogFormat(StrEnum):
    """How log lines are written."""

    text = "text"
    json = "json"


class LogLevel(StrEnum):
    """The least important log lines that are written."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration, a YAML file.", show_default=False)]


def run(
    config: Config,
    log_format: Annotated[LogFormat | None, typer.Option("--log-format", help="Overrides the configuration's.")] = None,
    log_level: Annotated[
        LogLevel | None, typer.Option("--log-level", case_sensitive=False, help="Overrides the configuration's.")
    ] = None,
) -> None:
    """Run the daemon until SIGTERM; SIGHUP reloads the configuration."""
    from bridge.host.app import run_daemon

    code = run_daemon(
        config,
        log_format=log_format.value if log_format else None,
        log_level=log_level.value if log_level else None,
    )
    raise typer.Exit(code)


def check(
    config: Config,
    connect: Annotated[bool, typer.Option("--connect", help="Also try each source: can it be reached, may we read it?")] = False,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="URL", help="Show what the bridge at this URL would drop with this configuration."),
    ] = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Find every mistake in a configuration; change nothing."""
    from bridge.cli.check import compare, summarise, try_sources
    from bridge.host.config import load_config

    client = client_for(against, token_file, ca_file) if against is not None else None
    loaded = load_config(config)
    write(summarise(loaded))
    outcomes = try_sources(loaded) if connect else {}
    if client is not None:
        compare(loaded, client, outcomes)
    if not all(outcome.ok for outcome in outcomes.values()):
        raise typer.Exit(1)


def plugins(output: Output = Format.table) -> None:
    """List the installed plugins and the distributions they come from."""
    from bridge.host.plugins import installed

    keys = ("kind", "type", "distribution", "version", "module")
    found = [{key: getattr(plugin, key) for key in keys} for plugin in installed()]
    if not found:
        note("no plugin is installed")
    if output is Format.json:
        write(to_json(found))
    elif output is Format.yaml:
        write(to_yaml(found))
    else:
        from bridge.cli.tables import render, table

        rows = ([plugin[key] for key in keys] for plugin in found)
        write(render([table((key.upper() for key in keys), rows)], colour=coloured(), width=terminal_width()))


def schema() -> None:
    """Print the JSON Schema of the configuration, as the installed plugins make it."""
    from bridge.host.config import schema as configuration_schema

    write(to_json(configuration_schema()))
