"""From a document to groups: every field, every mistake, and what a mistake costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import Port, ServiceInstance, ServiceName
from bridge_plugins.sources.file.document import DocumentError, parse
from bridge_plugins.sources.file.mapping import Mapped, map_document

FILE = "/etc/shop.yaml"
GROUP = f"{FILE}/shop/web"


def load(text: str) -> Mapped:
    return map_document(parse(text.encode(), is_json=False), FILE)


def load_service(service: str) -> Mapped:
    """One entry of `services`, written in flow style."""
    return load(f"services: [{service}]")


def load_instance(fields: str) -> Mapped:
    """One instance of shop/web."""
    return load_service(f"{{name: web, namespace: shop, instances: [{{{fields}}}]}}")


def only(mapped: Mapped) -> ServiceInstance:
    assert not mapped.rejected
    ((instance,),) = [group.instances for group in mapped.groups]
    return instance


WHOLE = """
services:
  - name: web
    namespace: shop
    tags: [public]
    instances:
      - id: web-1
        address: 10.0.0.1
        ports: {http: 8080, admin: {port: 9000, protocol: udp, app_protocol: http}}
        health: unready
        lifecycle: draining
        weight: 3
        zone: eu-west-1a
        region: eu-west-1
        node: n1
        tags: [v2]
        meta: {team: checkout}
"""


def test_every_field_arrives() -> None:
    mapped = load(WHOLE)
    assert [(group.key, group.services) for group in mapped.groups] == [(GROUP, (ServiceName("shop", "web"),))]
    assert only(mapped) == ServiceInstance(
        id="shop/web/web-1",
        namespace="shop",
        service="web",
        addresses=("10.0.0.1",),
        ports=(Port("http", 8080), Port("admin", 9000, "UDP", "http")),
        health="unready",
        lifecycle="draining",
        weight=3,
        region="eu-west-1",
        zone="eu-west-1a",
        node="n1",
        tags=("public", "v2"),
        meta={"team": "checkout"},
    )


def test_what_is_left_out_has_its_default() -> None:
    (group,) = load_service("{name: web, instances: [{address: 10.0.0.1}]}").groups
    assert group.key == f"{FILE}/default/web"
    assert group.instances == (
        ServiceInstance(id="default/web/10.0.0.1", namespace="default", service="web", addresses=("10.0.0.1",)),
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("address: 10.0.0.1, ports: {http: 8080, admin: 9000}", "10.0.0.1:8080"),
        ("address: 'FD00::1', ports: {http: 8080}", "fd00::1:8080"),
        ("addresses: [10.0.0.2, 10.0.0.1]", "10.0.0.2"),
        ("hostname: web.example.org, ports: {http: 80}", "web.example.org:80"),
        ("id: a b, address: 10.0.0.1", "a b"),
        ("id: 'Ä', address: 10.0.0.1", "Ä"),
    ],
)
def test_the_id_is_given_or_derived(fields: str, expected: str) -> None:
    assert only(load_instance(fields)).id == f"shop/web/{expected}"


@pytest.mark.parametrize(
    ("fields", "attribute", "expected"),
    [
        ("addresses: [10.0.0.1, 'fd00::0001', 10.0.0.1]", "addresses", ("10.0.0.1", "fd00::1")),
        ("hostname: web_1.example.org., address: 10.0.0.1", "hostname", "web_1.example.org."),
        (
            "tags: [1.10, true, False, x, x, 0x1F, 'no', no], address: 10.0.0.1",
            "tags",
            ("1.10", "true", "false", "x", "0x1F", "no"),
        ),
        (
            "meta: {a: 1.10, b: true, c: FALSE, d: '', 8: x, e: 1e3}, address: 10.0.0.1",
            "meta",
            {"a": "1.10", "b": "true", "c": "false", "d": "", "8": "x", "e": "1e3"},
        ),
        ("weight: 0, address: 10.0.0.1", "weight", 0),
        ("health: unknown, address: 10.0.0.1", "health", "unknown"),
        ("zone: no, address: 10.0.0.1", "zone", "no"),
        ("zone: ~, region: ~, node: ~, tags: ~, meta: ~, hostname: ~, addresses: ~, address: 10.0.0.1", "zone", None),
        ("ports: {}, address: 10.0.0.1", "ports", ()),
        ("ports: {x: {port: 65535, protocol: Sctp, app_protocol: ~}}, address: 10.0.0.1", "ports", (Port("x", 65535, "SCTP"),)),
    ],
)
def test_values_are_taken(fields: str, attribute: str, expected: Any) -> None:
    assert getattr(only(load_instance(f"id: a, {fields}")), attribute) == expected


def test_text_of_numbers_is_text() -> None:
    instance = only(load_instance("id: a, address: 10.0.0.1, tags: [5], meta: {k: 5}"))
    assert [type(text) for text in (*instance.tags, *instance.meta.values())] == [str, str]


LONG = "x" * 256


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("address: 10.0.0.300", ".address: must be an IPv4 or IPv6 address, is '10.0.0.300'"),
        ("address: 10", ".address: must be an IPv4"),
        ("address: 'fe80::1%eth0'", ".address: an address with a zone"),
        ("addresses: [10.0.0.1, x]", ".addresses[1]: must be an IPv4"),
        ("addresses: 10.0.0.1", ".addresses: must be a list"),
        ("addresses: []", ": has no `address`, no `addresses` and no `hostname`"),
        ("zone: z", ": has no `address`, no `addresses` and no `hostname`"),
        ("address: 10.0.0.1, addresses: [10.0.0.1]", ": has both"),
        ("hostname: 10.0.0.300", ".hostname: must be a host name"),
        ("hostname: 'a b'", ".hostname: must be a host name"),
        ("hostname: -a.example.org", ".hostname: must be a host name"),
        ("hostname: a..b", ".hostname: must be a host name"),
        ("address: 10.0.0.1, ports: {http: not a port}", ".ports.http: must be a whole number from 1 to 65535, is 'not a port'"),
        ("address: 10.0.0.1, ports: {http: 0}", ".ports.http: must be"),
        ("address: 10.0.0.1, ports: {http: 65536}", ".ports.http: must be"),
        ("address: 10.0.0.1, ports: {http: -1}", ".ports.http: must be"),
        ("address: 10.0.0.1, ports: {http: 80.0}", ".ports.http: must be"),
        ("address: 10.0.0.1, ports: {http: '80'}", ".ports.http: must be"),
        ("address: 10.0.0.1, ports: {http: true}", ".ports.http: must be"),
        ("address: 10.0.0.1, ports: {http: }", ".ports.http: must be a whole number from 1 to 65535, is missing"),
        ("address: 10.0.0.1, ports: {http: {}}", ".ports.http.port: must be"),
        ("address: 10.0.0.1, ports: {http: {port: 1, protocol: icmp}}", ".ports.http.protocol: must be TCP or UDP or SCTP"),
        ("address: 10.0.0.1, ports: {http: {port: 1, proto: tcp}}", ".ports.http: unknown key 'proto', did you mean `protocol`?"),
        ("address: 10.0.0.1, ports: {http: {port: 1, app_protocol: 5}}", ".ports.http.app_protocol: must be text"),
        ("address: 10.0.0.1, ports: {'a b': 0}", ".ports['a b']: must be"),
        ("address: 10.0.0.1, ports: [80]", ".ports: must be a mapping"),
        ("address: 10.0.0.1, ports: ~", ".ports: must be a mapping, is missing"),
        ("address: 10.0.0.1, health: good", ".health: must be ready or unready or unknown, is 'good'"),
        ("address: 10.0.0.1, health: ~", ".health: must be"),
        ("address: 10.0.0.1, lifecycle: gone", ".lifecycle: must be active or draining, is 'gone'"),
        ("address: 10.0.0.1, weight: -1", ".weight: must be a whole number"),
        ("address: 10.0.0.1, weight: 1.5", ".weight: must be a whole number"),
        ("address: 10.0.0.1, weight: '1'", ".weight: must be a whole number"),
        ("address: 10.0.0.1, weight: 99999999999", ".weight: must be a whole number"),
        ("address: 10.0.0.1, zone: 5", ".zone: must be text, is the number 5; in quotes"),
        ("address: 10.0.0.1, zone: ''", ".zone: is empty"),
        ("address: 10.0.0.1, node: [n]", ".node: must be text, is a list"),
        (f"address: 10.0.0.1, region: {LONG}", ".region: is longer than 255 bytes"),
        ('address: 10.0.0.1, node: "a\\nb"', ".node: has a control character"),
        ("address: 10.0.0.1, tags: x", ".tags: must be a list"),
        ("address: 10.0.0.1, tags: [a, ~]", ".tags[1]: must be text, is missing"),
        ("address: 10.0.0.1, tags: [{a: b}]", ".tags[0]: must be text"),
        ("address: 10.0.0.1, meta: [a]", ".meta: must be a mapping"),
        ("address: 10.0.0.1, meta: {team: ~}", ".meta.team: must be text"),
        ("address: 10.0.0.1, meta: {team: {}}", ".meta.team: must be text"),
        ("address: 10.0.0.1, meta: {'': x}", ".meta['']: is empty"),
        ("address: 10.0.0.1, adress: x", ": unknown key 'adress', did you mean `address`?"),
        ("adress: 10.0.0.1", ": unknown key 'adress', did you mean `address`?"),
        ("hostnam: a.example.org, ports: {http: x}", ": unknown key 'hostnam', did you mean `hostname`?"),
        ("colour: red, address: x", ": unknown key 'colour'"),
    ],
)
def test_a_bad_instance_is_named_and_keeps_its_record(fields: str, told: str) -> None:
    mapped = load_service(f"{{name: web, namespace: shop, instances: [{{id: ok, address: 10.0.0.9}}, {{id: bad, {fields}}}]}}")
    assert mapped.rejected.keys() == {"shop/web/bad"}
    assert mapped.rejected["shop/web/bad"].startswith(f"services[0].instances[1]{told}")
    assert [instance.id for instance in mapped.groups[0].instances] == ["shop/web/ok"]


@pytest.mark.parametrize(
    ("instance", "told"),
    [
        ("{id: 7, address: 10.0.0.1}", ".id: must be text, is the number 7"),
        ("{id: ~, address: 10.0.0.1}", ".id: must be text, is missing"),
        ("{id: '', address: 10.0.0.1}", ".id: is empty"),
        ("{id: a/b, address: 10.0.0.1}", ".id: a name has no `/`"),
        ("{id: [a], address: 10.0.0.1}", ".id: must be text"),
        ("{address: nonsense}", ".address: must be an IPv4"),
        ("{address: 10.0.0.1, ports: {http: x}}", ".ports.http: must be"),
        ("{idd: one, address: 10.0.0.1}", ": unknown key 'idd', did you mean `id`?"),
        ("{zone: a}", ": has no `address`"),
        ("~", ": must be a mapping, is missing"),
        ("text", ": must be a mapping, is 'text'"),
        ("{id: ok, address: 10.0.0.1}", ".id: 'ok' stands twice in shop/web"),
    ],
)
def test_an_instance_whose_id_is_unreadable_keeps_what_its_group_lacks(instance: str, told: str) -> None:
    mapped = load_service(f"{{name: web, namespace: shop, instances: [{{id: ok, address: 10.0.0.9}}, {instance}]}}")
    assert mapped.rejected.keys() == {f"{GROUP}/services[0].instances[1]"}
    assert mapped.rejected.popitem()[1].startswith(f"services[0].instances[1]{told}")
    assert [instance.addresses for instance in mapped.groups[0].instances] == [("10.0.0.9",)]


def test_every_bad_instance_counts() -> None:
    mapped = load_service("{name: web, instances: [~, ~, {id: a}, {id: a}, {id: b}]}")
    assert len(mapped.rejected) == 5


def test_an_id_stays_taken_by_a_bad_instance() -> None:
    mapped = load_service("{name: web, namespace: shop, instances: [{id: a}, {id: a, address: 10.0.0.1}]}")
    assert mapped.rejected.keys() == {"shop/web/a", f"{GROUP}/services[0].instances[1]"}
    assert mapped.groups[0].instances == ()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("", ".instances: must be a list, is missing"),
        ("instances: ", ".instances: must be a list, is missing"),
        ("instances: {}", ".instances: must be a list, is a mapping"),
        ("instances: [], tags: x", ".tags: must be a list"),
        ("instances: [], instance: []", ": unknown key 'instance', did you mean `instances`?"),
    ],
)
def test_a_bad_service_keeps_its_group(fields: str, told: str) -> None:
    mapped = load_service(f"{{name: api, instances: []}}, {{name: web, namespace: shop, {fields}}}")
    assert mapped.rejected.keys() == {GROUP}
    assert mapped.rejected[GROUP].startswith(f"services[1]{told}")
    assert [group.key for group in mapped.groups] == [f"{FILE}/default/api"]


@pytest.mark.parametrize(
    ("service", "told"),
    [
        ("~", ": must be a mapping"),
        ("{instances: []}", ".name: must be text, is missing"),
        ("{name: 5, instances: []}", ".name: must be text, is the number 5"),
        ("{name: a/b, instances: []}", ".name: a name has no `/`"),
        ("{name: web, namespace: ~, instances: []}", ".namespace: must be text, is missing"),
        ("{name: web, namespace: a/b, instances: []}", ".namespace: a name has no `/`"),
        (f"{{name: {LONG}, instances: []}}", ".name: is longer"),
        ("{nme: web, instances: []}", ": unknown key 'nme', did you mean `name`?"),
        ("{name: web, namspace: shop, instances: []}", ": unknown key 'namspace', did you mean `namespace`?"),
    ],
)
def test_a_service_without_a_readable_name_keeps_what_the_file_lacks(service: str, told: str) -> None:
    mapped = load_service(f"{{name: api, instances: []}}, {service}")
    assert mapped.rejected.keys() == {FILE}
    assert mapped.rejected[FILE].startswith(f"services[1]{told}")
    assert [group.key for group in mapped.groups] == [f"{FILE}/default/api"]


def test_reasons_of_one_key_are_joined() -> None:
    assert load_service("~, ~").rejected[FILE].count("; ") == 1


def test_entries_of_one_service_add_up() -> None:
    (group,) = load_service(
        "{name: web, tags: [a], instances: [{id: x, address: 10.0.0.1}]}, {name: web, instances: [{id: y, address: 10.0.0.2}]}"
    ).groups
    assert [(instance.id, instance.tags) for instance in group.instances] == [("default/web/x", ("a",)), ("default/web/y", ())]


def test_a_service_without_instances_exists() -> None:
    (group,) = load_service("{name: web, namespace: shop, instances: []}").groups
    assert group.instances == ()
    assert group.services == (ServiceName("shop", "web"),)


def test_no_services_is_an_empty_listing() -> None:
    assert load("services: []") == Mapped((), {})


@pytest.mark.parametrize(
    "text", ["services:", "{}", "[]", "text", "services: {}", "services: 5", "~", "services: []\nversion: 2"]
)
def test_without_a_list_of_services_the_file_is_unknown(text: str) -> None:
    with pytest.raises(DocumentError):
        load(text)


def test_half_a_surrogate_is_rejected() -> None:
    instances = [{"id": "\ud800", "address": "10.0.0.1"}, {"id": "a", "address": "10.0.0.1", "meta": {"k": "\ud800"}}]
    text = json.dumps({"services": [{"name": "web", "instances": instances}]}).encode()
    mapped = map_document(parse(text, is_json=True), FILE)
    assert len(mapped.rejected) == 2
    "".join(mapped.rejected.values()).encode()


SCALARS = st.sampled_from([None, True, 5, 1.5, "", "a", "a/b", "10.0.0.1", "ready", "http", -1])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "port", "name", "x"]), inner, max_size=3),
    max_leaves=6,
)
KEYS = ["id", "address", "addresses", "hostname", "ports", "health", "lifecycle", "weight", "zone", "tags", "meta", "x"]
INSTANCES = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6) | VALUES
SERVICES = (
    st.fixed_dictionaries(
        {"name": SCALARS, "instances": st.lists(INSTANCES, max_size=4) | VALUES}, optional={"namespace": SCALARS, "tags": VALUES}
    )
    | VALUES
)


@given(st.lists(SERVICES, max_size=4))
def test_nothing_is_lost_silently(services: list[Any]) -> None:
    """Each entry is shown, or something of it is rejected."""
    mapped = map_document(parse(yaml.safe_dump({"services": services}).encode(), is_json=False), FILE)
    shown = sum(len(group.instances) for group in mapped.groups)
    wanted = sum(len(s["instances"]) if isinstance(s, dict) and isinstance(s.get("instances"), list) else 0 for s in services)
    assert shown == wanted or mapped.rejected
    for group in mapped.groups:
        assert len({instance.id for instance in group.instances}) == len(group.instances)
