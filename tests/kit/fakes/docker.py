"""A scriptable manager of a Swarm: the calls that the source makes, over a unix socket or loopback TCP.

It runs in threads of its own. A fault can be scripted for any call (`FakeDocker.fail`); objects are the plain dictionaries of
`dockerobjects`, which a test changes as it likes.
"""

from __future__ import annotations

import json
import queue
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from ..servers.process import free_port
from .dockerobjects import INGRESS, Object, network, node

Fault = Literal[
    "refused",
    "reset",
    "401",
    "403",
    "404",
    "410",
    "429",
    "500",
    "503",
    "hang",
    "slow",
    "truncated",
    "wrong type",
    "wrong type in one",
    "nameless",
    "html",
    "redirect",
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
LISTS = ("services", "tasks", "nodes", "networks")
CALLS = ("version", *LISTS)
"""What a cycle calls; besides there are ``service`` (one by id) and ``events``."""

_MESSAGES = {503: "This node is not a swarm manager. Use docker swarm init or docker swarm join.", 429: "slow down"}


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64
    fake: FakeDocker

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server's."""


class FakeDocker:
    """``with FakeDocker() as docker``. tcp: listen on loopback instead of a unix socket.

    poll: seconds until its end is noticed, at the most; where there are many fakes, looking too often costs.
    """

    def __init__(self, *, tcp: bool = False, api_version: str = "1.41", poll: float = 0.01) -> None:
        self.api_version = api_version
        self.services: dict[str, Object] = {}
        self.tasks: dict[str, Object] = {}
        self.nodes: dict[str, Object] = {"n1": node("n1")}
        self.networks: dict[str, Object] = {INGRESS: network(INGRESS, "ingress", ingress=True)}
        self.calls: list[str] = []
        self.targets: list[str] = []
        self.retry_after: str | None = None
        self.before: Callable[[str], None] = lambda call: None
        self._faults: dict[str, tuple[Fault, int]] = {}
        self._streams: set[queue.Queue[bytes | None]] = set()
        self._released = threading.Event()
        self._connections: set[socket.socket] = set()
        self._stopping = threading.Lock()
        self._tcp = tcp
        self._poll = poll
        self._directory = tempfile.TemporaryDirectory(prefix="fd-")
        self._address: Any = ("127.0.0.1", free_port()) if tcp else str(Path(self._directory.name) / "d.sock")
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._released.set()
        self.refuse()
        self._directory.cleanup()

    @property
    def host(self) -> str:
        """As the configuration has it; stays the same through `refuse` and `accept`."""
        return f"tcp://127.0.0.1:{self._address[1]}" if self._tcp else f"unix://{self._address}"

    @property
    def streams(self) -> int:
        """How many event streams are open."""
        return len(self._streams)

    def accept(self) -> None:
        """Begin to listen."""
        server = _Server.__new__(_Server)
        server.address_family = socket.AF_INET if self._tcp else socket.AF_UNIX
        if not self._tcp:
            Path(self._address).unlink(missing_ok=True)
        TCPServer.__init__(server, self._address, _Handler)
        server.fake = self
        self._address = server.server_address if self._tcp else self._address
        self._server = server
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": self._poll}, name="fake docker", daemon=True
        ).start()

    def refuse(self) -> None:
        """Stop listening, and close what is open."""
        with self._stopping:
            server, self._server = self._server, None
            if server is not None:
                server.shutdown()
                server.server_close()
            self.end_streams()
            for connection in list(self._connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def put(self, plural: str, *made: Object) -> None:
        """Make objects, or replace them; nobody is told (see `emit`)."""
        for item in made:
            getattr(self, plural)[item["Id" if plural == "networks" else "ID"]] = item

    def fail(self, call: str, fault: Fault, times: int = 1) -> None:
        """Let the next ``times`` calls fail so."""
        self._faults[call] = (fault, times)

    def release(self) -> None:
        """End what hangs."""
        self._released.set()
        self._released = threading.Event()

    def emit(self, type: str, action: str, id: str) -> None:
        """Tell those who follow the events."""
        event = {"Type": type, "Action": action, "Actor": {"ID": id, "Attributes": {"name": id}}, "scope": "swarm", "time": 1}
        self.send(json.dumps(event).encode() + b"\n")

    def send(self, data: bytes) -> None:
        """Write anything into the event streams."""
        for stream in list(self._streams):
            stream.put(data)

    def end_streams(self) -> None:
        """End the event streams."""
        for stream in list(self._streams):
            stream.put(None)

    def take_fault(self, call: str) -> Fault | None:
        """The fault scripted for this call, which is used up."""
        fault, times = self._faults.get(call, (None, 0))
        if fault is None:
            return None
        if times <= 1:
            del self._faults[call]
        else:
            self._faults[call] = (fault, times - 1)
        return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.fake._connections.add(self.connection)

    def finish(self) -> None:
        self.server.fake._connections.discard(self.connection)
        with suppress(OSError, ValueError):
            super().finish()

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        fake = self.server.fake
        target = urlsplit(self.path)
        path = target.path.removeprefix(f"/v{fake.api_version}")
        name = path.strip("/").split("/")
        call = "service" if len(name) == 2 and name[0] == "services" else name[0]
        fake.calls.append(call)
        fake.targets.append(self.path)
        fake.before(call)
        fault = fake.take_fault(call)
        if fault is not None and self._fail(call, fault):
            return
        if call == "events":
            self._events(fault)
        elif call == "version":
            self._send(fake_json({"ApiVersion": fake.api_version, "Version": "20.10.24"}), fault)
        elif call == "service":
            found = fake.services.get(name[1])
            if found is None:
                self._error(404, f"service {name[1]} not found")
            else:
                self._send(fake_json(found), fault)
        elif call in LISTS:
            self._send(self._list(call, parse_qs(target.query), fault), fault)
        else:
            self._error(404, "page not found")

    def _list(self, call: str, query: dict[str, list[str]], fault: Fault | None) -> bytes:
        made = [dict(item) for item in getattr(self.server.fake, call).values()]
        if call == "tasks":
            wanted = json.loads(query["filters"][0])["desired-state"]
            made = [item for item in made if item["DesiredState"] in wanted]
        if call == "services" and query.get("status") != ["true"]:
            made = [{key: value for key, value in item.items() if key != "ServiceStatus"} for item in made]
        if fault == "wrong type in one":
            made[0]["Name" if call == "networks" else "Spec"] = 7
        elif fault == "nameless":
            del made[0]["Id" if call == "networks" else "ID"]
        return fake_json(made)

    def _fail(self, call: str, fault: Fault) -> bool:
        """Answer with the fault; False where it is one of the body."""
        if fault.isdecimal():
            self._error(int(fault), _MESSAGES.get(int(fault), "no"))
        elif fault == "redirect":
            self._error(302, "elsewhere", ("Location", "http://127.0.0.1:1/"))
        elif fault == "html":
            self._write(b"<html>gateway</html>", "text/html")
        elif fault == "wrong type" and call != "events":
            self._write(b"7", "application/json")
        elif fault == "hang":
            self.server.fake._released.wait(30.0)
            self.close_connection = True
        elif fault == "refused":
            self.close_connection = True
            self.server.fake.refuse()
        else:
            return False
        return True

    def _send(self, body: bytes, fault: Fault | None) -> None:
        if fault == "truncated":
            self._write(body[: len(body) // 2], "application/json")
        elif fault == "reset":
            self._head(len(body), "application/json")
            self.wfile.write(body[: len(body) // 2])
            self._abandon()
        elif fault == "slow":
            self._head(len(body), "application/json")
            for position in range(len(body)):
                self.wfile.write(body[position : position + 1])
                if self.server.fake._released.wait(0.05):
                    break
        else:
            self._write(body, "application/json")

    def _events(self, fault: Fault | None) -> None:
        fake = self.server.fake
        stream: queue.Queue[bytes | None] = queue.Queue()
        fake._streams.add(stream)  # before the client knows: what is told from then on must reach it
        try:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if fault == "reset":
                self.wfile.write(b"64\r\n{")
                self._abandon()
                return
            if fault == "truncated":
                self.wfile.write(b'6\r\n{"Type\r\n0\r\n\r\n')
                return
            if fault in ("wrong type", "wrong type in one"):
                stream.put(b'{"Type": 7}\n')
            while not self._is_left():
                with suppress(queue.Empty):
                    data = stream.get(timeout=0.05)
                    if data is None:
                        self.wfile.write(b"0\r\n\r\n")
                        break
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        except OSError:
            self.close_connection = True
        finally:
            fake._streams.discard(stream)

    def _is_left(self) -> bool:
        """Whether the client has closed the connection: it has nothing to say while it follows events."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        self.close_connection = bool(readable)
        return self.close_connection

    def _error(self, status: int, message: str, *headers: tuple[str, str]) -> None:
        retry = self.server.fake.retry_after
        more = (("Retry-After", retry),) if retry is not None and status in (429, 503) else ()
        self._write(fake_json({"message": message}), "application/json", status, *headers, *more)

    def _write(self, body: bytes, kind: str, status: int = 200, *headers: tuple[str, str]) -> None:
        self._head(len(body), kind, status, *headers)
        self.wfile.write(body)

    def _head(self, length: int, kind: str, status: int = 200, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(length)), *headers):
            self.send_header(name, value)
        self.end_headers()

    def _abandon(self) -> None:
        """Close at once, on TCP with a reset."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)


def fake_json(value: Any) -> bytes:
    """As the Engine writes it."""
    return json.dumps(value).encode() + b"\n"
