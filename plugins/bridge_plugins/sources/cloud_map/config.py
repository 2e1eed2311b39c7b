"""The configuration of a ``cloud_map`` source, and how it becomes one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from bridge.aio import import_modules, in_thread
from bridge.contracts import Duration, PluginContext, SourceConfig
from bridge.errors import TransientError

if TYPE_CHECKING:
    from bridge_plugins.sources.cloud_map.source import CloudMapSource

_OPEN_DEADLINE = 25.0

NonEmpty = Annotated[str, Field(min_length=1)]


class Rate(BaseModel):
    """Calls per second. The defaults leave most of AWS's quotas (1000 and 3000 a second, for the account) to others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    discover: int = Field(default=100, ge=1, le=1000, description="DiscoverInstances calls a second.")
    revision: int = Field(default=500, ge=1, le=3000, description="DiscoverInstancesRevision calls a second.")


class CloudMapConfig(SourceConfig):
    """Services and instances registered in AWS Cloud Map."""

    type: Literal["cloud_map"] = Field(description="Which plugin.")
    region: NonEmpty | None = Field(default=None, description="AWS region. Unset: the environment's or the profile's.")
    profile: NonEmpty | None = Field(default=None, description="Profile of the AWS configuration files.")
    role_arn: NonEmpty | None = Field(default=None, description="Role to assume first, such as one of another account.")
    endpoint_url: NonEmpty | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Endpoint instead of the region's: a VPC endpoint, or an emulator. Both planes are asked there.",
    )
    namespaces_watched: tuple[NonEmpty, ...] = Field(
        default=(), description="Names of the namespaces to follow; empty follows all, each service of which costs calls."
    )
    refresh: Duration | None = Field(
        default=5.0, gt=0, description="How often each service's revision is asked: how soon registrations are seen."
    )
    health_refresh: Duration = Field(
        default=15.0, gt=0, description="How often services with health checks are discovered: health moves no revision."
    )
    sweep: Duration = Field(default=300.0, gt=0, description="How often every service is discovered, whatever its revision.")
    rate: Rate = Field(default=Rate(), description="The most calls a second; they are spread evenly.")

    silence: ClassVar[float | None] = None
    list_deadline: ClassVar[float] = 60.0

    def describe(self) -> dict[str, Any]:
        """Region and namespaces."""
        return {"region": self.region, "namespaces_watched": list(self.namespaces_watched)}

    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[CloudMapSource]:
        """Load credentials and build the client; Cloud Map is not asked yet. Raises TransientError or ForbiddenError."""
        return self._open(ctx)

    @asynccontextmanager
    async def _open(self, ctx: PluginContext) -> AsyncGenerator[CloudMapSource, None]:
        try:
            await import_modules("boto3", "botocore.session", "botocore.config", "botocore.credentials", deadline=_OPEN_DEADLINE)
        except TimeoutError:
            raise TransientError(f"the AWS client was not imported within {_OPEN_DEADLINE:g} s") from None
        from bridge_plugins.sources.cloud_map.api import Access, connect
        from bridge_plugins.sources.cloud_map.looks import CALLS
        from bridge_plugins.sources.cloud_map.schedule import Intervals
        from bridge_plugins.sources.cloud_map.source import CloudMapSource

        access = Access(
            region=self.region,
            profile=self.profile,
            role_arn=self.role_arn,
            endpoint_url=self.endpoint_url,
            proxy=self.proxy,
            ca_file=str(self.ca_file) if self.ca_file is not None else None,
            connections=CALLS,
        )
        try:
            api = await in_thread(lambda: connect(access), deadline=_OPEN_DEADLINE, name="cloud map credentials")
        except TimeoutError:
            raise TransientError(f"no AWS client within {_OPEN_DEADLINE:g} s") from None
        intervals = Intervals(self.refresh or 5.0, self.health_refresh, self.sweep)
        source = CloudMapSource(
            api, intervals, ctx, watched=self.namespaces_watched, discover=self.rate.discover, revision=self.rate.revision
        )
        try:
            yield source
        finally:
            await source.close()
            api.close()
