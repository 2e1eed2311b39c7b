"""A real Kubernetes control plane on loopback: etcd, kube-apiserver with RBAC, and the controllers that write slices.

There is no kubelet and no scheduler: the helpers of `KubeObjects` put Pods on Nodes and patch their status.
"""

from __future__ import annotations

import json
import secrets
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .binaries import find
from .etcd import Etcd
from .kubecredentials import kubeconfig_text, signing_key_pem, tokens_csv
from .kubehttp import call
from .kubeworkloads import KubeObjects
from .process import Server, ServerFailed, ServerProcess, free_port, wait_for

ADMIN = "admin"
PROBE_NAMESPACE = "kit-probe"
"""Stays, empty, in every cluster."""
USERS = ("bridge", "reader", "nobody")
"""Users without any right until `grant` gives them some."""
CONTROLLERS = (
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
)
# Both families, IPv4 first: a Service has one family unless it asks for two. Wide enough for thousands of Services.
_SERVICE_RANGES = "10.96.0.0/12,fd00:10:96::/112"
# The API server refuses to advertise loopback, and would look for another interface of the machine.
_ADVERTISED = "192.0.2.10"


class KubeCluster(KubeObjects, Server):
    """One control plane with its files in `directory`, which the caller owns; etcd is started and stopped with it."""

    def __init__(
        self,
        directory: Path,
        etcd: Etcd,
        users: Sequence[str] = USERS,
        controllers: Sequence[str] = CONTROLLERS,
        apiserver_args: Sequence[str] = (),
    ) -> None:
        """`apiserver_args` are added to the API server's command line. Raises ServerUnavailable."""
        self.directory, self.etcd, self.kubectl = directory, etcd, find("kubectl")
        self._tokens = {user: secrets.token_hex(16) for user in (ADMIN, *users)}
        self._context: ssl.SSLContext | None = None
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "sa.key").write_text(signing_key_pem())
        (directory / "tokens.csv").write_text(tokens_csv(self._tokens, ADMIN))
        self.apiserver = ServerProcess(
            "kube-apiserver",
            [
                find("kube-apiserver"),
                f"--etcd-servers={etcd.url}",
                "--bind-address=127.0.0.1",
                f"--advertise-address={_ADVERTISED}",
                f"--secure-port={port}",
                f"--cert-dir={directory / 'certs'}",
                f"--service-account-key-file={directory / 'sa.key'}",
                f"--service-account-signing-key-file={directory / 'sa.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--token-auth-file={directory / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                f"--service-cluster-ip-range={_SERVICE_RANGES}",
                "--disable-admission-plugins=ServiceAccount",
                # By default a graceful end waits up to 60 s for open watches instead of ending them.
                "--shutdown-watch-termination-grace-period=1s",
                *apiserver_args,
            ],
            directory / "kube-apiserver.log",
        )
        self.controller_manager = ServerProcess(
            "kube-controller-manager",
            [
                find("kube-controller-manager"),
                f"--kubeconfig={directory / 'admin.kubeconfig'}",
                f"--controllers={','.join(controllers)}",
                "--secure-port=0",
                "--leader-elect=false",
                # The default 20 calls a second would make the controllers' own queue the slowest part of a test.
                "--kube-api-qps=2000",
                "--kube-api-burst=4000",
            ],
            directory / "kube-controller-manager.log",
        )

    @property
    def ca_file(self) -> Path:
        """The authority of the API server's certificate (for 127.0.0.1 and localhost); made at the first start."""
        return self.directory / "certs" / "apiserver.crt"

    def token(self, user: str = ADMIN) -> str:
        """The user's bearer token."""
        return self._tokens[user]

    def kubeconfig(self, user: str = ADMIN, server: str | None = None) -> Path:
        """A kubeconfig file of the user; `server` is another URL for the API server, such as a fault proxy's."""
        suffix = "" if server is None else "-" + "".join(c if c.isalnum() else "-" for c in server)
        path = self.directory / f"{user}{suffix}.kubeconfig"
        path.write_text(kubeconfig_text(server or self.url, self.ca_file, user, self.token(user)))
        path.chmod(0o600)
        return path

    def start(self) -> None:
        """Start everything and wait until a Service gets its slice; raises ServerFailed."""
        try:
            self.etcd.start()
            self.start_apiserver()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything; the store's data stays in `directory`."""
        self.controller_manager.stop()
        self.apiserver.stop()
        self.etcd.stop()

    def start_apiserver(self, controllers: bool = True) -> None:
        """Start the API server and, where `controllers`, the controllers anew.

        Controllers that ran through an outage take up to 45 s to reconnect; new ones are at work within 2 s.
        """
        self.apiserver.start(self._ready, timeout=60.0)
        if controllers:
            self.controller_manager.stop()
            self.start_controllers()

    def stop_apiserver(self, kill: bool = False) -> None:
        """End the API server: SIGTERM, or SIGKILL where `kill`. Its port refuses connections from then on."""
        if kill:
            self.apiserver.kill()
        else:
            self.apiserver.stop(timeout=20.0)

    def restart_apiserver(self, kill: bool = False, controllers: bool = True) -> None:
        """Stop and start the API server on the same port with the same certificate."""
        self.stop_apiserver(kill)
        self.start_apiserver(controllers)

    def pause_apiserver(self) -> None:
        """Connections stay open and nothing answers, until `resume_apiserver`."""
        self.apiserver.pause()

    def resume_apiserver(self) -> None:
        """Go on after `pause_apiserver`."""
        self.apiserver.resume()

    def start_controllers(self) -> None:
        """Start the controllers and wait until they write slices; raises ServerFailed."""
        self.kubeconfig()
        self.controller_manager.start()
        self.wait_controllers()

    def stop_controllers(self) -> None:
        """End the controllers: slices then stay as they are."""
        self.controller_manager.stop()

    def wait_controllers(self, timeout: float = 60.0) -> None:
        """Wait until a new Service in the namespace `kit-probe` gets a slice, and loses it with its deletion."""
        if PROBE_NAMESPACE not in [item["metadata"]["name"] for item in self.items("/api/v1/namespaces")]:
            self.namespace(PROBE_NAMESPACE)
        name = f"probe-{secrets.token_hex(3)}"
        self.service(name, PROBE_NAMESPACE, selector={"app": "probe"})
        try:
            wait_for("the endpoint-slice controller", lambda: self.slices(PROBE_NAMESPACE, name), timeout)
            self.delete_service(name, PROBE_NAMESPACE)
            wait_for("the end of the probe's slice", lambda: not self.slices(PROBE_NAMESPACE, name), timeout)
        except TimeoutError as error:
            raise ServerFailed(f"{error}:\n{self.controller_manager.tail()}") from error

    def compact(self) -> None:
        """Drop the store's history; after `restart_apiserver` a watch or list from before answers 410."""
        self.etcd.compact()

    def api(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = "application/json",
        user: str = ADMIN,
        timeout: float = 10.0,
    ) -> Any:
        """One call of the API as the user, with parsed JSON back (text where it is none).

        Raises ApiError for an answer that is not 2xx, and OSError when there is no answer.
        """
        text = call(self.url, self._trust(), self.token(user), method, path, body, content_type, timeout)
        return json.loads(text) if text.startswith("{") else text

    def watch(self, path: str, seconds: int = 1, user: str = ADMIN) -> list[dict[str, Any]]:
        """The events of a watch that the server ends after `seconds`; `path` with its query but without timeoutSeconds.

        Raises what `api` raises.
        """
        full = f"{path}&timeoutSeconds={seconds}"
        text = call(self.url, self._trust(), self.token(user), "GET", full, timeout=seconds + 10.0)
        return [json.loads(line) for line in text.splitlines()]

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context(cafile=self.ca_file)
        return self._context

    def run_kubectl(self, *arguments: str) -> list[str]:
        """The command line of kubectl as the administrator, for subprocess."""
        return [str(self.kubectl), f"--kubeconfig={self.kubeconfig()}", *arguments]

    def _ready(self) -> bool:
        if not self.ca_file.exists():
            return False
        try:
            return bool(self.api("GET", "/readyz", timeout=1.0) == "ok")
        except (OSError, json.JSONDecodeError, RuntimeError):
            return False
