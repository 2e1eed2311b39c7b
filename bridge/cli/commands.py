"""The commands, and what their arguments mean; each is imported when it is asked for."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from bridge.cli import told
from bridge.cli.output import abandon_stdout, complain
from bridge.errors import BridgeError

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # Typer's own copy of click's, which it does not export

_COMMANDS = {
    "run": "bridge.cli.run",
    "check": "bridge.cli.run",
    "services": "bridge.cli.read",
    "get": "bridge.cli.read",
    "environments": "bridge.cli.read",
    "status": "bridge.cli.read",
    "watch": "bridge.cli.watch",
    "plugins": "bridge.cli.run",
    "schema": "bridge.cli.run",
}
"""Command -> the module that has the function of this name, in the order of the help."""

_OF_STDOUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What writing to stdout fails with, where there is a reader."""


class _PlainFlags:
    """A command whose help shows no type behind an option that takes no value."""

    def get_params(self, ctx: Any) -> Any:
        """As click's."""
        found = super().get_params(ctx)  # type: ignore[misc]  # of the command this is mixed into
        for option in found:
            if isinstance(option, TyperOption) and option.is_flag and option.metavar is None:
                option.metavar = ""
        return found


class _Command(_PlainFlags, TyperCommand):
    """One command."""


class _OnDemand(Mapping[str, Any]):
    """The commands by name, each imported and made when it is looked up: one runs, and only the help needs all."""

    def __getitem__(self, name: str) -> Any:
        if name not in _COMMANDS:
            raise KeyError(name)
        return _made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


@cache
def _made(name: str) -> Any:
    alone = typer.Typer(add_completion=False)
    alone.command(cls=_Command)(getattr(import_module(_COMMANDS[name]), name))
    return get_command(alone)


class _Commands(_PlainFlags, TyperGroup):
    """Turns whatever ends a command into messages on stderr and an exit code, in one place."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _OnDemand()  # type: ignore[assignment]  # nothing is ever added

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer's own base is private
        """As click's, which would end with 1 where the reader of our output has seen enough."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            abandon_stdout()
            raise typer.Exit(0) from error

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's: ends by SystemExit, whatever happened."""
        sys.exit(_ended(lambda: super(_Commands, self).main(*args, **{**kwargs, "standalone_mode": False})))


def _ended(run: Callable[[], Any]) -> int:
    """The exit code; what went wrong is on stderr, as one line for each mistake and without a traceback."""
    try:
        code = run()
    except BridgeError as error:
        return told(error)
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        help_of = [f"Try `{context.command_path} --help`."] if context is not None else []
        if usage := _usage(error):  # empty where the help itself is the answer
            complain(usage, *help_of)
        return 2
    except OSError as error:
        if error.errno not in _OF_STDOUT or error.filename is not None:
            raise
        abandon_stdout()
        complain(f"the output cannot be written: {error.strerror or error}")
        return 1
    except typer.Abort:
        return 130
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> str:
    """What is wrong with the usage; near words as everywhere else."""
    text = str(error.format_message()) if hasattr(error, "format_message") else str(error)
    return re.sub(r" ?\(Possible options: ([^)]*)\)", r". Did you mean `\1`?", re.sub(r"mean '([^']*)'", r"mean `\1`", text))


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
