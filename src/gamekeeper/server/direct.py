"""The three calls that agents make all the time, served without the framework's machinery.

Only what goes well is handled here. Whatever is unusual about a call (its headers, its body, who makes it) sends it on
to the framework's route of the same address, which does the same work and has the words for what is wrong. So there is
one description and one set of answers, and this is merely the short way.

The credential is checked in the transaction that does the work, not before it: one trip to the store instead of two,
and a credential that was taken back is refused from that moment on. Whose it was at the last call is kept as a hint of
whom to check for, in a bounded table; a caller without such a hint goes the long way, so strangers never reach the
writer.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gamekeeper.core.errors import GamekeeperError
from gamekeeper.protocol import Beat, Claim, Connect, Step
from gamekeeper.protocol import Message as Body
from gamekeeper.server.admission import Replay
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.http import error_message, rest_of
from gamekeeper.server.principals import MAX_SECRET, Shown, Unrecognised, secret_hash

HINTS = 65536
_UNUSUAL = re.compile(rb"[0-9]{19}|\\u[dD][89a-fA-F]")
_JSON = (b"content-type", b"application/json")

Work = Callable[[Shown, Body, Receive], Awaitable[Body]]


class Direct:
    """ASGI: `app` with a short way to the busiest calls. Must be handed a `Replay`."""

    def __init__(self, app: ASGIApp, here: Coordinator) -> None:
        self._app = app
        self._here = here
        self._nodes: OrderedDict[str, str] = OrderedDict()
        self._calls: dict[str, tuple[type[Body], Work]] = {
            "/v1/agent/beat": (Beat, self._beat),
            "/v1/agent/claim": (Claim, self._claim),
            "/v1/agent/connect": (Connect, self._connect),
            "/v1/agent/step": (Step, self._step),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        call = (
            self._calls.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        )
        if call is None or not isinstance(receive, Replay):
            await self._app(scope, receive, send)
            return
        credential = _credential(scope)
        node_id = self._nodes.get(credential)
        kind, work = call
        message = _read(kind, receive.body) if node_id is not None and _JSON in scope["headers"] else None
        if node_id is None or message is None:
            await self._app(scope, receive, partial(self._learning, scope, credential, send))
            return
        self._nodes.move_to_end(credential)
        try:
            answer = await work(Shown(node_id, credential), message, receive)
        except Unrecognised:
            del self._nodes[credential]
            await self._app(scope, receive, send)
        except GamekeeperError as error:
            await _answer(send, *error_message(error))
        else:
            await _answer(send, 200, answer.model_dump_json(exclude_defaults=True).encode(), ())

    async def _learning(self, scope: Scope, credential: str, send: Send, message: Message) -> None:
        """Note whom the framework's route took the caller for."""
        node_id = scope.get("state", {}).get("node_id")
        if message["type"] == "http.response.start" and message["status"] == 200 and node_id:
            self._nodes[credential] = node_id
            if len(self._nodes) > HINTS:
                self._nodes.popitem(last=False)
        await send(message)

    async def _beat(self, who: Shown, message: Body, _receive: Receive) -> Body:
        assert isinstance(message, Beat)  # noqa: S101 - by the table of calls
        return await self._here.beat(who, message)

    async def _claim(self, who: Shown, message: Body, receive: Receive) -> Body:
        assert isinstance(message, Claim)  # noqa: S101 - by the table of calls
        return await self._here.claim(who, message, rest_of(receive))

    async def _step(self, who: Shown, message: Body, receive: Receive) -> Body:
        assert isinstance(message, Step)  # noqa: S101 - by the table of calls
        return await self._here.step(who, message, rest_of(receive))

    async def _connect(self, who: Shown, message: Body, _receive: Receive) -> Body:
        assert isinstance(message, Connect)  # noqa: S101 - by the table of calls
        return await self._here.connect(who, message)


def _credential(scope: Scope) -> str:
    """The hash of the secret shown; "" when there is none in the usual form."""
    found = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(found) != 1 or not found[0].startswith(b"Bearer ") or len(found[0]) > MAX_SECRET:
        return ""
    return secret_hash(found[0][7:].decode("latin-1"))


def _read(kind: type[Body], body: bytes) -> Body | None:
    """The message; `None` when anything about the body is odd."""
    if _UNUSUAL.search(body):
        return None
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        return None


async def _answer(send: Send, status: int, body: bytes, extra: tuple[tuple[bytes, bytes], ...]) -> None:
    headers = [(b"content-length", b"%d" % len(body)), _JSON, *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
