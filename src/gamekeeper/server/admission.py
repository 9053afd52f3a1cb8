"""The door: bounded bodies, and the gates every call passes before its body is read.

A call that is turned away is answered `busy` at once and costs nothing more. Whoever sends too slowly, or takes the
answer too slowly, loses the place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gamekeeper.protocol import ErrorBody
from gamekeeper.server.gates import Gates, Turned, class_of
from gamekeeper.server.uploads import MAX_CHUNK

MAX_BODY = 2 << 20
BODY_WITHIN_S = 60.0
TAKE_WITHIN_S = 60.0
_NO_WAIT = nullcontext()
_BULKY = frozenset({"download", "people"})


class Admission:
    """ASGI middleware: turns calls away that are too many or too large, and hands the others their whole body.

    `seconds` is a steady clock.
    """

    def __init__(self, app: ASGIApp, gates: Gates, seconds: Callable[[], float]) -> None:
        self._app = app
        self._gates = gates
        self._seconds = seconds
        self._turns = {kind: anyio.Semaphore(most) for kind, most in gates.served().items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        kind, caller = class_of(scope["method"], scope["path"]), caller_of(scope)
        turned = self._gates.enter(kind, caller, self._seconds())
        if turned is not None:
            await answer_error(send, 503, busy(turned))
            return
        try:
            limit = MAX_CHUNK if scope["method"] == "PUT" else MAX_BODY
            body = await _whole_body(scope, receive, limit)
            if body is None:
                await answer_error(send, 413, _too_long(limit))
            elif isinstance(body, bytes):
                taken = _taken_in_time(send) if kind in _BULKY else send
                async with self._turns.get(kind, _NO_WAIT):
                    await self._app(scope, Replay(body, receive), taken)
        except TooSlow:
            pass  # uvicorn closes a connection whose answer was left unfinished
        finally:
            self._gates.leave(kind, caller)


class TooSlow(Exception):
    """The caller does not take its answer."""


class Replay:
    """Hands out a body that was read already, then whatever the connection says. `body` can be looked at before."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.body = body
        self._told = False
        self._receive = receive

    async def __call__(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        return await self._receive()


class _Gone:
    """The caller left, or sent its body too slowly, before it was whole."""


def caller_of(scope: Scope) -> int:
    """Who calls, as far as gates tell callers apart: by the secret shown, else by address."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return hash(value)
    client = scope.get("client")
    return hash(client[0]) if client else 0


def _taken_in_time(send: Send) -> Send:
    async def timed(message: Message) -> None:
        with anyio.move_on_after(TAKE_WITHIN_S) as scope:
            await send(message)
        if scope.cancelled_caught:
            raise TooSlow

    return timed


async def _whole_body(scope: Scope, receive: Receive, limit: int) -> bytes | _Gone | None:
    """The body; `None` when it is longer than `limit`, declared or not."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or len(value) > 18 or int(value) > limit):
            return None
    parts: list[bytes] = []
    size = 0
    try:
        # Not a cancel scope of anyio: every call passes here, and this costs a tenth of one.
        async with asyncio.timeout(BODY_WITHIN_S):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return _Gone()
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    return None
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return _Gone()


def _too_long(limit: int) -> ErrorBody:
    return ErrorBody(
        code="usage", message=f"the body has more than {limit} bytes", remedy="send less at once"
    )


def busy(turned: Turned) -> ErrorBody:
    """The answer to a call that was turned away."""
    wait_s = round(turned.again_after_s, 3)
    return ErrorBody(
        code="busy", message=turned.why, remedy=f"come again after {wait_s} s", retry_after_s=wait_s
    )


async def answer_error(send: Send, status: int, error: ErrorBody) -> None:
    """Send an error without going further."""
    retry_after_s = error.retry_after_s
    body = error.model_dump_json().encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(retry_after_s))).encode()))
    else:
        # The rest of a refused body is not read, so the connection cannot be used again.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
