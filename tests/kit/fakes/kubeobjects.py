"""Kubernetes objects as the API server writes them, for the fake server and for mapping tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Object = dict[str, Any]

# Every real object carries this; a reader must not mind.
_UNUSED = [{"manager": "kube-controller-manager", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}}]


def uid(name: str) -> str:
    """The same uid for the same name."""
    return f"uid-{name}"


def metadata(name: str, namespace: str | None, labels: Mapping[str, str] | None = None, **more: Any) -> Object:
    """Metadata, managedFields included."""
    made: Object = {"name": name, "uid": uid(name), "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": _UNUSED}
    if namespace is not None:
        made["namespace"] = namespace
    if labels:
        made["labels"] = dict(labels)
    return made | more


def endpoint(address: str, pod: str | None = None, *, node: str | None = "n1", **more: Any) -> Object:
    """A ready endpoint; ``more`` overrides or adds fields by their API names (None drops one)."""
    made: Object = {
        "addresses": [address],
        "conditions": {"ready": True, "serving": True, "terminating": False},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod or address, "uid": uid(pod or address)},
        "nodeName": node,
        "zone": "z1",
    }
    return {key: value for key, value in (made | more).items() if value is not None}


def endpointslice(
    name: str,
    service: str | None,
    endpoints: Sequence[Object] | None = (),
    *,
    namespace: str = "shop",
    ports: Sequence[Object] | None = ({"name": "http", "protocol": "TCP", "port": 8080},),
    address_type: str = "IPv4",
    labels: Mapping[str, str] | None = None,
) -> Object:
    """An EndpointSlice of the built-in controller."""
    own = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    if service is not None:
        own["kubernetes.io/service-name"] = service
    return {
        "metadata": metadata(name, namespace, own | dict(labels or {})),
        "addressType": address_type,
        "endpoints": None if endpoints is None else list(endpoints),
        "ports": None if ports is None else list(ports),
    }


def service(
    name: str,
    *,
    namespace: str = "shop",
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    ingress: Sequence[Object] = (),
    **spec: Any,
) -> Object:
    """A ClusterIP Service; ``spec`` overrides or adds fields by their API names."""
    made: Object = {
        "type": "ClusterIP",
        "clusterIP": "10.96.0.10",
        "clusterIPs": ["10.96.0.10"],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        "selector": {"app": name},
    }
    return {
        "metadata": metadata(name, namespace, labels, annotations=dict(annotations or {})),
        "spec": made | spec,
        "status": {"loadBalancer": {"ingress": list(ingress)} if ingress else {}},
    }


def node(name: str, *, zone: str = "z1", region: str = "r1", addresses: Sequence[Object] = (), ready: str = "True") -> Object:
    """A Node with an InternalIP unless ``addresses`` says otherwise."""
    return {
        "metadata": metadata(name, None, {"topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": region}),
        "status": {
            "addresses": list(addresses)
            or [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}],
            "images": [{"names": ["registry.example.org/web:1"], "sizeBytes": 1}],
        },
    }
