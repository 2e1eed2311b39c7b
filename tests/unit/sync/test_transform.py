"""What stands between a source and its partition: names, filters, labels, addresses."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import pytest

from bridge.contracts import AnySource, PluginContext, SourceConfig
from bridge.model import Port, ServiceInstance, ServiceName
from bridge.sync.transform import Transform, UnfitError


class PlainConfig(SourceConfig):
    type: Literal["plain"] = "plain"

    def open(self, ctx: PluginContext) -> AbstractAsyncContextManager[AnySource]:
        raise NotImplementedError


def transform(**config: Any) -> Transform:
    return Transform(PlainConfig.model_validate(config), "eu", "main")


def instance(**fields: Any) -> ServiceInstance:
    return ServiceInstance(**({"id": "shop/web/1", "namespace": "shop", "service": "web"} | fields))


def rule(from_: str, match: str, to: str, value: str) -> dict[str, Any]:
    return {"relabel": [{"from": from_, "match": match, "to": to, "value": value}]}


def test_it_stamps_where_an_instance_comes_from_and_leaves_the_rest() -> None:
    raw = instance(tags=("v1",), meta={"a": "b"}, addresses=("10.0.0.1",))
    stamped = transform().apply(raw)
    assert stamped is not None
    assert (stamped.environment, stamped.source, stamped.id) == ("eu", "main", "shop/web/1")
    assert (stamped.tags, stamped.meta, stamped.addresses) == (raw.tags, raw.meta, raw.addresses)


NAMES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str]]] = {
    "as they are": ({}, {}, ("shop", "web")),
    "a namespace from the table": ({"namespaces": {"shop": "store"}}, {}, ("store", "web")),
    "another namespace is left": ({"namespaces": {"pay": "store"}}, {}, ("shop", "web")),
    "templates": ({"naming": {"namespace": "x-{namespace}", "name": "{namespace}.{name}"}}, {}, ("x-shop", "shop.web")),
    "the table comes first": ({"namespaces": {"shop": "s"}, "naming": {"name": "{namespace}-{name}"}}, {}, ("s", "s-web")),
    "a template filled once only": ({"naming": {"name": "{name}"}}, {"service": "{namespace}"}, ("shop", "{namespace}")),
    "relabelled from meta": (rule("{meta.role}", "(.+)", "name", r"\1"), {"meta": {"role": "api"}}, ("shop", "api")),
    "a rule that does not fit": (rule("{meta.role}", "(.+)", "name", r"\1"), {}, ("shop", "web")),
    "a match is of the whole": (rule("{name}", "we", "name", "x"), {}, ("shop", "web")),
    "relabelling sees the new names": (
        {"namespaces": {"shop": "s"}, **rule("{namespace}", "s", "namespace", "t")},
        {},
        ("t", "web"),
    ),
}


@pytest.mark.parametrize(("config", "fields", "name"), NAMES.values(), ids=NAMES)
def test_names(config: dict[str, Any], fields: dict[str, Any], name: tuple[str, str]) -> None:
    result = transform(**config).apply(instance(**fields))
    assert result is not None
    assert (result.namespace, result.service) == name


def test_rules_apply_in_order_and_see_what_was_set() -> None:
    config = {
        "relabel": [
            {"from": "{meta.a}", "match": "(.*)", "to": "meta.b", "value": r"\1!"},
            {"from": "{meta.b}-{zone}", "match": "(.*)", "to": "tag", "value": r"\1"},
            {"from": "{zone}", "match": "z", "to": "zone", "value": "y"},
            {"from": "{zone}", "match": "y", "to": "weight", "value": "7"},
        ]
    }
    result = transform(**config).apply(instance(meta={"a": "1"}, zone="z", tags=("t",)))
    assert result is not None
    assert (result.meta, result.tags, result.zone, result.weight) == ({"a": "1", "b": "1!"}, ("t", "1!-z"), "y", 7)


DROPS: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "included": ({"include": ["shop/*"]}, {}, True),
    "not included": ({"include": ["pay/*"]}, {}, False),
    "one of several": ({"include": ["pay/*", "*/web"]}, {}, True),
    "excluded": ({"exclude": ["*/w?b"]}, {}, False),
    "excluded though included": ({"include": ["*"], "exclude": ["shop/web"]}, {}, False),
    "filters see the resulting name": ({"namespaces": {"shop": "s"}, "include": ["s/web"]}, {}, True),
    "keep, and it fits": ({"relabel": [{"from": "{zone}", "match": "z1", "action": "keep"}]}, {"zone": "z1"}, True),
    "keep, and it does not": ({"relabel": [{"from": "{zone}", "match": "z1", "action": "keep"}]}, {}, False),
    "drop": ({"relabel": [{"from": "{meta.env}", "match": "test", "action": "drop"}]}, {"meta": {"env": "test"}}, False),
    "drop, and it does not fit": ({"relabel": [{"from": "{meta.env}", "match": "test", "action": "drop"}]}, {}, True),
}


@pytest.mark.parametrize(("config", "fields", "stays"), DROPS.values(), ids=DROPS)
def test_what_stays(config: dict[str, Any], fields: dict[str, Any], stays: bool) -> None:
    assert (transform(**config).apply(instance(**fields)) is not None) is stays


def test_tags_and_meta_are_added_and_its_own_win() -> None:
    result = transform(tags=["v1", "x"], meta={"a": "ours", "b": "ours"}).apply(instance(tags=("v1",), meta={"a": "own"}))
    assert result is not None
    assert (result.tags, result.meta) == (("v1", "x"), {"a": "own", "b": "ours"})


ADDRESSES = {
    "ordered by network": (["10.1.0.0/16", "10.0.0.0/8"], ["10.0.0.1", "10.1.0.1"], ("10.1.0.1", "10.0.0.1")),
    "the rest goes": (["10.0.0.0/8"], ["192.0.2.1", "10.0.0.1", "fd00::1"], ("10.0.0.1",)),
    "in their order inside one": (["0.0.0.0/0"], ["10.0.0.2", "10.0.0.1"], ("10.0.0.2", "10.0.0.1")),
    "IPv6": (["fd00::/8"], ["10.0.0.1", "fd00::1"], ("fd00::1",)),
    "what is no address goes": (["10.0.0.0/8"], ["host", "10.0.0.1"], ("10.0.0.1",)),
}


@pytest.mark.parametrize(("networks", "given_", "chosen"), ADDRESSES.values(), ids=ADDRESSES)
def test_addresses(networks: list[str], given_: list[str], chosen: tuple[str, ...]) -> None:
    result = transform(networks=networks).apply(instance(addresses=tuple(given_)))
    assert result is not None
    assert result.addresses == chosen


UNFIT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no address in the networks": ({"networks": ["10.0.0.0/8"]}, {"addresses": ("192.0.2.1",)}, "192.0.2.1"),
    "no address at all": ({"networks": ["10.0.0.0/8"]}, {}, "none"),
    "a slash in the name": ({}, {"service": "a/b"}, "`/`"),
    "an empty namespace": ({}, {"namespace": ""}, "empty"),
    "a control character": ({}, {"service": "a\x00"}, "control characters"),
    "a name too long": ({}, {"service": "é" * 128}, "at most 255 bytes"),
    "a name emptied by a rule": (rule("{name}", ".*", "name", ""), {}, "empty"),
    "no id": ({}, {"id": ""}, "id is empty"),
    "an id too long": ({}, {"id": "x" * 2049}, "longer than 2048"),
    "a control character in the id": ({}, {"id": "a\nb"}, "cannot be shown"),
    "an address that is none": ({}, {"addresses": ("10.0.0.1", "10.0.0.256")}, "'10.0.0.256' is none"),
    "a scope that starts a line": ({}, {"addresses": ("fe80::1%\n",)}, "is none"),
    "too many addresses": ({}, {"addresses": ("10.0.0.1",) * 257}, "more than 256"),
    "a host name too long": ({}, {"hostname": "x" * 256}, "host name"),
    "a zone with an escape": ({}, {"zone": "\x1b[2J"}, "zone"),
    "a port out of range": ({}, {"ports": (Port("http", 65536),)}, "65536"),
    "a protocol nobody knows": ({}, {"ports": (Port("http", 80, "ICMP"),)}, "ICMP"),
    "a port name that starts a line": ({}, {"ports": (Port("a\n", 80),)}, "port's name"),
    "meta that no encoding carries": ({}, {"meta": {"a": "\ud800"}}, "Unicode"),
    "a record that is too large": ({}, {"meta": {str(n): "x" * 1024 for n in range(16)}}, "more than 16384"),
    "no Unicode": ({}, {"service": "\ud800"}, "Unicode"),
    "too many tags": ({}, {"tags": tuple(map(str, range(65)))}, "more than 64"),
    "too much meta": ({}, {"meta": {str(n): "" for n in range(65)}}, "more than 64"),
    "a long value": ({}, {"meta": {"a": "x" * 1025}}, "longer than 1024"),
    "a negative weight": ({}, {"weight": -1}, "not between 0"),
    "a weight that is none": (rule("{zone}", "(.*)", "weight", r"\1"), {"zone": "z"}, "no whole number"),
}


@pytest.mark.parametrize(("config", "fields", "says"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_taken_says_why(config: dict[str, Any], fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UnfitError, match=says):
        transform(**config).apply(instance(**fields))


SERVICES: dict[str, tuple[dict[str, Any], tuple[str, str], tuple[str, str] | None]] = {
    "as it is": ({}, ("shop", "web"), ("shop", "web")),
    "renamed": ({"namespaces": {"shop": "s"}, "naming": {"name": "x-{name}"}}, ("shop", "web"), ("s", "x-web")),
    "relabelled by its names": (rule("{name}", "web", "name", "www"), ("shop", "web"), ("shop", "www")),
    "rules on instances leave it": (rule("{meta.role}", ".*", "name", "www"), ("shop", "web"), ("shop", "web")),
    "filtered out": ({"exclude": ["shop/*"]}, ("shop", "web"), None),
    "dropped": ({"relabel": [{"from": "{name}", "match": "web", "action": "drop"}]}, ("shop", "web"), None),
    "no name": ({}, ("shop", "a/b"), None),
}


@pytest.mark.parametrize(("config", "name", "result"), SERVICES.values(), ids=SERVICES)
def test_a_service_without_instances(config: dict[str, Any], name: tuple[str, str], result: tuple[str, str] | None) -> None:
    assert transform(**config).service(ServiceName(*name)) == (ServiceName(*result) if result else None)
