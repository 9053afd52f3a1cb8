"""What the routes share: who may call, bodies that can be handled, and callers who hang up."""

from __future__ import annotations

import json
import re
from typing import Annotated

import anyio
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.responses import Response
from starlette.types import Receive

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
from gamekeeper.server.board import Rest
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.principals import Principal, Right, Unauthenticated
from gamekeeper.server.uploads import TooLarge

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

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_bearer = HTTPBearer(auto_error=False, description="An admin token, a join token, or a node's credential.")


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


async def node(principal: Caller, request: Request) -> str:
    """Lets an enrolled node in; answers its id, and notes it for those who serve the call."""
    request.state.node_id = _require(principal, Right.NODE).node_id
    return principal.node_id


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


def rest_of(receive: Receive) -> Rest:
    """Waits for seconds to pass, or for the caller to hang up; `receive` is the call's, its body read already."""

    async def rest(seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
        return False

    return rest


def status_of(error: GamekeeperError) -> int:
    """The HTTP status that goes with an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_message(error: GamekeeperError) -> tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]:
    """An error as it is sent: the HTTP status, the body, and headers besides those of its form."""
    wait = error.retry_after_s if isinstance(error, Busy) else None
    body = ErrorBody(code=error.code, message=error.message, remedy=error.remedy, retry_after_s=wait)
    headers = () if wait is None else ((b"retry-after", b"%d" % max(1, round(wait))),)
    return status_of(error), body.model_dump_json().encode(), headers


def error_response(error: GamekeeperError) -> Response:
    """An error as a response of the framework."""
    status, body, headers = error_message(error)
    plain = {name.decode(): value.decode() for name, value in headers}
    return Response(body, status, plain, "application/json")
