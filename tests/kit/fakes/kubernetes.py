"""A scriptable API server: Services, EndpointSlices and Nodes, with lists in pages, streaming lists, watches and bookmarks.

It speaks plain HTTP on loopback, in the event loop of the test. Objects are held as their JSON, so that 100,000 endpoints
cost what their text costs. A fault can be scripted for any call, named as in ``FakeKubernetes.fail``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from ..listener import Listener
from ..servers.process import free_port
from .kubeobjects import Object

Fault = Literal[
    "refused",
    "reset",
    "400",
    "401",
    "403",
    "404",
    "410",
    "429",
    "500",
    "503",
    "hang",
    "truncated",
    "wrong type",
    "nameless",
    "half a pair",
    "html",
    "wrong kind",
    "redirect",
    "410 event",
    "500 event",
    "mixed pages",
]
FAULTS: tuple[Fault, ...] = Fault.__args__  # type: ignore[attr-defined]
KINDS = {"services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}
_JSON = "application/json"
_OF_A_LINE = ("reset", "truncated", "wrong type", "nameless", "half a pair")


@dataclass(slots=True)
class Stored:
    """One object: its JSON, without kind and apiVersion as in a list."""

    namespace: str
    name: str
    text: bytes


@dataclass(slots=True)
class Change:
    """One line of history."""

    version: int
    type: str
    plural: str
    stored: Stored


@dataclass(slots=True)
class Call:
    """One request as it came in."""

    name: str
    target: str
    headers: dict[str, str]
    query: dict[str, str] = field(default_factory=dict)


class FakeKubernetes:
    """``async with FakeKubernetes() as api``.

    streaming: whether it offers streaming lists. page_size: caps the ``limit`` asked for. bookmark_every: seconds.
    watch_seconds: caps ``timeoutSeconds``. token: where set, anything else is 401.
    """

    def __init__(self, *, streaming: bool = True, page_size: int = 500, bookmark_every: float = 0.05) -> None:
        self.streaming = streaming
        self.page_size = page_size
        self.bookmark_every = bookmark_every
        self.watch_seconds = 600.0
        self.token: str | None = None
        self.version = 100
        self.oldest = 0
        self.port = free_port()
        self.calls: list[Call] = []
        self.objects: dict[str, dict[tuple[str, str], Stored]] = {plural: {} for plural in KINDS}
        self._history: list[Change] = []
        self._snapshots: dict[str, tuple[int, list[Stored]]] = {}
        self._faults: dict[str, tuple[Fault, int]] = {}
        self._forbidden: set[tuple[str, str]] = set()
        self._changed = asyncio.Event()
        self._listener: Listener | None = None

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.refuse()

    @property
    def url(self) -> str:
        """Where it listens; stays the same through `refuse` and `accept`."""
        return f"http://127.0.0.1:{self.port}"

    def kubeconfig(self, token: str = "secret-token") -> str:
        """A kubeconfig's text."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )

    def put(self, plural: str, *made: Object) -> None:
        """Create or change objects; watchers are told."""
        for item in made:
            name, namespace = item["metadata"]["name"], item["metadata"].get("namespace", "")
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            stored = Stored(namespace, name, json.dumps(item, separators=(",", ":")).encode())
            known = (namespace, name) in self.objects[plural]
            self.objects[plural][namespace, name] = stored
            self._tell(Change(self.version, "MODIFIED" if known else "ADDED", plural, stored))

    def delete(self, plural: str, name: str, namespace: str = "shop") -> None:
        """Delete an object; watchers are told."""
        stored = self.objects[plural].pop((namespace, name))
        self.version += 1
        last = json.loads(stored.text)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._tell(Change(self.version, "DELETED", plural, Stored(namespace, name, json.dumps(last).encode())))

    def lose(self, plural: str, name: str, namespace: str = "shop") -> None:
        """Delete an object without anybody being told: only the next list shows it."""
        del self.objects[plural][namespace, name]
        self.version += 1

    def send(self, plural: str, type: str, text: bytes, namespace: str = "shop", name: str = "raw") -> None:
        """Tell watchers any JSON."""
        self.version += 1
        self._tell(Change(self.version, type, plural, Stored(namespace, name, text)))

    def compact(self) -> None:
        """Forget the history: watches from before answer 410."""
        self.oldest = self.version
        self._history.clear()

    def restore(self, version: int) -> None:
        """As etcd brought back from a backup: resourceVersions begin again below those handed out."""
        self.version = version
        self._history.clear()

    def fail(self, call: str, fault: Fault, times: int = 1) -> None:
        """Answer a call with a fault, ``times`` times.

        Calls: ``list services``, ``list services page 2``, ``stream services`` (streaming list), ``watch services``,
        ``ask services`` (a list of one); likewise ``endpointslices`` and ``nodes``.
        """
        self._faults[call] = (fault, times)

    def forbid(self, plural: str, namespace: str) -> None:
        """403 for everything about a kind in a namespace, until `heal`."""
        self._forbidden.add((plural, namespace))

    async def heal(self) -> None:
        """No more faults; connections are accepted."""
        self._faults.clear()
        self._forbidden.clear()
        if self._listener is None or not self._listener.listening:
            await self.accept()

    def watching(self, plural: str) -> int:
        """How many requests of a kind are being answered as watches right now."""
        connections = self._listener.connections if self._listener is not None else ()
        return sum(1 for task in connections if task.get_name() == f"watch {plural}")

    async def refuse(self) -> None:
        """Refuse connections and reset those that are open."""
        if self._listener is not None:
            self._listener.close()
            await self._listener.reset()

    async def accept(self) -> None:
        """Listen (again), on the same port."""
        self._listener = Listener(self._connected, self.port, limit=2**20)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        self._changed.set()
        self._changed = asyncio.Event()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        while await self._answer(reader, writer):
            task.set_name("idle")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        target = first.split(" ")[1]
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        plural = parts[-1]
        namespace = unquote(parts[-2]) if parts[-3] == "namespaces" else ""
        verb = "list" if "watch" not in query else "stream" if "sendInitialEvents" in query else "watch"
        if verb == "list" and query.get("limit") == "1":
            verb = "ask"
        page = int(query.get("continue", "1:").partition(":")[0])
        name = f"{verb} {plural}" + (f" page {page}" if page > 1 else "")
        self.calls.append(Call(name, target, headers, query))
        if self.token is not None and headers.get("authorization") != f"Bearer {self.token}":
            return self._refusal(writer, 401)
        if (plural, namespace) in self._forbidden:
            return self._refusal(writer, 403)
        fault, times = self._faults.get(name, (None, 0))
        if fault is not None:
            if times > 1:
                self._faults[name] = (fault, times - 1)
            else:
                del self._faults[name]
            if not await self._before_body(writer, fault):
                return False
            if fault.isdigit():
                return True
        if verb == "stream" and not self.streaming:
            return self._refusal(writer, 422)
        if verb in ("list", "ask"):
            return await self._list(writer, plural, namespace, query, fault)
        task = asyncio.current_task()
        assert task is not None
        task.set_name(f"watch {plural}")
        return await self._watch(writer, plural, namespace, query, fault)

    async def _before_body(self, writer: asyncio.StreamWriter, fault: Fault) -> bool:
        """What a fault does instead of an answer; False where the connection is over."""
        if fault.isdigit():
            return self._refusal(writer, int(fault))
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "refused":
            await self.refuse()
            raise ConnectionResetError
        if fault == "html":
            self._send(writer, 200, b"<html>Sign in</html>", "text/html")
            return False
        if fault == "redirect":
            self._send(writer, 302, b"", "text/html", "Location: http://127.0.0.1:1/elsewhere\r\n")
            return False
        return True

    def _refusal(self, writer: asyncio.StreamWriter, code: int) -> bool:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": f"scripted {code}"}
        extra = "Retry-After: 7\r\n" if code in (429, 503) else ""
        self._send(writer, code, json.dumps(status).encode(), _JSON, extra)
        return True

    def _send(self, writer: asyncio.StreamWriter, code: int, body: bytes, kind: str, extra: str = "") -> None:
        head = f"HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        writer.write(head.encode() + body)

    def _matching(self, plural: str, namespace: str) -> list[Stored]:
        return [item for item in self.objects[plural].values() if not namespace or item.namespace == namespace]

    async def _list(
        self, writer: asyncio.StreamWriter, plural: str, namespace: str, query: dict[str, str], fault: Fault | None
    ) -> bool:
        limit = min(int(query.get("limit", "1000000")), self.page_size)
        page, _, token = query.get("continue", "1:").partition(":")
        if token and token not in self._snapshots:
            return self._refusal(writer, 400)
        version, items = self._snapshots.get(token, (self.version, self._matching(plural, namespace)))
        if not token:
            token = f"{version}-{plural}-{namespace}"
            self._snapshots[token] = (version, items)
        start = (int(page) - 1) * limit
        more = start + limit < len(items)
        listed = [item.text for item in items[start : start + limit]]
        metadata: Object = {"resourceVersion": str(version + 1 if fault == "mixed pages" else version)}
        if more:
            metadata["continue"] = f"{int(page) + 1}:{token}"
        kind = KINDS[plural]
        if fault == "wrong type":
            listed[:1] = [_wrong_type(listed[0])] if listed else []
        if fault == "half a pair":
            listed[:1] = [_with_half_a_pair(listed[0])] if listed else []
        if fault == "nameless":
            listed[:1] = [b'{"metadata":{"name":7}}']
        body = b'{"kind":"%s","apiVersion":"v1","metadata":%s,"items":[%s]}' % (
            b"PodList" if fault == "wrong kind" else f"{kind}List".encode(),
            json.dumps(metadata).encode(),
            b",".join(listed),
        )
        if fault == "truncated":
            self._send(writer, 200, body[: len(body) // 2], _JSON)
        elif fault == "reset":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body[: len(body) // 2])
            await writer.drain()
            writer.transport.abort()
            return False
        else:
            self._send(writer, 200, body, _JSON)
        await writer.drain()
        return True

    async def _watch(
        self, writer: asyncio.StreamWriter, plural: str, namespace: str, query: dict[str, str], fault: Fault | None
    ) -> bool:
        seen = int(query["resourceVersion"]) if query.get("resourceVersion") else None
        initial = "sendInitialEvents" in query
        if seen is not None and seen < self.oldest:
            return self._refusal(writer, 410)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        kind = KINDS[plural]
        if fault in ("410 event", "500 event"):
            code = int(fault[:3])
            self._line(writer, "ERROR", json.dumps({"kind": "Status", "code": code, "message": "scripted"}).encode())
            return self._end(writer)
        if initial:
            seen = self.version
            for item in self._matching(plural, namespace):
                if fault in _OF_A_LINE:
                    if not await self._faulty_line(writer, fault, kind, item.text):
                        return False
                    fault = None
                    continue
                self._line(writer, "ADDED", _typed(kind, item.text))
                await writer.drain()
            self._bookmark(writer, kind, seen, initial_end=True)
        elif fault in _OF_A_LINE:
            items = self._matching(plural, namespace)
            if items and not await self._faulty_line(writer, fault, kind, items[0].text):
                return False
        if seen is None:
            self._line(writer, "ERROR", b'{"kind":"Status","code":500,"message":"no resourceVersion"}')
            return self._end(writer)
        await writer.drain()
        loop = asyncio.get_running_loop()
        end = loop.time() + min(self.watch_seconds, float(query.get("timeoutSeconds", "600")))
        while loop.time() < end:
            changed = self._changed
            for change in [item for item in self._history if item.version > seen and item.plural == plural]:
                if not namespace or change.stored.namespace == namespace:
                    self._line(writer, change.type, _typed(kind, change.stored.text))
                seen = change.version
            await writer.drain()
            try:
                async with asyncio.timeout(min(self.bookmark_every, max(0.0, end - loop.time()))):
                    await changed.wait()
            except TimeoutError:
                # From a version of the future: silent, as a real server is.
                if seen <= self.version:
                    seen = self.version
                    self._bookmark(writer, kind, seen)
        return self._end(writer)

    async def _faulty_line(self, writer: asyncio.StreamWriter, fault: Fault, kind: str, text: bytes) -> bool:
        if fault == "wrong type":
            self._line(writer, "MODIFIED", _wrong_type(text))
            return True
        if fault == "half a pair":
            self._line(writer, "MODIFIED", _with_half_a_pair(text))
            return True
        if fault == "nameless":
            self._line(writer, "MODIFIED", b'{"metadata":{"name":7,"resourceVersion":"%d"}}' % self.version)
            return True
        half = b'{"type":"MODIFIED","object":' + text[: len(text) // 2]
        writer.write(b"%x\r\n%s\r\n" % (len(half), half))
        await writer.drain()
        if fault == "truncated":
            self._end(writer)
            await writer.drain()
        else:
            writer.transport.abort()
        return False

    def _bookmark(self, writer: asyncio.StreamWriter, kind: str, version: int, initial_end: bool = False) -> None:
        metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        self._line(writer, "BOOKMARK", json.dumps({"kind": kind, "metadata": metadata}).encode())

    def _line(self, writer: asyncio.StreamWriter, type: str, text: bytes) -> None:
        line = b'{"type":"%s","object":%s}\n' % (type.encode(), text)
        writer.write(b"%x\r\n%s\r\n" % (len(line), line))

    def _end(self, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"0\r\n\r\n")
        return True


def fill(api: FakeKubernetes, services: int, slices: Sequence[Object]) -> None:
    """Put many slices at once; ``services`` Services named ``s0`` ... beside them."""
    from .kubeobjects import service

    api.put("services", *(service(f"s{number}") for number in range(services)))
    api.put("endpointslices", *slices)


def _typed(kind: str, text: bytes) -> bytes:
    return b'{"kind":"%s","apiVersion":"v1",%s' % (kind.encode(), text[1:])


def _with_half_a_pair(text: bytes) -> bytes:
    """An object with an annotation that JSON can write and Unicode does not have: half of a surrogate pair."""
    made: dict[str, Any] = json.loads(text)
    made["metadata"]["annotations"] = {"note": "\ud800"}
    return json.dumps(made).encode()


def _wrong_type(text: bytes) -> bytes:
    made: dict[str, Any] = json.loads(text)
    if "addressType" in made:
        made["endpoints"] = "nine"
    elif "spec" in made:
        made["spec"]["ports"] = "nine"
    else:
        made["status"]["addresses"] = "nine"
    return json.dumps(made).encode()
