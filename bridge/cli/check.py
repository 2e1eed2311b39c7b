"""What ``envbridge check`` prints beyond mistakes: a summary, the sources it tried, and what a running bridge would drop."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bridge.cli.output import Format, coloured, note, width_for, write
from bridge.cli.tables import cell, render, state, table
from bridge.client.http import EVERYTHING, Client
from bridge.errors import ApiError
from bridge.host.against import judge
from bridge.host.connect import Outcome, try_source
from bridge.text import safe_text

if TYPE_CHECKING:
    from bridge.host.config import BridgeConfig

_SHOWN = 20
_AT_ONCE = 8


def summarise(config: BridgeConfig, outcomes: Mapping[str, Outcome]) -> str:
    """One line that says what was found to be right; empty where a source that was tried could not be read."""
    if any(not outcome.ok for outcome in outcomes.values()):
        return ""
    types = Counter(source.type for source in config.sources.values())
    kinds = ", ".join(f"{amount} {kind}" for kind, amount in sorted(types.items())) or "none"
    reached = ", each read as a whole" if outcomes else ""
    return safe_text(f"OK: environment {config.environment}, sources: {kinds}{reached}") + "\n"


def try_sources(config: BridgeConfig) -> dict[str, Outcome]:
    """Try each source, print how it went, and return that by the source's name."""
    if not config.sources:
        return {}
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log of failures is in the outcomes already
    outcomes = asyncio.run(_try_all(config))
    rows = [
        [
            name,
            outcome.type,
            state(_word(outcome)),
            len(outcome.instances),
            len(outcome.unknown),
            len(outcome.rejected),
            _reason(outcome),
        ]
        for name, outcome in outcomes.items()
    ]
    columns = ("SOURCE", "TYPE", "STATE", "INSTANCES", "UNKNOWN", "REJECTED", "REASON")
    _print(table(columns, rows))
    for name, outcome in outcomes.items():
        if len(outcome.unknown) > 1:  # a single one is the reason already
            _print_reasons(name, "unknown", outcome.unknown)
        _print_reasons(name, "rejected", outcome.rejected)
    return outcomes


def failures(outcomes: Mapping[str, Outcome]) -> str:
    """One line that names the sources that could not be read as a whole; empty where all could."""
    wrong = [f"{name} ({_word(outcome)})" for name, outcome in outcomes.items() if not outcome.ok]
    return f"{len(wrong)} of {len(outcomes)} sources cannot be read as a whole: {', '.join(wrong)}" if wrong else ""


def compare(config: BridgeConfig, client: Client, outcomes: Mapping[str, Outcome]) -> None:
    """Print, source by source, what the bridge shows now and this configuration would not.

    outcomes: what each source was just seen to have; sources without one are judged by their names alone.
    Raises ApiError where the bridge cannot be asked.
    """
    served = _served(config.environment, client)
    if not served:
        note(f"{client.url} shows no instance of environment {config.environment}")
    gone = served.keys() - config.sources.keys()
    verdicts = judge(config.environment, config.sources, served, outcomes, _types(config.environment, client) if gone else {})
    rows: list[list[Any]] = [[v.source, v.served, _count(v.would_go), _count(v.new), v.reason] for v in verdicts]
    rows.append(
        [
            cell("total"),
            sum(verdict.served for verdict in verdicts),
            _total([verdict.would_go for verdict in verdicts]),
            _total([verdict.new for verdict in verdicts]),
            cell(" "),
        ]
    )
    _print(table(("SOURCE", "SHOWN NOW", "WOULD GO", "WOULD COME", "WHY"), rows))
    for verdict in verdicts:
        _print_some(f"would go from {verdict.source}", verdict.dropped)


def _served(environment: str, client: Client) -> dict[str, set[str]]:
    """The ids of the environment's instances by source, whatever their health and state."""
    served: dict[str, set[str]] = {}
    try:
        for instance in client.pages("/v1/instances", "instances", {**EVERYTHING, "environment": environment}):
            if instance["environment"] == environment:
                served.setdefault(instance["source"], set()).add(instance["id"])
    except (KeyError, TypeError) as error:
        raise ApiError("the list of instances is not as the API promises; is it a bridge?") from error
    return served


def _types(environment: str, client: Client) -> dict[str, str]:
    """The types of the environment's sources by name; those that are being retired are no more."""
    try:
        return {
            str(source["name"]): str(source["type"])
            for entry in client.get_json("/v1/environments")
            if entry["name"] == environment
            for source in entry["sources"]
        }
    except (KeyError, TypeError) as error:
        raise ApiError("the list of environments is not as the API promises; is it a bridge?") from error


async def _try_all(config: BridgeConfig) -> dict[str, Outcome]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> Outcome:
        async with room:
            return await try_source(name, config.sources[name], config.environment)

    names = list(config.sources)
    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


def _word(outcome: Outcome) -> str:
    return "partial" if outcome.state == "reachable" and not outcome.ok else outcome.state


def _reason(outcome: Outcome) -> str:
    """Why it was not read as a whole: of several parts, the first."""
    if outcome.reason or not outcome.unknown:
        return outcome.reason
    (key, reason), *others = outcome.unknown.items()
    return _line(key, reason) + (f", and {len(others)} more" if others else "")


def _line(key: str, reason: str) -> str:
    """The reason with what it is about, named once."""
    named = reason.partition(": ")[0]
    return reason if not key or reason.startswith(key) or f"/{key}".endswith(f"/{named}") else f"{key}: {reason}"


def _count(number: int | None) -> int | str:
    return "?" if number is None else number


def _total(numbers: list[int | None]) -> int | str:
    """Their sum; where some are not known, that it may be more."""
    known = sum(number for number in numbers if number is not None)
    return known if None not in numbers else f"at least {known}" if known else "?"


def _print(part: Any) -> None:
    write(render([part], colour=coloured(), width=width_for(Format.table)) + "\n")


def _print_reasons(source: str, what: str, reasons: Mapping[str, str]) -> None:
    _print_some(f"{what} in {source}", [_line(key, reason) for key, reason in reasons.items()])


def _print_some(title: str, lines: list[str] | tuple[str, ...]) -> None:
    if not lines:
        return
    shown = "".join(f"  {safe_text(line)}\n" for line in lines[:_SHOWN])
    more = f"  ... and {len(lines) - _SHOWN} more\n" if len(lines) > _SHOWN else ""
    write(f"{safe_text(title)}:\n{shown}{more}\n")
