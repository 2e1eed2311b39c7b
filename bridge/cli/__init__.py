"""The command line: ``envbridge``. Exit codes: 0 done, 1 the thing asked for failed, 2 usage or configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bridge.cli.output import complain
from bridge.errors import BridgeError, ConfigError


def main() -> None:
    """The entry point of the ``envbridge`` command; ends by SystemExit."""
    # Else pydantic reads the metadata of all that is installed, and imports what calls itself a plugin of it.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    match sys.argv[1:]:
        case ["run", config] if not config.startswith("-"):
            sys.exit(_run(Path(config)))  # nothing to parse: the daemon starts, and stays, without what would parse it
    from bridge.cli.commands import app

    app(prog_name="envbridge")


def _run(config: Path) -> int:
    from bridge.host.app import run_daemon

    try:
        return run_daemon(config)
    except BridgeError as error:
        return told(error)


def told(error: BridgeError) -> int:
    """Tell what ended a command, one line for each mistake and without a traceback; its exit code."""
    if isinstance(error, ConfigError):
        for mistake in error.mistakes:
            complain(str(mistake))
        return 2
    complain(str(error))
    return 1
