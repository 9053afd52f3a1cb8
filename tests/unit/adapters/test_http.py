"""The HTTP adapter against a raw socket server: errors keep their meaning, and no answer is never taken for one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio
import pytest

from gamekeeper.adapters.http import BlockingHttpAccess, HttpAccess
from gamekeeper.core.errors import (
    Busy,
    GamekeeperError,
    NotAllowed,
    NotFound,
    StaleToken,
    StorageFull,
    Unreachable,
    UsageError,
)


@contextmanager
def answering(status: int, body: bytes, *, cut: int = 0) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives every connection one answer, `cut` bytes short, and records the requests."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                requests.append(connection.recv(1 << 16))
                head = (
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(body) + cut}\r\nConnection: close\r\n\r\n"
                )
                connection.sendall(head.encode() + body)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def both(url: str, token: str | None = None) -> list[Callable[[], object]]:
    """The same call, on an event loop and without one."""

    async def on_a_loop() -> object:
        access = HttpAccess(url, token)
        try:
            return await access.call("POST", "/v1/x", {"a": 1}, answer_s=5.0)
        finally:
            await access.aclose()

    def blocking() -> object:
        with BlockingHttpAccess(url, token) as access:
            return access.call("POST", "/v1/x", {"a": 1})

    return [lambda: anyio.run(on_a_loop), blocking]


def test_an_answer_comes_back_decoded_and_the_token_goes_in_its_header() -> None:
    """The token anywhere else would end in logs."""
    with answering(200, b'{"b": [2]}') as (url, requests):
        for call in both(url, "s3cret"):
            assert call() == {"b": [2]}
    for request in requests:
        assert b"authorization: bearer s3cret" in request.lower()
        assert b"s3cret" not in request.splitlines()[0]
        assert len(requests) == 2


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (409, {"code": "stale-token"}, StaleToken),
        (404, {"code": "not-found"}, NotFound),
        (403, {"code": "not-allowed"}, NotAllowed),
        (507, {"code": "storage-full"}, StorageFull),
        (503, {"code": "busy", "retry_after_s": 7.5}, Busy),
        (400, {"code": "usage"}, UsageError),
        (401, None, NotAllowed),
        (429, None, Busy),
        (422, None, UsageError),
        (500, None, Unreachable),
        (502, None, Unreachable),
        (500, {"code": "never-heard-of"}, GamekeeperError),
    ],
)
def test_errors_keep_their_meaning(
    status: int, document: dict[str, object] | None, kind: type[GamekeeperError]
) -> None:
    """Stale read as unreachable repeats for ever; unreachable read as refused loses work."""
    body = (
        b"<html>"
        if document is None
        else json.dumps({"message": "why", "remedy": "how", **document}).encode()
    )
    with answering(status, body) as (url, _):
        for call in both(url):
            with pytest.raises(GamekeeperError) as caught:
                call()
            assert type(caught.value) is kind
            if document and "retry_after_s" in document:
                assert isinstance(caught.value, Busy)
                assert caught.value.retry_after_s == 7.5
            if document:
                assert caught.value.remedy == "how"


def test_no_answer_is_unreachable() -> None:
    """Half an answer, no JSON, or nobody there: nothing may be concluded from any of them."""
    with answering(200, b'{"b": 1}', cut=10) as (url, _):
        calls = both(url)
        for call in calls:
            with pytest.raises(Unreachable):
                call()
    for call in calls:  # nobody listens there any more
        with pytest.raises(Unreachable, match=url) as caught:
            call()
        assert caught.value.exit_code == 4
    with answering(200, b"<html>hello</html>") as (url, _):
        for call in both(url):
            with pytest.raises(Unreachable, match="not JSON"):
                call()


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://", "http://\0", ""])
def test_an_address_that_is_none_is_named(url: str) -> None:
    """A typing error in the settings must be told as one."""
    for make in (HttpAccess, BlockingHttpAccess):
        with pytest.raises(UsageError, match="coordinator address"):
            make(url, None)


def test_a_download_resumes_or_says_that_it_cannot() -> None:
    """Bytes from the start appended after an offset would be a wrong file."""

    async def fetch(url: str, offset: int) -> bytes:
        access = HttpAccess(url, None)
        try:
            async with access.download("/v1/artifacts/x", offset) as pieces:
                return b"".join([piece async for piece in pieces])
        finally:
            await access.aclose()

    with answering(206, b"tail") as (url, requests):
        assert anyio.run(fetch, url, 5) == b"tail"
        assert b"range: bytes=5-" in requests[0].lower()
    with answering(200, b"whole") as (url, _):
        assert anyio.run(fetch, url, 0) == b"whole"
        with pytest.raises(Unreachable, match="resume"):
            anyio.run(fetch, url, 5)
    with answering(200, b"whole", cut=3) as (url, _), pytest.raises(Unreachable):
        anyio.run(fetch, url, 0)
    with answering(404, b'{"code": "not-found", "message": "m"}') as (url, _), pytest.raises(NotFound):
        anyio.run(fetch, url, 0)
