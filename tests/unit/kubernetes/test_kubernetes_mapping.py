"""Kubernetes objects to instance groups: every rule of the manual page, as tables."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from bridge.model import InstanceGroup, Port, ServiceInstance, ServiceName
from bridge_plugins.sources.kubernetes import mapping, wire
from bridge_plugins.sources.kubernetes.mapping import NodeFacts, SliceGroup
from bridge_plugins.sources.kubernetes.policy import Policy, service_policy
from tests.kit.fakes import kubeobjects as objects

WEB = ServiceName("shop", "web")


def raw(made: Any) -> Raw:
    return Raw(json.dumps(made).encode())


def mapped(made: Any, policy: Policy | None = None, nodes: dict[str, NodeFacts] | None = None) -> SliceGroup:
    content = wire.read_slice(raw(made))
    return mapping.group_from_slice("shop/slice/web-1", WEB, content, policy or Policy(), nodes or {})


def only(made: Any, policy: Policy | None = None, nodes: dict[str, NodeFacts] | None = None) -> ServiceInstance:
    (instance,) = mapped(made, policy, nodes).group.instances
    return instance


def of_service(
    made: Any, publish: Any = "pod", ready_on: tuple[str, ...] = (), nodes: dict[str, NodeFacts] | None = None
) -> InstanceGroup:
    item = wire.read_service(raw(made))
    policy, _ = service_policy(item, publish)
    return mapping.group_from_service("shop/service/web", item, policy, ready_on, nodes or {})


def test_an_endpoint_becomes_an_instance_with_everything_it_says() -> None:
    made = objects.endpointslice("web-1", "web", [objects.endpoint("10.1.0.5", "a", hostname="db-0")])
    assert only(made) == ServiceInstance(
        id="shop/web/uid-a",
        namespace="shop",
        service="web",
        addresses=("10.1.0.5",),
        hostname="db-0",
        ports=(Port("http", 8080),),
        health="ready",
        lifecycle="active",
        zone="z1",
        node="n1",
    )


@pytest.mark.parametrize(
    ("conditions", "lenient", "health", "lifecycle"),
    [
        (None, False, "ready", "active"),
        ({}, False, "ready", "active"),
        ({"ready": None, "serving": None, "terminating": None}, False, "ready", "active"),
        ({"ready": True}, False, "ready", "active"),
        ({"ready": False}, False, "unready", "active"),
        ({"ready": False, "serving": True, "terminating": True}, False, "ready", "draining"),
        ({"ready": False, "serving": False, "terminating": True}, False, "unready", "draining"),
        ({"ready": False, "terminating": True}, False, "unready", "draining"),
        ({"ready": True, "terminating": True}, False, "ready", "draining"),
        ({"ready": False, "serving": True}, False, "unready", "active"),
        ({"ready": True, "serving": False}, True, "unready", "active"),
        ({"ready": True, "serving": True}, True, "ready", "active"),
        ({"ready": True, "serving": False, "terminating": True}, True, "unready", "draining"),
        ({"ready": True}, True, "ready", "active"),
    ],
)
def test_conditions_tell_health_and_lifecycle(conditions: Any, lenient: bool, health: str, lifecycle: str) -> None:
    made = objects.endpointslice("web-1", "web", [objects.endpoint("10.1.0.5") | {"conditions": conditions}])
    instance = only(made, Policy(publish_not_ready=lenient))
    assert (instance.health, instance.lifecycle) == (health, lifecycle)


@pytest.mark.parametrize(
    ("endpoint", "own_id"),
    [
        (objects.endpoint("10.1.0.5", "a"), "shop/web/uid-a"),
        (objects.endpoint("10.1.0.5", targetRef=None), "shop/web/10.1.0.5"),
        (objects.endpoint("10.1.0.5", targetRef={"kind": "Pod"}), "shop/web/10.1.0.5"),
    ],
)
def test_the_id_is_the_pods_uid_else_the_address(endpoint: Any, own_id: str) -> None:
    assert only(objects.endpointslice("web-1", "web", [endpoint])).id == own_id


def test_the_id_of_an_ipv6_endpoint_without_a_pod_is_its_address() -> None:
    made = objects.endpointslice("web-1", "web", [objects.endpoint("fd00::5", targetRef=None)], address_type="IPv6")
    assert only(made).id == "shop/web/fd00::5"


def test_both_families_of_a_pod_have_one_id() -> None:
    four = objects.endpointslice("web-4", "web", [objects.endpoint("10.1.0.5", "a")])
    six = objects.endpointslice("web-6", "web", [objects.endpoint("fd00::5", "a")], address_type="IPv6")
    assert only(four).id == only(six).id
    assert only(six).addresses == ("fd00::5",)


def test_pods_on_the_host_network_of_one_node_stay_apart() -> None:
    made = objects.endpointslice("web-1", "web", [objects.endpoint("192.0.2.1", "a"), objects.endpoint("192.0.2.1", "b")])
    assert [item.id for item in mapped(made).group.instances] == ["shop/web/uid-a", "shop/web/uid-b"]


def test_only_the_first_address_counts() -> None:
    assert only(
        objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5") | {"addresses": ["10.1.0.5", "10.1.0.6"]}])
    ).addresses == ("10.1.0.5",)


def test_an_fqdn_endpoint_is_a_hostname() -> None:
    endpoint = objects.endpoint("db.example.org", targetRef=None, hostname="ignored")
    instance = only(objects.endpointslice("w", "web", [endpoint], address_type="FQDN"))
    assert (instance.hostname, instance.addresses) == ("db.example.org", ())


@pytest.mark.parametrize(
    ("ports", "expected", "unresolved"),
    [
        (None, (), 0),
        ([], (), 0),
        ([{"name": "", "port": 80, "protocol": "TCP"}], (Port(None, 80),), 0),
        ([{"port": 80}], (Port(None, 80),), 0),
        ([{"name": "q", "port": 443, "protocol": "UDP", "appProtocol": "h3"}], (Port("q", 443, "UDP", "h3"),), 0),
        ([{"name": "http", "port": None, "protocol": "TCP"}], (Port("http", 8080),), 0),
        ([{"name": "other", "port": None}], (), 1),
        ([{"name": None, "port": None}, {"name": "a", "port": 1}], (Port("a", 1),), 1),
    ],
)
def test_ports_are_the_slices_own(ports: Any, expected: tuple[Port, ...], unresolved: int) -> None:
    made = objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5")], ports=ports)
    result = mapped(made, Policy(target_ports={"http": 8080}))
    assert result.group.instances[0].ports == expected
    assert result.unresolved_ports == unresolved


@pytest.mark.parametrize("endpoints", [None, []])
def test_a_slice_without_endpoints_names_its_service(endpoints: Any) -> None:
    assert mapped(objects.endpointslice("w", "web", endpoints)).group == InstanceGroup("shop/slice/web-1", (), (WEB,))


@pytest.mark.parametrize(
    ("address_type", "address"),
    [
        ("IPv4", "10.1.0.300"),
        ("IPv4", "10.1.0"),
        ("IPv4", "010.1.0.5"),
        ("IPv4", "fd00::5"),
        ("IPv4", "db.example.org"),
        ("IPv4", "10.1.0.5\x00"),
        ("IPv4", "10.1.0.\u0665"),
        ("IPv4", " 10.1.0.5"),
        ("IPv6", "10.1.0.5"),
        ("IPv6", "fe80::1%eth0"),
        ("IPv6", "fd00:::5"),
        ("FQDN", "-db.example.org"),
        ("FQDN", "db..example.org"),
        ("FQDN", "db example.org"),
        ("FQDN", "x" * 64),
        ("FQDN", ".".join(["x" * 60] * 5)),
    ],
)
def test_an_address_that_is_none_of_its_type_is_rejected_and_its_neighbour_stays(address_type: str, address: str) -> None:
    good = {"IPv4": "10.1.0.5", "IPv6": "fd00::5", "FQDN": "db.example.org"}[address_type]
    endpoints = [objects.endpoint(address, "broken"), objects.endpoint(good, "a")]
    result = mapped(objects.endpointslice("w", "web", endpoints, address_type=address_type))
    assert [item.id for item in result.group.instances] == ["shop/web/uid-a"]
    (reason,) = result.rejected.values()
    assert list(result.rejected) == ["shop/web/uid-broken"]
    assert reason.startswith("endpoints[0] of shop/slice/web-1: its address ")
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"addresses": None}, "no address"),
        ({"addresses": []}, "no address"),
        ({"addresses": [""]}, "address ''"),
        ({"addresses": "10.1.0.5"}, "$.addresses"),
        ({"addresses": [7]}, "$.addresses"),
        ({"hostname": "db.0"}, "hostname"),
        ({"hostname": "db\n0"}, "hostname"),
        ({"hostname": "x" * 64}, "hostname"),
        ({"hostname": 7}, "$.hostname"),
        ({"nodeName": "n/1"}, "nodeName"),
        ({"nodeName": "n\u202e1"}, "nodeName"),
        ({"zone": "z\x1b1"}, "zone"),
        ({"zone": "z" * 300}, "zone"),
        ({"zone": ["z1"]}, "$.zone"),
        ({"conditions": {"ready": "yes"}}, "$.conditions.ready"),
    ],
)
def test_an_endpoint_with_a_field_that_cannot_be_used_is_rejected_by_its_id_and_alone(changes: Any, names: str) -> None:
    broken = objects.endpoint("10.1.0.4", "broken") | changes
    result = mapped(objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5", "a"), broken]))
    assert [item.id for item in result.group.instances] == ["shop/web/uid-a"]
    assert list(result.rejected) == ["shop/web/uid-broken"]
    assert result.rejected["shop/web/uid-broken"].startswith("endpoints[1] of shop/slice/web-1: ")
    assert names in result.rejected["shop/web/uid-broken"]


@pytest.mark.parametrize("target", [None, {"uid": "a/b"}, {"uid": "a\x00"}, {"uid": 7}, {"uid": "u" * 300}, 7])
def test_a_broken_endpoint_without_a_readable_id_keeps_what_its_group_lacks(target: Any) -> None:
    """Its place lies under the group's key, so that a rejection of it concerns the whole group."""
    broken = objects.endpoint("nonsense") | {"targetRef": target}
    result = mapped(objects.endpointslice("w", "web", [broken, objects.endpoint("10.1.0.5", "a")]))
    assert [item.id for item in result.group.instances] == ["shop/web/uid-a"]
    assert list(result.rejected) == ["shop/slice/web-1/endpoints[0]"]


def test_of_an_instance_listed_twice_the_ready_one_wins() -> None:
    dead = objects.endpoint("10.1.0.5", "a", conditions={"ready": False})
    result = mapped(objects.endpointslice("w", "web", [dead, objects.endpoint("10.1.0.6", "a"), dead]))
    assert [item.addresses for item in result.group.instances] == [("10.1.0.6",)]


def test_nodes_give_region_and_a_missing_zone() -> None:
    nodes = {"n1": NodeFacts(region="r1", zone="node-zone")}
    with_zone = only(objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5")]), nodes=nodes)
    without = only(objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5", zone=None)]), nodes=nodes)
    assert (with_zone.region, with_zone.zone) == ("r1", "z1")
    assert (without.region, without.zone) == ("r1", "node-zone")


def test_hints_and_unknown_fields_are_not_taken() -> None:
    plain = objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5")])
    hinted = objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5", hints={"forZones": [{"name": "z9"}]}, novel=[1])])
    assert mapped(plain) == mapped(hinted | {"novel": {"a": 1}})


@pytest.mark.parametrize(
    ("labels", "foreign"),
    [
        ({}, False),
        ({"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}, False),
        ({"endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"}, False),
        ({"endpointslice.kubernetes.io/managed-by": "somebody"}, False),
        ({"endpointslice.kubernetes.io/managed-by": "envbridge.io"}, True),
        ({"endpointslice.kubernetes.io/managed-by": "export.envbridge.io"}, True),
        ({"endpointslice.kubernetes.io/managed-by": "endpointslice-mesh-controller.cilium.io"}, True),
        ({"multicluster.kubernetes.io/service-name": "web"}, True),
        ({"multicluster.kubernetes.io/source-cluster": "east"}, True),
    ],
)
def test_slices_of_other_clusters_and_our_own_are_foreign(labels: dict[str, str], foreign: bool) -> None:
    assert mapping.is_foreign(msgspec.convert(labels, wire.SliceLabels)) is foreign


def test_in_pod_mode_a_service_stands_without_instances() -> None:
    assert of_service(objects.service("web"), ready_on=("n1",)) == InstanceGroup("shop/service/web", (), (WEB,))


@pytest.mark.parametrize(("ready_on", "health"), [((), "unready"), (("n1",), "ready"), (("",), "ready")])
def test_cluster_ip_is_one_instance_at_the_services_ports(ready_on: tuple[str, ...], health: str) -> None:
    group = of_service(objects.service("web", clusterIPs=["10.96.0.10", "fd00::10"]), "cluster-ip", ready_on)
    (instance,) = group.instances
    assert instance.id == "shop/web/10.96.0.10"
    assert instance.addresses == ("10.96.0.10", "fd00::10")
    assert instance.ports == (Port("http", 80),)
    assert instance.health == health


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"clusterIP": "", "clusterIPs": None},
        {"type": "ExternalName", "externalName": "db.example.org", "clusterIP": None, "clusterIPs": None},
    ],
)
def test_a_service_without_cluster_ip_has_no_instances_in_that_mode(spec: Any) -> None:
    assert of_service(objects.service("web", **spec), "cluster-ip").instances == ()


def test_a_load_balancers_addresses_and_names_are_instances() -> None:
    made = objects.service("web", ingress=[{"ip": "203.0.113.9"}, {"hostname": "lb.example.org"}, {}, {"ip": "nonsense"}])
    shown = [(item.id, item.addresses, item.hostname) for item in of_service(made, "load-balancer").instances]
    assert shown == [
        ("shop/web/203.0.113.9", ("203.0.113.9",), None),
        ("shop/web/lb.example.org", (), "lb.example.org"),
    ]


NODES = {
    "n1": NodeFacts(region="r1", zone="z1", addresses=("192.0.2.1",), ready=True),
    "n2": NodeFacts(addresses=("192.0.2.2",), ready=True),
    "n3": NodeFacts(addresses=("192.0.2.3",), ready=False),
    "n4": NodeFacts(ready=True),
}


@pytest.mark.parametrize(
    ("policy", "ready_on", "shown"),
    [
        ("Cluster", ("n1",), ["shop/web/n1", "shop/web/n2"]),
        (None, (), ["shop/web/n1", "shop/web/n2"]),
        ("Local", ("n2",), ["shop/web/n2"]),
        ("Local", ("n3",), []),
        ("Local", (), []),
    ],
)
def test_node_ports_stand_on_ready_nodes(policy: str | None, ready_on: tuple[str, ...], shown: list[str]) -> None:
    ports = [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "internal", "port": 81}]
    made = objects.service("web", type="NodePort", ports=ports, externalTrafficPolicy=policy)
    instances = of_service(made, "node-port", ready_on, NODES).instances
    assert [item.id for item in instances] == shown
    assert all(item.ports == (Port("http", 30080),) for item in instances)


def test_a_service_without_node_ports_has_no_instances_in_that_mode() -> None:
    assert of_service(objects.service("web"), "node-port", ("n1",), NODES).instances == ()


@pytest.mark.parametrize(("annotations", "count"), [({}, 0), ({"envbridge.io/external-name": "true"}, 1)])
def test_an_external_name_is_published_only_where_asked_for(annotations: Any, count: int) -> None:
    made = objects.service("web", annotations=annotations, type="ExternalName", externalName="db.example.org", ports=None)
    group = of_service(made)
    assert group.services == (WEB,)
    assert len(group.instances) == count
    assert all((item.hostname, item.health) == ("db.example.org", "unknown") for item in group.instances)


def test_a_nodes_facts() -> None:
    addresses = [
        {"type": "Hostname", "address": "n1"},
        {"type": "ExternalIP", "address": "203.0.113.1"},
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "InternalIP", "address": "nonsense"},
    ]
    facts = mapping.node_facts(wire.read_node(raw(objects.node("n1", addresses=addresses))))
    assert facts == NodeFacts(region="r1", zone="z1", addresses=("192.0.2.1", "203.0.113.1"), ready=True)
    assert mapping.node_facts(wire.read_node(raw({"metadata": {"name": "n1"}}))) == NodeFacts()
    assert not mapping.node_facts(wire.read_node(raw(objects.node("n1", ready="Unknown")))).ready


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({}, Policy(target_ports={"http": 8080})),
        ({"team": "x", "example.org/weight": "9"}, Policy(target_ports={"http": 8080})),
        ({"envbridge.io/tags": "a, b,,a"}, Policy(tags=("a", "b"), target_ports={"http": 8080})),
        ({"envbridge.io/meta.team": "checkout"}, Policy(meta={"team": "checkout"}, target_ports={"http": 8080})),
        ({"envbridge.io/weight": "0"}, Policy(weight=0, target_ports={"http": 8080})),
        ({"envbridge.io/publish": "cluster-ip"}, Policy(publish="cluster-ip", target_ports={"http": 8080})),
        ({"envbridge.io/external-name": "true"}, Policy(external_name=True, target_ports={"http": 8080})),
    ],
)
def test_annotations_under_our_prefix_are_read(annotations: dict[str, str], expected: Policy) -> None:
    assert service_policy(wire.read_service(raw(objects.service("web", annotations=annotations))), "pod") == (expected, ())


@pytest.mark.parametrize(
    "annotations",
    [
        {"envbridge.io/weight": "-1"},
        {"envbridge.io/weight": "lots"},
        {"envbridge.io/weight": "٣"},
        {"envbridge.io/weight": "9" * 5000},
        {"envbridge.io/publish": "nodeport"},
        {"envbridge.io/external-name": "yes"},
        {"envbridge.io/wieght": "1"},
        {"envbridge.io/meta.": "1"},
    ],
)
def test_what_is_not_understood_is_named_and_changes_nothing(annotations: dict[str, str]) -> None:
    policy, complaints = service_policy(wire.read_service(raw(objects.service("web", annotations=annotations))), "pod")
    assert policy == Policy(target_ports={"http": 8080})
    assert len(complaints) == 1
    assert next(iter(annotations)) in complaints[0]


def test_annotations_win_over_labels() -> None:
    made = objects.service("web", labels={"envbridge.io/weight": "2", "app": "x"}, annotations={"envbridge.io/weight": "3"})
    assert service_policy(wire.read_service(raw(made)), "pod")[0].weight == 3


def test_publishing_what_is_not_ready_is_recorded() -> None:
    policy, _ = service_policy(wire.read_service(raw(objects.service("web", publishNotReadyAddresses=True))), "pod")
    assert policy.publish_not_ready
    assert policy.meta == {"publishNotReadyAddresses": "true"}


def test_a_policy_reaches_the_instances() -> None:
    instance = only(
        objects.endpointslice("w", "web", [objects.endpoint("10.1.0.5")]), Policy(weight=5, tags=("a",), meta={"k": "v"})
    )
    assert (instance.weight, instance.tags, instance.meta) == (5, ("a",), {"k": "v"})


def test_a_slice_and_a_service_of_one_name_have_different_keys_under_their_namespace() -> None:
    keys = {mapping.slice_key("shop", "web"), mapping.service_key("shop", "web")}
    assert len(keys) == 2
    assert all(key.startswith("shop/") for key in keys)
