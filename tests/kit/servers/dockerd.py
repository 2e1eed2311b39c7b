"""A real Docker Engine as the only manager of a Swarm, on a unix socket below a folder of the caller.

Needs root. One at a time on a machine: the Swarm's gossip port 7946 is fixed, and a lock in the build cache guards it.
The routing mesh (ingress ports) needs the kernel's IPVS: without it a port shows in the API but does not answer.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import dockerhost
from .binaries import find
from .cache import lock
from .dockerhttp import DockerError, call
from .dockerimage import NAME, import_images
from .process import Server, ServerFailed, ServerProcess, ServerUnavailable, free_port, wait_for
from .swarmservices import SwarmServices

_LOCK_SECONDS = 900.0


class Swarm(SwarmServices, Server):
    """dockerd in Swarm mode with its data below `directory`, whose path must be short (a socket's path: 107 bytes)."""

    image = f"{NAME}:1"

    def __init__(self, directory: Path, tcp: bool = False) -> None:
        """`tcp` adds a plain TCP listener on loopback, for a proxy to stand before. Raises ServerUnavailable."""
        if os.geteuid() != 0:
            raise ServerUnavailable("dockerd needs root")
        self.directory = directory
        self.socket = directory / "d.sock"
        if len(str(directory / "exec" / "containerd" / "containerd-debug.sock.ttrpc")) > 107:
            raise ServerFailed(f"the path {directory} is too long for dockerd's sockets")
        self.docker_host = f"unix://{self.socket}"
        self.tcp_url = f"tcp://127.0.0.1:{free_port()}" if tcp else None
        self._dockerd, self._docker, self._iptables = find("dockerd"), find("docker"), find("iptables")
        self._process: ServerProcess | None = None
        self._held = ExitStack()

    @property
    def process(self) -> ServerProcess:
        """The dockerd process; raises ServerFailed before the start."""
        if self._process is None:
            raise ServerFailed("dockerd was not started")
        return self._process

    def start(self) -> None:
        """Start dockerd, make the Swarm and import the test image; raises ServerFailed, and nothing is left behind."""
        self._held.enter_context(lock("swarm", _LOCK_SECONDS))
        try:
            dockerhost.clean_up()  # what a killed run left
            self.directory.mkdir(parents=True, exist_ok=True)
            dockerhost.remember(self.directory)
            self._start_first()
            self.docker("swarm", "init", "--advertise-addr=127.0.0.1", f"--listen-addr=127.0.0.1:{free_port()}")
            import_images(self._docker, self._environment)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End dockerd with all containers, and take away what it left on the machine."""
        if self._process is not None:
            self._process.stop(timeout=40.0)
            dockerhost.clean_up()
        self._held.close()

    def start_dockerd(self) -> None:
        """Start dockerd again over its data, and wait until it manages the Swarm again."""
        self.process.start(self._answers, timeout=60.0)
        wait_for("the Swarm after a start of dockerd", self._is_manager, 60.0)

    def stop_dockerd(self, kill: bool = False) -> None:
        """End dockerd: SIGTERM (its containers end too), or SIGKILL (they run on until the next start ends them)."""
        if not kill:
            self.process.stop(timeout=40.0)
            return
        self.process.kill()
        # Its containerd dies with it, but may stay a zombie for seconds where process 1 is slow to reap; the next
        # dockerd would take that for a containerd that runs.
        (self.directory / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def restart_dockerd(self, kill: bool = False) -> None:
        """Stop and start."""
        self.stop_dockerd(kill)
        self.start_dockerd()

    def pause(self) -> None:
        """dockerd hangs: connections are accepted by the kernel and nothing answers, until `resume`."""
        self.process.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.process.resume()

    def docker(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run the docker command line and return its output; raises DockerError."""
        command = [str(self._docker), *arguments]
        try:
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise DockerError(" ".join(command), -1, f"no end within {timeout:g} s") from error
        if done.returncode != 0:
            raise DockerError(" ".join(command), done.returncode, done.stderr)
        return done.stdout.strip()

    def api(self, method: str, path: str, body: Any = None, timeout: float = 10.0) -> Any:
        """One raw call over the unix socket, the path without the version; raises DockerError or OSError."""
        return call(self.socket, method, path, body, timeout)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.docker_host, "DOCKER_CONFIG": str(self.directory / "cli")}

    def _start_first(self) -> None:
        """Start with what dockerd chooses, else with the storage driver that works everywhere."""
        try:
            self._start_with()
        except ServerFailed as error:
            if "driver" not in str(error) and "overlay" not in str(error):
                raise
            self._start_with("--storage-driver=vfs")

    def _start_with(self, *more: str) -> None:
        iptables = dockerhost.working_iptables()
        path = os.environ.get("PATH", "")
        if iptables is None:
            more += ("--iptables=false",)
        elif iptables.name != "iptables":
            # dockerd takes the first program named iptables.
            shims = self.directory / "bin"
            shims.mkdir(exist_ok=True)
            (shims / "iptables").unlink(missing_ok=True)
            (shims / "iptables").symlink_to(iptables)
            path = f"{shims}:{path}"
        hosts = [self.docker_host, *([self.tcp_url] if self.tcp_url else [])]
        self._process = ServerProcess(
            "dockerd",
            [
                self._dockerd,
                f"--data-root={self.directory / 'data'}",
                f"--exec-root={self.directory / 'exec'}",
                f"--pidfile={self.directory / 'pid'}",
                "--shutdown-timeout=10",
                "--config-file=",
                *(f"--host={host}" for host in hosts),
                *more,
            ],
            self.directory / "dockerd.log",
            # Else each task would first ask a registry for the image.
            {"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1", "PATH": f"{path}:/usr/sbin:/sbin"},
            # Where this process is killed, dockerd ends its containers itself.
            death_signal=signal.SIGTERM,
        )
        self._process.start(self._answers, timeout=60.0)

    def _answers(self) -> bool:
        try:
            return bool(self.api("GET", "/_ping", timeout=1.0) == "OK")
        except (OSError, DockerError):
            return False

    def _is_manager(self) -> bool:
        try:
            return bool(self.node()["Status"]["State"] == "ready")
        except (OSError, DockerError, LookupError):
            return False
