"""The API document (OpenAPI 3.1), made from the code's own tables and types."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from bridge.catalog.partition import EnvironmentDocument
from bridge.catalog.query import CHOICES, READS, SETS
from bridge.catalog.status import SourceDocument
from bridge.catalog.summary import ServiceSummary
from bridge.model import ServiceInstance
from bridge.serve.http.openapi_parts import (
    EVERYWHERE,
    FRESHNESS,
    HEADERS,
    IF_NONE_MATCH,
    LAST_EVENT_ID,
    PROBLEM,
    VIEW,
    Schema,
    array,
    headers,
    in_path,
    in_query,
    nullable,
    problem_response,
    record,
    refusals,
    shared_responses,
    status_schema,
    text,
)

_DESCRIPTION = """Services of all environments, read from one catalog.

Lists also take `meta.<key>=<value>` filters. Values of one filter are alternatives; different filters all hold.
The entity tag of every answer of a view is a cursor: `after` waits until the view differs from what it saw.
HEAD is answered like GET, without the content. From a loopback address no token is needed, but a wrong one is refused."""

_READERS: list[dict[str, list[str]]] = [{}, {"bearer": []}]


@cache
def document(version: str) -> dict[str, Any]:
    """The document for ``version``."""
    (instance, summary, environment, source), components = msgspec.json.schema_components(
        [ServiceInstance, ServiceSummary, EnvironmentDocument, SourceDocument], ref_template="#/components/schemas/{name}"
    )
    components |= {"Problem": PROBLEM, "Status": status_schema(source)}
    following = nullable("string")
    services = record({"services": array(summary)}, next=following)
    instances = record({"instances": array(instance), "next": following})
    service = record({"namespace": text(), "name": text(), "instances": array(instance)}, next=following, degraded=text())
    own = record({"held": {"type": "boolean"}, "since": text(format="date-time"), "age_ms": nullable("integer")})
    waits = [*map(in_query, READS), IF_NONE_MATCH]
    filters = [*map(in_query, (*SETS, *CHOICES, "near", "limit", "page")), *waits, LAST_EVENT_ID]
    service_name = [in_path("namespace"), in_path("name")]
    instance_name = [in_path("environment"), in_path("source"), in_path("id", "Its slashes as they are, or as `%2F`.")]
    return {
        "openapi": "3.1.0",
        "info": {"title": "envbridge", "version": version, "description": _DESCRIPTION},
        "security": _READERS,
        "paths": {
            "/v1/services": _view("Every service, with counts", filters, services, streams=True),
            "/v1/services/{namespace}/{name}": _view(
                "One service's instances", service_name + filters, service, named=True, streams=True
            ),
            "/v1/instances": _view("Instances of all services", filters, instances, streams=True),
            "/v1/instances/{environment}/{source}/{id}": _view(
                "One instance", instance_name + waits, {"allOf": [instance, own]}, named=True
            ),
            "/v1/environments": _view("Environments and their sources", waits, array(environment)),
            "/v1/status": _document("This bridge", {"$ref": "#/components/schemas/Status"}),
            "/healthz": _document("The process answers", record({"status": {"const": "ok"}}), open_=True),
            "/readyz": _document(
                "Every source was read, or has failed for 30 s",
                record({"status": {"const": "ready"}}, warnings=array(text())),
                open_=True,
                unready="A source is waited for, the bridge is stopping, or there are too many connections",
            ),
            "/metrics": _plain("Prometheus metrics", "text/plain"),
            "/openapi.json": _document("This document", {"type": "object"}),
            "/": _plain("A page for a browser", "text/html"),
        },
        "components": {
            "schemas": components,
            "headers": HEADERS,
            "responses": shared_responses(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "A reader's token."}},
        },
    }


def _view(
    summary: str, parameters: list[dict[str, Any]], schema: Schema, *, named: bool = False, streams: bool = False
) -> dict[str, Any]:
    """A read of the catalog: it has a cursor, and can be waited for."""
    content: dict[str, Any] = _formats(schema)
    shown = headers(*VIEW, "Envbridge-Reset")
    if streams:
        content["text/event-stream"] = {"schema": text("Server-Sent Events: snapshot, change, reset, bookmark.")}
        shown |= headers("ETag-optional", "Content-Encoding", "X-Accel-Buffering")
    responses: dict[str, Any] = {
        "200": {"description": summary, "headers": shown, "content": content},
        "304": {"description": "The view is as the cursor saw it", "headers": headers(*VIEW)},
        **refusals(401, 429, *EVERYWHERE),
        "503": problem_response(
            "Too little was read to tell, or there are too many connections",
            *("Retry-After", "Vary-optional", "ETag-optional", *FRESHNESS, "Envbridge-Reset"),
        ),
    }
    if named:
        responses["404"] = problem_response("Nothing has this name", "Vary", "ETag", *FRESHNESS, "Envbridge-Reset")
    return _get(summary, responses, parameters)


def _document(summary: str, schema: Schema, *, open_: bool = False, unready: str | None = None) -> dict[str, Any]:
    """A document that depends on no record. open_: for anybody, from anywhere."""
    ok = {"description": summary, "headers": headers("Date", "Cache-Control", "Vary"), "content": _formats(schema)}
    responses = {"200": ok, **refusals(*EVERYWHERE)}
    if unready is not None:
        responses["503"] = problem_response(unready, "Retry-After")
    if open_:
        return {"get": {**_get(summary, responses)["get"], "security": []}}
    return _get(summary, responses | refusals(401))


def _plain(summary: str, media: str) -> dict[str, Any]:
    ok = {"description": summary, "headers": headers("Date", "Cache-Control"), "content": {media: {"schema": text()}}}
    return _get(summary, {"200": ok, **refusals(401, *EVERYWHERE)})


def _get(summary: str, responses: dict[str, Any], parameters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": dict(sorted(responses.items()))}}


def _formats(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}, "application/msgpack": {"schema": schema}}
