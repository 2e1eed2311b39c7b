"""An ASGI application behind the surfaces, talked to by uvicorn's protocol. Imported only where there is one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from bridge.serve.http.handover import HandedOver
from bridge.serve.http.message import problem

if TYPE_CHECKING:
    from bridge.serve.http.server import HttpServer

ASGIApp = Callable[[Any, Any, Any], Any]
"""An application by the ASGI specification, version 3. ``scope["state"]["caller"]`` is the `Caller`."""

STOP_DEADLINE = 0.1
"""Seconds an application has to notice that its clients are gone, and again to end once it is cancelled."""


class Application:
    """The application of a listener, and what it has to do."""

    def __init__(self, server: HttpServer, app: ASGIApp) -> None:
        self._server = server
        self._app = app
        self._state = ServerState()
        self._logger = logging.getLogger("bridge.http")
        self._config = Config(
            self._answer,
            interface="asgi3",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=1,
        )
        self._config.load()

    def protocol(self) -> HandedOver:
        """A protocol for one connection."""
        return HandedOver(self._server, self)

    def inner(self, answered: Callable[[], None]) -> UvicornProtocol:
        """Uvicorn's own protocol; ``answered`` is called after each response."""
        return UvicornProtocol(self._config, self._state, answered)

    @property
    def is_busy(self) -> bool:
        """Whether it still works on a request."""
        return bool(self._state.tasks)

    async def stop(self) -> None:
        """End what it still works on, now that its clients are gone."""
        for last in (False, True):
            if tasks := list(self._state.tasks):
                for task in tasks:
                    if last:
                        task.cancel()
                await asyncio.wait(tasks, timeout=STOP_DEADLINE)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Ask the application; a failure is a defect, logged, and told as our own are."""
        started = False

        async def reply(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._server.count("handed_over", message["status"])
                message = {**message, "headers": self._fields(list(message.get("headers", ())))}
            await send(message)

        try:
            await self._app(scope, receive, reply)
        except asyncio.CancelledError:  # by `stop`, whose end it is
            return
        except Exception:
            if started:
                raise  # uvicorn logs it, and closes
            self._logger.exception("a request failed", extra={"method": scope["method"], "path": scope["path"]})
            answer = problem(500, "this is a defect of ours; the log has the details")
            fields = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
            fields.append((b"content-length", b"%d" % len(answer.body)))
            await reply({"type": "http.response.start", "status": answer.status, "headers": fields})
            await send({"type": "http.response.body", "body": answer.body})

    def _fields(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Those of the application, and those that each of our answers has."""
        if all(name.lower() != b"date" for name, _ in fields):
            fields.append((b"date", self._server.date_field()[6:-2].encode()))
        if self._server.stopping:
            fields.append((b"connection", b"close"))
        return fields


class UvicornProtocol(HttpToolsProtocol):
    """Tells when a response is complete; between requests the connection is not its own."""

    def __init__(self, config: Config, state: ServerState, answered: Callable[[], None]) -> None:
        super().__init__(config, state, {})
        self._answered = answered

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._answered()

    def timeout_keep_alive_handler(self) -> None:
        """The listener's own deadline holds."""
