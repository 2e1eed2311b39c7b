"""The Cloud Map source passes the suite for sources on moto's server, which knows the API's shapes but hides its rough edges."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from bridge.contracts import SourceConfig
from bridge.model import ServiceName
from bridge.testing import OutageConformance, PollSourceConformance
from bridge_plugins.sources.cloud_map.config import CloudMapConfig
from tests.kit.proxy import Mode, Proxy
from tests.kit.servers.moto import Moto

REGION = "eu-west-1"


class Namespace:
    """One HTTP namespace. moto ignores custom health, so there is none here."""

    deadline = 15.0

    def __init__(self, moto: Moto, proxy: Proxy, outage: Mode) -> None:
        self._moto = moto
        self._proxy = proxy
        self._outage = outage
        self._services: dict[ServiceName, str] = {}
        self._client = boto3.Session("test", "test", region_name=REGION).client(
            "servicediscovery", endpoint_url=moto.url, config=Config(inject_host_prefix=False)
        )
        self._client.create_http_namespace(Name="conformance")
        self._namespace = self._client.list_namespaces()["Namespaces"][0]["Id"]

    def close(self) -> None:
        self._client.close()
        self._moto.reset()  # others of this run share the server

    def config(self) -> SourceConfig:
        return CloudMapConfig(
            type="cloud_map",
            region=REGION,
            endpoint_url=f"http://127.0.0.1:{self._proxy.port}",
            refresh=0.5,
            health_refresh=0.5,
            sweep=1.0,
        )

    async def add(self, service: ServiceName, name: str) -> str:
        if service not in self._services:
            made = await self._do(self._client.create_service, Name=service.name, NamespaceId=self._namespace)
            self._services[service] = made["Service"]["Id"]
        # A registration without a check has the health `unknown`; the suite wants to see one that is ready.
        attributes = {"AWS_INSTANCE_IPV4": "192.0.2.1", "AWS_INSTANCE_PORT": "8080"}
        id_ = self._services[service]
        await self._do(self._client.register_instance, ServiceId=id_, InstanceId=name, Attributes=attributes)
        return f"{id_}/{name}"

    async def remove(self, service: ServiceName, name: str) -> None:
        await self._do(self._client.deregister_instance, ServiceId=self._services[service], InstanceId=name)

    async def fail(self) -> None:
        self._proxy.set(self._outage)

    async def mend(self) -> None:
        self._proxy.set("pass")

    async def _do(self, function: Callable[..., Any], **arguments: Any) -> Any:
        return await asyncio.to_thread(function, **arguments)


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)


@contextmanager
def namespace(moto: Moto, outage: Mode) -> Iterator[Namespace]:
    moto.reset()
    with Proxy(urlsplit(moto.url).port or 0) as proxy:
        world = Namespace(moto, proxy, outage)
        yield world
        world.close()


class TestCloudMap(PollSourceConformance):
    """The whole suite; connections are refused when it fails."""

    @pytest.fixture
    def world(self, moto_server: Moto) -> Iterator[Namespace]:
        with namespace(moto_server, "refuse") as world:
            yield world


class TestSilence(OutageConformance):
    """Connections stay open and nothing answers any more."""

    @pytest.fixture
    def world(self, moto_server: Moto) -> Iterator[Namespace]:
        with namespace(moto_server, "hang") as world:
            yield world
