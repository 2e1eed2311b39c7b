"""Readers that check every byte they get against the truth: blocking reads and streams, patient, forgetful and slow."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
from collections.abc import AsyncIterator
from random import Random
from time import monotonic
from typing import Any
from urllib.parse import quote

import msgspec

from bridge.catalog.cursor import parse_cursor
from tests.contract.watch_model import Content, as_entries, entry_key, shown
from tests.contract.watch_world import World

SLACK = 30.0
"""Seconds an answer may be late on a busy machine."""


class Lost(Exception):  # noqa: N818  # no failure: connections end
    """The connection ended."""


class Response:
    """A complete answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def cursor(self) -> str:
        """The cursor in its ETag."""
        return self.headers["etag"].removeprefix('W/"').removesuffix('"')

    @property
    def reset(self) -> bool:
        """Whether it says that the cursor was never handed out."""
        return self.headers.get("envbridge-reset") == "true"

    def document(self) -> Any:
        """The decoded body."""
        body = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        if self.headers["content-type"] == "application/msgpack":
            return msgspec.msgpack.decode(body)
        return json.loads(body)


class Client:
    """One connection that asks one thing after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int, *, receive_buffer: int | None = None) -> Client:
        """Connect; Lost where nobody listens. ``receive_buffer``: bytes, where the reader is to fall behind soon."""
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            limit = 2048 if receive_buffer is not None else 2**20
            return cls(*await asyncio.open_connection(sock=sock, limit=limit))
        except OSError:
            sock.close()
            raise Lost from None
        except asyncio.CancelledError:
            sock.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._writer.transport.abort()

    def _send(self, path: str, headers: dict[str, str]) -> None:
        lines = [f"GET {path} HTTP/1.1", "Host: test", *(f"{name}: {value}" for name, value in headers.items())]
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def _head(self) -> tuple[int, dict[str, str]]:
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (asyncio.IncompleteReadError, OSError):
            raise Lost from None
        return int(head[0].split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}

    async def get(self, path: str, **headers: str) -> Response:
        """Ask, and take the whole answer."""
        self._send(path, headers)
        return await self._take(*await self._head())

    async def _take(self, status: int, headers: dict[str, str]) -> Response:
        try:
            return Response(status, headers, await self._reader.readexactly(int(headers.get("content-length", 0))))
        except (asyncio.IncompleteReadError, OSError):
            raise Lost from None

    async def stream(self, path: str, **headers: str) -> Response | None:
        """Ask for a stream: None where it begins, else the plain answer."""
        self._send(path, {"Accept": "text/event-stream", **headers})
        status, head = await self._head()
        return None if head.get("content-type") == "text/event-stream" else await self._take(status, head)

    async def events(self) -> AsyncIterator[tuple[str, Any, str | None]]:
        """Its events: name, data, id."""
        lines: dict[str, str] = {}
        rest = b""
        while True:
            try:
                read = await self._reader.read(1024)
            except OSError:
                return
            if not read:
                return
            *complete, rest = (rest + read).split(b"\n")
            for raw in complete:
                if raw:
                    name, _, value = raw.decode().partition(": ")
                    lines[name] = value
                elif lines:
                    yield lines["event"], json.loads(lines["data"]), lines.get("id")
                    lines = {}


class Stage:
    """Where everybody plays: the world, the port to reach it at, and whether it goes on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.port = 0
        self.history = world.history
        self.over = False
        self.seen: dict[str, int] = {}

    def count(self, what: str) -> None:
        """Note that something happened, so that a run can be told to have tried it."""
        self.seen[what] = self.seen.get(what, 0) + 1


class BlockingReader:
    """Reads one view again and again with the cursor it has, or an older one, or somebody else's."""

    def __init__(self, stage: Stage, spec: tuple[str, str], random: Random) -> None:
        self.stage = stage
        self.spec = spec
        self.random = random
        self.content: Content | None = None
        self.cursor = ""
        self.past: list[tuple[str, Content]] = []
        self.history = stage.history

    async def run(self) -> None:
        """Read until the play is over."""
        while not self.stage.over:
            self.history = self.stage.history
            try:
                client = await Client.connect(self.stage.port)
            except Lost:
                await asyncio.sleep(0.01)
                continue
            try:
                for _ in range(self.random.randrange(1, 12)):
                    if not self.stage.over:
                        await self._read(client)
            except Lost:
                self.stage.count("connection lost")
            finally:
                client.close()

    async def _read(self, client: Client) -> None:
        mode = (
            "get" if self.content is None else self.random.choice(["wait"] * 8 + ["get", "tag", "tags", "past", "twin", "alien"])
        )
        path, query = self.spec
        cursor, held = self.cursor, self.content
        headers: dict[str, str] = {}
        wait = self.random.choice([0.05, 0.1, 0.3])
        blocks = f"wait={round(wait * 1000)}ms"
        match mode:
            case "past":
                cursor, held = self.random.choice(self.past)
            case "twin":  # another replica with the same content
                lineage, index, digest = cursor.split("-")
                cursor = f"ffff{lineage}-{int(index) + 7}-{digest}"
            case "alien":
                cursor, held = f"ffff-{self.random.randrange(1, 50)}-{self.random.randrange(2**64):016x}", None
            case "tag":
                headers["If-None-Match"], blocks, wait = f'W/"{cursor}"', "", 0.0
            case "tags":
                headers["If-None-Match"] = f'W/"ffff-3-0123456789abcdef", "xyz" , W/"{cursor}"'
        if mode not in ("get", "tag", "tags"):
            blocks += f"&after={quote(cursor)}"
        if mode == "get":
            blocks, wait = "", 0.0
        if self.random.random() < 0.3:
            headers["Accept"] = "application/msgpack"
        if self.random.random() < 0.3:
            headers["Accept-Encoding"] = "gzip"
        parts = "&".join(part for part in (query, blocks) if part)
        began = monotonic()
        answer = await client.get(f"{path}?{parts}" if parts else path, **headers)
        self._check(answer, mode, cursor, held, wait, monotonic() - began)
        self.stage.count(f"{mode} {answer.status}")

    def _check(self, answer: Response, mode: str, cursor: str, held: Content | None, wait: float, took: float) -> None:
        world = self.stage.world
        where = f"{self.spec} {mode} {cursor} -> {answer.status} {answer.cursor} after {took:.3f} s; {world.steps[-12:]}"
        handed = parse_cursor(answer.cursor)
        assert handed is not None, where
        content = held if handed.index == 0 else self.history.truth(handed.index).content(self.spec)
        stopping = answer.headers.get("connection") == "close"
        if answer.status == 304:
            assert held is not None, where
            if handed.index:
                assert held == content, f"304 though it differs: {where}\n{held}\n{content}"
            else:
                content = held
            assert stopping or took >= wait, f"a 304 before its deadline: {where}"
        else:
            got = shown(self.spec, answer.status, answer.document() if answer.status == 200 else None)
            if handed.index:
                assert got == content, f"not what the cursor stands for: {where}\n{got}\n{content}"
            content = got
            if mode not in ("get", "alien"):
                assert got != held, f"woken without a difference: {where}\n{got}"
            if mode in ("twin", "alien"):
                assert answer.reset, where
        assert took <= wait * 17 / 16 + SLACK, f"late: {where}"
        self._check_digest(handed.digest, content)
        self.content, self.cursor = content, answer.cursor
        self.past.append((answer.cursor, content))
        del self.past[:-20]

    def _check_digest(self, digest: int, content: Content | None) -> None:
        digests = self.stage.world.__dict__.setdefault("digests", {}).setdefault(self.spec, {})
        text = json.dumps(content, sort_keys=True)
        assert digests.setdefault(digest, text) == text, f"{self.spec}: one digest, two contents\n{digests[digest]}\n{text}"
        contents = self.stage.world.__dict__.setdefault("contents", {}).setdefault(self.spec, {})
        assert contents.setdefault(text, digest) == digest, f"{self.spec}: one content, two digests: {text}"

    def state(self) -> Any:
        """What it holds."""
        return self.content

    def expected(self) -> Any:
        """What it should hold once everything is quiet."""
        return self.stage.world.now.content(self.spec)


class StreamReader:
    """Follows one view's stream; may leave and come back, and may be slow."""

    def __init__(self, stage: Stage, spec: tuple[str, str], random: Random, *, slow: bool) -> None:
        self.stage = stage
        self.spec = spec
        self.random = random
        self.slow = slow
        self.entries: dict[str, Any] | None = None
        self.plain: Content | None = None
        self.id: str | None = None
        self.past: list[tuple[str, dict[str, Any]]] = []
        self.history = stage.history
        self._parts: dict[str, Any] | None = None
        self._given: str | None = None
        self._fresh = True

    async def run(self) -> None:
        """Follow until the play is over."""
        while not self.stage.over:
            self.history = self.stage.history
            try:
                client = await Client.connect(self.stage.port, receive_buffer=2048 if self.slow else None)
            except Lost:
                await asyncio.sleep(0.01)
                continue
            try:
                await self._follow(client)
            except Lost:
                self.stage.count("stream lost")
            finally:
                client.close()

    async def _follow(self, client: Client) -> None:
        given = self._resume()
        path, query = self.spec
        headers: dict[str, str] = {}
        if given is not None:
            if self.random.random() < 0.5:
                headers["Last-Event-ID"] = given
            else:
                query = f"{query}&after={quote(given)}" if query else f"after={quote(given)}"
        answer = await client.stream(f"{path}?{query}" if query else path, **headers)
        if answer is not None:
            self.stage.count(f"stream {answer.status}")
            handed = parse_cursor(answer.cursor)
            assert handed is not None
            truth = self.history.truth(handed.index).content(self.spec)
            if handed.index:
                assert (answer.status, None) == truth, f"{self.spec} {answer.status} {answer.cursor}: {truth}"
            self.plain, self.entries, self.id = (answer.status, None), None, None
            await asyncio.sleep(0.02)
            return
        self.plain = None
        if given is None:
            self.entries = None
        cursor = parse_cursor(given) if given is not None else None
        last = cursor.index if cursor is not None and cursor.lineage == self.stage.world.catalog.indexes.lineage else 0
        self._given, self._fresh = given, given is None
        leaves = monotonic() + self.random.choice([0.05, 0.2, 1.0, 5.0])
        self._parts = None
        async for name, data, id_ in client.events():
            self._take(name, data, id_)
            if id_ is not None:
                last = self._check_id(name, id_, last)
            if self.slow and self.random.random() < 0.3:
                await asyncio.sleep(self.random.choice([0.01, 0.1, 0.3]))
            if monotonic() > leaves and not self.stage.over:
                break
        self.stage.count("stream left")

    def _resume(self) -> str | None:
        """Where to go on: from where it was, from earlier, from nowhere, from what is no cursor of this bridge."""
        if self.id is None or self.entries is None or self._parts is not None:
            return None
        mode = self.random.choice(["last"] * 6 + ["past", "none", "twin", "alien", "garbage"])
        self.stage.count(f"resume {mode}")
        # What came after the last id was not finished: it is as if it had never come.
        self.entries = dict(next(entries for id_, entries in reversed(self.past) if id_ == self.id))
        match mode:
            case "none":
                return None
            case "past":
                self.id, entries = self.random.choice(self.past)
                self.entries = dict(entries)
            case "twin":
                lineage, index, digest = self.id.split("-")
                return f"ffff{lineage}-{index}-{digest}"
            case "alien":
                return "ffff-12-0123456789abcdef"
            case "garbage":
                return "zzz"
        return self.id

    def _take(self, name: str, data: Any, id_: str | None) -> None:
        world = self.stage.world
        where = f"{self.spec} {name} {id_}; {world.steps[-12:]}"
        match name:
            case "reset":
                assert data == {}
                assert not self._fresh, f"a reset of a stream that began with nothing: {where}"
                self.stage.count("reset")
                self.entries, self._parts = None, None
            case "snapshot":
                assert self.entries is None, f"a snapshot without a reset: {where}"
                self._parts = self._parts or {}
                self._parts |= {entry_key(entry): entry for entry in data.get("services") or data.get("instances") or []}
                if "complete" in data:
                    assert id_ is not None
                    self.entries, self._parts = self._parts, None
                    self.stage.count("snapshot")
                else:
                    assert id_ is None
            case "change":
                assert self.entries is not None, f"a change before the snapshot: {where}"
                for kind in ("added", "updated"):
                    for entry in data[kind]:
                        assert self.entries.get(entry_key(entry)) != entry, f"doubled: {where}\n{entry}"
                        self.entries[entry_key(entry)] = entry
                for key in data["removed"]:
                    self.entries.pop(key, None)
                self.stage.count("change")
            case "bookmark":
                assert self.entries is not None, f"a bookmark before the snapshot: {where}"
                self.stage.count("bookmark")
        self._fresh = False

    def _check_id(self, name: str, id_: str, last: int) -> int:
        world = self.stage.world
        where = f"{self.spec} {name} {id_} after {last}, resumed from {self._given}; {world.steps[-12:]}"
        cursor = parse_cursor(id_)
        assert cursor is not None
        assert self.entries is not None, where
        if cursor.index:
            if name == "bookmark":
                assert cursor.index >= last or self._given, where
            elif name == "change":
                assert cursor.index > last, f"not in order: {where}"
            truth = as_entries(self.history.truth(cursor.index).content(self.spec))
            assert normal(self.entries) == truth, f"not what the id stands for: {where}\n{normal(self.entries)}\n{truth}"
        self.id = id_
        self.past.append((id_, dict(self.entries)))
        del self.past[:-20]
        return max(last, cursor.index)

    def state(self) -> Any:
        """What it holds."""
        return (normal(self.entries) if self.entries is not None else None) if self.plain is None else self.plain

    def expected(self) -> Any:
        """What it should hold once everything is quiet."""
        content = self.stage.world.now.content(self.spec)
        return as_entries(content) if content[0] == 200 else content


def normal(entries: dict[str, Any]) -> dict[str, Any]:
    """Entries in the model's terms."""
    return {key: entry | {"degraded": "yes"} if "degraded" in entry else entry for key, entry in entries.items()}


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """A connection for a while."""
    client = await Client.connect(port)
    try:
        yield client
    finally:
        client.close()
