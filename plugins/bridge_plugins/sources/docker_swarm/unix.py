"""The SDK's transport over unix sockets, mended. Imported only where a source is opened, as the SDK itself."""

from __future__ import annotations

import socket
from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool


class _Connection(UnixHTTPConnection):  # type: ignore[misc]  # the SDK has no types
    """The SDK's own leaves a socket that could not be connected to the garbage collector."""

    def connect(self) -> None:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            stream.settimeout(self.timeout)
            stream.connect(self.unix_socket)
        except BaseException:
            stream.close()
            raise
        self.sock = stream


class _Pool(UnixHTTPConnectionPool):  # type: ignore[misc]
    def _new_conn(self) -> _Connection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class UnixAdapter(UnixHTTPAdapter):  # type: ignore[misc]
    """To be mounted in place of the SDK's, which keeps a connection for each path and query instead of one for all.

    path: of the socket. timeout: seconds, where a request names none.
    """

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(f"http+unix://{path}", timeout)

    def get_connection(self, url: str, proxies: Any = None) -> Any:  # noqa: ARG002  # the SDK's signature
        with self.pools.lock:
            pool = self.pools.get("")
            if pool is None:
                pool = self.pools[""] = _Pool("", self.socket_path, self.timeout, maxsize=self.max_pool_size)
            return pool
