"""The configuration of an ``inventory`` source, and how it becomes one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from bridge.contracts import Duration, PluginContext, Secret, SourceConfig

if TYPE_CHECKING:
    from envbridge_inventory.source import InventorySource


class InventoryConfig(SourceConfig):
    """Machines by their roles, as an inventory service lists them."""

    type: Literal["inventory"] = Field(description="Which plugin.")
    url: str = Field(pattern=r"^https?://", description="Where the inventory is, an http or https URL.")
    token: Secret | None = Field(default=None, description="Bearer token; `file:PATH` reads it from a file.")
    timeout: Annotated[Duration, Field(gt=0)] = Field(default=5.0, description="For the whole answer.")

    silence: ClassVar[float | None] = None  # it is asked, it does not tell by itself
    list_deadline: ClassVar[float] = 30.0

    @asynccontextmanager
    async def open(self, ctx: PluginContext) -> AsyncIterator[InventorySource]:
        """The source. What it needs is imported here, so that nobody pays for it who does not configure it."""
        from envbridge_inventory.source import InventorySource

        yield InventorySource(self.url, self.token, self.timeout, ctx)

    def describe(self) -> dict[str, Any]:
        """What `/v1/status` shows besides: never a secret."""
        return {"url": self.url}
