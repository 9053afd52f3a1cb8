"""What the agent needs of a coordinator, and that over HTTP.

The simulator and the tests put another `Coordinator` in its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from pydantic import ValidationError

from gamekeeper.adapters.http import HttpAccess
from gamekeeper.core.errors import Unreachable
from gamekeeper.protocol import (
    Beat,
    BeatReply,
    Claim,
    Claimed,
    Connect,
    Connected,
    Enrol,
    Enrolled,
    Finish,
    Finished,
    Message,
    SealArtifact,
    Sealed,
    Started,
    Step,
    Stepped,
    UploadState,
)

_CLAIM_SLACK_S = 10.0
_CHUNK_S = 60.0

M = TypeVar("M", bound=Message)


class Coordinator(Protocol):
    """The agent's side of the protocol.

    All calls raise `GamekeeperError`: `Unreachable` when it is unknown whether the call took effect; `Busy`,
    `StaleToken`, `NotAllowed`, `StorageFull` and others when it did not.
    """

    async def enrol(self, message: Enrol) -> Enrolled: ...

    async def connect(self, message: Connect) -> Connected: ...

    async def claim(self, message: Claim) -> Claimed: ...

    async def beat(self, message: Beat, within_s: float) -> BeatReply: ...

    async def step(self, message: Step) -> Stepped: ...

    async def started(self, attempt: int, message: Started) -> None: ...

    async def finish(self, attempt: int, message: Finish) -> Finished: ...

    async def upload_state(self, attempt: int, token: int, digest: str) -> UploadState: ...

    async def put_chunk(
        self, attempt: int, token: int, digest: str, *, offset: int, chunk: bytes
    ) -> UploadState: ...

    async def seal(self, attempt: int, token: int, digest: str, message: SealArtifact) -> Sealed: ...

    def download(self, digest: str, offset: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...

    async def aclose(self) -> None: ...


Dial = Callable[[str, str | None], Coordinator]
"""Makes a `Coordinator` from its address and the token to show (join token or credential)."""


class CoordinatorHttp:
    """The coordinator at an address, spoken to over HTTP with JSON bodies."""

    def __init__(self, url: str, token: str | None) -> None:
        self._access = HttpAccess(url, token)

    async def enrol(self, message: Enrol) -> Enrolled:
        """Ask for an identity; the token is the join token."""
        return await self._post("/v1/enrol", message, Enrolled)

    async def connect(self, message: Connect) -> Connected:
        """Take the node's lease."""
        return await self._post("/v1/agent/connect", message, Connected)

    async def claim(self, message: Claim) -> Claimed:
        """Ask for jobs; answers after up to `wait_s`."""
        return await self._post("/v1/agent/claim", message, Claimed, message.wait_s + _CLAIM_SLACK_S)

    async def beat(self, message: Beat, within_s: float) -> BeatReply:
        """Renew the lease."""
        return await self._post("/v1/agent/beat", message, BeatReply, within_s)

    async def step(self, message: Step) -> Stepped:
        """Report ends, renew the lease and ask for jobs."""
        return await self._post("/v1/agent/step", message, Stepped, message.wait_s + _CHUNK_S)

    async def started(self, attempt: int, message: Started) -> None:
        """Tell which process runs for the attempt."""
        await self._access.call("POST", f"/v1/attempts/{attempt}/started", message.model_dump(mode="json"))

    async def finish(self, attempt: int, message: Finish) -> Finished:
        """Report the attempt's end."""
        return await self._post(f"/v1/attempts/{attempt}/finish", message, Finished, _CHUNK_S)

    async def upload_state(self, attempt: int, token: int, digest: str) -> UploadState:
        """How much of the file has arrived."""
        return _read(UploadState, await self._access.call("GET", _place(attempt, token, digest)))

    async def put_chunk(
        self, attempt: int, token: int, digest: str, *, offset: int, chunk: bytes
    ) -> UploadState:
        """Send bytes from `offset` on."""
        answer = await self._access.call(
            "PUT",
            _place(attempt, token, digest),
            chunk,
            params={"offset": offset},
            answer_s=_CHUNK_S,
        )
        return _read(UploadState, answer)

    async def seal(self, attempt: int, token: int, digest: str, message: SealArtifact) -> Sealed:
        """Have the uploaded file verified and judged."""
        return await self._post(f"{_place(attempt, token, digest)}/seal", message, Sealed, _CHUNK_S)

    def download(self, digest: str, offset: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of an artifact from `offset` on."""
        return self._access.download(f"/v1/artifacts/{digest}", offset)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._access.aclose()

    async def _post(self, path: str, message: Message, answer: type[M], answer_s: float = 15.0) -> M:
        document = message.model_dump(mode="json")
        return _read(answer, await self._access.call("POST", path, document, answer_s=answer_s))


def _place(attempt: int, token: int, digest: str) -> str:
    return f"/v1/attempts/{attempt}/{token}/artifacts/{digest}"


def _read(model: type[M], document: object) -> M:
    """An answer that cannot be read says nothing about what happened: as good as none."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Unreachable(
            f"the coordinator's {model.__name__} cannot be understood: {error.error_count()} problems",
            remedy="run the same version of Gamekeeper on both sides",
        ) from None
