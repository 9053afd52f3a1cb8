"""The door of a coordinator's process: it answers from the first moment, with the application once the role is held."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gamekeeper.core.errors import Busy
from gamekeeper.server.http import error_response

HEALTH = "/healthz"
LEADER = "/healthz/leader"
RETRY_S = 1.0


class Front:
    """An ASGI application. While `app` is `None`, everyone is asked to come back, or to go to whom `held_by` names.

    `/healthz` says that the process answers, `/healthz/leader` is 200 at the coordinator that holds the role and 503 at
    one that stands by: what stands before several coordinators asks there whom to send agents to.
    """

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.held_by = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == LEADER or (path == HEALTH and self.app is None):
            leading = self.app is not None
            status = 200 if leading or path == HEALTH else 503
            answer = {"status": "answering" if leading else "standing by", "held_by": self.held_by}
            await JSONResponse(answer, status)(scope, receive, send)
        elif self.app is not None:
            await self.app(scope, receive, send)
        else:
            busy = Busy(
                f"this coordinator stands by: its role is held by {self.held_by or 'nobody yet'}",
                remedy="call the one that holds it, or again in a moment",
                retry_after_s=RETRY_S,
            )
            await error_response(busy)(scope, receive, send)
