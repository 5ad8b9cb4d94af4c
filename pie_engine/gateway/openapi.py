"""Adds to FastAPI's OpenAPI page the routes that are answered by hand, and the schemas of all bodies.

No route's body is checked by FastAPI, so it learns of none by itself: `answers` says what each gives.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from pie_engine.errors import ErrorInfo
from pie_engine.protocol import http
from pie_engine.protocol import stats as looks
from pie_engine.protocol.program import Bundle

REF = "#/components/schemas/{name}"
PID = {"name": "pid", "in": "path", "required": True, "schema": {"type": "string"}}
REFERENCE = {"name": "reference", "in": "path", "required": True, "schema": {"type": "string"}}
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
MODEL = {"name": "model", "in": "query", "schema": {"type": "string"}, "description": "Without it: the default one."}
AFTER = {"name": "after", "in": "query", "schema": {"type": "integer"}, "description": "Events after this number."}
TRACE = {
    "name": "trace",
    "in": "query",
    "schema": {"enum": ["1"]},
    "description": "With the events of kind `trace`, too.",
}
PUBLISH = {
    "name": "publish",
    "in": "query",
    "schema": {"type": "boolean", "default": True},
    "description": "With `false` it gets no name, and is only known by its digest.",
}
INTERVAL = {
    "name": "interval_ms",
    "in": "query",
    "schema": {
        "type": "integer",
        "minimum": looks.MIN_INTERVAL_MS,
        "maximum": looks.MAX_INTERVAL_MS,
        "default": looks.DEFAULT_INTERVAL_MS,
    },
    "description": "Milliseconds between two of them.",
}
FORMAT = {"name": "format", "in": "query", "schema": {"enum": ["sse", "json"]}}
FILE_TYPE = "application/octet-stream"
FILE = {FILE_TYPE: {"schema": {"type": "string", "format": "binary"}}}
SNAPSHOTS = {"text/event-stream": {"schema": {"type": "string", "description": "Events `snapshot`: a Snapshot each."}}}
STREAM = {"text/event-stream": {"schema": {"type": "string", "description": "Events as docs/wire.md has them."}}}


class ModelView(msgspec.Struct):
    """A core. What is not known before it is ready is not there until then; drivers may say more."""

    name: str
    ready: bool
    progress: dict[str, object] | msgspec.UnsetType = msgspec.UNSET
    """While it starts: `text` and `fraction`."""
    failed: ErrorInfo | msgspec.UnsetType = msgspec.UNSET
    """Why it does not start."""
    driver: str | msgspec.UnsetType = msgspec.UNSET
    device: str | msgspec.UnsetType = msgspec.UNSET
    dtype: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    model_id: str | msgspec.UnsetType = msgspec.UNSET
    folder: str | msgspec.UnsetType = msgspec.UNSET
    vocab_size: int | msgspec.UnsetType = msgspec.UNSET
    page_size: int | msgspec.UnsetType = msgspec.UNSET
    """Tokens in a page of KV."""
    max_context_tokens: int | msgspec.UnsetType = msgspec.UNSET
    num_pages: int | msgspec.UnsetType = msgspec.UNSET
    num_free_pages: int | msgspec.UnsetType = msgspec.UNSET
    num_cached_pages: int | msgspec.UnsetType = msgspec.UNSET
    """Of the free ones, those that a prompt may find."""
    num_page_hits: int | msgspec.UnsetType = msgspec.UNSET
    num_page_misses: int | msgspec.UnsetType = msgspec.UNSET
    """Pages of prompts that were found, and that were computed."""
    num_host_pages: int | msgspec.UnsetType = msgspec.UNSET
    num_used_host_pages: int | msgspec.UnsetType = msgspec.UNSET
    """Pages for which there is host memory, and those that it holds."""
    num_page_returns: int | msgspec.UnsetType = msgspec.UNSET
    """Pages that came back from host memory."""


class Models(msgspec.Struct):
    models: list[ModelView]


BODIES = (
    http.LaunchRequest,
    http.Launched,
    http.MessageRequest,
    http.MessageAccepted,
    http.StopRequest,
    http.ProcessView,
    http.EventView,
    http.ProgramView,
    http.ContextView,
    http.Health,
    http.AdapterRequest,
    http.AdapterView,
    http.BidRequest,
    http.EndowRequest,
    http.SecretRequest,
    http.SecretView,
    http.CollectRequest,
    http.Collected,
    http.ErrorBody,
    Bundle,
    Models,
    looks.Snapshot,
    looks.ContextState,
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


def answers(
    name: str = "", *, many: bool = False, status: int = 200, also: dict[str, Any] | None = None
) -> dict[int | str, dict[str, Any]]:
    """Of a FastAPI route: one body, or a list of them, none without a name; and any error. FastAPI adds nothing to it.

    `also`: other content than JSON that it may have.
    """
    content = _content(name, many=many) if name else _EMPTY
    return {status: {"description": "Done", "content": content | (also or {})}, "default": _ERROR}


def _any_json(_: type) -> dict[str, Any]:
    """Of `object`. An empty schema would say the same, but msgspec takes that for none."""
    return {"description": "Any JSON value."}


def _by_hand() -> dict[str, dict[str, Any]]:
    launch = _operation(
        "Launch a process; with Accept: text/event-stream the answer is its event stream",
        "LaunchRequest",
        "Launched",
        201,
    )
    launch["responses"]["201"]["content"] |= STREAM
    events = _operation(
        "Its events, as they come or as a list of those stored so far", parameters=[PID, AFTER, FORMAT, TRACE]
    )
    events["responses"]["200"]["content"] = STREAM | _content("EventView", many=True)
    snapshots = _operation("Snapshots, again and again", parameters=[INTERVAL])
    snapshots["responses"]["200"]["content"] = SNAPSHOTS
    return {
        "/v1/stats": {"get": _operation("How everything is now", answer="Snapshot")},
        "/v1/stats/stream": {"get": snapshots},
        "/healthz": {"get": _operation("Who is there", answer="Health")},
        "/v1/daemon/stop": {"post": _operation("End the daemon", body="StopRequest", status=202)},
        "/v1/daemon/collect": {"post": _operation("Delete what ended long ago", "CollectRequest", "Collected")},
        "/v1/programs": {
            "post": _operation("Upload a program; answers its signature", "Bundle", "ProgramView", 201, [PUBLISH])
        },
        "/v1/programs/{reference}": {
            "get": _operation("A program by digest, name@version or name", None, "ProgramView", parameters=[REFERENCE])
        },
        "/v1/adapters": {"post": _operation("Load a LoRA adapter", "AdapterRequest", "AdapterView", 201)},
        "/v1/adapters/{name}": {"delete": _operation("Unload an adapter", parameters=[NAME, MODEL])},
        "/v1/secrets/{name}": {
            "put": _operation("Set a secret", "SecretRequest", "SecretView", parameters=[NAME]),
            "delete": _operation("Remove a secret", parameters=[NAME]),
        },
        "/v1/processes": {"post": launch},
        "/v1/processes/{pid}": {
            "get": _operation("One process", answer="ProcessView", parameters=[PID]),
            "delete": _operation("Ask it to end", status=202, parameters=[PID]),
        },
        "/v1/processes/{pid}/messages": {
            "post": _operation("Send it a message", "MessageRequest", "MessageAccepted", 202, [PID])
        },
        "/v1/processes/{pid}/events": {
            "get": events,
        },
        "/v1/processes/{pid}/pause": {"post": _operation("Its program does not run", status=202, parameters=[PID])},
        "/v1/processes/{pid}/resume": {"post": _operation("It goes on", status=202, parameters=[PID])},
        "/v1/processes/{pid}/bid": {
            "post": _operation("What its contexts bid", "BidRequest", status=202, parameters=[PID])
        },
        "/v1/processes/{pid}/endow": {
            "post": _operation("Give it credits", "EndowRequest", status=202, parameters=[PID])
        },
        "/v1/processes/{pid}/contexts": {
            "get": _operation("Its contexts in all models", None, "ContextState", parameters=[PID], many=True)
        },
    }


def _operation(
    summary: str,
    body: str | None = None,
    answer: str | None = None,
    status: int = 200,
    parameters: list[dict[str, Any]] | None = None,
    *,
    many: bool = False,
) -> dict[str, Any]:
    return {"summary": summary, "parameters": parameters or [], **_bodies(body, answer, status, many=many)}


def _bodies(body: str | None, answer: str | None, status: int, *, many: bool) -> dict[str, Any]:
    content = _content(answer, many=many) if answer else _EMPTY
    responses = {str(status): {"description": "Done", "content": content}, "default": _ERROR}
    return {"responses": responses, **({"requestBody": {"content": _content(body)}} if body else {})}


def _content(name: str, *, many: bool = False) -> dict[str, Any]:
    one = {"$ref": REF.format(name=name)}
    return {"application/json": {"schema": {"type": "array", "items": one} if many else one}}


_EMPTY = {"application/json": {"schema": {"type": "object", "maxProperties": 0}}}
_ERROR = {"description": "An error", "content": _content("ErrorBody")}
TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "Done", "content": {"text/plain": {"schema": {"type": "string"}}}},
    "default": _ERROR,
}
"""Of a FastAPI route that answers no JSON."""
