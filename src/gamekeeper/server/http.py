"""The coordinator's HTTP face: routes, who may call them, and errors as `ErrorBody`. All logic is elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable
from typing import Annotated, TypeVar

import anyio
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gamekeeper import __version__
from gamekeeper.core.errors import (
    Busy,
    Corrupt,
    GamekeeperError,
    NotAllowed,
    NotFound,
    Refused,
    StorageFull,
    UsageError,
)
from gamekeeper.protocol import ErrorBody
from gamekeeper.server.admission import Admission
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.principals import Principal, Right, Unauthenticated
from gamekeeper.server.uploads import TooLarge

T = TypeVar("T")

_STATUS: tuple[tuple[type[GamekeeperError], int], ...] = (
    (TooLarge, 413),
    (UsageError, 400),
    (Unauthenticated, 401),
    (NotAllowed, 403),
    (NotFound, 404),
    (Refused, 409),
    (Corrupt, 409),
    (Busy, 503),
    (StorageFull, 507),
)
_CODES = {400: "usage", 401: "not-allowed", 403: "not-allowed", 404: "not-found", 405: "usage", 413: "usage"}
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_bearer = HTTPBearer(auto_error=False, description="An admin token, a join token, or a node's credential.")


def create_app(coordinator: Coordinator) -> FastAPI:
    """The application. OpenAPI is served at /openapi.json."""
    from gamekeeper.server import agent_routes, people_routes

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
    app.add_exception_handler(GamekeeperError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(Admission)
    return app


def coordinator_of(request: Request) -> Coordinator:
    """The coordinator this application serves."""
    coordinator = request.app.state.coordinator
    assert isinstance(coordinator, Coordinator)  # noqa: S101 - set by create_app
    return coordinator


Here = Annotated[Coordinator, Depends(coordinator_of)]


async def caller(
    here: Here, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Who calls; raises `Unauthenticated`."""
    return await here.principal(shown.credentials if shown is not None else "")


Caller = Annotated[Principal, Depends(caller)]


def _require(principal: Principal, right: Right) -> Principal:
    if principal.right is not right:
        raise NotAllowed(
            f"this call needs the right {right!s}, and the token shown has {principal.right!s}",
            remedy="use the token that goes with the call (see DIR/tokens)",
        )
    return principal


async def admin(principal: Caller) -> Principal:
    """Lets people in."""
    return _require(principal, Right.ADMIN)


async def joiner(principal: Caller) -> Principal:
    """Lets in who holds the join token."""
    return _require(principal, Right.JOIN)


async def node(principal: Caller) -> str:
    """Lets an enrolled node in; answers its id."""
    return _require(principal, Right.NODE).node_id


async def sane_body(request: Request) -> None:
    """Refuse what JSON allows and nothing behind this door does: whole numbers beyond 64 bits, half characters."""
    body = await request.body()
    if _SURROGATE.search(body):
        try:
            json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError):
            raise UsageError("the body holds text that is not valid Unicode") from None
    if _LONG_NUMBER.search(body) and not _fits(json.loads(body)):
        raise UsageError("the body holds a whole number beyond 64 bits")


def _fits(value: object) -> bool:
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, int) and not -(1 << 63) <= item < 1 << 63:
            return False
        if isinstance(item, dict):
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return True


async def until_gone(request: Request, work: Awaitable[T]) -> T | None:
    """The result of `work`; `None`, and `work` cancelled, when the caller hangs up first."""
    result: list[T] = []
    failure: list[GamekeeperError] = []
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            result.append(await work)
        except GamekeeperError as error:
            # Out of the task group by hand: it would wrap the error into a group.
            failure.append(error)
        tasks.cancel_scope.cancel()
    if failure:
        raise failure[0]
    return result[0] if result else None


def status_of(error: GamekeeperError) -> int:
    """The HTTP status that goes with an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_response(error: GamekeeperError) -> Response:
    """An error as it is sent."""
    wait = error.retry_after_s if isinstance(error, Busy) else None
    body = ErrorBody(code=error.code, message=error.message, remedy=error.remedy, retry_after_s=wait)
    headers = {} if wait is None else {"Retry-After": str(max(1, round(wait)))}
    return JSONResponse(body.model_dump(), status_of(error), headers)


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
