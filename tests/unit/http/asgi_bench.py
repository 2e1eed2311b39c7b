"""A listener with an ASGI application behind it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.unit.http.http_bench import Bench, answers

ASK = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
READ = b"GET /v1/services HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = ["Transfer-Encoding: chunked"]
CHUNKS = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"


def post(path: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode() + body


class App:
    """Tells what it was asked; some paths do otherwise."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: list[str] = []
        self.gone = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        match scope["path"]:
            case "/fails":
                raise LookupError("a defect")
            case "/fails-late":
                await start(send, 200)
                raise LookupError("a defect")
            case "/streams":
                await start(send, 200)
                while (await receive())["type"] != "http.disconnect":
                    await send({"type": "http.response.body", "body": b"x", "more_body": True})
                self.gone += 1
                return
            case "/waits" | "/waits-unread":
                await self.go.wait()
            case "/floods":
                await start(send, 200)
                for _ in range(1000):
                    await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            case "/early":
                await tell(send, {"early": True})
                return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        else:
            self.gone += 1
            return
        caller = scope["state"]["caller"]
        await tell(
            send,
            {
                "method": scope["method"],
                "path": scope["path"],
                "query": scope["query_string"].decode(),
                "scheme": scope["scheme"],
                "headers": {name.decode(): value.decode("latin-1") for name, value in scope["headers"]},
                "body": body.decode("latin-1"),
                "caller": [caller.address, caller.loopback, caller.token.hex() if caller.token else None],
            },
        )


async def start(send: Any, status: int, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def tell(send: Any, document: Any) -> None:
    body = json.dumps(document).encode()
    await start(send, 200, (b"content-length", b"%d" % len(body)), (b"content-type", b"application/json"))
    await send({"type": "http.response.body", "body": body})


class Served(Bench):
    """A listener with an application behind it."""

    def __init__(self, **options: Any) -> None:
        self.app = App()
        super().__init__(app=self.app, **options)

    async def told(self, *pieces: bytes, count: int = 1) -> list[Any]:
        """What the application told, in ``count`` answers that keep the connection."""
        received = answers(await self.say(*pieces, until=count))
        assert [status for status, _, _ in received] == [200] * count
        return [json.loads(body) for _, _, body in received]

    def handed_over(self) -> int:
        return self.server.counts["handed_over", 200]
