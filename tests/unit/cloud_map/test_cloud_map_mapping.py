"""From answers to groups: what becomes what, and what one bad object costs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import Port, ServiceInstance, ServiceName
from bridge_plugins.sources.cloud_map import mapping
from bridge_plugins.sources.cloud_map.mapping import MalformedError, Namespace, Service

SPACE = Namespace("ns-1", "shop.local", "shop.local")
CHECKED = Service("srv-1", "web", SPACE, checked=True)
PLAIN = Service("srv-1", "web", SPACE, checked=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def entry(id_: Any = "i1", health: Any = "HEALTHY", **attributes: Any) -> dict[str, Any]:
    return {"InstanceId": id_, "HealthStatus": health, "Attributes": attributes or {"AWS_INSTANCE_IPV4": "10.0.0.1"}}


def one(value: Any, service: Service = CHECKED) -> ServiceInstance:
    found = mapping.read_instances([value], service, "eu-west-1")
    assert found.rejected == {}
    return found.group.instances[0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"AWS_INSTANCE_IPV4": "10.0.0.1"}, {"addresses": ("10.0.0.1",), "hostname": None, "ports": ()}),
        ({"AWS_INSTANCE_IPV6": "FD00:0::5"}, {"addresses": ("fd00::5",)}),
        ({"AWS_INSTANCE_IPV6": "fd00::5", "AWS_INSTANCE_IPV4": "10.0.0.1"}, {"addresses": ("10.0.0.1", "fd00::5")}),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "8080"}, {"ports": (Port("default", 8080),)}),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_INSTANCE_PORT": "0"}, {"ports": ()}),
        ({"AWS_INSTANCE_CNAME": "db.example.org"}, {"addresses": (), "hostname": "db.example.org"}),
        ({"AWS_ALIAS_DNS_NAME": "lb-1.example.org."}, {"addresses": (), "hostname": "lb-1.example.org."}),
        (
            {
                "AWS_INSTANCE_IPV4": "10.0.0.1",
                "AVAILABILITY_ZONE": "eu-west-1b",
                "REGION": "eu-west-2",
                "EC2_INSTANCE_ID": "i-0a",
            },
            {"zone": "eu-west-1b", "region": "eu-west-2", "node": "i-0a", "meta": {}},
        ),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1", "AWS_EC2_INSTANCE_ID": "i-0b"}, {"node": "i-0b", "region": "eu-west-1"}),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1", "weight": "7"}, {"weight": 7, "meta": {}}),
        ({"AWS_INSTANCE_IPV4": "10.0.0.1", "weight": "heavy"}, {"weight": 1}),
        (
            {"AWS_INSTANCE_IPV4": "10.0.0.1", "ECS_CLUSTER_NAME": "c", "version": "2", "AWS_INIT_HEALTH_STATUS": "HEALTHY"},
            {"meta": {"ECS_CLUSTER_NAME": "c", "version": "2"}},
        ),
    ],
)
def test_attributes_become_fields(attributes: dict[str, str], expected: dict[str, Any]) -> None:
    instance = one(entry(**attributes))
    assert {name: getattr(instance, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("status", "service", "health"),
    [
        ("HEALTHY", CHECKED, "ready"),
        ("UNHEALTHY", CHECKED, "unready"),
        ("UNKNOWN", CHECKED, "unknown"),
        (None, CHECKED, "unknown"),
        ("HEALTHY", PLAIN, "ready"),
        ("UNHEALTHY", PLAIN, "unready"),
        ("UNKNOWN", PLAIN, "ready"),
        (None, PLAIN, "ready"),
    ],
)
def test_health(status: str | None, service: Service, health: str) -> None:
    assert one(entry(health=status), service).health == health


@pytest.mark.parametrize(
    ("bad", "key", "reason"),
    [
        (entry("bad", AWS_INSTANCE_ARN="arn:aws:sqs:eu-west-1:111122223333:q"), "srv-1/bad", "no address"),
        ({"InstanceId": "bad"}, "srv-1/bad", "no address"),
        (entry("bad", AWS_INSTANCE_IPV4="10.0.0.300"), "srv-1/bad", "AWS_INSTANCE_IPV4"),
        (entry("bad", AWS_INSTANCE_IPV4="fd00::1"), "srv-1/bad", "AWS_INSTANCE_IPV4"),
        (entry("bad", AWS_INSTANCE_IPV4="10.0.0.1", AWS_INSTANCE_PORT="http"), "srv-1/bad", "AWS_INSTANCE_PORT"),
        (entry("bad", AWS_INSTANCE_IPV4="10.0.0.1", AWS_INSTANCE_PORT="70000"), "srv-1/bad", "AWS_INSTANCE_PORT"),
        (entry("bad", AWS_INSTANCE_CNAME="not a name"), "srv-1/bad", "AWS_INSTANCE_CNAME"),
        (entry("bad", AWS_INSTANCE_IPV4=["10.0.0.1"]), "srv-1/bad", "AWS_INSTANCE_IPV4"),
        (entry("bad", AWS_INSTANCE_IPV4="10.0.0.1", x="\ud800"), "srv-1/bad", "Unicode"),
        ({"InstanceId": "bad", "Attributes": ["a"]}, "srv-1/bad", "Attributes"),
        (entry("bad", health="SICK"), "srv-1/bad", "HealthStatus"),
        (entry("bad", health=5), "srv-1/bad", "HealthStatus"),
        (entry(5), "shop.local/srv-1/Instances[1]", "InstanceId"),
        (entry("a\nb"), "shop.local/srv-1/Instances[1]", "control"),
        (7, "shop.local/srv-1/Instances[1]", "no object"),
        (None, "shop.local/srv-1/Instances[1]", "no object"),
    ],
)
def test_a_bad_instance_is_named_and_costs_no_other(bad: Any, key: str, reason: str) -> None:
    found = mapping.read_instances([entry("a"), bad, entry("c")], CHECKED, None)
    assert [instance.id for instance in found.group.instances] == ["srv-1/a", "srv-1/c"]
    assert found.rejected.keys() == {key}
    assert reason in found.rejected[key]


def test_the_order_of_the_answer_does_not_matter_and_the_last_of_an_id_counts() -> None:
    twice = [entry("b", AWS_INSTANCE_IPV4="10.0.0.2"), entry("a"), entry("b", AWS_INSTANCE_IPV4="10.0.0.3")]
    found = mapping.read_instances(twice, CHECKED, None)
    assert [(instance.id, instance.addresses) for instance in found.group.instances] == [
        ("srv-1/a", ("10.0.0.1",)),
        ("srv-1/b", ("10.0.0.3",)),
    ]
    assert found == mapping.read_instances([twice[1], twice[2]], CHECKED, None)


def test_a_service_without_instances_exists() -> None:
    found = mapping.read_instances([], CHECKED, None)
    assert (found.group.key, found.group.services, found.full) == ("shop.local/srv-1", (ServiceName("shop.local", "web"),), False)


def test_a_full_answer_says_so() -> None:
    assert mapping.read_instances([entry(f"i{number}") for number in range(1000)], CHECKED, None).full


@pytest.mark.parametrize("answer", [None, [], {}, {"Instances": None}, {"Instances": {}}, {"Instances": [], "NextToken": 5}])
def test_an_answer_without_a_list_is_not_empty(answer: Any) -> None:
    with pytest.raises(MalformedError):
        mapping.page(answer, "Instances")


@pytest.mark.parametrize(
    "answer", [None, {}, {"InstancesRevision": "5"}, {"InstancesRevision": True}, {"InstancesRevision": 1.5}]
)
def test_a_revision_is_a_whole_number(answer: Any) -> None:
    with pytest.raises(MalformedError):
        mapping.revision(answer)


@pytest.mark.parametrize(
    ("value", "namespace"),
    [
        ({"Id": "n", "Name": "shop", "Properties": {"HttpProperties": {"HttpName": "shop-x"}}}, Namespace("n", "shop", "shop-x")),
        ({"Id": "n", "Name": "shop", "Properties": {"HttpProperties": {}, "DnsProperties": {}}}, Namespace("n", "shop", "shop")),
        ({"Id": "n", "Name": "shop"}, Namespace("n", "shop", "shop")),
    ],
)
def test_the_http_name_falls_back_to_the_name(value: Any, namespace: Namespace) -> None:
    assert mapping.read_namespaces([value]).namespaces == (namespace,)


@pytest.mark.parametrize(
    ("value", "place", "unidentified"),
    [
        ({"Id": "srv-2", "Name": "a/b"}, "shop.local/srv-2", None),
        ({"Id": "srv-2"}, "shop.local/srv-2", None),
        ({"Name": "x"}, "shop.local/Services[1]", "Services[1]: Id is missing, no text"),
        ("x", "shop.local/Services[1]", "Services[1]: is 'x', no object"),
    ],
)
def test_a_bad_service_is_named_and_costs_no_other(value: Any, place: str, unidentified: str | None) -> None:
    found = mapping.read_services([{"Id": "srv-1", "Name": "web", "HealthCheckCustomConfig": {}}, value], SPACE)
    assert found.services == (CHECKED,)
    assert (set(found.broken), found.unidentified) == ({place}, unidentified)


def test_services_of_another_namespace_are_left_out_where_the_filter_was_ignored() -> None:
    objects = [{"Id": "srv-1", "Name": "web", "NamespaceId": "ns-1"}, {"Id": "srv-2", "Name": "web", "NamespaceId": "ns-2"}]
    assert [service.id for service in mapping.read_services(objects, SPACE).services] == ["srv-1"]


@given(st.lists(JSON | st.fixed_dictionaries({"InstanceId": JSON, "HealthStatus": JSON, "Attributes": JSON}), max_size=4))
def test_nothing_that_json_can_say_breaks_it(objects: list[Any]) -> None:
    found = mapping.read_instances(objects, CHECKED, None)
    assert (found.group.instances or found.rejected) if objects else not found.rejected
    mapping.read_namespaces(objects)
    mapping.read_services(objects, SPACE)
