"""Objects of a Swarm as the Engine shows them, with what a test does not care about filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Object = dict[str, Any]

INGRESS = "net-ingress"
STACK = "com.docker.stack.namespace"


def service(
    id: str,
    name: str | None = None,
    *,
    stack: str | None = None,
    labels: Mapping[str, str] | None = None,
    ports: Sequence[Object] = (),
    virtual_ips: Mapping[str, str] | None = None,
    desired: int | None = 1,
    update: str | None = None,
    **spec: Any,
) -> Object:
    """A service. virtual_ips: address with prefix length by network id. desired: the managers' own count of wanted tasks."""
    made: Object = {
        "ID": id,
        "Version": {"Index": 1},
        "Spec": {
            "Name": name or id,
            "Labels": {**({STACK: stack} if stack else {}), **(labels or {})},
            "TaskTemplate": {"ContainerSpec": {"Image": "web:1"}},
            "Mode": {"Replicated": {"Replicas": desired or 0}},
            **spec,
        },
        "Endpoint": {
            "Spec": {"Mode": "vip"},
            "Ports": list(ports),
            "VirtualIPs": [{"NetworkID": network, "Addr": address} for network, address in (virtual_ips or {}).items()],
        },
    }
    if desired is not None:
        made["ServiceStatus"] = {"RunningTasks": desired, "DesiredTasks": desired, "CompletedTasks": 0}
    if update is not None:
        made["UpdateStatus"] = {"State": update, "Message": "update"}
    return made


def port(target: int, published: int = 0, *, mode: str = "ingress", protocol: str = "tcp", name: str | None = None) -> Object:
    """A published port, of a service or of a task."""
    made: Object = {"Protocol": protocol, "TargetPort": target, "PublishMode": mode}
    return made | ({"PublishedPort": published} if published else {}) | ({"Name": name} if name else {})


def task(
    id: str,
    service: str = "web",
    *,
    node: str = "n1",
    state: str = "running",
    desired: str = "running",
    ports: Sequence[Object] = (),
    networks: Sequence[Object] = (),
    labels: Mapping[str, str] | None = None,
    slot: int = 1,
) -> Object:
    """A task of a service."""
    return {
        "ID": id,
        "Version": {"Index": 1},
        "Labels": {},
        "Spec": {"ContainerSpec": {"Image": "web:1", "Labels": dict(labels or {})}, "ForceUpdate": 0},
        "ServiceID": service,
        "Slot": slot,
        "NodeID": node,
        "Status": {
            "Timestamp": "2024-01-01T00:00:00Z",
            "State": state,
            "ContainerStatus": {"ContainerID": f"container-{id}"},
            "PortStatus": {"Ports": list(ports)} if ports else {},
        },
        "DesiredState": desired,
        "NetworksAttachments": list(networks),
    }


def attachment(network: str, *addresses: str, name: str | None = None, ingress: bool = False) -> Object:
    """A task's place on a network."""
    spec = {"Name": name or network, "Labels": {}, "Scope": "swarm"} | ({"Ingress": True} if ingress else {})
    return {"Network": {"ID": network, "Version": {"Index": 1}, "Spec": spec}, "Addresses": list(addresses)}


def node(
    id: str,
    address: str = "192.0.2.1",
    *,
    hostname: str | None = None,
    state: str = "ready",
    availability: str = "active",
    labels: Mapping[str, str] | None = None,
    engine_labels: Mapping[str, str] | None = None,
    manager: str | None = None,
) -> Object:
    """A node. manager: its address as a manager, with port."""
    made: Object = {
        "ID": id,
        "Version": {"Index": 1},
        "Spec": {"Labels": dict(labels or {}), "Role": "manager" if manager else "worker", "Availability": availability},
        "Description": {
            "Hostname": hostname or f"host-{id}",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Engine": {"EngineVersion": "20.10.24"} | ({"Labels": dict(engine_labels)} if engine_labels else {}),
        },
        "Status": {"State": state, "Addr": address},
    }
    if manager:
        made["ManagerStatus"] = {"Leader": True, "Reachability": "reachable", "Addr": manager}
    return made


def network(id: str, name: str | None = None, *, ingress: bool = False) -> Object:
    """An overlay network."""
    return {"Id": id, "Name": name or id, "Scope": "swarm", "Driver": "overlay", "Ingress": ingress, "Labels": None}
