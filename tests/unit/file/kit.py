"""What the tests of the file source share: a clock they own, documents, and a reader that keeps records as the core does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bridge.contracts import PluginContext
from bridge.model import Confirmed, Listing, Observation, ServiceInstance, covers
from bridge_plugins.sources.file.source import FileSource


class FakeClock:
    """Time that passes when told to, or when slept."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def context(clock: Any, known: Callable[[], frozenset[str]] = frozenset) -> PluginContext:
    return PluginContext("eu", "paper", logging.getLogger("test"), clock, lambda event, amount=1: None, known)


def instance(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"w{number}", "address": f"10.0.0.{number}", "ports": {"http": 8080}, **more}


def document(*numbers: int, name: str = "web", **more: Any) -> dict[str, Any]:
    return {"services": [{"name": name, "namespace": "shop", "instances": [instance(n, **more) for n in numbers]}]}


def dump(path: Path, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    return (json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value, sort_keys=False)).encode()


def write(path: Path, value: Any) -> None:
    """In place."""
    path.write_bytes(dump(path, value))


def replace(path: Path, value: Any) -> None:
    """Renamed into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(dump(path, value))
    temporary.replace(path)


class Reader:
    """Lists a source and folds what it says into records, by the rules of the contract; no guard."""

    def __init__(self, *patterns: Path | str) -> None:
        self.clock = FakeClock()
        self.groups: dict[str, dict[str, ServiceInstance]] = {}
        self._told: set[str] = set()  # groups as they are
        self.restart(*patterns)
        self.unknown: dict[str, str] = {}
        self._rejected: dict[str, dict[str, str]] = {}  # by the scope of the listing that said so
        self.events: tuple[Any, ...] = ()

    def restart(self, *patterns: Path | str) -> None:
        """Another source over the same records, which it may ask for."""
        known = context(self.clock, lambda: frozenset(self.groups))
        self.source = FileSource([str(p) for p in patterns], known, deadline=30.0)
        self.lists = 0
        self._told = set()

    async def list(self) -> Observation:
        told = await self.source.list()
        self.events = told if isinstance(told, tuple) else (told,)
        assert self.lists or (isinstance(told, Listing) and told.scope == ""), "the first is a complete listing"
        self.lists += 1
        for event in self.events:
            assert isinstance(event, (Listing, Confirmed))
            if isinstance(event, Listing):
                self._fold(event)
        return told

    async def settled(self) -> None:
        """List until what changed was at rest for long enough to be read."""
        await self.list()
        self.clock.now += 0.3
        await self.list()

    def _fold(self, event: Listing) -> None:
        for key in [key for key in self.unknown if covers(event.scope, key)]:
            del self.unknown[key]
        self.unknown |= {key: str(error) for key, error in event.unknown.items()}
        for scope in [scope for scope in self._rejected if covers(event.scope, scope)]:
            del self._rejected[scope]
        self._rejected[event.scope] = dict(event.rejected)
        kept = [*event.unknown, *event.rejected]
        shown = {group.key: {i.id: i for i in group.instances} for group in event.groups}
        assert all(covers(event.scope, key) for key in (*shown, *event.unchanged, *event.unknown))
        assert set(event.unchanged) <= self._told, "unchanged is only what was told, and not called unknown since"
        self._told -= {key for key in self._told if covers(event.scope, key)} - set(event.unchanged)
        self._told |= shown.keys()
        for key in [key for key in self.groups if covers(event.scope, key) and key not in event.unchanged]:
            lacks_are_kept = any(covers(k, key) or covers(key, k) for k in kept)
            old = {i: r for i, r in self.groups[key].items() if lacks_are_kept or i in kept}
            self.groups[key] = old | shown.pop(key, {})
            if not self.groups[key]:
                del self.groups[key]
        self.groups |= shown

    @property
    def rejected(self) -> dict[str, str]:
        return {key: reason for rejected in self._rejected.values() for key, reason in rejected.items()}

    @property
    def records(self) -> dict[str, ServiceInstance]:
        return {i: record for group in self.groups.values() for i, record in group.items()}

    @property
    def ids(self) -> set[str]:
        """Ids without namespace and service."""
        return {i.rpartition("/")[2] for i in self.records}

    @property
    def quiet(self) -> bool:
        """Whether the last list told nothing new and nothing wrong."""
        return self.events == (Confirmed(),)
