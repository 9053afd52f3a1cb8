"""The coordinator's HTTP interface, without knowledge of its messages: JSON in, JSON out, errors as our own.

An error answer becomes the `GamekeeperError` its body names; no answer at all becomes `Unreachable`. The token
travels in the Authorization header only: never in an address, an argument or a log line.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
from pydantic import JsonValue

from gamekeeper.core.errors import Busy, GamekeeperError, NotAllowed, Unreachable, UsageError, from_json

ANSWER_BYTES = 64 << 20
CONNECT_S = 5.0
ANSWER_S = 15.0
KEEP_S = 2.0
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Params = Mapping[str, str | int]


def _headers(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _origin(url: str) -> tuple[httpx.URL, bool]:
    """The checked address, and whether proxies of the environment apply to it."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise UsageError(f"coordinator address {url!r:.120} cannot be read: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(
            f"coordinator address {url!r:.120} is not an http address", remedy="give http://HOST:PORT"
        )
    return parsed, parsed.host not in _LOOPBACK


def _unreachable(url: httpx.URL, error: Exception) -> Unreachable:
    return Unreachable(
        f"no coordinator answers at {url}: {type(error).__name__} {error}".rstrip(),
        remedy="check the address, and that `gamekeeper up` runs there",
    )


def _decoded(body: bytes) -> JsonValue:
    try:
        document: JsonValue = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreachable("the answer is not JSON; is that a Gamekeeper coordinator?") from None
    return document


def _error(status: int, body: bytes) -> GamekeeperError:
    """The error an answer stands for."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("code"), str):
        error = from_json(document)
        wait = document.get("retry_after_s")
        if isinstance(error, Busy) and isinstance(wait, int | float) and 0 <= wait <= 3600:
            error.retry_after_s = float(wait)
        return error
    if status in (401, 403):
        return NotAllowed(f"the coordinator refuses the token (HTTP {status})")
    if status in (429, 503):
        return Busy(f"the coordinator is busy (HTTP {status})")
    if 400 <= status < 500:
        return UsageError(f"the coordinator does not accept the request (HTTP {status})")
    return Unreachable(f"the coordinator answered HTTP {status}")


class HttpAccess:
    """Calls from an event loop. Every call has its own connection when others are busy: none waits for another.

    Connections are kept idle for less time than a server keeps them, so that none is used while being closed.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self._url, proxies = _origin(url)
        self._client = httpx.AsyncClient(
            base_url=self._url,
            headers=_headers(token),
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=KEEP_S),
            trust_env=proxies,
        )

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, JsonValue] | bytes | None = None,
        *,
        params: Params | None = None,
        answer_s: float = ANSWER_S,
    ) -> JsonValue:
        """Send a JSON document (or raw bytes) and return the decoded answer, waiting up to `answer_s` for it.

        Raises the `GamekeeperError` the answer names, `Unreachable` when there is none.
        """
        timeout = httpx.Timeout(answer_s, connect=min(CONNECT_S, answer_s))
        content = body if isinstance(body, bytes) else None
        document = None if isinstance(body, bytes) else body
        try:
            async with self._client.stream(
                method, path, content=content, json=document, params=params, timeout=timeout
            ) as response:
                answer = await _bounded(response)
        except httpx.TransportError as error:
            raise _unreachable(self._url, error) from None
        if response.status_code >= 400:
            raise _error(response.status_code, answer)
        return _decoded(answer)

    @asynccontextmanager
    async def download(self, path: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the bytes of `path` from `offset` on, in pieces. Raises as `call` does, also between pieces."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            async with self._client.stream("GET", path, headers=headers) as response:
                if response.status_code >= 400:
                    raise _error(response.status_code, await _bounded(response))
                if offset and response.status_code != 206:
                    raise Unreachable("the coordinator does not resume downloads")
                yield response.aiter_bytes(1 << 20)
        except httpx.TransportError as error:
            raise _unreachable(self._url, error) from None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _bounded(response: httpx.Response) -> bytes:
    answer = bytearray()
    async for piece in response.aiter_bytes():
        answer += piece
        if len(answer) > ANSWER_BYTES:
            raise Unreachable(f"the answer is longer than {ANSWER_BYTES} bytes")
    return bytes(answer)


class BlockingHttpAccess:
    """The same for programs without an event loop, such as the command line. Also a context manager."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url, proxies = _origin(url)
        self._client = httpx.Client(
            base_url=self._url,
            headers=_headers(token),
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=proxies,
        )

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, JsonValue] | None = None,
        *,
        params: Params | None = None,
    ) -> JsonValue:
        """Send a JSON document and return the decoded answer. Raises as `HttpAccess.call` does."""
        try:
            response = self._client.request(method, path, json=body, params=params)
        except httpx.TransportError as error:
            raise _unreachable(self._url, error) from None
        if response.status_code >= 400:
            raise _error(response.status_code, response.content)
        return _decoded(response.content)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> BlockingHttpAccess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
