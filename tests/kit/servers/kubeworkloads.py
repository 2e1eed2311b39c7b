"""Pods, Deployments and rights for tests; see `kubeobjects` for the rules that hold for all helpers."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Sequence
from typing import Any

from .kubeobjects import HTTP, KubeServices, Labels, Object, Port, metadata, ready_condition
from .process import wait_for

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_APPS = "/apis/apps/v1"
# One sequence for the whole process, so that no two Pods of any cluster share an address.
_numbers = itertools.count(1)


def next_address(network: str = "10.77.0.0/16") -> str:
    """An address of the network that was not given before (they repeat after the network's size)."""
    pool = ipaddress.ip_network(network)
    return str(pool[1 + next(_numbers) % (pool.num_addresses - 2)])


def running_status(addresses: Sequence[str], ready: bool) -> Object:
    """The status a kubelet gives to a Pod that runs."""
    return {
        "phase": "Running",
        "podIP": addresses[0],
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": [ready_condition(ready), {"type": "PodScheduled", "status": "True"}],
    }


def pod_spec(node: str | None, ports: Sequence[Port], spec: Object) -> Object:
    """A Pod's specification with one container that nothing ever runs."""
    listed = [{"name": name, "containerPort": target} for name, _, target in ports]
    container = {"name": "main", "image": "none.test/none:1", "ports": listed}
    return {"containers": [container], **({"nodeName": node} if node else {}), **spec}


class KubeObjects(KubeServices):
    """All the helpers of a cluster."""

    def pod(
        self,
        name: str,
        namespace: str,
        labels: Labels,
        node: str,
        ip: str | Sequence[str] | None = None,
        ready: bool = True,
        ports: Sequence[Port] = HTTP,
        **spec: Any,
    ) -> Object:
        """Make a Pod on a Node that runs with the address (two for both families; None: one of its own).

        `spec` holds further fields by their API names (hostname, subdomain, hostNetwork ...).
        """
        path = f"/api/v1/namespaces/{namespace}/pods"
        self.api("POST", path, {"metadata": metadata(name, labels), "spec": pod_spec(node, ports, spec)})
        addresses = [next_address()] if ip is None else [ip] if isinstance(ip, str) else list(ip)
        return self.patch(f"{path}/{name}/status", {"status": running_status(addresses, ready)})

    def set_ready(self, name: str, namespace: str, ready: bool) -> Object:
        """Change a Pod's Ready condition, as its readiness probe would."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        return self.patch(path, {"status": {"conditions": [ready_condition(ready)]}})

    def terminate_pod(self, name: str, namespace: str, grace: int = 300) -> None:
        """Delete with a grace period in seconds: the Pod gets a deletionTimestamp and stays, terminating."""
        self.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", grace)

    def force_delete_pod(self, name: str, namespace: str) -> None:
        """Remove a Pod at once, terminating or not."""
        self.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", grace=0)

    def pods(self, namespace: str, labels: Labels | None = None) -> list[Object]:
        """The Pods of a namespace."""
        return self.items(f"/api/v1/namespaces/{namespace}/pods", labels)

    def reap_pods(self, namespace: str, labels: Labels | None = None) -> int:
        """Remove the Pods that are terminating, as their kubelet would; returns how many."""
        terminating = [pod for pod in self.pods(namespace, labels) if pod["metadata"].get("deletionTimestamp")]
        for pod in terminating:
            self.force_delete_pod(pod["metadata"]["name"], namespace)
        return len(terminating)

    def run_pods(
        self,
        namespace: str,
        labels: Labels | None,
        count: int,
        ready: bool = True,
        network: str = "10.77.0.0/16",
        timeout: float = 10.0,
    ) -> list[Object]:
        """Wait for `count` Pods that are not terminating, and let each that does not run yet run with an address.

        Raises TimeoutError. Returns the Pods as they are then.
        """

        def living() -> list[Object]:
            return [pod for pod in self.pods(namespace, labels) if not pod["metadata"].get("deletionTimestamp")]

        wait_for(f"{count} pods in {namespace}", lambda: len(living()) == count or None, timeout)
        for pod in living():
            if not pod["status"].get("podIP"):
                path = f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}/status"
                self.patch(path, {"status": running_status([next_address(network)], ready)})
        return living()

    def deployment(
        self,
        name: str,
        namespace: str,
        replicas: int,
        labels: Labels,
        node: str,
        ports: Sequence[Port] = HTTP,
        kind: str = "Deployment",
    ) -> Object:
        """Make a Deployment (or StatefulSet, ReplicaSet) with all its Pods on one Node; `run_pods` lets them run."""
        template = {"metadata": {"labels": dict(labels)}, "spec": pod_spec(node, ports, {})}
        spec: Object = {"replicas": replicas, "selector": {"matchLabels": dict(labels)}, "template": template}
        if kind == "StatefulSet":
            spec |= {"serviceName": name, "podManagementPolicy": "Parallel"}
        body = {"kind": kind, "apiVersion": "apps/v1", "metadata": metadata(name, labels), "spec": spec}
        made: Object = self.api("POST", f"{_APPS}/namespaces/{namespace}/{kind.lower()}s", body)
        return made

    def scale(self, name: str, namespace: str, replicas: int, kind: str = "Deployment") -> None:
        """Change the number of replicas through the scale subresource."""
        path = f"{_APPS}/namespaces/{namespace}/{kind.lower()}s/{name}/scale"
        self.patch(path, {"spec": {"replicas": replicas}})

    def rollout(self, name: str, namespace: str, generation: str, kind: str = "Deployment") -> None:
        """Change the Pod template, so that a new ReplicaSet takes over step by step."""
        annotated = {"metadata": {"annotations": {"test/generation": generation}}}
        self.patch(f"{_APPS}/namespaces/{namespace}/{kind.lower()}s/{name}", {"spec": {"template": annotated}})

    def grant(self, user: str, namespace: str | None, rules: Sequence[Object]) -> None:
        """Give a user rules in one namespace (None: in the whole cluster), instead of those granted there before.

        A rule: {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"]}.
        A user "system:serviceaccount:NAMESPACE:NAME" is a service account.
        """
        self.revoke(user, namespace)
        roles, bindings, kind, name = _rbac_paths(user, namespace)
        self.api("POST", roles, {"metadata": {"name": name}, "rules": list(rules)})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        self.api("POST", bindings, {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]})

    def revoke(self, user: str, namespace: str | None) -> None:
        """Take away what `grant` gave; open watches of the user go on until they end."""
        roles, bindings, _, name = _rbac_paths(user, namespace)
        self.delete(f"{bindings}/{name}")
        self.delete(f"{roles}/{name}")

    def service_account_token(self, name: str, namespace: str, seconds: int = 3600) -> str:
        """Make a service account unless it is there, and a token of it that lives `seconds` (600 at least)."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if name not in [item["metadata"]["name"] for item in self.items(path)]:
            self.api("POST", path, {"metadata": {"name": name}})
        answer = self.api("POST", f"{path}/{name}/token", {"spec": {"expirationSeconds": seconds}})
        return str(answer["status"]["token"])


def _rbac_paths(user: str, namespace: str | None) -> tuple[str, str, str, str]:
    name = f"test-{user.replace(':', '-')}"
    if namespace is None:
        return f"{_RBAC}/clusterroles", f"{_RBAC}/clusterrolebindings", "ClusterRole", name
    scope = f"{_RBAC}/namespaces/{namespace}"
    return f"{scope}/roles", f"{scope}/rolebindings", "Role", name
