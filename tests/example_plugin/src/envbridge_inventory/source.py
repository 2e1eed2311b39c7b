"""An inventory as a source: one GET each time the core asks."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

from pydantic import SecretStr

from bridge.aio import in_thread
from bridge.contracts import PluginContext
from bridge.errors import ForbiddenError, SourceError, TransientError
from bridge.model import DEFAULT_NAMESPACE, Confirmed, Listing, Observation
from envbridge_inventory.mapping import read_inventory

_LONGEST = 16 * 2**20
"""Bytes an answer may have: what a source is told never grows without bound."""


class InventorySource:
    """A `PollSource`: the core calls `list` every `refresh`, waits after failures, and keeps what was known meanwhile."""

    def __init__(self, url: str, token: SecretStr | None, timeout: float, ctx: PluginContext) -> None:
        self._url = url
        self._token = token
        self._timeout = timeout
        self._ctx = ctx
        self._told: bytes | None = None

    async def list(self) -> Observation:
        """Everything there is, or `Confirmed` where the answer is byte for byte the last one.

        Raises TransientError or ForbiddenError where it cannot be told: nothing is removed because of that.
        """
        try:
            # The library's timeout is for each read; the deadline is for all of them.
            body = await in_thread(self._get, deadline=self._timeout, name=f"inventory {self._ctx.name}")
        except TimeoutError:
            raise TransientError(f"no whole answer within {self._timeout:g} s") from None
        if body == self._told:
            return Confirmed()
        inventory = read_inventory(body)
        unknown: dict[str, SourceError] = {}
        if inventory.rejected:
            # A machine that cannot be read may be any of those that seem to be gone: what is there is applied, and under this
            # prefix of our groups' keys nothing is removed.
            unknown[DEFAULT_NAMESPACE] = TransientError(next(iter(inventory.rejected.values())))
        self._told = body
        return Listing("", inventory.groups, unknown=unknown, rejected=inventory.rejected)

    def _get(self) -> bytes:
        """Blocks, in a thread. Messages name no token, and stay the same from one failure to the next."""
        request = urllib.request.Request(self._url, headers={"Accept": "application/json"})
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token.get_secret_value()}")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                body: bytes = answer.read(_LONGEST + 1)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise ForbiddenError(f"{error.code}: the right to read the inventory is missing") from None
            raise TransientError(f"status {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            raise TransientError(f"it cannot be asked: {getattr(error, 'reason', error)}") from None
        if len(body) > _LONGEST:
            raise TransientError(f"the answer is longer than {_LONGEST} bytes")
        return body
