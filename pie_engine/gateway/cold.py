"""The routes nobody waits for, in FastAPI, and the OpenAPI page of all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from pie_engine.errors import ErrorInfo, InvalidInput, PieError
from pie_engine.gateway.app import LOCAL_USER, Services
from pie_engine.gateway.contexts import ContextShelf
from pie_engine.gateway.openapi import FILE, FILE_TYPE, TEXT, answers, describe
from pie_engine.gateway.problems import retry_after, status_of
from pie_engine.protocol.http import ErrorBody
from pie_engine.protocol.version import PROTOCOL_VERSION
from pie_engine.store.portable import PIECE_BYTES

MAX_LISTED = 1000


def create_app(services: Services) -> FastAPI:
    """Every route that `App` does not answer by itself."""
    version = f"protocol {PROTOCOL_VERSION}"
    app = FastAPI(title="Pie", version=version, docs_url="/docs", redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(PieError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _bad_parameter)

    @app.get("/v1/models", summary="Models, with their free KV pages", responses=answers("Models"))
    async def models() -> Response:
        return _json(200, {"models": services.views.models()})

    @app.get("/v1/adapters", summary="LoRA adapters", responses=answers("AdapterView", many=True))
    async def adapters() -> Response:
        return _json(200, services.adapters.list())

    @app.get("/v1/secrets", summary="Names of secrets", responses=answers("SecretView", many=True))
    async def secrets() -> Response:
        return _json(200, services.secrets.list(LOCAL_USER))

    @app.get("/metrics", summary="For Prometheus", response_class=Response, responses=TEXT)
    async def metrics(request: Request) -> Response:
        from pie_engine.gateway.metrics import exposition

        text, content_type = exposition(services.looking.take(LOCAL_USER), request.headers.get("accept", ""))
        return Response(text, media_type=content_type)

    @app.get("/v1/programs", summary="Programs that have been uploaded", responses=answers("ProgramView", many=True))
    async def programs() -> Response:
        return _json(200, services.programs.list(LOCAL_USER))

    @app.get(
        "/v1/processes",
        summary="Processes that are alive; with all=true the ended ones too, newest first",
        responses=answers("ProcessView", many=True),
    )
    async def processes(all: bool = False, limit: Annotated[int, Query(ge=0)] = MAX_LISTED) -> Response:
        return _json(200, services.views.processes(LOCAL_USER, all, min(limit, MAX_LISTED)))

    _add_contexts(app, services.contexts)
    describe(app)
    return app


def _add_contexts(app: FastAPI, contexts: ContextShelf) -> None:
    """Saved contexts. Routes without `async` run in threads."""

    @app.get("/v1/contexts", summary="Saved contexts", responses=answers("ContextView", many=True))
    def saved_contexts(model: str = "") -> Response:
        return _json(200, contexts.list(LOCAL_USER, model))

    @app.post(
        "/v1/contexts",
        summary="Import a saved context; the body is the file",
        status_code=201,
        responses=answers("ContextView", status=201),
        openapi_extra={"requestBody": {"content": FILE}},
    )
    async def import_context(request: Request, model: str = "", name: str = "", replace: bool = False) -> Response:
        incoming = contexts.receive(LOCAL_USER, model)
        try:
            async for piece in _in_pieces(request.stream()):
                await run_in_threadpool(incoming.take, piece)
            manifest = await run_in_threadpool(incoming.finish, name, replace=replace)
        finally:
            await run_in_threadpool(incoming.drop)
        return _json(201, contexts.view(model, manifest))

    @app.get(
        "/v1/contexts/{name:path}",
        summary="A saved context; with format=file the file that import takes",
        responses=answers("ContextView", also=FILE),
    )
    def saved_context(name: str, model: str = "", format: Literal["json", "file"] = "json") -> Response:
        if format == "json":
            return _json(200, contexts.find(LOCAL_USER, model, name))
        num_bytes, pieces = contexts.export(LOCAL_USER, model, name)
        return StreamingResponse(pieces, media_type=FILE_TYPE, headers={"Content-Length": str(num_bytes)})

    @app.delete("/v1/contexts/{name:path}", summary="Delete a saved context", responses=answers())
    def delete_context(name: str, model: str = "") -> Response:
        contexts.delete(LOCAL_USER, model, name)
        return _json(200, {})


async def _in_pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Larger ones than come from the socket: each is worth a change of threads."""
    gathered = bytearray()
    async for piece in stream:
        gathered += piece
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    yield bytes(gathered)


def _json(status: int, body: Any) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, PieError)
    status = status_of(error)
    response = _json(status, ErrorBody(error.info))
    wait = retry_after(error.info, status)
    if wait is not None:
        response.headers["Retry-After"] = str(wait)
    return response


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    info = ErrorInfo(
        "not_found" if error.status_code == 404 else "invalid_input",
        f"{request.method} {request.url.path}: {error.detail}",
        hint="GET /openapi.json lists the routes",
    )
    return _json(error.status_code, ErrorBody(info))


async def _bad_parameter(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _json(400, ErrorBody(InvalidInput(f"`{first['loc'][-1]}`: {first['msg']}").info))
