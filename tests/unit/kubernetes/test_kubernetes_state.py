"""What a change of one object touches, what a listing says, and that broken objects cost only themselves."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from bridge.model import Gone, InstanceGroup, Listing, Rejected, covers
from bridge_plugins.sources.kubernetes.policy import Publish
from bridge_plugins.sources.kubernetes.state import Kind, ScopeState
from tests.kit.fakes import kubeobjects as objects
from tests.kit.strategies import JSON


class World:
    """A state, and what it counted and complained of."""

    def __init__(self, scope: str = "", publish: Publish = "pod", nodes: bool = True, before: ScopeState | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.state = ScopeState(
            scope,
            publish,
            nodes=nodes,
            count=self.count,
            complain=lambda key, text: self.complaints.append(f"{key}: {text}"),
            before=before,
        )

    def count(self, event: str, amount: int = 1) -> None:
        self.counts[event] += amount

    def put(self, kind: Kind, *made: Any) -> None:
        for item in made:
            self.state.put(kind, Raw(json.dumps(item).encode()))

    def drop(self, kind: Kind, made: Any) -> None:
        self.state.drop(kind, Raw(json.dumps(made).encode()))

    def listing(self) -> Listing:
        self.state.settle()
        groups = [event for key in self.state.dirty for event in self.state.event(key)[0]]
        listing = self.state.listing([group for group in groups if isinstance(group, InstanceGroup)], [], {})
        self.state.clean()
        return listing

    def touched(self) -> list[str]:
        dirty = list(self.state.dirty)
        self.state.clean()
        return dirty


def slice_of(name: str, service: str = "web", *addresses: str, **more: Any) -> Any:
    return objects.endpointslice(
        name, service, [objects.endpoint(item, targetRef=None) for item in addresses or ("10.0.0.1",)], **more
    )


def settled(**more: Any) -> World:
    """Two slices of ``web``, one of ``db``."""
    world = World(**more)
    world.put("Node", objects.node("n1"), objects.node("n2", zone="z2"))
    world.put("Service", objects.service("web"), objects.service("db"))
    world.put("EndpointSlice", slice_of("web-1"), slice_of("web-2"), slice_of("db-1", "db"))
    world.listing()
    return world


def test_a_listing_has_a_group_for_each_service_and_each_slice() -> None:
    world = World()
    world.put("Service", objects.service("web"), objects.service("empty"))
    world.put("EndpointSlice", slice_of("web-1"), slice_of("orphan-1", "orphan"))
    listing = world.listing()
    shown = {group.key: (len(group.instances), [str(name) for name in group.services]) for group in listing.groups}
    assert shown == {
        "shop/service/web": (0, ["shop/web"]),
        "shop/service/empty": (0, ["shop/empty"]),
        "shop/slice/web-1": (1, ["shop/web"]),
        "shop/slice/orphan-1": (1, ["shop/orphan"]),
    }


def test_slices_without_a_service_or_of_another_cluster_are_counted_not_shown() -> None:
    world = World()
    world.put("EndpointSlice", slice_of("a"), objects.endpointslice("b", None))
    world.put("EndpointSlice", slice_of("c", labels={"multicluster.kubernetes.io/service-name": "web"}))
    assert [group.key for group in world.listing().groups] == ["shop/slice/a"]
    assert world.counts == {"slices_without_service": 1, "slices_foreign": 1}


def test_what_we_wrote_into_the_cluster_is_not_read_back() -> None:
    world = World()
    world.put("Service", objects.service("web", labels={"app.kubernetes.io/managed-by": "envbridge.io"}))
    assert world.listing().groups == ()


def test_a_slice_event_touches_its_own_group_only() -> None:
    world = settled()
    world.put("EndpointSlice", slice_of("web-1", "web", "10.0.0.9"))
    assert world.touched() == ["shop/slice/web-1"]


def test_a_change_that_says_nothing_new_touches_nothing() -> None:
    world = settled()
    again = slice_of("web-1")
    again["metadata"]["resourceVersion"] = "999"
    world.put("EndpointSlice", again)
    world.put("Service", objects.service("web", annotations={"kubectl.kubernetes.io/x": "y"}))
    world.put("Node", objects.node("n1"))
    assert world.touched() == []


def test_a_changed_policy_touches_all_slices_of_its_service() -> None:
    world = settled()
    world.put("Service", objects.service("web", annotations={"envbridge.io/weight": "3"}))
    assert sorted(world.touched()) == ["shop/slice/web-1", "shop/slice/web-2"]


def test_a_deleted_service_ends_its_own_group_and_not_its_slices() -> None:
    world = settled()
    world.drop("Service", objects.service("web"))
    assert "shop/service/web" in world.state.dirty
    assert world.state.event("shop/service/web")[0] == [Gone("shop/service/web")]
    (group,) = world.state.event("shop/slice/web-1")[0]
    assert isinstance(group, InstanceGroup)
    assert len(group.instances) == 1


def test_a_deleted_slice_is_gone() -> None:
    world = settled()
    world.drop("EndpointSlice", slice_of("web-1"))
    assert world.touched() == ["shop/slice/web-1"]
    assert world.state.event("shop/slice/web-1")[0] == [Gone("shop/slice/web-1")]


def test_a_slice_that_loses_its_service_label_is_gone() -> None:
    world = settled()
    world.put("EndpointSlice", objects.endpointslice("web-1", None))
    assert world.state.event("shop/slice/web-1")[0] == [Gone("shop/slice/web-1")]


def test_a_slice_may_move_to_another_service() -> None:
    world = settled()
    world.put("EndpointSlice", slice_of("web-1", "db"))
    (group,) = world.state.event("shop/slice/web-1")[0]
    assert isinstance(group, InstanceGroup)
    assert [str(name) for name in group.services] == ["shop/db"]
    world.touched()
    world.put("Service", objects.service("db", annotations={"envbridge.io/weight": "3"}))
    assert sorted(world.touched()) == ["shop/slice/db-1", "shop/slice/web-1"]


def test_in_other_modes_slices_are_empty_and_touch_their_service() -> None:
    world = settled(publish="cluster-ip")
    (group,) = world.state.event("shop/slice/web-1")[0]
    assert isinstance(group, InstanceGroup)
    assert group.instances == ()
    unready = objects.endpointslice("web-1", "web", [objects.endpoint("10.0.0.1", conditions={"ready": False})])
    world.put("EndpointSlice", unready)
    assert world.touched() == ["shop/slice/web-1", "shop/service/web"]


def test_the_services_health_is_that_of_all_its_slices() -> None:
    world = settled(publish="cluster-ip")

    def health() -> str:
        (group,) = world.state.event("shop/service/web")[0]
        assert isinstance(group, InstanceGroup)
        return group.instances[0].health

    assert health() == "ready"
    world.drop("EndpointSlice", slice_of("web-1"))
    assert health() == "ready"
    world.drop("EndpointSlice", slice_of("web-2"))
    assert health() == "unready"


def test_a_service_may_change_its_mode() -> None:
    world = settled()
    world.put("Service", objects.service("web", annotations={"envbridge.io/publish": "cluster-ip"}))
    assert sorted(world.touched()) == ["shop/service/web", "shop/slice/web-1", "shop/slice/web-2"]


def test_a_nodes_place_touches_the_slices_that_name_it() -> None:
    world = settled()
    world.put("Node", objects.node("n1", region="elsewhere"))
    assert sorted(world.touched()) == ["shop/slice/db-1", "shop/slice/web-1", "shop/slice/web-2"]
    world.put("Node", objects.node("n2", region="elsewhere"))
    assert world.touched() == []


def test_a_nodes_readiness_touches_node_port_services_only() -> None:
    world = settled()
    world.put("Node", objects.node("n1", ready="False"))
    assert world.touched() == []
    world = settled(publish="node-port")
    world.put("Node", objects.node("n1", ready="False"))
    assert sorted(world.touched()) == ["shop/service/db", "shop/service/web"]


def test_node_port_without_nodes_is_complained_of() -> None:
    world = World(nodes=False)
    world.put("Service", objects.service("web", annotations={"envbridge.io/publish": "node-port"}))
    assert world.listing().groups[0].instances == ()
    assert "nodes: true" in world.complaints[0]


def test_one_broken_slice_of_a_thousand_is_rejected_by_its_key() -> None:
    world = World()
    world.put("EndpointSlice", *(slice_of(f"web-{number}") for number in range(999)))
    world.put("EndpointSlice", slice_of("bad") | {"endpoints": "nine"})
    listing = world.listing()
    assert len(listing.groups) == 999
    assert list(listing.rejected) == ["shop/slice/bad"]
    assert listing.unknown == {}


def test_a_broken_endpoint_is_told_each_time_and_stays_broken_when_packed() -> None:
    world = World()
    endpoints = [objects.endpoint("10.0.0.1", "a"), objects.endpoint("10.0.0.2", "b") | {"addresses": 7}]
    for number in range(200):  # more than stay unpacked
        world.put("EndpointSlice", objects.endpointslice(f"web-{number}", "web", endpoints))
    world.state.settle()
    for key in world.state.dirty:
        (group, rejected), made_from = world.state.event(key)
        assert isinstance(group, InstanceGroup)
        assert [item.id for item in group.instances] == ["shop/web/uid-a"]
        assert isinstance(rejected, Rejected)
        assert rejected.key == "shop/web/uid-b"
        assert made_from is None


@pytest.mark.parametrize("port", [{"port": 70000}, {"port": 0}, {"port": 80, "protocol": "HTTP"}, {"port": "80"}])
def test_a_broken_port_is_its_whole_slices_and_keeps_what_was_known_of_it(port: Any) -> None:
    before = settled()
    after = World(before=before.state)
    after.put("EndpointSlice", slice_of("web-1", ports=[{"name": "http", "port": 8080}, port]), slice_of("web-2"))
    listing = after.listing()
    assert [group.key for group in listing.groups] == ["shop/slice/web-2"]
    assert "$.ports[1].p" in listing.rejected["shop/slice/web-1"]
    assert listing.unknown == {}


def test_an_object_without_a_name_makes_its_scope_unknown() -> None:
    world = World("shop")
    world.put("EndpointSlice", slice_of("web-1"), {"metadata": {}})
    listing = world.listing()
    assert [group.key for group in listing.groups] == ["shop/slice/web-1"]
    assert list(listing.unknown) == ["shop"]


def test_an_object_of_another_namespace_makes_the_scope_unknown() -> None:
    world = World("shop")
    world.put("EndpointSlice", slice_of("web-1", namespace="other"))
    listing = world.listing()
    assert listing.groups == ()
    assert list(listing.unknown) == ["shop"]


def test_a_broken_service_leaves_what_was_known_of_it() -> None:
    world = World()
    world.put("Service", objects.service("web", annotations={"envbridge.io/weight": "3"}))
    world.put("EndpointSlice", slice_of("web-1"))
    world.listing()
    after = World(before=world.state)
    broken = objects.service("web")
    broken["spec"]["ports"] = "nine"
    after.put("Service", broken)
    after.put("EndpointSlice", slice_of("web-1"))
    listing = after.listing()
    assert list(listing.rejected) == ["shop/service/web"]
    assert [group.instances[0].weight for group in listing.groups] == [3]


BROKEN_NODE = objects.node("n1") | {"status": {"addresses": "nine"}}


def regions(listing: Listing) -> set[str | None]:
    return {instance.region for group in listing.groups for instance in group.instances}


@pytest.mark.parametrize("scope", ["", "shop"])
def test_a_broken_node_is_rejected_alone_and_what_was_known_of_it_counts_on(scope: str) -> None:
    world = settled(scope=scope)
    after = World(scope, before=world.state)
    after.put("Node", BROKEN_NODE, objects.node("n2", zone="z2"))
    after.put("EndpointSlice", slice_of("web-1"), slice_of("web-2"), slice_of("db-1", "db"))
    listing = after.listing()
    key = f"{scope}/Node/n1".lstrip("/")
    assert list(listing.rejected) == [key]
    assert "$.status.addresses" in listing.rejected[key]
    assert covers(scope, key)
    assert listing.unknown == {}
    assert after.state.nodes == world.state.nodes
    assert regions(listing) == {"r1"}


def test_a_broken_node_of_which_nothing_is_known_has_no_place() -> None:
    world = World()
    world.put("Node", BROKEN_NODE)
    world.put("EndpointSlice", slice_of("web-1"))
    listing = world.listing()
    assert (list(listing.rejected), listing.unknown, regions(listing)) == (["Node/n1"], {}, {None})


def test_a_node_that_breaks_while_it_is_watched_is_told_and_so_is_its_repair() -> None:
    world = settled(publish="node-port")
    world.put("Node", BROKEN_NODE)
    assert (list(world.state.rejected), world.state.unknown, world.touched()) == (["Node/n1"], {}, [])
    world.put("Node", BROKEN_NODE)
    assert list(world.state.rejected) == ["Node/n1"]
    world.touched()
    world.put("Node", objects.node("n1"))
    assert (world.state.rejected, world.touched()) == ({}, ["Node/n1"])
    assert world.state.event("Node/n1") == ([Gone("Node/n1")], None)
    world.put("Node", BROKEN_NODE)
    world.touched()
    world.drop("Node", BROKEN_NODE)
    assert "n1" not in world.state.nodes
    assert "Node/n1" in world.touched()


def test_a_nameless_node_may_be_any_that_is_missing() -> None:
    world = settled()
    after = World(before=world.state)
    after.put("Node", {"metadata": {}}, objects.node("n2", zone="elsewhere"))
    after.put("EndpointSlice", slice_of("web-1"))
    listing = after.listing()
    assert (list(listing.rejected), listing.unknown, regions(listing)) == (["Node"], {}, {"r1"})
    assert {name: facts.zone for name, facts in after.state.nodes.items()} == {"n1": "z1", "n2": "elsewhere"}
    again = World(before=after.state)
    again.put("Node", objects.node("n2"))
    again.put("EndpointSlice", slice_of("web-1"))
    assert regions(again.listing()) == {None}  # a list without it that can be read


@pytest.mark.parametrize(("broken", "key"), [(BROKEN_NODE, "shop/web/n1"), ({"metadata": {}}, "shop/service/web/Node")])
def test_a_node_port_group_says_what_it_may_lack(broken: Any, key: str) -> None:
    world = World(publish="node-port")
    world.put("Node", broken, objects.node("n2"))
    world.put("Service", objects.service("web", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    world.listing()
    (group, rejected), made_from = world.state.event("shop/service/web")
    assert isinstance(group, InstanceGroup)
    assert [instance.id for instance in group.instances] == ["shop/web/n2"]
    assert isinstance(rejected, Rejected)
    assert (rejected.key, made_from) == (key, None)


def test_a_list_of_nodes_that_begins_again_forgets_what_it_said_of_them() -> None:
    world = World("shop")
    world.put("EndpointSlice", slice_of("bad") | {"ports": 1})
    world.put("Node", BROKEN_NODE, {"metadata": 7})
    world.state.restart("Node")
    listing = world.listing()
    assert (list(listing.rejected), listing.unknown) == (["shop/slice/bad"], {})


@pytest.mark.parametrize(
    ("kind", "good", "bad", "key"),
    [
        ("EndpointSlice", slice_of("web-1"), slice_of("web-1") | {"endpoints": "nine"}, "shop/slice/web-1"),
        ("Service", objects.service("web"), objects.service("web") | {"spec": 7}, "shop/service/web"),
    ],
)
def test_what_can_be_read_again_is_told_though_it_did_not_change(kind: Kind, good: Any, bad: Any, key: str) -> None:
    world = settled()
    world.put(kind, bad)
    assert (list(world.state.rejected), world.touched()) == ([key], [])
    world.put(kind, good)
    assert (world.state.rejected, world.touched()) == ({}, [key])
    world.put(kind, bad, good)
    assert (world.state.rejected, world.touched()) == ({}, [key])


def test_a_list_that_begins_again_forgets_what_it_said() -> None:
    world = World()
    world.put("EndpointSlice", slice_of("old"), slice_of("bad") | {"ports": 1}, {"metadata": 1})
    world.put("Service", objects.service("web"))
    world.state.restart("EndpointSlice")
    world.put("EndpointSlice", slice_of("new"))
    listing = world.listing()
    assert [group.key for group in listing.groups] == ["shop/service/web", "shop/slice/new"]
    assert (listing.rejected, listing.unknown) == ({}, {})


def test_equal_input_is_told_whatever_the_bytes() -> None:
    world = settled()
    after = World(before=world.state)
    after.put("Node", objects.node("n2", zone="z2"), objects.node("n1"))
    after.put("Service", objects.service("web"), objects.service("db"))
    typed = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", **slice_of("web-1")}
    after.put("EndpointSlice", typed, slice_of("web-2"), slice_of("db-1", "db"))
    after.state.settle()
    for key in after.state.dirty:
        assert after.state.input(key) == world.state.input(key)


@settings(max_examples=200)
@given(
    st.sampled_from(["EndpointSlice", "Service", "Node"]),
    JSON,
    st.sampled_from(["whole", "metadata", "spec", "endpoints", "ports", "status"]),
)
def test_garbage_never_crashes_and_never_loses_its_neighbours(kind: Any, garbage: Any, where: str) -> None:
    before = settled()
    good = {
        "EndpointSlice": [slice_of("web-1"), slice_of("web-2"), slice_of("db-1", "db")],
        "Service": [objects.service("web"), objects.service("db")],
        "Node": [objects.node("n1"), objects.node("n2", zone="z2")],
    }
    good[kind][0] = garbage if where == "whole" else good[kind][0] | {where: garbage}
    after = World(before=before.state)
    for each, made in good.items():
        after.put(each, *made)  # type: ignore[arg-type]
    listing = after.listing()
    shown = {group.key for group in listing.groups}
    lost = {
        key
        for key in [*before.state.slices, *before.state.services]
        if key not in shown and key not in listing.rejected and not any(covers(scope, key) for scope in listing.unknown)
    }
    # A readable object that says less (no labels, another name) is no garbage: it may take its own group with it.
    assert lost <= {"shop/slice/web-1", "shop/service/web"}
    if where == "whole" and not isinstance(garbage, dict):
        assert not lost
