"""What is said of a Swarm, relative to what was said before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import TransientError
from bridge.model import Confirmed, Listing
from bridge_plugins.sources.docker_swarm.listing import Bodies, Memos, missing_services, read_snapshot
from bridge_plugins.sources.docker_swarm.policy import Publish, Settings
from bridge_plugins.sources.docker_swarm.wire import TASKS, read_items
from tests.kit.fakes.dockerobjects import Object, network, node, port, service, task
from tests.unit.docker_swarm.kit import Swarm, dump, shown

WEB, API = service("web", desired=2), service("api")
T1, T2, A1 = task("t1"), task("t2", slot=2), task("a1", "api")


def ended(made: Object, state: str = "shutdown") -> Object:
    return task(made["ID"], made["ServiceID"], state=state, desired="shutdown")


def draining(made: Object, desired: str = "shutdown") -> Object:
    return task(made["ID"], made["ServiceID"], desired=desired)


def test_the_first_time_everything_is_listed_even_nothing() -> None:
    assert shown(Swarm().listing([WEB, API], [T1, T2, A1])) == {"web": {"t1", "t2"}, "api": {"a1"}}
    assert Swarm().listing([]) == Listing()


def test_an_unchanged_cycle_confirms() -> None:
    swarm = Swarm()
    swarm.listing([WEB, API], [T1, T2, A1])
    assert swarm.step([WEB, API], [T1, T2, A1]).observation == Confirmed()
    assert swarm.step([API, WEB], [A1, T2, T1]).observation == Confirmed()  # in another order
    assert swarm.step([WEB | {"Version": {"Index": 9}}, API], [T1, T2, A1]).observation == Confirmed()  # nothing that is shown


def test_what_did_not_change_beside_a_change_is_called_unchanged() -> None:
    swarm = Swarm()
    swarm.listing([WEB, API], [T1, T2, A1])
    listing = swarm.listing([WEB, API], [T1, A1])
    assert (shown(listing), listing.unchanged) == ({"web": {"t1"}}, ("api",))


def test_what_services_share_belongs_to_the_fingerprint() -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    swarm.nodes = [node("n1", state="down")]
    (group,) = swarm.listing([WEB], [T1, T2]).groups
    assert [instance.health for instance in group.instances] == ["unready", "unready"]


def test_a_new_service_is_never_called_unchanged() -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    listing = swarm.listing([WEB, API], [T1, T2])
    assert (shown(listing), listing.unchanged) == ({"api": set()}, ("web",))


# -- what is explicit


@pytest.mark.parametrize("state", ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"])
def test_a_task_listed_as_ended_is_gone(state: str) -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    assert swarm.listing([WEB], [T1, ended(T2, state)]).gone == ("t2",)
    assert swarm.step([WEB], [T1, ended(T2, state)]).observation == Confirmed()


def test_the_first_listing_names_what_ended_before_it() -> None:
    assert Swarm().listing([WEB], [T1, ended(T2)]).gone == ("t2",)


def test_an_absent_task_is_left_to_the_guard() -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    listing = swarm.listing([WEB], [T1])
    assert (shown(listing), listing.gone) == ({"web": {"t1"}}, ())


@pytest.mark.parametrize("desired", ["shutdown", "remove"])
def test_an_absent_task_that_was_last_seen_draining_is_gone(desired: str) -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    swarm.listing([WEB], [T1, draining(T2, desired)])
    assert swarm.listing([WEB], [T1]).gone == ("t2",)


def test_absent_tasks_are_gone_where_as_many_run_as_are_to_run() -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    assert swarm.listing([service("web", desired=1)], [T1]).gone == ("t2",)


def test_an_absent_task_is_gone_later_when_as_many_run_as_are_to_run() -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    assert swarm.listing([WEB], [T1]).gone == ()
    assert swarm.listing([WEB], [T1, task("t3")]).gone == ("t2",)


def test_a_service_scaled_to_nothing_lets_go_of_its_tasks() -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    listing = swarm.listing([service("web", desired=0)], [])
    assert (shown(listing), set(listing.gone)) == ({"web": set()}, {"t1", "t2"})


@pytest.mark.parametrize("late", [draining(T1), task("t1", state="starting")])
def test_a_listed_task_is_never_gone_by_number(late: Object) -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    listing = swarm.listing([WEB], [T1, T2, task("t3"), task("t4")])  # start-first: four run where two are to
    assert (shown(listing), listing.gone) == ({"web": {"t1", "t2", "t3", "t4"}}, ())
    assert swarm.listing([WEB], [late, T2, task("t3"), task("t4")]).gone == ()


def test_draining_tasks_do_not_count_as_running() -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    assert swarm.listing([WEB], [draining(T1)]).gone == ()


def test_without_the_managers_count_absence_is_never_explicit() -> None:
    swarm, old = Swarm(), service("web", desired=None)
    swarm.listing([old], [T1, T2])
    assert swarm.listing([old], [T1]).gone == ()


def test_a_service_that_ended_is_gone_and_forgotten() -> None:
    swarm = Swarm()
    swarm.listing([WEB, API], [T1, T2, A1])
    snapshot = swarm.snapshot([WEB], [T1, T2, A1])
    assert missing_services(snapshot, swarm.state) == ["api"]
    listing = swarm.listing([WEB], [T1, T2, draining(A1, "remove")], ended=["api"])
    assert (listing.gone, listing.unknown, listing.unchanged) == (("api",), {}, ("web",))
    assert swarm.step([WEB], [T1, T2]).observation == Confirmed()


def test_a_missing_service_is_unknown_until_it_is_told_to_have_ended() -> None:
    swarm = Swarm()
    swarm.listing([WEB, API], [T1, T2, A1])
    outcome = swarm.step([WEB], [T1, T2, A1], doubts={"api": TransientError("not listed, and yet there")})
    assert isinstance(outcome.observation, Listing)
    assert (set(outcome.observation.unknown), outcome.observation.gone, outcome.unsettled) == ({"api"}, (), True)
    assert set(swarm.listing([], []).unknown) == {"api", "web"}
    listing = swarm.listing([WEB, API], [T1, T2, A1])
    assert set(listing.unchanged) == {"web", "api"}
    assert swarm.step([WEB, API], [T1, T2, A1]).observation == Confirmed()


def test_nodes_that_leave_the_mesh_are_gone_and_missing_ones_are_not() -> None:
    swarm = Swarm(Settings(publish="ingress"))
    swarm.nodes = [node("n1"), node("n2", "192.0.2.2"), node("n3", "192.0.2.3")]
    web = service("web", ports=[port(80, 30080)])
    swarm.listing([web], [T1])
    swarm.nodes = [node("n1"), node("n2", "192.0.2.2", state="down")]
    listing = swarm.listing([web], [T1])
    assert (shown(listing), listing.gone) == ({"web": {"web/n1"}}, ("web/n2",))


# -- what cannot be read


@pytest.mark.parametrize(
    "broken", [T2 | {"Spec": 7}, T2 | {"Status": None}, T2 | {"DesiredState": ["running"]}, T2 | {"NetworksAttachments": 1}]
)
def test_a_broken_task_is_rejected_alone_and_not_taken_for_absent(broken: Object) -> None:
    swarm = Swarm()
    swarm.listing([WEB], [T1, T2])
    listing = swarm.listing([service("web", desired=1)], [T1, broken])
    assert (set(listing.rejected), listing.gone, listing.unknown) == ({"t2"}, (), {})
    assert swarm.listing([service("web", desired=1)], [T1]).gone == ("t2",)


def test_one_broken_object_of_a_thousand_costs_only_itself() -> None:
    tasks = [task(f"t{n}", f"s{n}") for n in range(1000)]
    services = [service(f"s{n}") for n in range(1000)]
    tasks[500]["NodeID"] = 7
    listing = Swarm().listing(services, tasks)
    assert sum(len(group.instances) for group in listing.groups) == 999
    assert set(listing.rejected) == {"t500"}
    assert "NodeID" in listing.rejected["t500"]


def test_a_broken_service_is_rejected_with_all_its_tasks() -> None:
    swarm = Swarm()
    swarm.listing([WEB, API], [T1, T2, A1])
    listing = swarm.listing([WEB | {"Spec": 7}, API], [A1])
    assert (set(listing.rejected), shown(listing), listing.unchanged, listing.gone) == ({"web"}, {}, ("api",), ())
    assert set(swarm.listing([WEB, API], [T1, T2, A1]).unchanged) == {"web", "api"}


@pytest.mark.parametrize("id", [None, 7, "", "a/b", "a b", "x" * 200])
def test_an_object_without_an_id_makes_unknown_what_it_could_belong_to(id: object) -> None:
    swarm = Swarm()
    swarm.listing([WEB, API], [T1, T2, A1])
    listing = swarm.listing([service("web", desired=1), API], [T1, T2 | {"ID": id}, A1])
    assert (set(listing.unknown), listing.gone) == ({"web"}, ())
    listing = swarm.listing([service("web", desired=1), API], [T1, A1])
    assert (listing.unknown, listing.gone) == ({}, ("t2",))  # now that every task can be read
    for services, tasks in (
        ([WEB | {"ID": id}, API], [T1, A1]),
        ([WEB, API], [T1, 7, A1]),
        ([WEB, API], [T1, T2 | {"ID": id, "ServiceID": 1}]),
    ):
        listing = swarm.listing(services, tasks)
        assert "" in listing.unknown
        assert listing.gone == ()


def test_a_broken_node_costs_only_what_is_on_it() -> None:
    swarm = Swarm()
    swarm.nodes = [node("n1"), node("n2", "192.0.2.2")]
    tasks = [T1, task("t2", node="n2")]
    swarm.listing([WEB], tasks)
    swarm.nodes[1] = swarm.nodes[1] | {"Status": 7}
    listing = swarm.listing([WEB], tasks)
    assert (shown(listing), set(listing.rejected), listing.gone) == ({"web": {"t1"}}, {"t2"}, ())
    assert swarm.step([WEB], tasks).observation == Confirmed()
    swarm.nodes[1] = {"Status": 7}
    assert "" in swarm.listing([WEB], tasks).unknown


@pytest.mark.parametrize(
    ("broken", "key"),
    [
        (7, "networks/[0]"),
        (None, "networks/[0]"),
        ({}, "networks/[0]"),
        ({"Id": "a/b", "Name": "blue"}, "networks/[0]"),
        ({"Id": "blue", "Name": 7}, "networks/blue"),
    ],
)
@pytest.mark.parametrize("publish", ["vip", "host"])
def test_a_broken_network_is_counted_and_costs_no_address(publish: Publish, broken: object, key: str) -> None:
    swarm = Swarm(Settings(publish=publish))
    web = service("web", virtual_ips={"blue": "10.0.1.2/24"})
    swarm.networks = [network("blue")]
    first = shown(swarm.listing([web], [T1]))
    swarm.networks = [broken]  # type: ignore[list-item]
    listing = swarm.listing([web], [T1])
    assert "networks[0]" in listing.rejected[key]
    assert (listing.gone, listing.unknown) == ((), {})
    kept = {*(id_ for id_ in first["web"] if id_ in listing.rejected), *shown(listing).get("web", first["web"])}
    assert kept == first["web"]
    assert swarm.step([web], [T1]).observation == Confirmed()
    swarm.networks = [network("blue")]
    assert swarm.listing([web], [T1]).rejected == {}


def test_plugins_and_attached_containers_are_no_tasks_of_ours() -> None:
    plugin = task("p1", "web") | {"Spec": {"PluginSpec": {}}}
    attached = {
        "ID": "x1",
        "Spec": {"NetworkAttachmentSpec": {"ContainerID": "c"}},
        "Status": {"State": "running"},
        "DesiredState": "running",
    }
    listing = Swarm().listing([WEB], [T1, plugin, attached])
    assert (shown(listing), listing.rejected, listing.unknown) == ({"web": {"t1"}}, {}, {})


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"7", b"<html>", b'[{"ID": "t1"', b"[1,", b"\xff\xfe"])
def test_a_body_that_is_no_list_is_an_error(body: bytes) -> None:
    for position in range(4):
        bodies = [b"[]"] * 4
        bodies[position] = body
        with pytest.raises(TransientError):
            read_snapshot(Bodies(*bodies), Memos(), Settings())


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c), max_leaves=8
    )
)
def test_no_object_is_able_to_break_a_list(junk: object) -> None:
    no_id = None if isinstance(junk, str) else junk  # text may be the id of another task
    for replaced in ({**T2, "Spec": junk}, {**T2, "Status": junk}, {**T2, "ID": no_id}, junk):
        swarm = Swarm()
        swarm.listing([WEB, API], [T1, T2, A1])
        observation = swarm.step([WEB, API], [T1, replaced, A1]).observation
        assert observation == Confirmed() or (isinstance(observation, Listing) and not observation.gone)


def test_what_did_not_change_is_not_decoded_again() -> None:
    first = read_items(dump([T1, T2]), TASKS, {})
    second = read_items(dump([T2, ended(T1)]), TASKS, first.memo)
    assert second.found["t2"] is first.found["t2"]
    assert second.found["t1"] is not first.found["t1"]
    assert len(second.memo) == 2
