"""What a daemon can start with, but no one can want: mistakes and notes that only ``envbridge check`` tells.

A running bridge must not stop for them: a file that is gone costs one source, and the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from bridge.contracts import SourceConfig, format_duration
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


def notes(config: BridgeConfig) -> list[str]:
    """What is worth knowing of a configuration without mistakes."""
    told = []
    if not config.sources:
        told.append("sources: there is none, so this bridge observes nothing; name one below `sources:`")
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
