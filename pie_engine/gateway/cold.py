"""The routes nobody waits for, in FastAPI, and the OpenAPI page of all of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from pie_engine.errors import ErrorInfo, InvalidInput, PieError
from pie_engine.gateway.app import LOCAL_USER, Services
from pie_engine.gateway.openapi import answers, describe
from pie_engine.gateway.problems import retry_after, status_of
from pie_engine.protocol.http import ErrorBody
from pie_engine.protocol.version import PROTOCOL_VERSION

MAX_LISTED = 1000


def create_app(services: Services) -> FastAPI:
    """Every route that `App` does not answer by itself."""
    app = FastAPI(title="Pie", version=f"protocol {PROTOCOL_VERSION}", docs_url="/docs", redoc_url=None)
    app.add_exception_handler(PieError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _bad_parameter)

    @app.get("/v1/models", summary="Models, with their free KV pages", responses=answers("Models"))
    async def models() -> Response:
        return _json(200, {"models": services.views.models()})

    @app.get("/v1/stats", summary="Newest numbers of cores and hosts", responses=answers("Stats"))
    async def stats() -> Response:
        return _json(200, services.views.stats())

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

    describe(app)
    return app


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
