"""The configuration of a ``kubernetes`` source, and how it becomes one."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bridge.aio import import_modules, in_thread
from bridge.contracts import ConfigPath, Duration, PluginContext, SourceConfig
from bridge.errors import TransientError

if TYPE_CHECKING:
    from .source import KubernetesSource

_LOAD_SECONDS = 30.0
_KEEPALIVE = 30
_POOL = 64

NamespaceName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class KubernetesConfig(SourceConfig):
    """Follows EndpointSlices and Services of a Kubernetes cluster."""

    type: Literal["kubernetes"]
    kubeconfig: ConfigPath | None = Field(
        default=None, description="Kubeconfig file. Unset: the Pod's service account, else KUBECONFIG, else ~/.kube/config."
    )
    context: str | None = Field(default=None, description="Context of the kubeconfig. Unset: its current one.")
    namespaces_watched: tuple[NamespaceName, ...] = Field(
        default=(), description="Namespaces to follow, each on its own rights; empty follows all, which needs a ClusterRole."
    )
    label_selector: str | None = Field(
        default=None, description="Label selector on Services and EndpointSlices (these carry their Service's labels)."
    )
    field_selector: str | None = Field(
        default=None, description="Field selector on Services and EndpointSlices, such as metadata.namespace!=kube-system."
    )
    publish: Literal["pod", "cluster-ip", "node-port", "load-balancer"] = Field(
        default="pod", description="What stands for a Service; one Service may say otherwise by annotation."
    )
    nodes: bool = Field(default=False, description="Also follow Nodes, for regions and zones. Implied by `publish: node-port`.")
    request_timeout: Annotated[Duration, Field(gt=0)] = Field(
        default=30.0, description="Deadline of one whole list, all its pages together; a hung server is not a dead one."
    )
    silence_: Annotated[Duration, Field(gt=0)] = Field(
        default=90.0,
        alias="silence",
        description="A watch silent for longer counts as stalled; bookmarks come about once a minute.",
    )

    @property
    def silence(self) -> float:  # type: ignore[override]  # a field of that name would shadow the base's, which pydantic refuses
        """Seconds without a line after which a watch counts as stalled."""
        return self.silence_

    def describe(self) -> dict[str, Any]:
        """What the status shows: the namespaces and the mode."""
        return {"namespaces_watched": list(self.namespaces_watched), "publish": self.publish}

    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[KubernetesSource]:
        """Load configuration and credentials. Raises TransientError where they cannot be read; the server is not asked yet."""
        return self._open(ctx)

    @asynccontextmanager
    async def _open(self, ctx: PluginContext) -> AsyncGenerator[KubernetesSource, None]:
        try:
            await import_modules("kubernetes.client", "kubernetes.config", deadline=_LOAD_SECONDS)
        except TimeoutError as error:
            raise TransientError(f"the client was not imported within {_LOAD_SECONDS:g} s") from error
        from .feed import Deadlines
        from .source import KubernetesSource, Settings
        from .transport import Api

        api = Api(self._load_client)
        try:
            await in_thread(api.prepare, deadline=_LOAD_SECONDS, name="kubernetes credentials")
        except TimeoutError as error:
            raise TransientError(f"no credentials within {_LOAD_SECONDS:g} s") from error
        settings = Settings(
            publish=self.publish,
            nodes=self.nodes or self.publish == "node-port",
            label_selector=self.label_selector,
            field_selector=self.field_selector,
            deadlines=Deadlines(self.request_timeout, self.silence),
        )
        scopes = tuple(dict.fromkeys(self.namespaces_watched)) or ("",)
        try:
            yield KubernetesSource(api, scopes, settings, ctx)
        finally:
            api.close()

    def _load_client(self) -> Any:
        """The SDK's client. Blocks: reads files, runs exec plugins. Raises TransientError, which names no secret."""
        import socket

        import urllib3
        import yaml
        from kubernetes import client, config

        settings = client.Configuration()
        try:
            if not self._load_in_cluster(settings):
                file = str(self.kubeconfig) if self.kubeconfig else None
                config.load_kube_config(file, self.context, client_configuration=settings, persist_config=False)  # type: ignore[no-untyped-call]
        except (config.ConfigException, yaml.YAMLError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            # A YAML error quotes the file, and the SDK's own errors may quote an entry of it: both hold secrets.
            told = isinstance(error, config.ConfigException | OSError)
            reason = str(error).partition("{")[0] if told else type(error).__name__
            raise TransientError(f"the Kubernetes configuration cannot be loaded: {reason}") from None
        if self.ca_file is not None:
            settings.ssl_ca_cert = str(self.ca_file)
        if self.proxy is not None:
            settings.proxy, settings.no_proxy = self.proxy, None
            if (credentials := urllib3.util.parse_url(self.proxy).auth) is not None:
                settings.proxy_headers = urllib3.make_headers(proxy_basic_auth=credentials)
        settings.connection_pool_maxsize = _POOL
        settings.socket_options = [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE),
        ]
        return client.ApiClient(settings)

    def _load_in_cluster(self, settings: Any) -> bool:
        """Take the Pod's service account, where there is one and nothing else was asked for."""
        from kubernetes import config

        if self.kubeconfig is not None or self.context is not None:
            return False
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
        except config.ConfigException:
            return False
        return True
