"""The commands around a configuration: run, check, plugins, schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from bridge.cli.options import CaFile, Output, TokenFile, client_for, one_of
from bridge.cli.output import Format, coloured, note, to_json, to_yaml, width_for, write
from bridge.errors import BridgeError

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The configuration, a YAML file.", show_default=False)]


def run(
    config: Config,
    log_format: Annotated[
        LogFormat | None, one_of("--log-format", choices=get_args(LogFormat), help="Overrides the configuration's.")
    ] = None,
    log_level: Annotated[
        LogLevel | None, one_of("--log-level", choices=get_args(LogLevel), help="Overrides the configuration's.")
    ] = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reloads the configuration.

    It ends some 3 s after it was told to: meanwhile it answers, and says that it is going.
    """
    from bridge.host.app import run_daemon

    raise typer.Exit(run_daemon(config, log_format=log_format, log_level=log_level))


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
    """Find every mistake in a configuration; change nothing.

    It asks for more than `run`: files that sources name must exist, intervals must make sense together, token files hold tokens.
    """
    from bridge.cli.check import compare, failures, summarise, try_sources
    from bridge.host.config import load_config
    from bridge.host.doubts import notes

    client = client_for(against, token_file, ca_file) if against is not None else None
    loaded = load_config(config, thorough=True)
    for told in notes(loaded):
        note(told)
    outcomes = try_sources(loaded) if connect else {}
    if client is not None:
        compare(loaded, client, outcomes)
    write(summarise(loaded, outcomes))
    if problem := failures(outcomes):
        raise BridgeError(problem)


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
        write(render([table((key.upper() for key in keys), rows)], colour=coloured(), width=width_for(output)))


def schema() -> None:
    """Print the JSON Schema of the configuration, as the installed plugins make it."""
    from bridge.host.config import schema as configuration_schema

    write(to_json(configuration_schema()))
