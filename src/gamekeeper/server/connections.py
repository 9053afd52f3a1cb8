"""What uvicorn leaves unbounded about connections: their number, and how long and large the head of a call may be.

A connection beyond the bound is told `busy` in plain HTTP and closed, so an agent comes again later, not at once.
One that opens a call and does not finish its head in time, or sends too long a head, is cut off; how long the body may
take is bounded where bodies are read.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any, ClassVar

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gamekeeper.protocol import ErrorBody

HEAD_WITHIN_S = 20.0
HEAD_BYTES = 64 << 10
FILES_KEPT = 256
TURNED_AWAY_AFTER_S = 5.0


class BoundedProtocol(HttpToolsProtocol):
    """One connection. `most`: connections of this process at once; `head_within_s`: how long a head may take."""

    most: ClassVar[int] = 1 << 30
    head_within_s: ClassVar[float] = HEAD_WITHIN_S

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._refuse(503, b"Service Unavailable", _busy())
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came, of a head only so much."""
        if self.transport.is_closing():
            return
        if not self._in_body:
            self._head_bytes += len(data)
            if self._head_timer is None:
                self._await_head()
        super().data_received(data)
        if not self._in_body and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, b"Request Header Fields Too Large", _too_long())

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_came()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The call is whole; what follows is the head of the next."""
        super().on_message_complete()
        self._in_body = False
        self._head_bytes = 0

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_within_s, self._too_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_late(self) -> None:
        self._head_timer = None
        self.transport.abort()

    def _refuse(self, status: int, phrase: bytes, error: ErrorBody) -> None:
        self._head_came()
        body = error.model_dump_json().encode()
        wait = b"" if error.retry_after_s is None else b"retry-after: %d\r\n" % error.retry_after_s
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s"
            % (status, phrase, len(body), wait, body)
        )
        self.transport.close()


def bounded(most: int, head_within_s: float = HEAD_WITHIN_S) -> type[BoundedProtocol]:
    """The protocol for a server that keeps at most `most` connections."""
    return type("BoundedProtocol", (BoundedProtocol,), {"most": most, "head_within_s": head_within_s})


def raise_file_limit() -> int:
    """Allow this process as many open files as the system lets it have; how many connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in (soft, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(64, soft - FILES_KEPT)


def _busy() -> ErrorBody:
    return ErrorBody(
        code="busy",
        message="the coordinator has as many connections as it may",
        remedy="come again, or raise its limit of open files",
        retry_after_s=TURNED_AWAY_AFTER_S,
    )


def _too_long() -> ErrorBody:
    return ErrorBody(
        code="usage", message=f"the head of the call has more than {HEAD_BYTES} bytes", remedy="send less"
    )
