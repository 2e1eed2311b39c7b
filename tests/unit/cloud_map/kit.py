"""What the tests of the Cloud Map source share: a source over an endpoint, and a reader that keeps what it is told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.aio import SystemClock
from bridge.contracts import PluginContext
from bridge.errors import SourceError
from bridge.model import Confirmed, InstanceGroup, Listing, Observation, ServiceInstance, covers
from bridge_plugins.sources.cloud_map.config import CloudMapConfig
from bridge_plugins.sources.cloud_map.source import CloudMapSource


def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of nobody, and no settings of whoever runs the tests."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)


def context() -> PluginContext:
    return PluginContext("eu", "aws", logging.getLogger("test"), SystemClock(), lambda event, amount=1: None)


def config(url: str, **keys: Any) -> CloudMapConfig:
    settings = {"type": "cloud_map", "region": "eu-west-1", "endpoint_url": url, "refresh": "100ms", "health_refresh": "100ms"}
    return CloudMapConfig.model_validate(settings | keys)


@asynccontextmanager
async def opened(url: str, **keys: Any) -> AsyncIterator[CloudMapSource]:
    async with config(url, **keys).open(context()) as source:
        yield source


class Reader:
    """Keeps groups as the contract says: what is unknown or rejected stays."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, ServiceInstance]] = {}
        self.unknown: dict[str, SourceError] = {}
        self.rejected: dict[str, str] = {}
        self.gone: list[str] = []

    @property
    def ids(self) -> set[str]:
        """Instances, as ``<service name>/<InstanceId>``."""
        return {f"{i.service}/{i.id.split('/', 1)[1]}" for group in self.groups.values() for i in group.values()}

    @property
    def instances(self) -> dict[str, ServiceInstance]:
        """Instances by that name."""
        return {f"{i.service}/{i.id.split('/', 1)[1]}": i for group in self.groups.values() for i in group.values()}

    def apply(self, observation: Observation) -> None:
        """Take in what a poll returned."""
        for event in observation if isinstance(observation, tuple) else (observation,):
            assert isinstance(event, Listing | Confirmed)
            if isinstance(event, Listing):
                self._listing(event)

    def _listing(self, event: Listing) -> None:
        for key in event.unchanged:
            assert key in self.groups
        self.unknown = {key: error for key, error in self.unknown.items() if not covers(event.scope, key)} | dict(event.unknown)
        self.rejected = {
            key: why for key, why in self.rejected.items() if not covers(event.scope, key.partition("/Instances")[0])
        } | dict(event.rejected)
        self.gone += event.gone
        present = {group.key for group in event.groups} | set(event.unchanged)
        for key in [key for key in self.groups if covers(event.scope, key) and key not in present]:
            if key in event.gone or not any(covers(part, key) for part in (*event.unknown, *event.rejected)):
                del self.groups[key]
        for group in event.groups:
            self._put(group, event)

    def _put(self, group: InstanceGroup, event: Listing) -> None:
        unsure = any(covers(part, group.key) for part in event.unknown) or any(covers(group.key, part) for part in event.rejected)
        kept = {id_: old for id_, old in self.groups.get(group.key, {}).items() if unsure or id_ in event.rejected}
        self.groups[group.key] = kept | {instance.id: instance for instance in group.instances}
