"""What a service of a Swarm becomes, mode by mode."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.model import Port, ServiceName
from bridge_plugins.sources.docker_swarm.policy import Settings, service_policy
from tests.kit.fakes.dockerobjects import INGRESS, Object, attachment, network, node, port, service, task
from tests.unit.docker_swarm.kit import MESH, mapped, single

OVERLAY = Settings(publish="task-overlay")
BLUE, GREEN = attachment("blue", "10.0.1.5/24"), attachment("green", "10.0.2.5/24")
MESHED = attachment(INGRESS, "10.0.0.4/24", name="ingress", ingress=True)


@pytest.mark.parametrize(
    ("state", "desired", "lifecycle", "phase"),
    [
        ("running", "running", "active", "ready"),
        ("running", "shutdown", "draining", "draining"),
        ("running", "remove", "draining", "draining"),
        ("running", "complete", None, "other"),
        ("starting", "running", None, "other"),
        ("pending", "running", None, "other"),
        ("preparing", "shutdown", None, "other"),
        ("new", "running", None, "other"),
        ("something new", "running", None, "other"),
        ("complete", "shutdown", None, "ended"),
        ("shutdown", "shutdown", None, "ended"),
        ("failed", "running", None, "ended"),
        ("rejected", "shutdown", None, "ended"),
        ("remove", "remove", None, "ended"),
        ("orphaned", "shutdown", None, "ended"),
    ],
)
def test_a_task_counts_by_its_state_and_what_is_wanted_of_it(state: str, desired: str, lifecycle: str | None, phase: str) -> None:
    found = mapped(service("web"), task("t1", state=state, desired=desired))
    assert [instance.lifecycle for instance in found.group.instances] == ([lifecycle] if lifecycle else [])
    assert all(instance.health == "ready" for instance in found.group.instances)
    assert found.phases == {"t1": phase}
    assert found.ended == (("t1",) if phase == "ended" else ())


@pytest.mark.parametrize(
    ("state", "health"), [("ready", "ready"), ("down", "unready"), ("disconnected", "unready"), ("unknown", "unknown")]
)
def test_a_task_on_a_lost_node_is_not_ready_whatever_its_last_state(state: str, health: str) -> None:
    assert single(mapped(service("web"), task("t1"), nodes=[node("n1", state=state)])).health == health


@pytest.mark.parametrize("availability", ["active", "pause", "drain"])
def test_availability_alone_changes_no_running_task(availability: str) -> None:
    instance = single(mapped(service("web"), task("t1"), nodes=[node("n1", availability=availability)]))
    assert (instance.health, instance.lifecycle) == ("ready", "active")


@pytest.mark.parametrize(
    ("name", "stack", "expected"),
    [
        ("web", None, ("default", "web")),
        ("shop_web", None, ("default", "shop_web")),
        ("default_web", None, ("default", "default_web")),
        ("shop_web", "shop", ("shop", "web")),
        ("web", "shop", ("shop", "web")),
        ("shop_", "shop", ("shop", "shop_")),
        ("shop_shop_web", "shop", ("shop", "shop_web")),
    ],
)
def test_the_name_loses_the_stack_it_repeats(name: str, stack: str | None, expected: tuple[str, str]) -> None:
    found = mapped(service("id1", name, stack=stack), task("t1", "id1"))
    assert found.group.services == (ServiceName(*expected),)
    assert single(found).service_name == ServiceName(*expected)
    assert (found.group.key, single(found).id) == ("id1", "t1")


def test_a_service_without_tasks_exists() -> None:
    found = mapped(service("web", desired=0))
    assert (found.group.instances, found.group.services) == ((), (ServiceName("default", "web"),))


def test_what_is_no_container_is_skipped_by_the_listing() -> None:
    found = mapped(service("web"), task("t1", state="running"))
    assert len(found.group.instances) == 1


# -- host


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], ()),
        ([port(80, 31000, mode="host")], (Port(None, 31000),)),
        ([port(80, 31000, mode="host"), port(80, 31001, mode="host")], (Port(None, 31000),)),  # once per address family
        ([port(80, mode="host"), port(80, 31001, mode="host")], (Port(None, 31001),)),  # not allocated yet
        ([port(80, mode="host")], ()),
        ([port(80, 31000)], ()),  # the routing mesh's
        (
            [
                port(53, 31000, mode="host", protocol="udp"),
                port(53, 31000, mode="host"),
                port(9, 31002, mode="host", protocol="sctp"),
            ],
            (Port(None, 31000, "UDP"), Port(None, 31000, "TCP"), Port(None, 31002, "SCTP")),
        ),
    ],
)
def test_host_takes_the_first_published_port_of_each_target(ports: list[Object], expected: tuple[Port, ...]) -> None:
    instance = single(mapped(service("web"), task("t1", ports=ports)))
    assert (instance.addresses, instance.ports, instance.node) == (("192.0.2.1",), expected, "host-n1")


def test_host_names_ports_as_the_service_does() -> None:
    web = service("web", ports=[port(80, 31000, mode="host", name="http"), port(53, 53, mode="host", protocol="udp", name="dns")])
    ports = [port(80, 31000, mode="host"), port(53, 53, mode="host", protocol="udp"), port(53, 54, mode="host")]
    assert single(mapped(web, task("t1", ports=ports))).ports == (Port("http", 31000), Port("dns", 53, "UDP"), Port(None, 54))


@pytest.mark.parametrize(
    ("made", "address"),
    [
        (node("n1", "192.0.2.7"), "192.0.2.7"),
        (node("n1", "2001:db8::7"), "2001:db8::7"),
        (node("n1", "0.0.0.0", manager="192.0.2.8:2377"), "192.0.2.8"),
        (node("n1", "127.0.0.1", manager="192.0.2.8:2377"), "192.0.2.8"),
        (node("n1", "::", manager="[2001:db8::8]:2377"), "2001:db8::8"),
        (node("n1", "127.0.0.1", manager="127.0.0.1:2377"), "127.0.0.1"),  # a Swarm of one node on loopback
        (node("n1", "0.0.0.0", manager="0.0.0.0:2377"), None),
        (node("n1", "0.0.0.0"), None),
        (node("n1", "127.0.0.1"), None),
        (node("n1", "nonsense"), None),
        (node("n1", "0.0.0.0", labels={"envbridge.address": "192.0.2.9"}), "192.0.2.9"),
        (node("n1", "0.0.0.0", engine_labels={"envbridge.address": "192.0.2.9"}), "192.0.2.9"),
        (node("n1", "10.0.0.1", labels={"envbridge.address": "192.0.2.9"}), "192.0.2.9"),
        (node("n1", "10.0.0.1", labels={"envbridge.address": "nonsense"}), "10.0.0.1"),
    ],
)
def test_the_address_of_a_node_is_one_that_others_can_use(made: Object, address: str | None) -> None:
    found = mapped(service("web"), task("t1"), nodes=[made])
    assert [instance.addresses for instance in found.group.instances] == ([(address,)] if address else [])
    assert ("t1" in found.rejected) is (address is None)
    if address is None:
        assert "host-n1" in found.rejected["t1"]


@pytest.mark.parametrize("settings", [Settings(), OVERLAY])
def test_a_task_on_a_node_that_is_not_listed_is_rejected(settings: Settings) -> None:
    found = mapped(service("web"), task("t1", node="n9", networks=[BLUE]), task("t2", networks=[BLUE]), settings=settings)
    assert [instance.id for instance in found.group.instances] == ["t2"]
    assert "n9" in found.rejected["t1"]


# -- task-overlay


@pytest.mark.parametrize(
    ("networks", "label", "configured", "address"),
    [
        ([MESHED, BLUE], None, None, "10.0.1.5"),
        ([BLUE, GREEN], None, None, None),
        ([BLUE, GREEN], "green", None, "10.0.2.5"),
        ([BLUE, GREEN], None, "green", "10.0.2.5"),
        ([BLUE, GREEN], "blue", "green", "10.0.1.5"),
        ([BLUE], None, "green", None),  # no fall-through
        ([BLUE], "green", "blue", None),
        ([MESHED], None, None, None),
        ([MESHED], "ingress", None, None),
        ([attachment("gw", "172.18.0.2/16", name="docker_gwbridge"), BLUE], None, None, "10.0.1.5"),
        ([], None, None, None),
        ([attachment("id-1", "10.0.3.5/24", name="shop_blue"), BLUE], "id-1", None, "10.0.3.5"),
        ([attachment("blue")], None, None, None),
        ([attachment("blue", "nonsense")], None, None, None),
    ],
)
def test_the_network_is_chosen_or_the_task_rejected(
    networks: list[Object], label: str | None, configured: str | None, address: str | None
) -> None:
    web = service("web", labels={"envbridge.network": label} if label else {})
    found = mapped(web, task("t1", networks=networks), settings=Settings("task-overlay", configured))
    assert [instance.addresses for instance in found.group.instances] == ([(address,)] if address else [])
    assert ("t1" in found.rejected) is (address is None)


def test_overlay_addresses_are_one_per_family_without_prefix_length() -> None:
    blue = attachment("blue", "2001:db8::5/64", "10.0.1.5/24", "10.0.1.6/24")
    assert single(mapped(service("web"), task("t1", networks=[blue]), settings=OVERLAY)).addresses == ("10.0.1.5", "2001:db8::5")


def test_overlay_takes_target_ports_and_never_published_ones() -> None:
    web = service(
        "web",
        ports=[port(80, 30080, name="http"), port(53, protocol="udp", mode="host")],
        labels={"envbridge.port.9090": "metrics", "envbridge.port.53/udp": "dns", "envbridge.port.7000": ""},
    )
    expected = (Port("http", 80), Port("dns", 53, "UDP"), Port("metrics", 9090), Port(None, 7000))
    assert single(mapped(web, task("t1", networks=[BLUE]), settings=OVERLAY)).ports == expected


# -- ingress

INGRESSED = Settings(publish="ingress")


def test_ingress_is_an_instance_for_each_ready_active_node() -> None:
    nodes = [
        node("n1"),
        node("n2", "192.0.2.2"),
        node("n3", "192.0.2.3", state="down"),
        node("n4", "192.0.2.4", availability="drain"),
        node("n5", "192.0.2.5", availability="pause"),
        node("n6", "0.0.0.0"),
    ]
    web = service("web", ports=[port(80, 30080, name="http"), port(81), port(82, 30082, mode="host")])
    found = mapped(web, task("t1"), nodes=nodes, settings=INGRESSED)
    assert {instance.id: instance.addresses for instance in found.group.instances} == {
        "web/n1": ("192.0.2.1",),
        "web/n2": ("192.0.2.2",),
    }
    assert {instance.ports for instance in found.group.instances} == {(Port("http", 30080),)}
    assert set(found.ended) == {"web/n3", "web/n4", "web/n5"}
    assert set(found.rejected) == {"web/n6"}


@pytest.mark.parametrize("ports", [[], [port(80)], [port(80, 30080, mode="host")]])
def test_ingress_without_a_port_in_the_mesh_has_no_instances(ports: list[Object]) -> None:
    found = mapped(service("web", ports=ports), task("t1"), settings=INGRESSED)
    assert (found.group.instances, found.rejected) == ((), {})


@pytest.mark.parametrize(
    ("tasks", "health"),
    [
        ([], "unready"),
        ([task("t1", state="starting")], "unready"),
        ([task("t1", desired="shutdown")], "unready"),
        ([task("t1", node="n2")], "unready"),
        ([task("t1"), task("t2", state="failed")], "ready"),
    ],
)
@pytest.mark.parametrize("publish", ["ingress", "vip"])
def test_what_stands_for_all_tasks_is_ready_when_one_is(publish: Any, tasks: list[Object], health: str) -> None:
    web = service("web", ports=[port(80, 30080)], virtual_ips={"blue": "10.0.1.2/24"})
    nodes = [node("n1"), node("n2", "192.0.2.2", state="down")]
    found = mapped(web, *tasks, nodes=nodes, networks=[MESH, network("blue")], settings=Settings(publish))
    assert single(found).health == health


# -- vip


@pytest.mark.parametrize(
    ("virtual_ips", "configured", "addresses", "rejected"),
    [
        ({INGRESS: "10.0.0.2/24", "blue": "10.0.1.2/24"}, None, ("10.0.1.2",), False),
        ({"blue": "10.0.1.2/24", "green": "10.0.2.2/24"}, None, None, True),
        ({"blue": "10.0.1.2/24", "green": "10.0.2.2/24"}, "green", ("10.0.2.2",), False),
        ({"blue": "10.0.1.2/24"}, "green", None, True),
        ({INGRESS: "10.0.0.2/24"}, None, None, True),
        ({"unlisted": "10.0.9.2/24"}, None, None, True),
        ({"blue": ""}, None, None, True),
        ({}, None, None, False),  # dnsrr
    ],
)
def test_vip_is_the_virtual_ip_on_the_chosen_network(
    virtual_ips: dict[str, str], configured: str | None, addresses: tuple[str, ...] | None, rejected: bool
) -> None:
    web = service("web", virtual_ips=virtual_ips, ports=[port(80, 30080, name="http")])
    networks = [MESH, network("blue"), network("green")]
    found = mapped(web, task("t1"), networks=networks, settings=Settings("vip", configured))
    assert [instance.addresses for instance in found.group.instances] == ([addresses] if addresses else [])
    assert all(instance.id == "web/vip" and instance.ports == (Port("http", 80),) for instance in found.group.instances)
    assert ("web/vip" in found.rejected) is rejected


# -- labels


def test_labels_of_the_service_say_how_it_is_shown() -> None:
    web = service(
        "web",
        labels={
            "envbridge.publish": "task-overlay",
            "envbridge.tags": "v2, public,,v2",
            "envbridge.weight": "5",
            "envbridge.zone": "z9",
            "envbridge.region": "r9",
            "envbridge.meta.team": "checkout",
            "team": "ignored",
        },
    )
    labels = {"envbridge.meta.team": "container", "envbridge.meta.build": "7", "envbridge.publish": "vip", "other": "x"}
    made = node("n1", labels={"zone": "z1", "region": "r1"})
    found = mapped(web, task("t1", networks=[BLUE], labels=labels), nodes=[made])
    instance = single(found)
    assert (instance.tags, instance.weight, instance.zone, instance.region) == (("v2", "public"), 5, "z9", "r9")
    assert instance.meta == {"team": "checkout", "build": "7"}
    assert instance.addresses == ("10.0.1.5",)
    assert found.complaints == ()


@pytest.mark.parametrize(
    ("labels", "engine_labels", "zone"),
    [
        ({"zone": "a"}, {}, "a"),
        ({"envbridge.zone": "b", "zone": "a"}, {}, "b"),
        ({}, {"zone": "c"}, "c"),
        ({"zone": "a"}, {"envbridge.zone": "d"}, "d"),
        ({}, {}, None),
    ],
)
def test_the_zone_is_the_nodes(labels: dict[str, str], engine_labels: dict[str, str], zone: str | None) -> None:
    assert single(mapped(service("web"), task("t1"), nodes=[node("n1", labels=labels, engine_labels=engine_labels)])).zone == zone


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("publish", "everything"),
        ("network", ""),
        ("weight", "-1"),
        ("weight", "1.5"),
        ("weight", "1" * 10),
        ("port.http", "80"),
        ("port.0", "x"),
        ("port.65536", "x"),
        ("port.80/xdp", "x"),
        ("meta.", "x"),
        ("unheard-of", "x"),
    ],
)
def test_a_label_that_is_not_understood_is_named_and_changes_nothing(key: str, value: str) -> None:
    policy, complaints = service_policy({f"my.{key}": value, "envbridge.weight": "9"}, Settings(label_prefix="my."))
    assert policy == service_policy({}, Settings())[0]
    assert len(complaints) == 1
    assert key in complaints[0]


# -- what is under way


@pytest.mark.parametrize(
    ("made", "tasks", "unsettled"),
    [
        (service("web"), [task("t1")], False),
        (service("web"), [task("t1"), task("t0", state="shutdown", desired="shutdown")], False),
        (service("web"), [task("t1", state="starting")], True),
        (service("web"), [task("t1"), task("t0", desired="shutdown")], True),
        (service("web"), [], True),
        (service("web", desired=2), [task("t1")], True),
        (service("web", desired=None), [task("t1")], False),
        (service("web", update="updating"), [task("t1")], True),
        (service("web", update="rollback_started"), [task("t1")], True),
        (service("web", update="rollback_completed"), [task("t1")], False),
        (service("web", update="paused"), [task("t1")], False),
        (service("web"), [task("t1"), task("t0", node="n2", desired="shutdown")], False),  # on a lost node it stays so
        (service("web", desired=3, Mode={"ReplicatedJob": {"TotalCompletions": 3}}), [], False),
    ],
)
def test_what_is_under_way_is_known(made: Object, tasks: list[Object], unsettled: bool) -> None:
    nodes = [node("n1"), node("n2", "192.0.2.2", state="down")]
    assert mapped(made, *tasks, nodes=nodes).unsettled is unsettled
