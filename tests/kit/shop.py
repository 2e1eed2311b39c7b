"""The same small shop in each kind of environment, and how each of its instances must be read.

What is expected is written down from what is made; only what a backend chose itself (uids, task ids, published ports, overlay
addresses) is taken from that backend's own API.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.cloudmap import REGION, CloudMap
from tests.kit.fakes.cloud_map import FakeCloudMap
from tests.kit.servers.dockerd import Swarm
from tests.kit.servers.kubernetes import KubeCluster

Object = dict[str, Any]

FILE: Object = {
    "services": [
        {
            "name": "web",
            "namespace": "shop",
            "tags": ["public"],
            "instances": [
                {
                    "id": "web-1",
                    "addresses": ["192.0.2.1", "2001:db8::1"],
                    "ports": {"http": 8080, "admin": {"port": 9000, "protocol": "TCP", "app_protocol": "http"}},
                    "health": "unknown",
                    "weight": 5,
                    "zone": "eu-west-1a",
                    "region": "eu-west-1",
                    "node": "rack-7",
                    "tags": ["v2"],
                    "meta": {"team": "checkout", "floor": 3},
                },
                {"id": "web-2", "address": "192.0.2.2", "ports": {"http": 8080}, "lifecycle": "draining"},
            ],
        },
        {"name": "mail", "instances": [{"hostname": "mail.example.org", "ports": {"smtp": 25}, "health": "unready"}]},
    ]
}


def instance(source: str, id_: str, namespace: str, service: str, **fields: Any) -> Object:
    """An instance as it must be read: what is not given is at its default."""
    return {
        "environment": "test",
        "source": source,
        "id": id_,
        "namespace": namespace,
        "service": service,
        "addresses": [],
        "hostname": None,
        "ports": [],
        "health": "ready",
        "lifecycle": "active",
        "state": "listed",
        "weight": 1,
        "region": None,
        "zone": None,
        "node": None,
        "tags": [],
        "meta": {},
        **fields,
    }


def port(name: str | None, number: int, app_protocol: str | None = None) -> Object:
    """A TCP port as it must be read."""
    return {"name": name, "port": number, "protocol": "TCP", "app_protocol": app_protocol}


@dataclass
class Part:
    """One source: its configuration, and the instances that must be read of it."""

    source: Object
    instances: list[Object]


@contextmanager
def a_cluster(kube: KubeCluster) -> Iterator[tuple[Part, str]]:
    """A namespace, which the source calls `shop`: Pods in each state, both families, a headless Service, a slice by hand."""
    own = f"three-{secrets.token_hex(3)}"
    node = f"node-{own}"
    kube.namespace(own)
    kube.node(node, zone="eu-west-1a", region="eu-west-1", addresses=["192.0.2.100"])
    place = {"zone": "eu-west-1a", "region": "eu-west-1", "node": node}
    try:
        notes = {"envbridge.io/tags": "v2, blue", "envbridge.io/weight": "3", "envbridge.io/meta.team": "checkout"}
        kube.service("web", own, (("http", 80, 8080), ("admin", 9000, 9001)), {"app": "web"}, annotations=notes)
        named = {"http": (80, 8080, "kubernetes.io/h2c"), "admin": (9000, 9001, None)}
        listed = [
            {"name": name, "port": number, "targetPort": at, "appProtocol": protocol}
            for name, (number, at, protocol) in named.items()
        ]
        kube.patch(f"/api/v1/namespaces/{own}/services/web", {"spec": {"ports": listed}})
        kube.service("dual", own, selector={"app": "dual"}, ipFamilyPolicy="RequireDualStack")
        kube.service("db", own, (("", 5432, 5432),), {"app": "db"}, clusterIP="None")
        kube.service("manual", own, (("http", 80, 8080),))
        kube.service("empty", own, selector={"app": "nothing"})
        pods = {
            "ready": kube.pod("web-ready", own, {"app": "web"}, node, "10.70.0.1"),
            "unready": kube.pod("web-unready", own, {"app": "web"}, node, "10.70.0.2", ready=False),
            "leaving": kube.pod("web-leaving", own, {"app": "web"}, node, "10.70.0.3"),
            "dual": kube.pod("dual-1", own, {"app": "dual"}, node, ["10.70.0.4", "fd00:70::4"]),
            "db": kube.pod("db-0", own, {"app": "db"}, node, "10.70.0.5", hostname="db-0", subdomain="db"),
        }
        kube.endpointslice("manual-1", own, "manual", [{"addresses": ["192.0.2.77"], "zone": "eu-west-1c"}], (("http", 8081),))
        kube.wait_endpoints(own, "web", 3, ready=2)
        kube.terminate_pod("web-leaving", own)
        kube.wait_endpoints(own, "web", 3, ready=1)
        kube.wait_endpoints(own, "dual", 2, ready=2)
        kube.wait_endpoints(own, "db", 1, ready=1)
        ids = {name: pod["metadata"]["uid"] for name, pod in pods.items()}
        web = {
            **place,
            "ports": [port("http", 8080, "kubernetes.io/h2c"), port("admin", 9001)],
            "weight": 3,
            "tags": ["v2", "blue"],
            "meta": {"team": "checkout"},
        }
        instances = [
            instance("cluster", f"{own}/web/{ids['ready']}", "shop", "web", addresses=["10.70.0.1"], **web),
            instance("cluster", f"{own}/web/{ids['unready']}", "shop", "web", addresses=["10.70.0.2"], health="unready", **web),
            instance(
                "cluster", f"{own}/web/{ids['leaving']}", "shop", "web", addresses=["10.70.0.3"], lifecycle="draining", **web
            ),
            instance(
                "cluster",
                f"{own}/dual/{ids['dual']}",
                "shop",
                "dual",
                addresses=["10.70.0.4", "fd00:70::4"],
                ports=[port("http", 8080)],
                **place,
            ),
            instance(
                "cluster",
                f"{own}/db/{ids['db']}",
                "shop",
                "db",
                addresses=["10.70.0.5"],
                hostname="db-0",
                ports=[port(None, 5432)],
                **place,
            ),
            instance(
                "cluster",
                f"{own}/manual/192.0.2.77",
                "shop",
                "manual",
                addresses=["192.0.2.77"],
                ports=[port("http", 8081)],
                zone="eu-west-1c",
            ),
        ]
        source = {
            "type": "kubernetes",
            "kubeconfig": str(kube.kubeconfig()),
            "namespaces_watched": [own],
            "namespaces": {own: "shop"},
            "nodes": True,
        }
        yield Part(source, instances), own
    finally:
        kube.delete_namespace(own)
        kube.delete_node(node)


@contextmanager
def a_swarm(swarm: Swarm) -> Iterator[Part]:
    """A service of a stack with ports on its hosts, and one on an overlay network."""
    swarm.reset()
    swarm.update_node("--label-add=zone=eu-west-1b", "--label-add=region=eu-west-1")
    swarm.network("backend", "--subnet=10.71.0.0/24")
    try:
        labels = {
            "com.docker.stack.namespace": "shop",
            "envbridge.tags": "v1",
            "envbridge.weight": "2",
            "envbridge.meta.team": "checkout",
            "envbridge.port.8080": "http",
        }
        swarm.create_service("shop_web", replicas=2, publish=["mode=host,target=8080"], labels=labels)
        overlay = {"envbridge.publish": "task-overlay", "envbridge.port.8080": "http"}
        swarm.create_service("worker", networks=["backend"], labels=overlay)
        node = swarm.node()
        place = {"zone": "eu-west-1b", "region": "eu-west-1", "node": node["Description"]["Hostname"]}
        instances = [
            instance(
                "swarm",
                task["ID"],
                "shop",
                "web",
                addresses=[node["ManagerStatus"]["Addr"].rpartition(":")[0]],
                ports=[port("http", task["Status"]["PortStatus"]["Ports"][0]["PublishedPort"])],
                weight=2,
                tags=["v1"],
                meta={"team": "checkout"},
                **place,
            )
            for task in swarm.wait_running("shop_web", 2)
        ]
        (worker,) = swarm.wait_running("worker", 1)
        (attached,) = (item for item in worker["NetworksAttachments"] if item["Network"]["Spec"]["Name"] == "backend")
        address = attached["Addresses"][0].partition("/")[0]
        assert address.startswith("10.71.0.")
        instances.append(
            instance("swarm", worker["ID"], "default", "worker", addresses=[address], ports=[port("http", 8080)], **place)
        )
        yield Part({"type": "docker_swarm", "hosts": [swarm.docker_host]}, instances)
    finally:
        swarm.update_node("--label-rm=zone", "--label-rm=region")
        swarm.reset()


def a_region(cloud_map: CloudMap, endpoint: str) -> tuple[Part, str]:
    """A namespace, which the source calls `shop`: instances with all attributes, without an address, of ill health."""
    namespace = cloud_map.namespace("shop.local")
    web = cloud_map.service(namespace, "web", checked=True)
    mail = cloud_map.service(namespace, "mail")
    cloud_map.register(
        web,
        "i-1",
        AWS_INSTANCE_IPV4="192.0.2.11",
        AWS_INSTANCE_IPV6="2001:db8::11",
        AWS_INSTANCE_PORT="8080",
        AVAILABILITY_ZONE="eu-west-1a",
        AWS_EC2_INSTANCE_ID="i-0abc",
        weight="4",
        team="checkout",
    )
    cloud_map.register(web, "i-2", AWS_INSTANCE_IPV4="192.0.2.12", AWS_INSTANCE_PORT="8080")
    cloud_map.set_healthy(web, "i-2", False)
    cloud_map.register(mail, "provider", AWS_INSTANCE_CNAME="mail.example.org")
    aws = {"region": REGION}
    instances = [
        instance(
            "aws",
            f"{web}/i-1",
            "shop",
            "web",
            addresses=["192.0.2.11", "2001:db8::11"],
            ports=[port("default", 8080)],
            weight=4,
            zone="eu-west-1a",
            node="i-0abc",
            meta={"team": "checkout"},
            **aws,
        ),
        instance(
            "aws",
            f"{web}/i-2",
            "shop",
            "web",
            addresses=["192.0.2.12"],
            ports=[port("default", 8080)],
            health="unready",
            **aws,
        ),
        instance("aws", f"{mail}/provider", "shop", "mail", hostname="mail.example.org", **aws),
    ]
    return Part(_cloud_map_source(endpoint), instances), web


def a_strict_region(fake: FakeCloudMap) -> Part:
    """Another account's: more objects than a page has, and health that nothing checks."""
    instances = []
    for name in ("jobs", "other.local"):
        namespace = fake.namespace(name)
        for number in range(3):
            service = fake.service(namespace, f"task-{number}")
            fake.register(service, "one", f"192.0.2.{20 + number}", 8080)
            instances.append(
                instance(
                    "aws-strict",
                    f"{service}/one",
                    name,
                    f"task-{number}",
                    addresses=[f"192.0.2.{20 + number}"],
                    ports=[port("default", 8080)],
                    region=REGION,
                )
            )
    return Part(_cloud_map_source(fake.url), instances)


def _cloud_map_source(endpoint: str) -> Object:
    return {
        "type": "cloud_map",
        "region": REGION,
        "endpoint_url": endpoint,
        "namespaces": {"shop.local": "shop"},
        "refresh": "1s",
        "health_refresh": "2s",
    }


def some_files(folder: Path) -> Part:
    """The file with `FILE` in it."""
    (folder / "shop.json").write_text(json.dumps(FILE))
    instances = [
        instance(
            "files",
            "shop/web/web-1",
            "shop",
            "web",
            addresses=["192.0.2.1", "2001:db8::1"],
            ports=[port("http", 8080), port("admin", 9000, "http")],
            health="unknown",
            weight=5,
            zone="eu-west-1a",
            region="eu-west-1",
            node="rack-7",
            tags=["public", "v2"],
            meta={"team": "checkout", "floor": "3"},
        ),
        instance(
            "files",
            "shop/web/web-2",
            "shop",
            "web",
            addresses=["192.0.2.2"],
            ports=[port("http", 8080)],
            lifecycle="draining",
            tags=["public"],
        ),
        instance(
            "files",
            "default/mail/mail.example.org:25",
            "default",
            "mail",
            hostname="mail.example.org",
            ports=[port("smtp", 25)],
            health="unready",
        ),
    ]
    return Part({"type": "file", "paths": ["shop.json"]}, instances)
