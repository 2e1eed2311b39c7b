"""Thousands of readers that wait for one change, driven from here, run in C (`load/waiters.c`)."""

from __future__ import annotations

import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.bench.compiled import compiled

PER_ADDRESS = 5_000
"""Readers from one loopback address: below every server's limit, and below the ports that an address has."""
_CONNECT_SECONDS = 120.0


def request(path: str, port: int) -> bytes:
    """A GET with the headers that a client library sends."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n"
        "Accept-Encoding: identity\r\nConnection: keep-alive\r\n\r\n"
    ).encode()


@dataclass(frozen=True)
class Woken:
    """One change as the readers saw it; seconds since just before the change was made.

    stall: the longest that a prober, which reads something else all the while, had to wait. probes: how often it read.
    """

    first: float
    last: float
    stall: float
    probes: int


class Waiters:
    """``count`` connections to a port of this machine, and a prober. As a context manager it is connected.

    Raises ServerUnavailable when the program cannot be compiled, RuntimeError when it ends or tells of something unexpected.
    """

    def __init__(self, port: int, count: int) -> None:
        self.count = count
        self._command = [str(compiled("waiters")), str(port), str(count), str(PER_ADDRESS)]

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            self._expect("connected", _CONNECT_SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def ask(self, content: bytes) -> None:
        """Send a request on every connection."""
        self._tell(f"ask {len(content)}\n".encode() + content)
        self._expect("asked", _CONNECT_SECONDS)

    def probe(self, content: bytes) -> None:
        """What the prober asks; it has been asked for a while when this returns."""
        self._tell(f"probe {len(content)}\n".encode() + content)
        self._expect("probing", 30.0)

    def wake(self, change: Callable[[], object], timeout: float = 60.0) -> Woken:
        """Make a change that answers them all, once, and wait (seconds) until it did."""
        self._tell(f"wait {timeout}\n".encode())
        began = time.monotonic_ns()
        change()
        words = self._expect("answered", timeout + 10.0)
        answered, others, first, last, stall, probes = (int(word) for word in words)
        if answered != self.count or others:
            raise RuntimeError(f"{answered} of {self.count} readers were answered, {others} with another status than 200")
        if first < began:
            raise RuntimeError("a reader was answered before the change")
        return Woken((first - began) / 1e9, (last - began) / 1e9, stall / 1e9, probes)

    def _tell(self, command: bytes) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(command)
            self._child.stdin.flush()
        except OSError as error:
            raise RuntimeError(f"the readers ended: {self._complaint()}") from error

    def _expect(self, word: str, timeout: float) -> list[str]:
        assert self._child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise RuntimeError(f"the readers did not say {word!r} within {timeout:g} s")
        words = self._child.stdout.readline().decode().split()
        if not words or words[0] != word:
            raise RuntimeError(f"the readers said {words} instead of {word!r}: {self._complaint()}")
        return words[1:]

    def _complaint(self) -> str:
        self._child.kill()
        assert self._child.stderr is not None
        return self._child.stderr.read().decode(errors="replace").strip()

    def _end(self) -> None:
        """It ends with its standard input; what does not is killed."""
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(5.0)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
