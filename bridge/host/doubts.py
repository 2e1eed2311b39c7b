"""What a daemon can start with, but no one can want: mistakes and notes that only ``envbridge check`` tells.

A running bridge must not stop for them: a file that is gone costs one source, and the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bridge.contracts import Guard, SourceConfig, format_duration
from bridge.errors import Mistake
from bridge.host import mistakes as report
from bridge.rules import check_readable

if TYPE_CHECKING:
    from bridge.host.config import BridgeConfig

SHORTEST_REFRESH = 0.05
"""Seconds: the shortest interval that jobs are run at."""


def source_mistakes(path: report.Path, config: SourceConfig) -> list[Mistake]:
    """What is wrong with a source whose keys are each valid: intervals that cannot work, files that are not there."""
    return [*_interval_mistakes(path, config), *_file_mistakes(path, config)]


def listener_mistakes(config: BridgeConfig) -> list[Mistake]:
    """What is wrong with the listener's files although they can be read: a token file that lets nobody in."""
    from bridge.host.credentials import read_tokens  # brings the listener along, which a check rarely needs

    http = config.serve.http
    path = http.token_file
    if path is None:
        return []
    place = report.render(("serve", "http", "token_file"))
    try:
        if read_tokens(path):
            return []
    except UnicodeDecodeError:
        return [Mistake(place, f"{path} is not UTF-8", "Write tokens of ASCII characters, one a line.")]
    except OSError as error:
        return [Mistake(place, f"{path} cannot be read: {error.strerror}", "Make it readable for this process.")]
    effect = "everybody may read, as `insecure` says" if http.insecure else "no other machine may read"
    needed = not (http.insecure or http.listen.is_loopback)
    remedy = f"Write one a line (`openssl rand -hex 32` makes one){'' if needed else ', or remove `token_file`'}."
    return [Mistake(place, f"{path} holds no token, so {effect}", remedy)]


def notes(config: BridgeConfig) -> list[str]:
    """What is worth knowing of a configuration without mistakes."""
    told = []
    if not config.sources:
        told.append("sources: there is none, so this bridge observes nothing; name one below `sources:`")
    for name, source in config.sources.items():
        idle = sorted({"share", "floor"} & source.guard.model_fields_set) if isinstance(source.guard, Guard) else []
        if idle and source.guard_only_when_emptied:
            told.append(
                f"{report.render(('sources', name, 'guard'))}: {' and '.join(f'`{key}`' for key in idle)} "
                f"{'has' if len(idle) == 1 else 'have'} no effect on type {source.type}, whose guard holds only a listing "
                "that leaves nothing; `for` and `off` count"
            )
    http = config.serve.http
    if http.token_file is not None and http.listen.is_loopback:
        told.append(
            f"serve.http.token_file: readers on this machine need no token, and `listen: {http.listen}` lets in no others; "
            "for the tokens to count, listen on an address of the network, with `tls`"
        )
    return told


def _interval_mistakes(path: report.Path, config: SourceConfig) -> Iterator[Mistake]:
    refresh, fresh_for = config.refresh, config.fresh_for
    if refresh is not None and refresh < SHORTEST_REFRESH:
        problem = f"`{_duration(refresh)}` is shorter than any poll takes"
        remedy = f"Give {format_duration(SHORTEST_REFRESH)} or more; 5s suits most sources."
        yield Mistake(report.render((*path, "refresh")), problem, remedy)
    polled = config.silence is None
    if polled and refresh is not None and fresh_for is not None and fresh_for < refresh:
        problem = f"`{_duration(fresh_for)}` is shorter than `refresh` ({_duration(refresh)}): stale before each poll"
        remedy = f"Make it 3 x `refresh` ({_duration(3 * refresh)}) or longer, or remove it."
        yield Mistake(report.render((*path, "fresh_for")), problem, remedy)


def _file_mistakes(path: report.Path, config: SourceConfig) -> Iterator[Mistake]:
    for place, file in _paths(config, path):
        if not file.is_dir():
            try:
                check_readable(file)
            except ValueError as error:
                problem, _, remedy = str(error).rpartition("; ")
                yield Mistake(report.render(place), problem, remedy)


def _paths(value: Any, path: report.Path) -> Iterator[tuple[report.Path, Path]]:
    """Every path in a source's keys, whatever they are nested in, and its place."""
    if isinstance(value, Path):
        yield path, value
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield from _paths(getattr(value, name), (*path, field.alias or name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _paths(item, (*path, index))


def _duration(seconds: float) -> str:
    return format_duration(seconds) if seconds >= 0.001 else f"{math.ceil(seconds * 1e6)}us"
