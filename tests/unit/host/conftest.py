"""A source type of its own, a registry that has it, and a shorthand that gives the mistakes of a text."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from bridge.contracts import AnySource, ConfigGlob, Duration, PluginContext, Secret, SourceConfig
from bridge.errors import ConfigError, Mistake
from bridge.host.config import parse_config
from bridge.host.plugins import Plugin, Registry

REPOSITORY = Path(__file__).parents[3]

MistakesOf = Callable[..., dict[str, Mistake]]


class Rates(BaseModel, extra="forbid"):
    discover: float = Field(default=100, gt=0, description="Requests per second.")


class SampleConfig(SourceConfig):
    type: Literal["sample"] = Field(description="A sample.")
    paths: tuple[ConfigGlob, ...] = Field(min_length=1, description="What to read.")
    refresh: Duration = Field(default=5.0, description="How often to look.")
    publish: Literal["pod", "node"] = Field(default="pod", description="What to publish.")
    token: Secret | None = Field(default=None, description="Token of the API.")
    rates: Rates = Field(default=Rates(), description="Limits.")
    limits: dict[str, Rates] = Field(default={}, description="Limits by name.")

    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[AnySource]:
        raise NotImplementedError


@pytest.fixture(scope="session")
def sample() -> type[SampleConfig]:
    return SampleConfig


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry.of({"sample": SampleConfig})


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def first_party() -> Registry:
    """What our own distribution declares, whether it is installed or not."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"]["bridge.sources"]
    return Registry(tuple(Plugin("source", name, "envbridge", "0", target) for name, target in sorted(declared.items())))


@pytest.fixture
def mistakes_of(registry: Registry, tmp_path: Path) -> MistakesOf:
    """The mistakes of a text by their path; none where it is a good configuration."""

    def find(text: str, env: Mapping[str, str] | None = None) -> dict[str, Mistake]:
        mistakes: tuple[Mistake, ...] = ()
        try:
            parse_config(text, tmp_path, env or {}, registry=registry)
        except ConfigError as error:
            mistakes = error.mistakes
        found = {mistake.path: mistake for mistake in mistakes}
        assert len(found) == len(mistakes)
        assert all(mistake.message and mistake.remedy for mistake in mistakes)
        return found

    return find
