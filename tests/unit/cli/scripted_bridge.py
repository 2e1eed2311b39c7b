"""A bridge that answers by script, and documents as the API promises them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

Sent = Callable[[bytes], None]


class Asked(NamedTuple):
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]


@dataclass
class Reply:
    """One scripted answer. ``stream`` writes the body itself, where it is given, and the connection ends when it returns."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "application/json"
    stream: Callable[[Sent], None] | None = None


class ScriptedBridge:
    """Answers each path with its replies in turn, the last one for ever; 404 as a problem document elsewhere."""

    def __init__(self) -> None:
        self.replies: dict[str, list[Reply]] = {}
        self.asked: list[Asked] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                script.asked.append(Asked(parts.path, dict(parse_qsl(parts.query)), dict(self.headers.items())))
                replies = script.replies.get(parts.path) or [problem(404, "Not Found", f"no {parts.path}")]
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status)
                for name, value in {"Content-Type": reply.type, **reply.headers}.items():
                    self.send_header(name, value)
                if reply.stream is None:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if reply.stream is None:
                    self.wfile.write(body)
                    return
                try:
                    reply.stream(self.wfile.write)
                except OSError:
                    return  # the reader went away, as it may

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> ScriptedBridge:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def on(self, path: str, *replies: Reply | dict[str, Any] | list[Any]) -> None:
        self.replies[path] = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]


def problem(status: int, title: str, detail: str, **headers: str) -> Reply:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Reply(body, status, {name.replace("_", "-"): value for name, value in headers.items()}, "application/problem+json")


def events(*parts: bytes, then: Callable[[], object] | None = None) -> Reply:
    """A stream of these bytes that ends at once, or after ``then``."""

    def stream(write: Sent) -> None:
        for part in parts:
            write(part)
        if then is not None:
            then()

    return Reply(type="text/event-stream", stream=stream)


def event(type: str, data: Any, id: str = "") -> bytes:
    return f"event: {type}\n{f'id: {id}' + chr(10) if id else ''}data: {json.dumps(data)}\n\n".encode()


def instance(id: str = "shop/web/1", **changes: Any) -> dict[str, Any]:
    namespace, service, _ = id.split("/", 2)
    return {
        "environment": "eu", "source": "main", "id": id, "namespace": namespace, "service": service,
        "addresses": ["10.0.0.1"], "hostname": None,
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "app_protocol": "http"}],
        "health": "ready", "lifecycle": "active", "state": "listed", "weight": 1,
        "region": "eu-west-1", "zone": "eu-west-1a", "node": "n1", "tags": ["v2"], "meta": {"team": "checkout"},
    } | changes  # fmt: skip


def service(namespace: str = "shop", name: str = "web", **counts: dict[str, int]) -> dict[str, Any]:
    environments = counts or {"eu": {"ready": 3, "unready": 1, "draining": 0}}
    return {"namespace": namespace, "name": name, "ports": ["http"], "tags": ["v2"], "environments": environments}
