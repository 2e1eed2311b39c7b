"""What tells about this bridge itself: health, readiness, status, metrics, the API document, a page for a browser."""

from __future__ import annotations

from typing import Any, Protocol

from bridge.catalog.view import encode_json, encode_msgpack
from bridge.serve.http.message import Answer, Headers, Request, problem
from bridge.serve.http.negotiate import JSON, MSGPACK, media_type

PATHS = frozenset(("/healthz", "/readyz", "/v1/status", "/metrics", "/openapi.json", "/"))
_FRESH: Headers = [("Cache-Control", "no-cache")]


class Host(Protocol):
    """The process around the catalog, as far as it is shown."""

    def unready(self) -> list[str] | None:
        """None when ready; else the sources (or the stop) that are waited for."""
        ...

    def warnings(self) -> list[str]:
        """What an operator should know though it is no error, such as an insecure listener."""
        ...

    def status(self) -> dict[str, Any]:
        """The document of `/v1/status`."""
        ...

    def metrics(self) -> tuple[bytes, str]:
        """The exposition, and its content type."""
        ...


class SystemSurface:
    """Answers the paths that depend on no record."""

    def __init__(self, host: Host, version: str) -> None:
        self._host = host
        self._version = version

    def knows(self, path: str) -> bool:
        """Whether the path is ours."""
        return path in PATHS

    def answer(self, request: Request) -> Answer | None:
        """The reply, None where the path is not ours."""
        match request.path:
            case "/healthz":
                return self._document(request, {"status": "ok"})
            case "/readyz":
                return self._readiness(request)
            case "/v1/status":
                return self._document(request, self._host.status())
            case "/metrics":
                body, kind = self._host.metrics()
                return Answer(200, [*_FRESH, ("Content-Type", kind)], body)
            case "/openapi.json":
                from bridge.serve.http.openapi import document  # its parts are much, and nothing else needs them

                return self._document(request, document(self._version))
            case "/":
                import html  # brings the 2,231 named characters of HTML along

                page = _PAGE.format(version=html.escape(self._version))
                return Answer(200, [*_FRESH, ("Content-Type", "text/html; charset=utf-8")], page.encode())
        return None

    def _readiness(self, request: Request) -> Answer:
        missing = self._host.unready()
        if missing is None:
            warnings = self._host.warnings()
            return self._document(request, {"status": "ready", "warnings": warnings} if warnings else {"status": "ready"})
        detail = f"waiting for: {', '.join(missing)}" if request.named else "not ready"
        return problem(503, detail, headers=[("Retry-After", "1")])

    def _document(self, request: Request, content: Any) -> Answer:
        media = media_type(request.headers.get("accept", ""))
        if media == MSGPACK:
            return Answer(200, [*_FRESH, ("Content-Type", MSGPACK), ("Vary", "Accept")], encode_msgpack(content))
        return Answer(200, [*_FRESH, ("Content-Type", JSON), ("Vary", "Accept")], encode_json(content))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>envbridge</title>
<style>
body{{font:16px/1.5 system-ui;margin:3rem auto;max-width:40rem;padding:0 1rem}}
code{{background:#eee;padding:.1em .3em}}
</style>
</head><body><h1>envbridge {version}</h1>
<p>One catalog of the services in all environments.</p>
<ul>
<li><a href="/v1/services">/v1/services</a>: every service, with counts</li>
<li><a href="/v1/instances">/v1/instances</a>: every instance that is ready and active</li>
<li><a href="/v1/environments">/v1/environments</a>: environments, sources, and how fresh they are</li>
<li><a href="/v1/status">/v1/status</a>: this bridge</li>
<li><a href="/metrics">/metrics</a>, <a href="/openapi.json">/openapi.json</a></li>
</ul>
<p>Follow changes: <code>curl -N -H 'Accept: text/event-stream' .../v1/instances</code></p>
</body></html>
"""
