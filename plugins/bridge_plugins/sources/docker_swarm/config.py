"""The configuration of a ``docker_swarm`` source, and how it becomes one."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bridge.aio import import_modules, in_thread
from bridge.contracts import ConfigPath, Duration, PluginContext, SourceConfig
from bridge.errors import TransientError

if TYPE_CHECKING:
    from .api import Manager
    from .source import DockerSwarmSource

_OPEN_SECONDS = 10.0
_IMPORT_SECONDS = 20.0
_CLIENT_VERSION = "1.41"
_HOST = re.compile(r"unix:///[^\s?#]+|(?:tcp|https)://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


def _check_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("is no address of a manager; Write unix:///PATH, tcp://HOST:PORT or https://HOST:PORT.")
    return value


class TlsFiles(BaseModel):
    """TLS towards managers: the authority to trust, and the certificate to show."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ca_file: ConfigPath | None = Field(
        default=None, description="PEM file with the authorities that sign the managers' certificates."
    )
    cert_file: ConfigPath | None = Field(default=None, description="PEM file with the client certificate.")
    key_file: ConfigPath | None = Field(default=None, description="PEM file with its private key, without a passphrase.")

    @model_validator(mode="after")
    def _check_pair(self) -> TlsFiles:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("`cert_file` and `key_file` belong together; Give both, or neither.")
        return self


class DockerSwarmConfig(SourceConfig):
    """Lists services and tasks of a Docker Swarm."""

    type: Literal["docker_swarm"] = Field(description="Which plugin.")
    hosts: tuple[Annotated[str, AfterValidator(_check_host)], ...] = Field(
        default=("unix:///var/run/docker.sock",),
        min_length=1,
        description="Managers of one Swarm (workers cannot tell), tried in turn: unix:///PATH, tcp://HOST:PORT, https://HOST:PORT.",
    )
    tls: TlsFiles | None = Field(default=None, description="TLS for tcp:// hosts; without it they are spoken to in plain text.")
    publish: Literal["host", "task-overlay", "ingress", "vip"] = Field(
        default="host",
        description="What stands for a service: its tasks at their nodes' published ports, its tasks inside an overlay network, "
        "each node of the routing mesh, or its virtual IP. One service may say otherwise by label.",
    )
    network: str | None = Field(
        default=None,
        min_length=1,
        description="Overlay network (name or id) whose addresses count, where a service is attached to several.",
    )
    refresh: Duration | None = Field(
        default=5.0, gt=0, description="Poll interval; events, and anything under way, bring polls forward."
    )
    label_prefix: str = Field(
        default="envbridge.", min_length=1, description="Labels that begin like this say something to this source."
    )

    silence: ClassVar[float | None] = None
    list_deadline: ClassVar[float] = 15.0

    def describe(self) -> dict[str, Any]:
        """What the status shows: the managers and the mode."""
        return {"hosts": list(self.hosts), "publish": self.publish}

    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[DockerSwarmSource]:
        """Build a client for each manager. Raises TransientError where files cannot be read; no manager is asked yet."""
        return self._open(ctx)

    @asynccontextmanager
    async def _open(self, ctx: PluginContext) -> AsyncGenerator[DockerSwarmSource, None]:
        from .policy import Settings
        from .source import DockerSwarmSource

        try:
            await import_modules("docker", deadline=_IMPORT_SECONDS)
        except TimeoutError as error:
            raise TransientError(f"the client was not imported within {_IMPORT_SECONDS:g} s") from error
        try:
            managers = await in_thread(self._connect, deadline=_OPEN_SECONDS, name="swarm clients")
        except TimeoutError as error:
            raise TransientError(f"no client could be built within {_OPEN_SECONDS:g} s") from error
        try:
            yield DockerSwarmSource(managers, Settings(self.publish, self.network, self.label_prefix), ctx)
        finally:
            for manager in managers:
                manager.close()

    def _connect(self) -> list[Manager]:
        """A client per host; reads files, opens no connection. Raises TransientError."""
        import docker

        from .api import CONNECT_TIMEOUT, Manager
        from .unix import UnixAdapter

        ca_file = str(self.tls.ca_file) if self.tls and self.tls.ca_file else str(self.ca_file) if self.ca_file else None
        pair = (str(self.tls.cert_file), str(self.tls.key_file)) if self.tls and self.tls.cert_file else None
        managers = []
        for host in self.hosts:
            secure = host.startswith("https:") or (self.tls is not None and host.startswith("tcp:"))
            try:
                tls = docker.tls.TLSConfig(client_cert=pair, ca_cert=ca_file, verify=True) if secure else False
                # Version "auto" would connect here, before proxy and deadline are set: `Manager` asks for it.
                client = docker.APIClient(host, version=_CLIENT_VERSION, timeout=CONNECT_TIMEOUT, tls=tls)
            except (docker.errors.DockerException, OSError, ValueError) as error:
                raise TransientError(f"{host}: the client cannot be built: {error}") from None
            # Neither proxies nor passwords from the process's surroundings; only what is configured.
            client.trust_env = False
            client.proxies = {"http": self.proxy, "https": self.proxy} if self.proxy else {}
            if host.startswith("unix:"):
                client.mount("http+docker://", UnixAdapter(host.removeprefix("unix://"), CONNECT_TIMEOUT))
            managers.append(Manager(host, client))
        return managers
