"""The commands that show what a bridge answers now: services, get, environments, status."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.options import DEFAULT_URL, CaFile, Output, TokenFile, Url, client_for
from bridge.cli.output import Format, coloured, complain, note, to_json, to_yaml, width_for, write
from bridge.errors import ApiError

if TYPE_CHECKING:
    from bridge.cli.tables import Sheet
    from bridge.client.http import Answer, Client


STALE_HINT = "`envbridge environments -o wide` tells which source, and why"
_MOST_NEAR = 3


def services(
    output: Output = Format.table,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """List all services and how many instances they have."""
    from bridge.cli import tables

    answer = client_for(url, token_file, ca_file).get("/v1/services")
    _show(answer, output, tables.services)


def get(
    name: Annotated[str, typer.Argument(metavar="[NAMESPACE/]NAME", help="The service; without a namespace, it is looked for.")],
    output: Output = Format.table,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Show the instances of a service, whatever their health, lifecycle and state."""
    from bridge.cli import tables
    from bridge.client.http import EVERYTHING, path_of

    client = client_for(url, token_file, ca_file)
    namespace, service = resolve(client, name)
    answer = asked_for(client, namespace, service, lambda: client.get(path_of("services", namespace, service), EVERYTHING))
    _show(answer, output, tables.instances)
    if isinstance(answer.body, dict) and answer.body.get("degraded"):
        note(f"degraded: {answer.body['degraded']}")


def environments(
    output: Output = Format.table,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """List the environments, how fresh they are, and the state of their sources."""
    from bridge.cli import tables

    answer = client_for(url, token_file, ca_file).get("/v1/environments")
    _show(answer, output, tables.environments, hint=output is not Format.wide)


def status(
    output: Output = Format.table,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Show what the bridge itself is doing: sources, what they rejected, jobs, holds, memory."""
    from bridge.cli.status import status as sheets

    answer = client_for(url, token_file, ca_file).get("/v1/status")
    _show(answer, output, sheets)


def parse_name(text: str) -> tuple[str | None, str]:
    """Namespace, where one is given, and name. Raises typer.BadParameter for what cannot be a service's name."""
    namespace, slash, name = text.rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        raise typer.BadParameter("a service is NAMESPACE/NAME or NAME")
    return (namespace if slash else None), name


def resolve(client: Client, text: str) -> tuple[str, str]:
    """Namespace and name of the service meant; looks through all services where the namespace is left out.

    Ends the command with 1 where no namespace has the name, or several have.
    """
    namespace, name = parse_name(text)
    if namespace is not None:
        return namespace, name
    answer, known = _known(client)
    found = sorted(owner for owner, service in known if service == name)
    if len(found) == 1:
        return found[0], name
    if found:
        complain(f"{name} is in several namespaces:", *(f"{owner}/{name}" for owner in found))
    else:
        _nobody(name, _near(name, {service for _, service in known}), answer.incomplete)
    raise typer.Exit(1)


def asked_for(client: Client, namespace: str, name: str, ask: Callable[[], Answer]) -> Answer:
    """The answer of ``ask``, which is about one service; ends the command with 1 and near matches where there is no such."""
    try:
        return ask()
    except ApiError as error:
        if error.status != 404:
            raise
    not_found(client, namespace, name)
    raise typer.Exit(1)


def not_found(client: Client, namespace: str, name: str) -> None:
    """Say that nobody has the service, and what comes near: the same name elsewhere first."""
    answer, known = _known(client)
    elsewhere = [f"{owner}/{service}" for owner, service in sorted(known) if service == name]
    near = _near(f"{namespace}/{name}", {f"{owner}/{service}" for owner, service in known})
    _nobody(f"{namespace}/{name}", list(dict.fromkeys(elsewhere + near)), answer.incomplete)


def _known(client: Client) -> tuple[Answer, list[tuple[str, str]]]:
    answer = client.get("/v1/services")
    try:
        return answer, [(str(entry["namespace"]), str(entry["name"])) for entry in answer.body["services"]]
    except (KeyError, TypeError) as error:
        raise ApiError(f"{client.url} answered no list of services; is it a bridge?") from error


def _near(name: str, known: set[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(name, sorted(known), n=_MOST_NEAR)


def _nobody(name: str, near: list[str], incomplete: tuple[str, ...]) -> None:
    meant = " or ".join(f"`{one}`" for one in near[:_MOST_NEAR])
    complain(f"no service `{name}`." + (f" Did you mean {meant}?" if near else " `envbridge services` lists all."))
    if incomplete:
        note(f"never read yet, so more may exist: {', '.join(incomplete)}")


def _show(answer: Answer, output: Format, table: Callable[[Any, bool], list[Sheet]], *, hint: bool = True) -> None:
    from bridge.cli.tables import render

    if output is Format.json:
        write(to_json(answer.body))
    elif output is Format.yaml:
        write(to_yaml(answer.body))
    else:
        try:
            text = render(table(answer.body, output is Format.wide), colour=coloured(), width=width_for(output))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ApiError("the answer is not as the API promises; is it a bridge?") from error
        write(text)
    if answer.stale:
        told = f"stale, not confirmed for a while: {', '.join(answer.stale)}"
        note(f"{told}; {STALE_HINT}" if hint else told)
    if answer.incomplete:
        note(f"never read yet, so more may exist: {', '.join(answer.incomplete)}")
