"""The API document (OpenAPI 3.1), made from the code's own tables and types."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from bridge.catalog.partition import EnvironmentDocument
from bridge.catalog.query import CHOICES, READS, SETS
from bridge.catalog.summary import ServiceSummary
from bridge.model import ServiceInstance

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
    "limit": "Entries in one answer at most; `next` leads on.",
    "page": "The `next` of the answer before.",
    "after": "A cursor: answer when the view differs from what it saw.",
    "wait": "How long to wait with `after` (5m by default, 10m at most).",
}


@cache
def document(version: str) -> dict[str, Any]:
    """The document for ``version``."""
    (instance, summary, environment), components = msgspec.json.schema_components(
        [ServiceInstance, ServiceSummary, EnvironmentDocument], ref_template="#/components/schemas/{name}"
    )
    components["Problem"] = _object(
        type={"type": "string"}, title={"type": "string"}, status={"type": "integer"}, detail={"type": "string"}
    )
    following = {"type": ["string", "null"]}
    services = {"type": "object", "properties": {"services": _array(summary), "next": following}, "required": ["services"]}
    service = {
        "type": "object",
        "properties": {
            "namespace": {"type": "string"},
            "name": {"type": "string"},
            "instances": _array(instance),
            "next": following,
            "degraded": {"type": "string"},
        },
        "required": ["namespace", "name", "instances"],
    }
    own = {
        "allOf": [
            instance,
            _object(
                held={"type": "boolean"}, since={"type": "string", "format": "date-time"}, age_ms={"type": ["integer", "null"]}
            ),
        ]
    }
    reads = [_parameter(name) for name in READS]
    filters = [_parameter(name) for name in (*SETS, *CHOICES, "near", "limit", "page")] + reads + [_HEADER_CURSOR]
    names = [_in_path("namespace"), _in_path("name")]
    instance_names = [_in_path("environment"), _in_path("source"), _in_path("id")]
    anything = {"type": "object"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "envbridge",
            "version": version,
            "description": "Services of all environments, read from one catalog. Lists also take `meta.<key>=<value>` filters.",
        },
        "paths": {
            "/v1/services": _read("Every service, with counts", filters, services, streams=True),
            "/v1/services/{namespace}/{name}": _read(
                "One service's instances", names + filters, service, missing=True, streams=True
            ),
            "/v1/instances": _read(
                "Instances of all services",
                filters,
                {**_object(instances=_array(instance), next=following)},
                streams=True,
            ),
            "/v1/instances/{environment}/{source}/{id}": _read("One instance", instance_names + reads, own, missing=True),
            "/v1/environments": _read("Environments and their sources", reads, _array(environment)),
            "/v1/status": _read("This bridge", [], anything, cursor=False),
            "/healthz": _read("Whether the process answers", [], anything, cursor=False),
            "/readyz": _read("Whether every source was read", [], anything, cursor=False),
            "/metrics": _plain("Prometheus metrics", "text/plain"),
            "/openapi.json": _read("This document", [], anything, cursor=False),
            "/": _plain("A page for a browser", "text/html"),
        },
        "components": {"schemas": components},
    }


_HEADER_CURSOR = {
    "name": "If-None-Match",
    "in": "header",
    "schema": {"type": "string"},
    "description": "A cursor as an entity tag: 304 where the view is still as it saw it.",
}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _parameter(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if name in CHOICES:
        schema = {"type": "string", "enum": list(CHOICES[name])}
    elif name == "limit":
        schema = {"type": "integer", "minimum": 1}
    elif name == "wait":
        schema = {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"}
    if name not in (*READS, "limit", "page", "stale"):
        schema = {"type": "array", "items": schema}
    return {"name": name, "in": "query", "required": False, "explode": True, "schema": schema, "description": _TEXTS[name]}


def _answer(description: str, media: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {media: {"schema": schema}}}


def _read(
    summary: str,
    parameters: list[dict[str, Any]],
    schema: Any,
    *,
    missing: bool = False,
    streams: bool = False,
    cursor: bool = True,
) -> dict[str, Any]:
    problem = {"$ref": "#/components/schemas/Problem"}
    content = {"application/json": {"schema": schema}, "application/msgpack": {"schema": schema}}
    if streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    responses: dict[str, Any] = {
        "200": {"description": summary, "content": content},
        "400": _answer("A parameter is unknown or wrong", "application/problem+json", problem),
        "401": _answer("A bearer token is needed", "application/problem+json", problem),
        "503": _answer("Nothing that could answer was read yet", "application/problem+json", problem),
    }
    if cursor:
        responses["304"] = {"description": "The view is as the cursor saw it"}
        responses["429"] = _answer("Too many different queries are followed", "application/problem+json", problem)
    if missing:
        responses["404"] = _answer("Nothing has this name", "application/problem+json", problem)
    return {"get": {"summary": summary, "parameters": parameters, "responses": responses}}


def _plain(summary: str, media: str) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": {"200": _answer(summary, media, {"type": "string"})}}}
