"""Options that several commands share, and the client they describe."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Format, warn

if TYPE_CHECKING:
    from bridge.client.http import Client

DEFAULT_URL = "http://127.0.0.1:7400"

Url = Annotated[str, typer.Option("--url", envvar="ENVBRIDGE_URL", help="The bridge to ask.")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with the bearer token; without it ENVBRIDGE_TOKEN is sent, where it is set."),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", envvar="ENVBRIDGE_CA_FILE", help="PEM file with the authorities to trust instead of the system's."),
]


def one_of(*names: str, choices: Sequence[str], help: str) -> Any:
    """An option that takes one of some words, whatever their case; another word is told with what comes near."""

    def parse(text: str) -> str:
        chosen = next((choice for choice in choices if choice == text.lower()), None)
        if chosen is not None:
            return chosen
        from bridge.host.mistakes import near_match

        raise typer.BadParameter(f"`{text}` is no value of it. {near_match(text, choices)}Valid: {', '.join(choices)}.")

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return typer.Option(*names, parser=parse, metavar=f"[{'|'.join(choices)}]", autocompletion=complete, help=help)


Output = Annotated[
    Format,
    one_of("--output", "-o", choices=tuple(Format), help="How to show it; `wide` has all columns and cuts nothing."),
]


def client_for(url: str, token_file: Path | None, ca_file: Path | None) -> Client:
    """The client that the options ask for; warns where others could read its token.

    Raises typer.BadParameter where they cannot be used.
    """
    from bridge.cli.client import CommandClient, exposes_token

    token = _token(token_file)
    try:
        client = CommandClient(url, token=token, ca_file=ca_file)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if token is not None and exposes_token(url):
        warn(f"the token goes to {client.url} unencrypted, for everybody on the way to read; use https:// where the port has TLS")
    return client


def _token(token_file: Path | None) -> str | None:
    if token_file is None:
        return os.environ.get("ENVBRIDGE_TOKEN") or None
    try:
        return token_file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{token_file} holds no text") from error
    except OSError as error:
        raise typer.BadParameter(f"{token_file}: {error.strerror}") from error
