"""The client of the commands: as any, with words for people about what plain HTTP may be behind."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from bridge.client.http import Client
from bridge.errors import ApiError


class CommandClient(Client):
    """A `Client` that says so where a server that ends a plain HTTP connection in silence may speak TLS."""

    @contextlib.contextmanager
    def open(
        self,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        accept: str,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """As `Client.open`."""
        answered = False
        try:
            with super().open(path, params, accept=accept, headers=headers, silence=silence) as response:
                answered = True
                yield response
        except ApiError as error:
            # A TLS server ends the connection, or sends an alert, which is no status line.
            if answered or not isinstance(error.__cause__, ConnectionResetError | http.client.BadStatusLine):
                raise
            if urlsplit(self.url).scheme != "http":
                raise
            raise ApiError(f"{error}; if the port speaks TLS, the URL must begin with https://") from error.__cause__


def exposes_token(url: str) -> bool:
    """Whether a token sent to this URL crosses a network that can read it: plain HTTP to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True
