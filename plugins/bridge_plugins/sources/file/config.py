"""The configuration of a file source."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from bridge.contracts import ConfigGlob, Duration, PluginContext, SourceConfig
from bridge_plugins.sources.file.source import FileSource


class FileConfig(SourceConfig):
    """Instances written down in YAML or JSON files."""

    type: Literal["file"] = Field(description="Which plugin.")
    paths: tuple[ConfigGlob, ...] = Field(
        min_length=1,
        description="Files, or globs (`*`, `?`, `[..]`, `**`); relative ones start at the configuration's folder.",
    )
    refresh: Duration | None = Field(
        default=5.0,
        gt=0,
        description="How often the files are looked at, besides the system's notifications, which network mounts lack.",
    )

    silence: ClassVar[float | None] = None
    guard_only_when_emptied: ClassVar[bool] = True
    list_deadline: ClassVar[float] = 120.0

    _base: str = PrivateAttr(default="")

    @model_validator(mode="after")
    def _remember_base(self, info: ValidationInfo) -> Self:
        self._base = str((info.context or {}).get("base_dir", ""))
        return self

    @asynccontextmanager
    async def open(self, ctx: PluginContext) -> AsyncIterator[FileSource]:
        """The source. It holds nothing to release: its notifications end with the iteration over them."""
        yield FileSource(self.paths, ctx, deadline=self.list_deadline, base=self._base)

    def describe(self) -> dict[str, Any]:
        """The patterns."""
        return {"paths": list(self.paths)}
