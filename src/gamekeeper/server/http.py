"""What the routes share: who may call, bodies that can be handled, and callers who hang up."""

from __future__ import annotations

import json
import re
from typing import Annotated

import anyio
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Receive

from gamekeeper.core.errors import NotAllowed, UsageError
from gamekeeper.server.board import Rest
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.principals import Principal, Right

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


def rest_of(receive: Receive) -> Rest:
    """Waits for seconds to pass, or for the caller to hang up; `receive` is the call's, its body read already."""

    async def rest(seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
        return False

    return rest
