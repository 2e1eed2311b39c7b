"""moto's HTTP server: AWS Cloud Map, Route 53 and ELB on a free loopback port.

boto3 wants `Config(inject_host_prefix=False)`: it puts `data-` before the host of the two discover calls otherwise.
"""

from __future__ import annotations

import urllib.request
from pathlib import Path

from .binaries import find
from .process import Server, ServerProcess, free_port, http_ok

# Credentials of nobody: moto takes any, and boto3 would else look for real ones.
_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-west-1"}


class Moto(Server):
    """One moto server; its state lives in memory and ends with it."""

    def __init__(self, directory: Path) -> None:
        """The log goes to `directory`. Raises ServerUnavailable when moto cannot be had."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments: list[str | Path] = [find("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        self._process = ServerProcess("moto_server", arguments, directory / "moto.log", _ENVIRONMENT)

    @property
    def process(self) -> ServerProcess:
        """The child process, for pausing and killing."""
        return self._process

    def start(self) -> None:
        """Start and wait until it answers; raises ServerFailed."""
        self._process.start(lambda: http_ok(f"{self.url}/moto-api/data.json"), timeout=60.0)

    def stop(self) -> None:
        """End the server."""
        self._process.stop()

    def reset(self) -> None:
        """Forget all resources of all accounts and regions."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", b"", method="POST")
        urllib.request.urlopen(request, timeout=10.0).close()
