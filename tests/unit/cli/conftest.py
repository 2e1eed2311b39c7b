"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_bridge import ScriptedBridge
from typer.testing import CliRunner


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedBridge]:
    """A scripted bridge that the command line finds through its environment."""
    with ScriptedBridge() as scripted:
        monkeypatch.setenv("ENVBRIDGE_URL", scripted.url)
        monkeypatch.delenv("ENVBRIDGE_TOKEN", raising=False)
        yield scripted


@pytest.fixture
def cli() -> Callable[..., Any]:
    """Runs the command line in this process; the result has exit_code, stdout and stderr."""
    from bridge.cli.commands import app

    def run(*arguments: str, **settings: Any) -> Any:
        result = CliRunner().invoke(app, list(arguments), prog_name="envbridge", **settings)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts to connect."""
    monkeypatch.setattr("bridge.client.sse._FIRST_DELAY", 0.0)
