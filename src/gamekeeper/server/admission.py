"""Who is let in, before a body is read: bounded bodies, and a bounded number of calls of each class at once.

Beats and finishes have room of their own, so uploads, downloads and people's questions cannot starve them. A call
beyond its class's bound is answered `busy` at once, with a delay, and costs nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gamekeeper.protocol import ErrorBody
from gamekeeper.server.uploads import MAX_CHUNK

MAX_BODY = 2 << 20
BODY_WITHIN_S = 60.0


@dataclass(slots=True)
class Gate:
    """A class of calls: how many may be under way at once, and when one that was turned away may come again."""

    most: int
    again_after_s: float = 0.5
    inside: int = 0


def gates() -> dict[str, Gate]:
    """The classes of calls with their bounds."""
    return {
        "beat": Gate(4096),
        "agent": Gate(1024),
        "claim": Gate(16384),
        "upload": Gate(16),
        "download": Gate(64),
        "people": Gate(32),
    }


def class_of(method: str, path: str) -> str:
    """Which class a call belongs to."""
    if path == "/v1/agent/beat":
        return "beat"
    if path == "/v1/agent/claim":
        return "claim"
    if path.startswith("/v1/attempts/") and "/artifacts/" in path:
        return "upload" if method != "GET" else "agent"
    if path.startswith("/v1/artifacts/"):
        return "download"
    if path.startswith(("/v1/agent/", "/v1/attempts/")) or path == "/v1/enrol":
        return "agent"
    return "people"


class Admission:
    """ASGI middleware: turns calls away that are too many or too large, and hands the others their whole body."""

    def __init__(self, app: ASGIApp, *, bounds: Mapping[str, Gate] | None = None) -> None:
        self._app = app
        self._gates = dict(bounds) if bounds is not None else gates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gate = self._gates[class_of(scope["method"], scope["path"])]
        if gate.inside >= gate.most:
            await _answer(send, 503, _busy(gate))
            return
        gate.inside += 1
        try:
            limit = MAX_CHUNK if scope["method"] == "PUT" else MAX_BODY
            body = await _whole_body(scope, receive, limit)
            if body is None:
                await _answer(send, 413, _too_long(limit))
            elif isinstance(body, bytes):
                await self._app(scope, _Replay(body, receive), send)
        finally:
            gate.inside -= 1


class _Replay:
    """Hands out a body that was read already, then whatever the connection says."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


class _Gone:
    """The caller left, or sent its body too slowly, before it was whole."""


async def _whole_body(scope: Scope, receive: Receive, limit: int) -> bytes | _Gone | None:
    """The body; `None` when it is longer than `limit`, declared or not."""
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or len(value) > 18 or int(value) > limit):
            return None
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(BODY_WITHIN_S):
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
    return _Gone()


def _too_long(limit: int) -> ErrorBody:
    return ErrorBody(
        code="usage", message=f"the body has more than {limit} bytes", remedy="send less at once"
    )


def _busy(gate: Gate) -> ErrorBody:
    return ErrorBody(
        code="busy",
        message=f"{gate.most} calls of this kind are under way",
        remedy="come again",
        retry_after_s=gate.again_after_s,
    )


async def _answer(send: Send, status: int, error: ErrorBody) -> None:
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
