"""A strict fake of AWS Cloud Map's JSON 1.1 API: what real Cloud Map does and moto hides.

Pages (a filter applies after paging, so pages may be empty and not the last), the limit of 100 and 1000 results, a random
order, a revision that only registrations move, health that takes time, throttling, and errors as AWS spells them. Faults are
scripted by operation, and by service where that matters.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar

TARGET = "Route53AutoNaming_v20170314."
DISCOVER_DEFAULT, DISCOVER_MAX, PAGE_MAX = 100, 1000, 100

_EMPTY = b'{"Namespaces": [], "Services": [], "Instances": [], "InstancesRevision": 9}'

OPERATIONS = ("ListNamespaces", "ListServices", "DiscoverInstancesRevision", "DiscoverInstances")
FAULTS = (
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
    "truncated",
    "wrong_type",
    "wrong_content",
    "wrong_label",
    "206",
    "cut_short",
    "throttled",
    "denied",
)
"""``refused``: closed without an answer; ``reset``: in the middle of the body; ``wrong_content``: 200 with a proxy's HTML;
``wrong_label``: an empty answer that calls itself HTML; ``206``: one that calls itself a part; ``cut_short``: one with the length
of a longer one."""


@dataclass
class FakeInstance:
    """One registration. ``pending``: health that shows later, and when (monotonic)."""

    id: str
    attributes: dict[str, str]
    health: str
    pending: tuple[float, str] | None = None

    def current(self) -> str:
        """The health as it shows by now."""
        if self.pending is not None and time.monotonic() >= self.pending[0]:
            self.health, self.pending = self.pending[1], None
        return self.health


@dataclass
class FakeService:
    """One service. ``extra``: members of its summary, laid over the usual."""

    id: str
    name: str
    namespace: str
    checked: bool
    revision: int = 1
    instances: dict[str, FakeInstance] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


class AnswerError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


class FakeCloudMap:
    """The server, and the hands of whoever acts on it. Use as a context manager.

    page_size: objects a page. health_delay: seconds until a health change shows (real: about 30). poll: seconds until its end
    is noticed, at the most; where there are many fakes, looking too often costs.
    """

    def __init__(self, page_size: int = 2, health_delay: float = 0.0, poll: float = 0.02) -> None:
        self.page_size = page_size
        self.health_delay = health_delay
        self.namespaces: dict[str, dict[str, Any]] = {}
        self.services: dict[str, FakeService] = {}
        self.calls: Counter[str] = Counter()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.raw: dict[tuple[str, str], Any] = {}
        self._faults: dict[tuple[str, str | None], str] = {}
        self._released = threading.Event()
        self._lock = threading.RLock()
        self._numbers = 0
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(poll,), daemon=True)

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakeCloudMap:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    # -- acting on it

    def clear(self) -> None:
        """Forget everything; calls that hang end."""
        self.mend()
        with self._lock:
            for record in (self.namespaces, self.services, self.calls, self.asked, self.raw):
                record.clear()

    def namespace(self, name: str, *, type_: str = "HTTP", http_name: str | None = "") -> str:
        """Create one. ``http_name``: None leaves it out, as DNS namespaces may; empty makes it the name. Returns the id."""
        with self._lock:
            id_ = self._id("ns")
            entry: dict[str, Any] = {"Id": id_, "Name": name, "Type": type_, "Properties": {}}
            if http_name is not None:
                entry["Properties"]["HttpProperties"] = {"HttpName": http_name or name}
            self.namespaces[id_] = entry
            return id_

    def service(self, namespace: str, name: str, *, checked: bool = False, **extra: Any) -> str:
        """Create one in the namespace with that id. Returns the id."""
        with self._lock:
            id_ = self._id("srv")
            self.services[id_] = FakeService(id_, name, namespace, checked, extra=extra)
            return id_

    def register(self, service: str, instance: str, address: str = "10.0.0.1", port: int | None = 8080, **more: str) -> None:
        """Register, or register again: an upsert, which moves the revision."""
        attributes = {"AWS_INSTANCE_IPV4": address} if address else {}
        attributes |= {"AWS_INSTANCE_PORT": str(port)} if port is not None else {}
        with self._lock:
            entry = self.services[service]
            health = more.get("AWS_INIT_HEALTH_STATUS", "HEALTHY") if entry.checked else "UNKNOWN"
            entry.instances[instance] = FakeInstance(instance, attributes | more, health)
            entry.revision += 1

    def deregister(self, service: str, instance: str) -> None:
        """End a registration."""
        with self._lock:
            del self.services[service].instances[instance]
            self.services[service].revision += 1

    def set_health(self, service: str, instance: str, health: str) -> None:
        """Custom health: shows after `health_delay`, moves no revision."""
        with self._lock:
            entry = self.services[service]
            assert entry.checked, "only services with HealthCheckCustomConfig have custom health"
            entry.instances[instance].pending = (time.monotonic() + self.health_delay, health)

    def delete_service(self, service: str) -> None:
        """Delete a service; the real one must be empty."""
        with self._lock:
            assert not self.services[service].instances, "ResourceInUse"
            del self.services[service]

    def delete_namespace(self, namespace: str) -> None:
        """Delete a namespace; the real one must be empty."""
        with self._lock:
            assert all(service.namespace != namespace for service in self.services.values()), "ResourceInUse"
            del self.namespaces[namespace]

    def break_call(self, operation: str, fault: str, service: str | None = None) -> None:
        """From now on the operation fails that way; for one service (by name) or for all."""
        with self._lock:
            self._released.clear()
            self._faults[operation, service] = fault

    def mend(self) -> None:
        """No faults any more; calls that hang end."""
        with self._lock:
            self._faults.clear()
            self._released.set()

    def answer_raw(self, operation: str, service: str, body: Any) -> None:
        """Answer that operation for that service with this JSON."""
        self.raw[operation, service] = body

    # -- answering

    def fault(self, operation: str, request: dict[str, Any]) -> str | None:
        """The fault scripted for a request."""
        with self._lock:
            name = request.get("ServiceName")
            return self._faults.get((operation, name)) or self._faults.get((operation, None))

    def wait_released(self) -> None:
        """What a call that hangs does."""
        self._released.wait(30.0)

    def answer(self, operation: str, request: dict[str, Any]) -> Any:
        """The answer to a request. Raises AnswerError."""
        with self._lock:
            self.calls[operation] += 1
            if "ServiceName" in request:
                self.asked[operation, request["ServiceName"]] += 1
            if (operation, request.get("ServiceName", "")) in self.raw:
                return self.raw[operation, request.get("ServiceName", "")]
            match operation:
                case "ListNamespaces":
                    return self._page(list(self.namespaces.values()), request, "Namespaces", lambda _: True)
                case "ListServices":
                    return self._list_services(request)
                case "ListInstances":
                    return self._list_instances(request)
                case "DiscoverInstances":
                    return self._discover(request)
                case "DiscoverInstancesRevision":
                    return {"InstancesRevision": self._find(request).revision}
                case _:
                    raise AnswerError(400, "UnknownOperationException")

    def _list_services(self, request: dict[str, Any]) -> Any:
        wanted = [value for entry in request.get("Filters", ()) if entry["Name"] == "NAMESPACE_ID" for value in entry["Values"]]
        if wanted and wanted[0] not in self.namespaces:
            raise AnswerError(400, "NamespaceNotFound", wanted[0])
        return self._page(
            list(self.services.values()), request, "Services", lambda service: not wanted or service.namespace in wanted
        )

    def _list_instances(self, request: dict[str, Any]) -> Any:
        if request["ServiceId"] not in self.services:
            raise AnswerError(404, "ServiceNotFound", request["ServiceId"])
        entries = [
            {"Id": entry.id, "Attributes": entry.attributes} for entry in self.services[request["ServiceId"]].instances.values()
        ]
        start = int(request.get("NextToken") or 0)
        page = {"Instances": entries[start : start + PAGE_MAX]}
        return page | ({"NextToken": str(start + PAGE_MAX)} if start + PAGE_MAX < len(entries) else {})

    def _page(self, objects: list[Any], request: dict[str, Any], member: str, fits: Any) -> Any:
        size = min(int(request.get("MaxResults", self.page_size)), PAGE_MAX)
        start = int(request.get("NextToken") or 0)
        part = [_summary(value) for value in objects[start : start + size] if fits(value)]
        answer: dict[str, Any] = {member: part}
        if start + size < len(objects):
            answer["NextToken"] = str(start + size)
        return answer

    def _find(self, request: dict[str, Any]) -> FakeService:
        for id_, entry in self.namespaces.items():
            http = entry["Properties"].get("HttpProperties", {}).get("HttpName", entry["Name"])
            if http == request["NamespaceName"]:
                for service in self.services.values():
                    if service.namespace == id_ and service.name == request["ServiceName"]:
                        return service
                raise AnswerError(404, "ServiceNotFound", request["ServiceName"])
        raise AnswerError(404, "NamespaceNotFound", request["NamespaceName"])

    def _discover(self, request: dict[str, Any]) -> Any:
        service = self._find(request)
        limit = int(request.get("MaxResults", DISCOVER_DEFAULT))
        if not 1 <= limit <= DISCOVER_MAX:
            raise AnswerError(400, "InvalidInput", "MaxResults")
        wanted = request.get("HealthStatus", "ALL")
        found = [
            {
                "InstanceId": entry.id,
                "NamespaceName": request["NamespaceName"],
                "ServiceName": service.name,
                "HealthStatus": entry.current(),
                "Attributes": entry.attributes,
            }
            for entry in service.instances.values()
            if not service.checked or wanted in ("ALL", "HEALTHY_OR_ELSE_ALL") or entry.current() == wanted
        ]
        return {"Instances": random.sample(found, min(limit, len(found))), "InstancesRevision": service.revision}

    def _id(self, kind: str) -> str:
        self._numbers += 1
        return f"{kind}-{self._numbers:016d}"


def _summary(value: Any) -> Any:
    if not isinstance(value, FakeService):
        return value
    summary: dict[str, Any] = {"Id": value.id, "Name": value.name, "Type": "HTTP", "InstanceCount": len(value.instances)}
    if value.checked:
        summary["HealthCheckCustomConfig"] = {"FailureThreshold": 1}
    return summary | value.extra


class _Handler(BaseHTTPRequestHandler):
    """One request of the JSON 1.1 protocol."""

    fake: ClassVar[FakeCloudMap]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        operation = self.headers.get("X-Amz-Target", "").removeprefix(TARGET)
        fault = self.fake.fault(operation, request)
        if fault in ("refused", "hang"):
            self.fake.calls[operation] += 1
            if fault == "hang":
                self.fake.wait_released()
            self._cut()
            return
        try:
            if "Authorization" not in self.headers:
                raise AnswerError(403, "MissingAuthenticationToken")
            if fault is not None:
                _raise_scripted(fault)
            answer = self.fake.answer(operation, request)
        except AnswerError as error:
            body = {"__type": error.code, "Message": error.message} if error.code else {}
            self._send(error.status, json.dumps(body).encode(), headers=error.headers)
            return
        self._send_faulty(fault, answer)

    def _send_faulty(self, fault: str | None, answer: Any) -> None:
        body = json.dumps(answer).encode()
        if fault == "reset":
            self._send(200, body[: len(body) // 2], length=len(body))
            self._cut()
        elif fault == "truncated":
            self._send(200, body[: len(body) // 2])
        elif fault == "wrong_content":
            self._send(200, b"<html><body>Please log in</body></html>", content_type="text/html")
        elif fault == "wrong_label":
            self._send(200, _EMPTY, content_type="text/html")
        elif fault == "206":
            self._send(206, _EMPTY)
        elif fault == "cut_short":
            self._send(200, _EMPTY, length=len(_EMPTY) + 500)
            self.close_connection = True
        elif fault == "wrong_type":
            self._send(200, json.dumps(_with_wrong_type(answer)).encode())
        else:
            self._send(200, body)

    def _send(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = "application/x-amz-json-1.1",
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _cut(self) -> None:
        """End the connection with a reset."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests read results."""


def _raise_scripted(fault: str) -> None:
    if fault == "throttled":
        raise AnswerError(400, "RequestLimitExceeded", "Rate exceeded", {"Retry-After": "3"})
    if fault == "denied":
        raise AnswerError(400, "AccessDeniedException", "not authorized to perform")
    if fault.isdigit() and fault != "206":
        raise AnswerError(int(fault), "")


def _with_wrong_type(answer: Any) -> Any:
    """The answer, with one object in it of another type; a bare value is of another type itself."""
    for member, value in answer.items():
        if isinstance(value, list):
            return answer | {member: [*value[:-1], 7] if value else [7]}
    return {member: {"not": "a number"} for member in answer}
