"""nginx with one worker on a free loopback port, with Debian's nchan module where it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .binaries import NCHAN_MODULE, find
from .process import Server, ServerFailed, ServerProcess, free_port, http_ok, wait_for

_CONFIGURATION = """\
{modules}
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    sendfile off;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    default_type application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /nginx-answers {{ return 204; }}
        {directives}
    }}
}}
"""


class Nginx(Server):
    """One nginx; ``directives`` are those of its `server` block. Its files lie in ``directory``.

    nchan: load the module. connections: what the worker can hold, listening sockets included. Raises ServerUnavailable when
    a program cannot be had.
    """

    def __init__(self, directory: Path, directives: Iterable[str], *, nchan: bool = False, connections: int = 1024) -> None:
        port = free_port()
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        if nchan:
            find("nchan")
        directory.mkdir(parents=True, exist_ok=True)
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                modules=f"load_module {NCHAN_MODULE};" if nchan else "",
                folder=directory,
                files=connections + 64,
                connections=connections,
                port=port,
                directives="\n        ".join(directives),
            )
        )
        log = directory / "nginx.log"
        # -e: until the configuration is read, complaints go to a file that only root may have.
        self._process = ServerProcess("nginx", [find("nginx"), "-e", log, "-p", directory, "-c", configuration], log)

    @property
    def process(self) -> ServerProcess:
        """The master process; its end is the worker's."""
        return self._process

    @property
    def worker_pid(self) -> int:
        """The process that answers. Raises ServerFailed where there is none."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            raise ServerFailed(f"nginx has no worker:\n{self._process.tail()}")
        return int(children[0])

    def start(self) -> None:
        """Start and wait until it answers; raises ServerFailed."""
        self._process.start(lambda: http_ok(f"{self.url}/nginx-answers"))

    def stop(self) -> None:
        """End it, its worker included."""
        worker = self.worker_pid if self._process.alive else None
        self._process.stop()
        if worker is not None:
            wait_for("the end of nginx's worker", lambda: not Path(f"/proc/{worker}").exists())
