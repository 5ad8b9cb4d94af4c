"""Adds to FastAPI's OpenAPI page the routes that are answered by hand, and the schemas of all bodies."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from pie_engine.protocol import http
from pie_engine.protocol.program import Bundle

REF = "#/components/schemas/{name}"
PID = {"name": "pid", "in": "path", "required": True, "schema": {"type": "string"}}
REFERENCE = {"name": "reference", "in": "path", "required": True, "schema": {"type": "string"}}
AFTER = {"name": "after", "in": "query", "schema": {"type": "integer"}, "description": "Events after this number."}
PUBLISH = {
    "name": "publish",
    "in": "query",
    "schema": {"type": "boolean", "default": True},
    "description": "With `false` it gets no name, and is only known by its digest.",
}
FORMAT = {"name": "format", "in": "query", "schema": {"enum": ["sse", "json"]}}

BODIES = (
    http.LaunchRequest,
    http.Launched,
    http.MessageRequest,
    http.MessageAccepted,
    http.StopRequest,
    http.ProcessView,
    http.EventView,
    http.ProgramView,
    http.Health,
    http.ErrorBody,
    Bundle,
)


def describe(app: FastAPI) -> None:
    """`/openapi.json` is complete from now on; made when it is first asked for."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            for path, operations in _by_hand().items():
                schema["paths"].setdefault(path, {}).update(operations)
            _, components = msgspec.json.schema_components(BODIES, schema_hook=_any_json, ref_template=REF)
            schema.setdefault("components", {}).setdefault("schemas", {}).update(components)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _any_json(_: type) -> dict[str, Any]:
    """Of `object`. An empty schema would say the same, but msgspec takes that for none."""
    return {"description": "Any JSON value."}


def _by_hand() -> dict[str, dict[str, Any]]:
    launch = _operation("Launch a process; with Accept: text/event-stream the answer is its event stream")
    return {
        "/healthz": {"get": _operation("Who is there", answer="Health")},
        "/v1/daemon/stop": {"post": _operation("End the daemon", body="StopRequest", status=202)},
        "/v1/programs": {
            "post": _operation("Upload a program; answers its signature", "Bundle", "ProgramView", 201, [PUBLISH])
        },
        "/v1/programs/{reference}": {
            "get": _operation("A program by digest, name@version or name", None, "ProgramView", parameters=[REFERENCE])
        },
        "/v1/processes": {"post": {**launch, **_bodies("LaunchRequest", "Launched", 201)}},
        "/v1/processes/{pid}": {
            "get": _operation("One process", answer="ProcessView", parameters=[PID]),
            "delete": _operation("Ask it to end", status=202, parameters=[PID]),
        },
        "/v1/processes/{pid}/messages": {
            "post": _operation("Send it a message", "MessageRequest", "MessageAccepted", 202, [PID])
        },
        "/v1/processes/{pid}/events": {
            "get": _operation("Its events as server-sent events", parameters=[PID, AFTER, FORMAT])
        },
    }


def _operation(
    summary: str,
    body: str | None = None,
    answer: str | None = None,
    status: int = 200,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    return {"summary": summary, "parameters": parameters or [], **_bodies(body, answer, status)}


def _bodies(body: str | None, answer: str | None, status: int) -> dict[str, Any]:
    responses = {
        str(status): {"description": "Done", **({"content": _content(answer)} if answer else {})},
        "default": {"description": "An error", "content": _content("ErrorBody")},
    }
    return {"responses": responses, **({"requestBody": {"content": _content(body)}} if body else {})}


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REF.format(name=name)}}}
