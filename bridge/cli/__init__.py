"""The command line: ``envbridge``. Exit codes: 0 done, 1 the thing asked for failed, 2 usage or configuration."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bridge.cli import read, run, watch
from bridge.cli.output import abandon_stdout, complain
from bridge.errors import BridgeError, ConfigError


class _Commands(TyperGroup):
    """Turns what commands raise into messages on stderr and exit codes, in one place."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer's own base is private
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            for mistake in error.mistakes:
                complain(str(mistake))
            raise typer.Exit(2) from error
        except BridgeError as error:
            complain(str(error))
            raise typer.Exit(1) from error
        except BrokenPipeError as error:  # the reader of our output has seen enough
            abandon_stdout()
            raise typer.Exit(0) from error


app = typer.Typer(
    cls=_Commands,
    name="envbridge",
    help="What runs in Kubernetes, Docker Swarm, AWS and files, in one catalog.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from bridge import __version__
        from bridge.cli.output import write

        write(f"envbridge {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What runs in Kubernetes, Docker Swarm, AWS and files, in one catalog."""


app.command()(run.run)
app.command()(run.check)
app.command()(read.services)
app.command()(read.get)
app.command()(read.environments)
app.command()(read.status)
app.command()(watch.watch)
app.command()(run.plugins)
app.command()(run.schema)


def main() -> None:
    """The entry point of the ``envbridge`` command; ends by SystemExit."""
    app(prog_name="envbridge")
