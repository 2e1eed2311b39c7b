"""A Consul agent in development mode (a server of its own, in memory) on free loopback ports."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .binaries import find
from .process import Server, ServerProcess, free_port

# An agent takes 200 connections from one address unless it is told otherwise, and not more than it may open files.
_LIMITS = "limits { http_max_conns_per_client = 900 }"


class Consul(Server):
    """One agent; what is registered with it ends with it. The log goes to ``directory``.

    env: added to its environment. Raises ServerUnavailable when it cannot be had.
    """

    def __init__(self, directory: Path, env: Mapping[str, str] | None = None) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments: list[str | Path] = [find("consul"), "agent", "-dev", "-log-level=error", "-hcl", _LIMITS]
        arguments += [f"-http-port={port}", f"-dns-port={free_port()}", "-grpc-port=-1", "-grpc-tls-port=-1"]
        arguments += [f"-server-port={free_port()}", f"-serf-lan-port={free_port()}", f"-serf-wan-port={free_port()}"]
        self._process = ServerProcess("consul", arguments, directory / "consul.log", env)

    @property
    def process(self) -> ServerProcess:
        """The child process, for pausing and killing."""
        return self._process

    def start(self) -> None:
        """Start and wait until it has elected itself; raises ServerFailed."""
        self._process.start(self._leads)

    def stop(self) -> None:
        """End the agent."""
        self._process.stop()

    def register(self, service: Mapping[str, Any]) -> None:
        """Register a service instance with the agent (PUT /v1/agent/service/register). Raises OSError."""
        body = json.dumps(service).encode()
        request = urllib.request.Request(f"{self.url}/v1/agent/service/register", body, method="PUT")
        urllib.request.urlopen(request, timeout=10.0).close()

    def get(self, path: str) -> Any:
        """The JSON answer of a GET. Raises OSError, or ValueError where it is no JSON."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10.0) as response:
            return json.load(response)

    def _leads(self) -> bool:
        try:
            return bool(self.get("/v1/status/leader"))
        except (OSError, http.client.HTTPException, ValueError):
            return False
