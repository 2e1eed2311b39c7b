"""Kubernetes objects for tests, made with raw calls; the order of arguments is always name, namespace.

Without a kubelet a Pod is Running only because `pod` or `run_pods` says so in its status, and a deleted Pod stays,
terminating, until `force_delete_pod` or `reap_pods`. Addresses must not be loopback: the API refuses them in slices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from .kubehttp import MERGE_PATCH, ApiError
from .process import wait_for

SLICES = "/apis/discovery.k8s.io/v1"
Object = dict[str, Any]
Labels = Mapping[str, str]
Port = tuple[str, int, int]
"""Name, the Service's port, the Pod's port."""
HTTP: tuple[Port, ...] = (("http", 80, 8080),)


class KubeApi(ABC):
    """What the helpers need of a cluster."""

    @abstractmethod
    def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        user: str = "admin",
        timeout: float = 10.0,
    ) -> Any:
        """One call of the API."""

    def patch(self, path: str, body: Object) -> Object:
        """A merge patch: lists are replaced whole, null removes."""
        result: Object = self.api("PATCH", path, body, MERGE_PATCH)
        return result

    def delete(self, path: str, grace: int | None = None) -> None:
        """Delete with a grace period in seconds (None: the object's own); an object that is gone is no error."""
        options = {"propagationPolicy": "Background"} | ({} if grace is None else {"gracePeriodSeconds": grace})
        try:
            self.api("DELETE", path, options)
        except ApiError as error:
            if error.status != 404:
                raise

    def items(self, path: str, labels: Labels | None = None) -> list[Object]:
        """All objects of a collection, by labels."""
        selector = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        found: list[Object] = self.api("GET", f"{path}?{urlencode({'labelSelector': selector})}")["items"]
        return found


def metadata(name: str, labels: Labels | None = None, annotations: Labels | None = None) -> Object:
    """An object's metadata."""
    return {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}


def ready_condition(ready: bool) -> Object:
    """The Ready condition of a Pod or a Node."""
    return {"type": "Ready", "status": "True" if ready else "False"}


class KubeServices(KubeApi):
    """Namespaces, Nodes, Services and slices."""

    def namespace(self, name: str, labels: Labels | None = None) -> Object:
        """Make a namespace."""
        made: Object = self.api("POST", "/api/v1/namespaces", {"metadata": metadata(name, labels)})
        return made

    def delete_namespace(self, name: str, wait: bool = False, timeout: float = 60.0) -> None:
        """Delete a namespace with its terminating Pods; `wait`: until nothing of it is left."""
        pods = f"/api/v1/namespaces/{name}/pods"
        self.delete(f"/api/v1/namespaces/{name}")
        # No kubelet ends the Pods, so the namespace would wait for them for ever.
        for pod in self.items(pods):
            self.delete(f"{pods}/{pod['metadata']['name']}", grace=0)

        def gone() -> bool:
            try:
                self.api("GET", f"/api/v1/namespaces/{name}")
            except ApiError as error:
                return error.status == 404
            return False

        if wait:
            wait_for(f"the end of the namespace {name}", gone, timeout)

    def node(
        self,
        name: str,
        zone: str = "zone-a",
        region: str = "region-1",
        addresses: Sequence[str] = (),
        ready: bool = True,
        labels: Labels | None = None,
    ) -> Object:
        """Make a Node with internal addresses."""
        topology = {"topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": region}
        body = {"metadata": metadata(name, {"kubernetes.io/hostname": name, **topology, **(labels or {})})}
        self.api("POST", "/api/v1/nodes", body)
        listed = [{"type": "InternalIP", "address": address} for address in addresses]
        status = {"addresses": [*listed, {"type": "Hostname", "address": name}], "conditions": [ready_condition(ready)]}
        return self.patch(f"/api/v1/nodes/{name}/status", {"status": status})

    def set_node_ready(self, name: str, ready: bool) -> None:
        """Change a Node's Ready condition; nothing evicts its Pods."""
        self.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready_condition(ready)]}})

    def delete_node(self, name: str) -> None:
        """Delete a Node; its Pods stay."""
        self.delete(f"/api/v1/nodes/{name}")

    def service(
        self,
        name: str,
        namespace: str,
        ports: Sequence[Port] = HTTP,
        selector: Labels | None = None,
        labels: Labels | None = None,
        annotations: Labels | None = None,
        **spec: Any,
    ) -> Object:
        """Make a Service; `spec` holds further fields by their API names (type, clusterIP, ipFamilyPolicy ...)."""
        listed = [{"name": port, "port": number, "targetPort": target} for port, number, target in ports]
        full = {"ports": listed, "selector": dict(selector) if selector else None, **spec}
        body = {"metadata": metadata(name, labels, annotations), "spec": full}
        made: Object = self.api("POST", f"/api/v1/namespaces/{namespace}/services", body)
        return made

    def delete_service(self, name: str, namespace: str) -> None:
        """Delete a Service; the garbage collector removes its slices."""
        self.delete(f"/api/v1/namespaces/{namespace}/services/{name}")

    def endpointslice(
        self,
        name: str,
        namespace: str,
        service: str | None,
        endpoints: Sequence[str | Object],
        ports: Sequence[tuple[str, int]] = (("http", 8080),),
        managed_by: str | None = "test",
        labels: Labels | None = None,
        address_type: str = "IPv4",
    ) -> Object:
        """Make a slice by hand; an endpoint is an address (ready) or the API's object."""
        marks = {"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": managed_by}
        body = {
            "metadata": metadata(name, {k: v for k, v in marks.items() if v is not None} | dict(labels or {})),
            "addressType": address_type,
            "endpoints": [
                {"addresses": [item], "conditions": {"ready": True}} if isinstance(item, str) else item for item in endpoints
            ],
            "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in ports],
        }
        made: Object = self.api("POST", f"{SLICES}/namespaces/{namespace}/endpointslices", body)
        return made

    def patch_endpointslice(self, name: str, namespace: str, body: Object) -> Object:
        """Merge-patch a slice."""
        return self.patch(f"{SLICES}/namespaces/{namespace}/endpointslices/{quote(name)}", body)

    def delete_endpointslice(self, name: str, namespace: str) -> None:
        """Delete a slice; a controller's own comes back."""
        self.delete(f"{SLICES}/namespaces/{namespace}/endpointslices/{quote(name)}")

    def slices(self, namespace: str, service: str | None = None) -> list[Object]:
        """The slices of a namespace, or of one Service there."""
        labels = {"kubernetes.io/service-name": service} if service else None
        return self.items(f"{SLICES}/namespaces/{namespace}/endpointslices", labels)

    def endpoints(self, namespace: str, service: str) -> list[Object]:
        """The endpoints of all slices of a Service."""
        return [endpoint for item in self.slices(namespace, service) for endpoint in item.get("endpoints") or []]

    def wait_endpoints(
        self, namespace: str, service: str, count: int, ready: int | None = None, timeout: float = 10.0
    ) -> list[Object]:
        """Wait until a Service has `count` endpoints, `ready` of them ready (None: any); raises TimeoutError."""
        found: list[Object] = []

        def there() -> bool:
            found[:] = self.endpoints(namespace, service)
            number_ready = sum(bool(endpoint["conditions"].get("ready", True)) for endpoint in found)
            return len(found) == count and ready in (None, number_ready)

        wait_for(f"{count} endpoints ({ready} ready) of {namespace}/{service}, {len(found)} seen", there, timeout)
        return found
