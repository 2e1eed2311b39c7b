"""etcd on free loopback ports: 3.6 (built) or Debian's 3.4, which lacks RequestWatchProgress."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

from .binaries import find
from .process import Server, ServerFailed, ServerProcess, free_port, http_ok


class Etcd(Server):
    """One etcd member with its data in `directory`, which the caller owns."""

    def __init__(self, directory: Path, binary: str = "etcd") -> None:
        """`binary` is "etcd" (3.6) or "etcd-3.4". Raises ServerUnavailable when it cannot be had."""
        self.directory, self.binary = directory, binary
        self._port, peer = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        peer_url = f"http://127.0.0.1:{peer}"
        arguments = [
            str(find(binary)),
            "--name=test",
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=test={peer_url}",
            "--quota-backend-bytes=4294967296",
        ]
        if binary == "etcd":
            arguments.append("--unsafe-no-fsync")  # test data need not outlive the machine
        self._process = ServerProcess(binary, arguments, directory / "etcd.log")

    @property
    def process(self) -> ServerProcess:
        """The child process, for pausing and killing."""
        return self._process

    def start(self) -> None:
        """Start, over the data of an earlier start if there is any; raises ServerFailed."""
        self._process.start(lambda: http_ok(f"{self.url}/health"))

    def stop(self) -> None:
        """End the member; its data stays."""
        self._process.stop()

    def wipe(self) -> None:
        """Remove the data of a stopped member: the next start is a new, empty store whose revisions begin anew."""
        if self._process.alive:
            raise ServerFailed("etcd runs: stop it before its data is removed")
        shutil.rmtree(self.directory / "etcd", ignore_errors=True)

    def revision(self) -> int:
        """The store's present revision."""
        return int(self.call("kv/range", {"key": encode("\0")})["header"]["revision"])

    def compact(self) -> int:
        """Drop all history before the present revision, and return that: watches from older ones then fail."""
        revision = self.revision()
        self.call("kv/compaction", {"revision": revision, "physical": True})
        return revision

    def call(self, method: str, body: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
        """One call of the JSON gateway, `method` below /v3/ ("kv/put"); raises OSError."""
        request = urllib.request.Request(f"{self.url}/v3/{method}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answer: dict[str, Any] = json.load(response)
        return answer


def encode(text: str) -> str:
    """A key or value as the JSON gateway wants it (base64)."""
    return base64.b64encode(text.encode()).decode()
