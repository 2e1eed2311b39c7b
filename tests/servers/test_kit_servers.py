"""The real servers of the kit do what the other tests rely on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.servers.dockerd import Swarm
from tests.kit.servers.kubehttp import ApiError
from tests.kit.servers.kubernetes import KubeCluster
from tests.kit.servers.moto import Moto
from tests.kit.servers.process import ServerFailed, ServerProcess, free_port, wait_for
from tests.kit.servers.requirement import require

pytest_plugins = ("tests.kit.servers.fixtures",)

SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
STREAM = f"{SLICES}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
ROOT = Path(__file__).parents[2]


def _answer(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
        return str(response.read().decode())


Shop = tuple[KubeCluster, str]
"""The cluster and a namespace of one test, with a Service `web` and a Node."""


@pytest.fixture
def shop(kube_cluster: KubeCluster, request: pytest.FixtureRequest) -> Iterator[Shop]:
    namespace = f"shop-{abs(hash(request.node.name)):x}"
    kube_cluster.namespace(namespace)
    kube_cluster.node("node-1", zone="zone-a", region="region-1", addresses=["198.51.100.1"])
    kube_cluster.service("web", namespace, selector={"app": "web"})
    yield kube_cluster, namespace
    kube_cluster.delete_node("node-1")
    kube_cluster.delete_namespace(namespace)


def test_pod_life_reaches_slices_within_a_second(shop: Shop) -> None:
    cluster, namespace = shop
    cluster.pod("web-1", namespace, {"app": "web"}, "node-1", "10.5.0.1")
    (endpoint,) = cluster.wait_endpoints(namespace, "web", 1, ready=1, timeout=1.0)
    assert (endpoint["addresses"], endpoint["zone"], endpoint["nodeName"]) == (["10.5.0.1"], "zone-a", "node-1")

    cluster.set_ready("web-1", namespace, False)
    cluster.wait_endpoints(namespace, "web", 1, ready=0, timeout=1.0)
    cluster.set_ready("web-1", namespace, True)
    cluster.wait_endpoints(namespace, "web", 1, ready=1, timeout=1.0)

    cluster.terminate_pod("web-1", namespace)
    wait_for("terminating", lambda: cluster.endpoints(namespace, "web")[0]["conditions"]["terminating"], 1.0)
    assert cluster.endpoints(namespace, "web")[0]["conditions"] == {"ready": False, "serving": True, "terminating": True}
    cluster.force_delete_pod("web-1", namespace)
    cluster.wait_endpoints(namespace, "web", 0, timeout=1.0)


def test_deployment_scales(shop: Shop) -> None:
    cluster, namespace = shop
    cluster.deployment("web", namespace, 3, {"app": "web"}, "node-1")
    cluster.run_pods(namespace, {"app": "web"}, 3)
    cluster.wait_endpoints(namespace, "web", 3, ready=3)
    cluster.scale("web", namespace, 5)
    cluster.run_pods(namespace, {"app": "web"}, 5)
    cluster.wait_endpoints(namespace, "web", 5, ready=5)
    cluster.scale("web", namespace, 1)
    wait_for("the end of four pods", lambda: cluster.reap_pods(namespace) == 0 and len(cluster.pods(namespace)) == 1)
    cluster.wait_endpoints(namespace, "web", 1, ready=1)


def test_slices_by_hand_and_both_families(shop: Shop) -> None:
    cluster, namespace = shop
    cluster.endpointslice("hand-1", namespace, "hand", ["10.9.0.1", {"addresses": ["10.9.0.2"], "conditions": {"ready": False}}])
    cluster.wait_endpoints(namespace, "hand", 2, ready=1)
    cluster.service("dual", namespace, selector={"app": "dual"}, ipFamilyPolicy="RequireDualStack")
    cluster.pod("dual-1", namespace, {"app": "dual"}, "node-1", ["10.5.0.9", "fd00:5::9"])
    cluster.wait_endpoints(namespace, "dual", 2, ready=2)
    assert {item["addressType"] for item in cluster.slices(namespace, "dual")} == {"IPv4", "IPv6"}


def test_rights_are_enforced_by_namespace(shop: Shop) -> None:
    cluster, namespace = shop
    path = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"

    def status(namespace: str) -> int:
        try:
            cluster.api("GET", path.format(namespace), user="reader")
        except ApiError as error:
            return error.status
        return 200

    assert status(namespace) == 403
    cluster.grant("reader", namespace, [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}])
    wait_for("the right", lambda: status(namespace) == 200)
    assert status("default") == 403
    cluster.revoke("reader", namespace)
    wait_for("the end of the right", lambda: status(namespace) == 403)


def test_kubeconfig_serves_kubectl(shop: Shop) -> None:
    cluster, namespace = shop
    command = cluster.run_kubectl("get", "services", f"--namespace={namespace}", "--output=json")
    listed = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["web"]


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_restarted_api_server_keeps_its_state(shop: Shop, kill: bool) -> None:
    cluster, namespace = shop
    cluster.pod("web-1", namespace, {"app": "web"}, "node-1", "10.5.0.1")
    cluster.wait_endpoints(namespace, "web", 1, ready=1)
    old = cluster.api("GET", SLICES)["metadata"]["resourceVersion"]
    cluster.namespace(f"later-{kill}".lower())
    cluster.compact()
    cluster.stop_apiserver(kill=kill)
    with pytest.raises(OSError, match="refused"):
        cluster.api("GET", SLICES)
    cluster.start_apiserver()
    assert len(cluster.endpoints(namespace, "web")) == 1
    cluster.set_ready("web-1", namespace, False)
    cluster.wait_endpoints(namespace, "web", 1, ready=0, timeout=2.0)
    (event,) = cluster.watch(f"{SLICES}?watch=1&resourceVersion={int(old) - 1}")
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    cluster.delete_namespace(f"later-{kill}".lower())


def test_streaming_list_needs_the_newer_etcd(kube_cluster: KubeCluster, old_etcd_kube_cluster: KubeCluster) -> None:
    events = kube_cluster.watch(STREAM)
    marks = [event["object"]["metadata"].get("annotations", {}) for event in events if event["type"] == "BOOKMARK"]
    assert {"k8s.io/initial-events-end": "true"} in marks
    (event,) = old_etcd_kube_cluster.watch(STREAM)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
    assert old_etcd_kube_cluster.api("GET", SLICES)["kind"] == "EndpointSliceList"


@pytest.fixture
def empty_swarm(swarm: Swarm) -> Iterator[Swarm]:
    swarm.reset()
    yield swarm
    swarm.reset()


def test_swarm_service_with_host_port_and_overlay(empty_swarm: Swarm) -> None:
    port = free_port()
    empty_swarm.network("blue")
    publish = [f"mode=host,target=8080,published={port}"]
    empty_swarm.create_service("web", networks=["blue"], publish=publish, labels={"team": "a"})
    (task,) = empty_swarm.tasks("web")
    assert task["Status"]["PortStatus"]["Ports"][0]["PublishedPort"] == port
    assert [item["Network"]["Spec"]["Name"] for item in task["NetworksAttachments"]] == ["blue"]
    assert _answer(port) == "ok"
    empty_swarm.update_service("web", "--image=envbridge-test:2")
    assert _answer(port) == "two"
    empty_swarm.rollback_service("web")
    assert _answer(port) == "ok"
    assert empty_swarm.service("web")["UpdateStatus"]["State"] == "rollback_completed"
    empty_swarm.remove_service("web")
    assert empty_swarm.api("GET", "/services") == []
    with pytest.raises(OSError, match="refused"):
        _answer(port)


def test_swarm_scaling_health_and_slow_end(empty_swarm: Swarm) -> None:
    empty_swarm.create_service("slow", health=True, env={"STOP_DELAY": "5"}, replicas=2)
    empty_swarm.scale_service("slow", 3)
    empty_swarm.scale_service("slow", 1)
    listed = empty_swarm.tasks("slow", desired=None)
    assert sorted(task["DesiredState"] for task in listed) == ["remove", "remove", "running"]


def test_swarm_survives_a_restart_of_the_engine(empty_swarm: Swarm) -> None:
    port = free_port()
    empty_swarm.create_service("web", publish=[f"mode=host,target=8080,published={port}"])
    empty_swarm.restart_dockerd(kill=True)

    def answers() -> bool:
        try:
            return _answer(port) == "ok"
        except OSError:
            return False

    wait_for("the service after the restart", answers, 30.0)
    assert empty_swarm.tcp_url is not None
    with urllib.request.urlopen(f"{empty_swarm.tcp_url.replace('tcp', 'http')}/_ping", timeout=5) as response:
        assert response.read() == b"OK"


def test_moto_answers_and_forgets(moto_server: Moto) -> None:
    boto3 = pytest.importorskip("boto3")
    credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-west-1"}
    client = boto3.client("servicediscovery", endpoint_url=moto_server.url, **credentials)
    moto_server.reset()
    client.create_http_namespace(Name="shop")
    assert [item["Name"] for item in client.list_namespaces()["Namespaces"]] == ["shop"]
    moto_server.reset()
    assert client.list_namespaces()["Namespaces"] == []
    client.close()


def test_servers_die_with_a_killed_test_run(tmp_path: Path) -> None:
    require("etcd")
    script = (
        "import sys, time; from pathlib import Path; from tests.kit.servers.etcd import Etcd\n"
        "etcd = Etcd(Path(sys.argv[1])); etcd.start(); print(etcd.process.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        assert _runs(pid)
        run.send_signal(signal.SIGTERM)
        run.wait(10)
    wait_for("the end of etcd", lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_failed_start_says_why(tmp_path: Path) -> None:
    server = ServerProcess("liar", [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"], tmp_path / "log")
    with pytest.raises(ServerFailed, match="status 3:\nno such thing"):
        server.start(lambda: False)
    mute = ServerProcess("mute", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log")
    with pytest.raises(ServerFailed, match=r"did not answer within 0\.2 s"):
        mute.start(lambda: False, timeout=0.2)
    assert not mute.alive


def test_paused_server_ends_when_told(tmp_path: Path) -> None:
    server = ServerProcess("sleeper", ["sleep", "60"], tmp_path / "log")
    server.start()
    server.pause()
    server.stop(timeout=5.0)
    assert not server.alive
