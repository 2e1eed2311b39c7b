"""A raw HTTP client of the Kubernetes API: one request, parsed JSON back, nothing hidden."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

MERGE_PATCH = "application/merge-patch+json"


class ApiError(RuntimeError):
    """The API server answered with an error status."""

    def __init__(self, status: int, body: str, request: str) -> None:
        super().__init__(f"{request}: {status} {body[:500]}")
        self.status, self.body = status, body


def call(
    url: str,
    context: ssl.SSLContext,
    token: str,
    method: str,
    path: str,
    body: Any = None,
    content_type: str = "application/json",
    timeout: float = 10.0,
) -> str:
    """One request with a bearer token, the answer's text back.

    Raises ApiError for an error status and OSError when there is no answer.
    """
    request = urllib.request.Request(
        f"{url}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": content_type, "Accept": "application/json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            raise ApiError(error.code, error.read().decode(errors="replace"), f"{method} {path}") from None
