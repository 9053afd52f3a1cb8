"""The coordinator's HTTP face: the application with its routes, and every error as an `ErrorBody`."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from gamekeeper import __version__
from gamekeeper.core.clock import unseeded
from gamekeeper.core.errors import GamekeeperError, UsageError
from gamekeeper.protocol import ErrorBody
from gamekeeper.server import agent_routes, control_routes, people_routes
from gamekeeper.server.admission import Admission
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.direct import Direct
from gamekeeper.server.gates import Gates, default_bounds
from gamekeeper.server.http import error_response

_CODES = {400: "usage", 401: "not-allowed", 403: "not-allowed", 404: "not-found", 405: "usage", 413: "usage"}


def create_app(coordinator: Coordinator, gates: Gates | None = None) -> ASGIApp:
    """The application behind its gates. OpenAPI is served at /openapi.json."""
    clock = coordinator.desk.clock
    return Admission(
        Direct(_framework(coordinator), coordinator),
        gates or Gates(default_bounds(), unseeded()),
        clock.monotonic,
    )


def _framework(coordinator: Coordinator) -> FastAPI:
    app = FastAPI(
        title="Gamekeeper coordinator",
        version=__version__,
        summary="Agents claim work, beat and hand in results; people look and ask why.",
        docs_url=None,
        redoc_url=None,
        responses={
            400: {"model": ErrorBody},
            401: {"model": ErrorBody},
            403: {"model": ErrorBody},
            404: {"model": ErrorBody},
            409: {"model": ErrorBody},
            413: {"model": ErrorBody},
            503: {"model": ErrorBody},
            507: {"model": ErrorBody},
        },
    )
    app.state.coordinator = coordinator
    app.include_router(agent_routes.router)
    app.include_router(people_routes.router)
    app.include_router(control_routes.router)
    app.add_exception_handler(GamekeeperError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    return app


async def _on_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GamekeeperError)  # noqa: S101 - registered for this class
    return error_response(error)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    problems = error.errors()
    first = problems[0] if problems else {"loc": (), "msg": "not understood"}
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return error_response(
        UsageError(f"{where}: {first['msg']}{more}"[:500], remedy="see /openapi.json for the message's form")
    )


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    body = ErrorBody(
        code=_CODES.get(error.status_code, "error"),
        message=str(error.detail)[:500],
        remedy="see /openapi.json",
    )
    return JSONResponse(body.model_dump(), error.status_code, error.headers)
