"""The pieces that the API document is put together from: schemas, headers, parameters, refusals."""

from __future__ import annotations

from typing import Any

from bridge.catalog.query import CHOICES, READS
from bridge.serve.http.message import TITLES

Schema = dict[str, Any]

_TEXTS = {
    "environment": "Only instances of this environment.",
    "source": "Only instances of this source.",
    "namespace": "Only services of this namespace.",
    "tag": "Only instances with this tag.",
    "zone": "Only instances in this zone.",
    "node": "Only instances on this node.",
    "port": "Only instances with a port of this name.",
    "health": "`ready` by default; on /v1/services `any`.",
    "lifecycle": "`active` by default; on /v1/services `any`.",
    "state": "`listed` by default.",
    "stale": "`no` leaves out instances of stale sources.",
    "near": "Orders: instances of this environment or zone first.",
    "limit": "Entries in one answer at most; `next` leads on. Not on a stream.",
    "page": "The `next` of the answer before. Not on a stream.",
    "after": "A cursor: answer when the view differs from what it saw, 304 once `wait` is over. The ETag's marks may stay on.",
    "wait": (
        "How long to wait with `after` or `If-None-Match`: 5m by default with `after`, at most 10m; more is taken for 10m. "
        "A random part of up to 1/16 is added."
    ),
}


def text(description: str = "", **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"description": description} if description else {}), **more}


def count() -> Schema:
    """A whole number that is not negative."""
    return {"type": "integer", "minimum": 0}


def nullable(kind: str) -> Schema:
    """Null, or a value of the type ``kind``."""
    return {"type": [kind, "null"]}


def array(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def record(properties: dict[str, Schema], **optional: Schema) -> Schema:
    """An object that has all of ``properties``, and may have ``optional`` ones."""
    return {"type": "object", "properties": {**properties, **optional}, "required": list(properties)}


PROBLEM = record(
    {"type": text(), "title": text(), "status": {"type": "integer"}, "detail": text()},
    parameter=text("The parameter at fault."),
)
"""RFC 9457."""


def status_schema(source: Schema) -> Schema:
    """The document of `/v1/status`; ``source``: the schema of a source in `/v1/environments`."""
    moment = nullable("string")
    job = record(
        {"name": text(), "next_run": moment, "next_run_ms": nullable("integer"), "runs": count(), "failures": count()},
        last_result=moment,
    )
    hold = record({"source": text(), "held": count(), "reason": text()}, since=text(), until=text(), remedy=text())
    errors = {"type": "object", "additionalProperties": text(), "description": "By part of the source; `*` is all of it."}
    rejections = array(record({"key": text(), "reason": text()}))
    own_source = record({"errors": errors, "rejections": rejections, "failures": count()})
    return record(
        {
            "version": text(),
            "environment": text(),
            "uid": text(),
            "epoch": count(),
            "revision": count(),
            "uptime_ms": count(),
            "role": text(),
            "ready": {"type": "boolean"},
            "warnings": array(text()),
            "sources": array({"allOf": [source, own_source], "description": "Some types of source tell more of themselves."}),
            "peers": array({"type": "object"}),
            "hub": nullable("object"),
            "exporters": array({"type": "object"}),
            "jobs": array(job),
            "holds": array(hold),
            "queues": {"type": "object", "additionalProperties": count()},
            "memory": {"type": "object", "additionalProperties": count()},
            "store": record({"error": nullable("string"), "rows_written": count()}),
            "index": count(),
        }
    )


def in_path(name: str, description: str = "") -> dict[str, Any]:
    """A parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": text(minLength=1), "description": description}


def in_query(name: str) -> dict[str, Any]:
    """A parameter of the query string, with the values it can have."""
    schema: Schema = text()
    if name in CHOICES:
        schema = text(enum=list(CHOICES[name]))
    elif name == "limit":
        schema = {"type": "integer", "minimum": 1}
    elif name == "wait":
        schema = text(pattern=r"^(\d+(\.\d+)?(ms|s|m|h|d))+$")
    if name not in (*READS, "limit", "page", "stale"):
        schema = array(schema)
    return {"name": name, "in": "query", "required": False, "explode": True, "schema": schema, "description": _TEXTS[name]}


IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "schema": text(),
    "description": "Cursors as entity tags: 304 where the view is still as one of them saw it; at once, unless `wait` is given.",
}
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "schema": text(),
    "description": "The `id` of the last event, to go on with a stream behind it; like `after`.",
}

_TAG = text("The cursor: an opaque value that `after` and `If-None-Match` take.", pattern='^W/"[^"]+"$')
HEADERS: dict[str, dict[str, Any]] = {
    "Date": {"required": True, "schema": text("When it was answered.")},
    "Cache-Control": {"required": True, "schema": {"const": "no-cache"}},
    "Vary": {"required": True, "schema": text()},
    "ETag": {"required": True, "schema": _TAG},
    "Vary-optional": {"schema": text()},
    "ETag-optional": {"description": "Not on a stream: its events have the cursor as `id`.", "schema": _TAG},
    "Envbridge-Age": {
        "description": "Milliseconds since the least fresh source in reach was confirmed; absent where none was ever read.",
        "schema": count(),
    },
    "Envbridge-Stale": {"schema": text("The environments with a stale source in reach, percent-encoded, by commas.")},
    "Envbridge-Incomplete": {"schema": text("The sources in reach never read yet, as `environment/source`, by commas.")},
    "Envbridge-Reset": {"schema": text("The cursor given was never handed out here.", enum=["true"])},
    "X-Accel-Buffering": {"schema": text("On a stream, for proxies: hand events on at once.", enum=["no"])},
    "Content-Encoding": {"schema": text(enum=["gzip"])},
    "Retry-After": {"required": True, "schema": count()},
    "Allow": {"required": True, "schema": text()},
    "WWW-Authenticate": {"required": True, "schema": text(pattern="^Bearer")},
}

FRESHNESS = ("Envbridge-Age", "Envbridge-Stale", "Envbridge-Incomplete")
VIEW = ("Date", "Cache-Control", "Vary", "ETag", *FRESHNESS)
"""What a 200 and a 304 of a view have in common."""

REFUSALS = {
    400: "The request is malformed, or a parameter is unknown or wrong",
    401: "A valid bearer token is needed",
    405: "A method other than GET and HEAD",
    408: "The request was not complete in time",
    413: "The request's content is too long",
    414: "The request target is longer than 8 KiB",
    417: "An expectation other than `100-continue`",
    429: "Too many different queries of this list are being followed",
    431: "The request's header is longer than 16 KiB, or has more than 128 fields",
    500: "A defect; the log has the details",
    501: "A transfer coding other than `chunked`",
    503: "Too many connections",
    505: "Another version of HTTP",
}
EVERYWHERE = (400, 405, 408, 413, 414, 417, 431, 500, 501, 503, 505)
"""What may come from any path."""

_MORE = {401: ("WWW-Authenticate",), 405: ("Allow",), 503: ("Retry-After",)}


def headers(*names: str) -> dict[str, Any]:
    """References to these headers' descriptions."""
    return {name.removesuffix("-optional"): {"$ref": f"#/components/headers/{name}"} for name in names}


def problem_response(description: str, *names: str) -> dict[str, Any]:
    """A response with problem details, and besides the usual headers those of ``names``."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "headers": headers("Date", "Cache-Control", *names), "content": content}


def refusal_name(status: int) -> str:
    """What the shared response of ``status`` is called."""
    return TITLES[status].replace(" ", "").replace("-", "")


def refusals(*statuses: int) -> dict[str, Any]:
    """References to shared responses."""
    return {str(status): {"$ref": f"#/components/responses/{refusal_name(status)}"} for status in statuses}


def shared_responses() -> dict[str, Any]:
    """The responses that many paths share."""
    return {refusal_name(status): problem_response(why, *_MORE.get(status, ())) for status, why in REFUSALS.items()}
