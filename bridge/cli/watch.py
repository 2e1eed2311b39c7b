"""The command that follows changes: one line each, for ever."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.options import DEFAULT_URL, CaFile, Output, TokenFile, Url, client_for
from bridge.cli.output import Format, note, paint, to_json, to_yaml, write
from bridge.cli.read import STALE_HINT, not_found, resolve
from bridge.errors import ApiError
from bridge.text import safe_text

if TYPE_CHECKING:
    from bridge.client.http import Client
    from bridge.client.view import Difference

_SIGNS = {"added": ("+", "green"), "updated": ("~", "yellow"), "removed": ("-", "red")}
_LONGEST_VALUE = 120


def watch(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAMESPACE/]NAME", help="The service to watch; without it, all instances are.")
    ] = None,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="First print what is there, as additions.")] = False,
    output: Output = Format.table,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Print changes as they happen, one line each, until interrupted; lost connections are opened again.

    Each line has the time, + (added), ~ (updated) or - (removed), the service, the instance, and what changed.
    """
    client = client_for(url, token_file, ca_file)
    try:
        _follow(client, resolve(client, name) if name is not None else None, snapshot, output)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _follow(client: Client, service: tuple[str, str] | None, snapshot: bool, output: Format) -> None:
    from bridge.client.http import EVERYTHING, path_of
    from bridge.client.sse import follow
    from bridge.client.view import InstanceView

    lost = False

    def on_lost(error: ApiError, delay: float) -> None:
        nonlocal lost
        lost = True
        note(f"{error}; trying again in {delay:.1f} s")

    view = InstanceView()
    path = path_of("services", *service) if service else path_of("instances")
    try:
        for event in follow(client, path, EVERYTHING, on_lost=on_lost):
            if event.type == "open":
                if lost:
                    note("following again")
                lost = False
            silent = not (snapshot or view.complete)
            stale = view.stale
            differences = view.apply(event)
            if differences and not silent:
                now = datetime.fromtimestamp(time.time(), UTC)
                write("".join(render(difference, output, now) for difference in differences))
            if view.stale != stale:
                note(f"stale now: {', '.join(view.stale)}; {STALE_HINT}" if view.stale else "nothing is stale any more")
    except ApiError as error:
        if error.status != 404 or service is None:
            raise
        not_found(client, *service)
        raise typer.Exit(1) from error


def render(difference: Difference, output: Format, now: datetime) -> str:
    """The line for one change; for ``yaml`` a document. People read ``now`` in local time, programs as RFC 3339 in UTC."""
    if output in (Format.json, Format.yaml):
        document: dict[str, Any] = {
            "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "change": difference.change,
            "changed": {field: list(pair) for field, pair in difference.fields.items()},
            "instance": dict(difference.instance),
        }
        return to_json(document, indent=None) if output is Format.json else f"---\n{to_yaml(document)}"
    sign, colour = _SIGNS[difference.change]
    instance = difference.instance
    service = safe_text(f"{instance.get('namespace')}/{instance.get('service')}")
    what = describe(difference, wide=output is Format.wide)
    local = now.astimezone().strftime("%H:%M:%S")
    line = f"{paint(local, 'dim')} {paint(f'{sign} {service}', colour)} {safe_text(difference.key)}"
    return f"{line} {safe_text(what)}".rstrip() + "\n"


def describe(difference: Difference, *, wide: bool) -> str:
    """What changed, before and after; for what came or went, where it is and, when wide, everything about it."""
    if difference.change == "updated":
        before, after = _flat(difference.before or {}), _flat(difference.after or {})
        names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
        return ", ".join(f"{name} {_short(before.get(name))} -> {_short(after.get(name))}" for name in names)
    flat = _flat(difference.instance)
    if wide:
        return ", ".join(f"{name} {_short(value)}" for name, value in flat.items() if value and name not in _NAMED)
    told = [_short(flat[name]) for name in ("addresses", "hostname", "ports", "health") if flat.get(name)]
    unusual = [flat[name] for name, usual in _USUAL.items() if flat.get(name, usual) != usual]
    return " ".join([*told, *unusual])


_USUAL = {"lifecycle": "active", "state": "listed"}
_NAMED = frozenset({"environment", "source", "id", "namespace", "service"})


def _flat(instance: Any) -> dict[str, str]:
    """The instance's fields as texts; the entries of ``meta`` stand for themselves."""
    flat: dict[str, str] = {}
    for name, value in instance.items():
        if name == "meta" and isinstance(value, dict):
            flat.update({f"meta.{key}": str(entry) for key, entry in value.items()})
        elif name == "ports" and isinstance(value, list):
            flat[name] = ",".join(_port(port) for port in value)
        elif isinstance(value, list):
            flat[name] = ",".join(str(entry) for entry in value)
        else:
            flat[name] = "" if value is None else str(value)
    return flat


def _port(port: Any) -> str:
    if not isinstance(port, dict):
        return str(port)
    parts = [f"{port['name']}:" if port.get("name") else "", f"{port.get('port')}/{port.get('protocol', 'TCP')}"]
    return "".join(parts) + (f" ({port['app_protocol']})" if port.get("app_protocol") else "")


def _short(text: str | None) -> str:
    if not text:
        return "-"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
