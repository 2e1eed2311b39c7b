"""One daemon on a Kubernetes cluster, a Docker Swarm, AWS Cloud Map and files at once: what was made is what is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from tests.kit.cloudmap import CREDENTIALS, CloudMap
from tests.kit.daemon import EVERYTHING, Daemon, Watcher, by_ref
from tests.kit.fakes.cloud_map import FakeCloudMap
from tests.kit.servers.dockerd import Swarm
from tests.kit.servers.kubernetes import KubeCluster
from tests.kit.servers.moto import Moto
from tests.kit.servers.process import wait_for
from tests.kit.shop import FILE, Object, Part, a_cluster, a_region, a_strict_region, a_swarm, some_files
from tests.kit.sightings import DRAINING, READY, UNREADY, BlockedReader, Sightings, StreamReader


def sets(instances: dict[str, Object]) -> dict[str, Object]:
    """The same with what has no promised order (ports and tags) in one."""
    return {
        ref: item | {"ports": sorted(item["ports"], key=lambda each: each["port"]), "tags": sorted(item["tags"])}
        for ref, item in instances.items()
    }


def test_every_instance_of_every_environment_is_read_as_it_was_made(
    kube_cluster: KubeCluster, swarm: Swarm, moto_server: Moto, tmp_path: Path
) -> None:
    moto_server.reset()
    with ExitStack() as stack:
        cluster, own = stack.enter_context(a_cluster(kube_cluster))
        cloud_map = stack.enter_context(closing(CloudMap(moto_server.url)))
        region, web = a_region(cloud_map, moto_server.url)
        parts = {
            "cluster": cluster,
            "swarm": stack.enter_context(a_swarm(swarm)),
            "aws": region,
            "aws-strict": a_strict_region(stack.enter_context(FakeCloudMap())),
            "files": some_files(tmp_path),
        }
        expected = by_ref([item for part in parts.values() for item in part.instances])
        sources = {name: part.source for name, part in parts.items()}
        daemon = stack.enter_context(Daemon(tmp_path, {"sources": sources}, env=CREDENTIALS))
        daemon.wait_ready()
        for name in parts:
            daemon.wait_source(name)
        wait_for("all instances", lambda: daemon.instances(**EVERYTHING).keys() == expected.keys())

        assert sets(daemon.instances(**EVERYTHING)) == sets(expected)
        _check_other_answers(daemon, expected, parts)

        watcher = stack.enter_context(Watcher(daemon))
        blocked = stack.enter_context(BlockedReader(daemon, "/v1/services/shop/web")).seen
        stream = stack.enter_context(StreamReader(daemon, "/v1/services/shop/web")).seen
        ended = _change_everything(kube_cluster, own, swarm, cloud_map, web, tmp_path, blocked, stream)
        watcher.check(ended)
        assert daemon.get("/v1/services/shop/nobody").status == 404, "all was read, so nobody has the name"


def _check_other_answers(daemon: Daemon, expected: dict[str, Object], parts: dict[str, Part]) -> None:
    """Lists with filters, the union in one service, counts, single pages, and the sources' rows."""

    def chosen(holds: Callable[[Object], object]) -> set[str]:
        return {ref for ref, item in expected.items() if holds(item)}

    assert set(daemon.instances()) == chosen(lambda item: item["health"] == "ready" and item["lifecycle"] == "active")
    filters: tuple[tuple[Object, Callable[[Object], object]], ...] = (
        ({"zone": "eu-west-1a"}, lambda item: item["zone"] == "eu-west-1a"),
        ({"tag": ["v1", "v2"]}, lambda item: {"v1", "v2"} & set(item["tags"])),
        ({"meta.team": "checkout", "source": ["swarm", "aws"]}, lambda item: item["meta"] and item["source"] in ("swarm", "aws")),
        ({"port": "http", "namespace": "default"}, lambda item: item["service"] == "worker"),
        ({"node": "rack-7"}, lambda item: item["node"] == "rack-7"),
    )
    for params, holds in filters:
        assert set(daemon.instances(**EVERYTHING, **params)) == chosen(holds), params

    in_shop_web = daemon.get("/v1/services/shop/web", **EVERYTHING).body["instances"]
    of_shop_web = chosen(lambda item: (item["namespace"], item["service"]) == ("shop", "web"))
    assert set(by_ref(in_shop_web)) == of_shop_web
    assert {item["source"] for item in in_shop_web} == {"cluster", "swarm", "aws", "files"}

    services = {f"{item['namespace']}/{item['name']}": item for item in daemon.get("/v1/services").body["services"]}
    assert set(services) == {f"{item['namespace']}/{item['service']}" for item in expected.values()} | {"shop/empty"}
    assert services["shop/empty"]["environments"].get("test", {"ready": 0})["ready"] == 0
    draining = sum(expected[ref]["lifecycle"] == "draining" for ref in of_shop_web)
    ready = sum(expected[ref]["lifecycle"] == "active" and expected[ref]["health"] == "ready" for ref in of_shop_web)
    counts = {"ready": ready, "unready": len(of_shop_web) - ready - draining, "draining": draining}
    assert services["shop/web"]["environments"] == {"test": counts}
    assert set(services["shop/web"]["ports"]) == {"http", "admin", "default"}
    assert set(services["shop/web"]["tags"]) == {"v1", "v2", "blue", "public"}

    for ref, item in expected.items():
        page = daemon.get(f"/v1/instances/{ref}").body
        assert sets({ref: {key: page[key] for key in item}}) == sets({ref: item})
        assert page["held"] is False
        assert page["age_ms"] >= 0

    (environment,) = daemon.get("/v1/environments").body
    assert (environment["name"], environment["state"], environment["instances"]) == ("test", "live", len(expected))
    rows = {row["name"]: (row["state"], row["instances"], row["rejected"], row["held"]) for row in environment["sources"]}
    assert rows == {name: ("synced", len(part.instances), 0, 0) for name, part in parts.items()}


def _change_everything(
    kube: KubeCluster,
    own: str,
    swarm: Swarm,
    cloud_map: CloudMap,
    web: str,
    folder: Path,
    blocked: Sightings,
    stream: Sightings,
) -> set[str]:
    """A change in each environment reaches the readers of the service that they share; the refs of what ended."""

    def see(what: str, holds: Callable[[dict[str, str]], bool]) -> None:
        for reader in (blocked, stream):
            reader.wait(holds, 10.0, what)

    def uid(name: str) -> str:
        return str(kube.api("GET", f"/api/v1/namespaces/{own}/pods/{name}")["metadata"]["uid"])

    ready, unready = (f"{own}/web/{uid(name)}" for name in ("web-ready", "web-unready"))
    leaving = f"{own}/web/{uid('web-leaving')}"
    kube.set_ready("web-unready", own, True)
    see("a pod ready", lambda states: states[unready] == READY)
    kube.terminate_pod("web-ready", own)
    see("a pod draining", lambda states: states[ready] == DRAINING)
    kube.force_delete_pod("web-leaving", own)
    see("a pod gone", lambda states: leaving not in states)

    tasks = {task["ID"] for task in swarm.tasks("shop_web")}
    swarm.scale_service("shop_web", 1)
    (kept,) = {task["ID"] for task in swarm.tasks("shop_web")}
    (gone,) = tasks - {kept}
    see("a task gone", lambda states: gone not in states and states[kept] == READY)

    cloud_map.set_healthy(web, "i-1", False)
    cloud_map.register(web, "i-3", AWS_INSTANCE_IPV4="192.0.2.13")
    see("registration and health", lambda states: (states.get(f"{web}/i-3"), states[f"{web}/i-1"]) == (READY, UNREADY))
    cloud_map.deregister(web, "i-2")
    see("a deregistration", lambda states: f"{web}/i-2" not in states)

    changed = json.loads(json.dumps(FILE))
    del changed["services"][0]["instances"][1]
    written = folder / "shop.new"
    written.write_text(json.dumps(changed))
    written.replace(folder / "shop.json")
    see("an edit", lambda states: "shop/web/web-2" not in states)
    return {f"test/cluster/{leaving}", f"test/swarm/{gone}", f"test/aws/{web}/i-2", "test/files/shop/web/web-2"}
