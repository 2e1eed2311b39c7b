"""A cluster of any size, as the API server and as the source tell it: services of a hundred instances, an EndpointSlice each."""

from __future__ import annotations

import json
from collections.abc import Iterator

from msgspec import Raw

from bridge.model import InstanceGroup, ServiceName
from bridge_plugins.sources.kubernetes.mapping import group_from_slice, slice_key
from bridge_plugins.sources.kubernetes.policy import Policy
from bridge_plugins.sources.kubernetes.wire import read_slice
from tests.kit.fakes.kubeobjects import Object, endpoint, endpointslice, service
from tests.kit.fakes.kubernetes import FakeKubernetes, Stored

NAMESPACE = "shop"
SLICE = 100
"""Instances of a group, as many as the controller puts into a slice."""

_NODES = 200
_ZONES = 3
_POLICY = Policy()


def name(number: int) -> str:
    """The name of the service ``number``, counted from 0."""
    return f"s{number}"


def slice_name(number: int) -> str:
    """The name of its slice."""
    return f"{name(number)}-x7k2p"


def service_text(number: int) -> bytes:
    """A Service as in a list."""
    made = service(name(number), namespace=NAMESPACE)
    made["metadata"]["resourceVersion"] = str(number + 1)
    return _text(made).encode()


def slice_text(number: int, moved: int = 0) -> bytes:
    """The EndpointSlice of a service as in a list.

    moved: where above 0, one endpoint, always the same, is in a zone of that number: nothing else differs.
    """
    made = endpointslice(slice_name(number), name(number), namespace=NAMESPACE)
    made["metadata"]["resourceVersion"] = str(number + 1)
    first, mover = number * SLICE, number % SLICE if moved else -1
    endpoints = [_endpoint(first + index, f"moved-{moved}" if index == mover else None) for index in range(SLICE)]
    return _text(made).replace('"endpoints":[]', f'"endpoints":[{",".join(endpoints)}]').encode()


def group(number: int, moved: int = 0) -> InstanceGroup:
    """The same slice as the source yields it."""
    item = read_slice(Raw(slice_text(number, moved)))
    key = slice_key(item.metadata.namespace, item.metadata.name)
    return group_from_slice(key, ServiceName(NAMESPACE, name(number)), item, _POLICY, {}).group


def groups(instances: int) -> Iterator[InstanceGroup]:
    """Every group of a cluster of so many instances."""
    return (group(number) for number in range(instances // SLICE))


def api_server(instances: int) -> FakeKubernetes:
    """An API server that holds a cluster of so many instances; it does not listen yet."""
    api = FakeKubernetes(bookmark_every=10.0)
    for number in range(instances // SLICE):
        for plural, called, text in (
            ("services", name(number), service_text(number)),
            ("endpointslices", slice_name(number), slice_text(number)),
        ):
            api.objects[plural][NAMESPACE, called] = Stored(NAMESPACE, called, text)
    api.version = instances // SLICE + 1
    return api


def _endpoint(number: int, zone: str | None) -> str:
    """An endpoint with what differs from Pod to Pod in a real cluster: address, name and uid, and one node and zone of some."""
    return _ENDPOINT % {
        "address": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        "node": f"node-{number % _NODES}",
        "zone": zone or f"eu-west-1{'abc'[number % _ZONES]}",
        "pod": f"{name(number // SLICE)}-6c9f7d5b8c-{number % SLICE:05d}",
        "uid": f"{number:08x}-7d3a-4c1e-9b2f-{number:012x}",
    }


def _text(made: Object) -> str:
    return json.dumps(made, separators=(",", ":"))


_POD = {"kind": "Pod", "namespace": NAMESPACE, "name": "%(pod)s", "uid": "%(uid)s"}
_ENDPOINT = _text(endpoint("%(address)s", node="%(node)s", zone="%(zone)s", targetRef=_POD))
"""A template: a million endpoints are to be made in seconds."""
