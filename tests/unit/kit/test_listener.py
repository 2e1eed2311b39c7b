"""Servers of the kit that come and go leave no connection behind: neither ours nor the garbage collector's."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager

import pytest

from tests.kit.fakes.kubernetes import FakeKubernetes
from tests.kit.listener import Listener
from tests.kit.proxy import Proxy

CLIENTS = 3
TIMES = 20

Server = tuple[int, Callable[[], Awaitable[None]]]
"""The port, and what makes it go and come back."""


@contextmanager
def knocking(port: int) -> Iterator[list[socket.socket]]:
    """Clients whose connections are there for the taking, and not yet taken."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=5.0) for _ in range(CLIENTS)]
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def ends(client: socket.socket) -> bool:
    """Whether the other side ends the connection, in whichever way."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_has_only_just_been_accepted_is_reset_with_the_others(turns: int) -> None:
    """Whichever step of being accepted it has come to: ``turns`` of the event loop after it knocked."""
    listener = Listener(echo)
    with knocking(listener.port) as clients:
        for _ in range(turns):
            await asyncio.sleep(0)
        listener.close()
        await listener.reset()
        assert not listener.connections
        assert all(map(ends, clients))
    gc.collect()


async def test_a_listener_closes_what_was_served_and_keeps_its_port() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")

    first = Listener(greet)
    first.close()
    second = Listener(greet, first.port)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", first.port)
        assert await asyncio.wait_for(reader.read(), 5.0) == b"hello"
        writer.close()
        await writer.wait_closed()
    finally:
        second.close()
        await second.reset()


@asynccontextmanager
async def proxy() -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        upstream = Listener(echo)
        stack.callback(upstream.close)
        made = stack.enter_context(Proxy(upstream.port))

        async def come_and_go() -> None:
            await asyncio.to_thread(made.set, "refuse")
            made.set("pass")

        yield made.port, come_and_go
        await upstream.reset()


@asynccontextmanager
async def api_server() -> AsyncIterator[Server]:
    async with FakeKubernetes() as made:

        async def come_and_go() -> None:
            await made.refuse()
            await made.accept()

        yield made.port, come_and_go


@pytest.mark.parametrize("server", [proxy, api_server])
async def test_a_server_that_comes_and_goes_under_its_clients_leaves_nothing_unclosed(
    server: Callable[[], AbstractAsyncContextManager[Server]],
) -> None:
    """A transport left to the garbage collector is a warning, and so a failure."""
    async with server() as (port, come_and_go):
        for _ in range(TIMES):
            with knocking(port) as clients:
                await come_and_go()
                assert all(map(ends, clients))
    gc.collect()
