"""The Cloud Map source over moto's server: wiring, both kinds of namespaces, registration, health, assumed roles."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config

from bridge.errors import ForbiddenError
from bridge.model import Confirmed
from bridge_plugins.sources.cloud_map.source import CloudMapSource
from tests.kit.servers.moto import Moto
from tests.unit.cloud_map.kit import Reader, credentials, opened

_NUMBERS = itertools.count(1)


class Aws:
    """Acts on moto as an owner of services would."""

    def __init__(self, url: str) -> None:
        config = Config(inject_host_prefix=False)
        self.url = url
        self.client: Any = boto3.client("servicediscovery", region_name="eu-west-1", endpoint_url=url, config=config)

    def namespace(self, name: str, *, dns: bool = False) -> str:
        if dns:
            self.client.create_private_dns_namespace(Name=name, Vpc=f"vpc-{next(_NUMBERS)}")
        else:
            self.client.create_http_namespace(Name=name)
        return next(str(space["Id"]) for space in self.client.list_namespaces()["Namespaces"] if space["Name"] == name)

    def service(self, namespace: str, name: str, *, checked: bool = True) -> str:
        check = {"HealthCheckCustomConfig": {"FailureThreshold": 1}} if checked else {}
        return str(self.client.create_service(Name=name, NamespaceId=namespace, **check)["Service"]["Id"])

    def register(self, service: str, instance: str, address: str) -> None:
        attributes = {"AWS_INSTANCE_IPV4": address, "AWS_INSTANCE_PORT": "8080"}
        self.client.register_instance(
            ServiceId=service, InstanceId=instance, CreatorRequestId=str(next(_NUMBERS)), Attributes=attributes
        )

    def deregister(self, service: str, instance: str) -> None:
        self.client.deregister_instance(ServiceId=service, InstanceId=instance)

    def set_health(self, service: str, instance: str, status: str) -> None:
        self.client.update_instance_custom_health_status(ServiceId=service, InstanceId=instance, Status=status)


@pytest.fixture
def aws(moto_server: Moto, monkeypatch: pytest.MonkeyPatch) -> Aws:
    credentials(monkeypatch)
    moto_server.reset()
    return Aws(moto_server.url)


@pytest.fixture
async def source(aws: Aws) -> AsyncIterator[CloudMapSource]:
    async with opened(aws.url) as source:
        yield source


async def polled(source: CloudMapSource, reader: Reader, reached: Callable[[], bool]) -> None:
    """Poll until ``reached``: on a busy machine a look may be late for its poll."""
    for _ in range(20):
        reader.apply(await source.list())
        if reached():
            return
    raise AssertionError(f"not within 20 polls: {reader.instances}")


@pytest.mark.parametrize("dns", [False, True], ids=["http", "private-dns"])
async def test_registration_health_and_deregistration(aws: Aws, source: CloudMapSource, dns: bool) -> None:
    reader = Reader()
    web = aws.service(aws.namespace("shop.local", dns=dns), "web")
    aws.register(web, "i1", "10.0.0.1")
    reader.apply(await source.list())
    instance = reader.instances["web/i1"]
    assert (instance.id, instance.namespace, instance.addresses) == (f"{web}/i1", "shop.local", ("10.0.0.1",))
    assert (instance.ports[0].port, instance.health, instance.region) == (8080, "ready", "eu-west-1")
    aws.register(web, "i2", "10.0.0.2")
    await polled(source, reader, lambda: reader.ids == {"web/i1", "web/i2"})
    aws.set_health(web, "i2", "UNHEALTHY")
    await polled(source, reader, lambda: reader.instances["web/i2"].health == "unready")
    aws.deregister(web, "i1")
    await polled(source, reader, lambda: reader.ids == {"web/i2"})
    assert await source.list() == Confirmed("")


async def test_a_registration_without_checks_is_noticed_by_its_revision(aws: Aws, source: CloudMapSource) -> None:
    reader = Reader()
    web = aws.service(aws.namespace("shop"), "web", checked=False)
    reader.apply(await source.list())
    assert list(reader.groups) == [f"shop/{web}"]
    aws.register(web, "i1", "10.0.0.1")
    reader.apply(await source.list())
    assert reader.ids == {"web/i1"}


async def test_services_of_other_namespaces_stay_theirs(aws: Aws) -> None:
    for name in ("shop", "data"):
        aws.register(aws.service(aws.namespace(name), "web"), name, "10.0.0.1")
    reader = Reader()
    async with opened(aws.url, namespaces_watched=["shop"]) as source:
        reader.apply(await source.list())
    assert reader.ids == {"web/shop"}
    async with opened(aws.url) as source:
        reader.apply(await source.list())
    assert reader.ids == {"web/shop", "web/data"}


async def test_an_instance_registered_twice_is_one(aws: Aws, source: CloudMapSource) -> None:
    reader = Reader()
    web = aws.service(aws.namespace("shop"), "web")
    for address in ("10.0.0.1", "10.0.0.2"):
        aws.register(web, "i1", address)
    reader.apply(await source.list())
    assert reader.instances["web/i1"].addresses == ("10.0.0.2",)


async def test_a_deleted_service_is_gone(aws: Aws, source: CloudMapSource) -> None:
    reader = Reader()
    web = aws.service(aws.namespace("shop"), "web")
    reader.apply(await source.list())
    aws.client.delete_service(Id=web)
    for _ in range(3):
        reader.apply(await source.list())
    assert reader.gone == [f"shop/{web}"]


async def test_no_namespaces_are_an_empty_listing(source: CloudMapSource) -> None:
    reader = Reader()
    reader.apply(await source.list())
    assert (reader.groups, await source.list()) == ({}, Confirmed(""))


async def test_a_role_is_assumed(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto answers AssumeRole of any account, and keeps each account's resources apart."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.url)
    aws.service(aws.namespace("ours"), "web")
    reader = Reader()
    async with opened(aws.url, role_arn="arn:aws:iam::111122223333:role/envbridge") as source:
        reader.apply(await source.list())
        assert reader.groups == {}
    async with opened(aws.url, role_arn="arn:aws:iam::123456789012:role/envbridge") as source:
        reader.apply(await source.list())
        assert [key.partition("/")[0] for key in reader.groups] == ["ours"]


async def test_a_role_needs_credentials_to_be_assumed_with(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ForbiddenError, match="credentials"):
        async with opened(aws.url, role_arn="arn:aws:iam::111122223333:role/envbridge"):
            pass
