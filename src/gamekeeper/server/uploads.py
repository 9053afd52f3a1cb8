"""Files on their way in: resumable, verified and validated before anybody can see them.

Bytes gather in a staging file that is named by attempt and token. Sealing hashes them, holds a shard against the line's
data contract, publishes the file, and only then registers it under the attempt's token. A crash between any two of
these leaves either a staging file (swept at start) or an unregistered one (invisible; the next seal registers it).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from gamekeeper.core.artifacts import ArtifactKind, Manifest, Upload, check_manifest
from gamekeeper.core.errors import Busy, Corrupt, NotAllowed, NotFound, Refused, StaleToken, UsageError
from gamekeeper.core.jobs import LIVE_ATTEMPTS
from gamekeeper.data.npz_validation import Declared, validate
from gamekeeper.data.verdicts import State
from gamekeeper.protocol import SealArtifact, Sealed, UploadState
from gamekeeper.server.desk import Desk
from gamekeeper.store import artifacts, job_queue
from gamekeeper.store.session import Reading, Writing

MAX_CHUNK = 8 << 20
MAX_REASONS_SHOWN = 3


class TooLarge(UsageError):
    """More bytes than are allowed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an upload stands in the store: the attempt's line, and a verdict when there is one."""

    line: str
    accepted: bool
    problem: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Examined:
    """What the bytes turned out to be. `problem` is empty when they are good."""

    games: int = 0
    samples: int = 0
    problem: str = ""
    detail: str = ""


class Uploads:
    """The upload calls of the protocol."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._locks: dict[Upload, tuple[anyio.Lock, int]] = {}

    async def state(self, node_id: str, upload: Upload) -> UploadState:
        """How much has arrived."""
        standing = await self._standing(node_id, upload)
        if standing.accepted:
            return UploadState(offset=0, complete=True)
        files = self._desk.files
        have = await self._desk.workers.run(lambda: files.staged(upload))
        return UploadState(offset=have, complete=False)

    async def append(self, node_id: str, upload: Upload, offset: int, chunk: bytes) -> UploadState:
        """Add bytes. Those that arrived already are skipped; a chunk that would leave a gap is not taken.

        The answer tells where to go on, so a caller that lost count is set right by it.
        """
        standing = await self._standing(node_id, upload)
        if standing.accepted:
            return UploadState(offset=offset + len(chunk), complete=True)
        files = self._desk.files
        if offset + len(chunk) > files.max_bytes:
            raise TooLarge(
                f"upload of {upload.hash[:12]} exceeds the {files.max_bytes} bytes a file may have",
                remedy="publish smaller files, or raise [artifacts] max_bytes",
            )
        async with self._alone(upload):
            have = await self._desk.workers.run(lambda: files.append(upload, offset, chunk))
        return UploadState(offset=have, complete=False)

    async def seal(self, node_id: str, upload: Upload, message: SealArtifact) -> Sealed:
        """Verify, validate, publish and register. The same call again answers the same.

        Raises `Refused` while bytes are missing and `Corrupt` when they are others than declared (they are then
        dropped, so that the upload starts over).
        """
        manifest = Manifest(message.kind, message.name, upload.hash, message.bytes, message.metadata)
        check_manifest(manifest, bytes_allowed=self._desk.files.max_bytes)
        async with self._alone(upload):
            standing = await self._standing(node_id, upload)
            if standing.accepted or standing.problem:
                return Sealed(accepted=standing.accepted, problem=standing.problem, detail=standing.detail)
            examined = await self._desk.workers.run(lambda: self._examine(upload, manifest, standing.line))
            if examined.problem:
                return await self._refuse(upload, manifest, examined)
            return await self._accept(upload, manifest, examined)

    async def download(self, digest: str) -> Path:
        """Where the verified artifact lies; raises `NotFound`."""
        found = await self._desk.read(lambda r: artifacts.get(r, digest))
        if found is None:
            raise NotFound(f"there is no artifact {digest[:12]}")
        path = self._desk.files.path(digest)
        if not await self._desk.workers.run(path.exists):
            raise NotFound(
                f"the file of artifact {digest[:12]} is lost",
                remedy="restore the artifacts folder of the data directory from a copy",
            )
        return path

    def _examine(self, upload: Upload, manifest: Manifest, line: str) -> Examined:
        files = self._desk.files
        have = files.staged(upload)
        if have < manifest.bytes:
            raise Refused(
                f"{have} of the {manifest.bytes} bytes of {manifest.name} have arrived",
                remedy=f"send the rest from offset {have}, then seal again",
            )
        if have > manifest.bytes or files.digest(upload) != upload.hash:
            files.discard(upload)
            raise Corrupt(
                f"the bytes of {manifest.name} that arrived are not those it is named by",
                remedy="send the file again from offset 0",
            )
        if manifest.kind is not ArtifactKind.SHARD:
            return Examined()
        return self._validate(upload, manifest, line)

    def _validate(self, upload: Upload, manifest: Manifest, line: str) -> Examined:
        declared = {}
        for name in ("games", "samples"):
            value = manifest.metadata.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 53:
                return Examined(problem="manifest", detail=f"metadata {name} must be a whole number above 0")
            declared[name] = value
        contract = self._desk.settings.contracts.get(line)
        if contract is None:
            return Examined(
                problem="undeclared-line", detail=f"line {line} has no data contract in the settings"
            )
        verdict = validate(
            self._desk.files.staging_path(upload),
            contract,
            declared=Declared(samples=declared["samples"], games=declared["games"]),
        )
        reasons = "; ".join(
            f"{reason.member}: {reason.text}" if reason.member else reason.text
            for reason in verdict.reasons[:MAX_REASONS_SHOWN]
        )
        if verdict.state is State.UNKNOWN:
            raise Busy(
                f"{manifest.name} could not be read: {reasons}", remedy="seal it again", retry_after_s=1.0
            )
        if verdict.state is State.BAD:
            return Examined(problem=str(verdict.defect), detail=reasons)
        games = verdict.games if verdict.games is not None else declared["games"]
        return Examined(games=games, samples=verdict.samples or 0)

    async def _refuse(self, upload: Upload, manifest: Manifest, examined: Examined) -> Sealed:
        await self._desk.write(
            lambda w: artifacts.refuse(
                w,
                upload.attempt,
                upload.token,
                manifest,
                problem=examined.problem,
                detail=examined.detail,
            )
        )
        note = {
            "attempt": upload.attempt,
            "name": manifest.name,
            "problem": examined.problem,
            "detail": examined.detail,
        }
        files = self._desk.files
        await self._desk.workers.run(lambda: files.set_aside(upload, note))
        return Sealed(accepted=False, problem=examined.problem, detail=examined.detail)

    async def _accept(self, upload: Upload, manifest: Manifest, examined: Examined) -> Sealed:
        files = self._desk.files
        await self._desk.workers.run(lambda: files.publish(upload))

        def change(w: Writing) -> None:
            artifacts.register(
                w, upload.attempt, upload.token, manifest, games=examined.games, samples=examined.samples
            )

        await self._desk.write(change)
        self._desk.hints.pipeline.signal()
        return Sealed(accepted=True)

    async def _standing(self, node_id: str, upload: Upload) -> Standing:
        """Raises unless the upload is a live attempt's of this node, under its token."""
        upload.check()

        def look(r: Reading) -> Standing:
            attempt = job_queue.attempt(r, upload.attempt)
            if attempt.node_id != node_id:
                raise NotAllowed(f"attempt {upload.attempt} belongs to another node")
            if attempt.token != upload.token or attempt.state not in LIVE_ATTEMPTS:
                raise StaleToken(
                    f"attempt {upload.attempt} is over ({attempt.state}): nothing more of it is taken"
                )
            line = job_queue.get(r, attempt.job_id).spec.line
            if any(one.hash == upload.hash for one in artifacts.by_attempt(r, upload.attempt)):
                return Standing(line, accepted=True)
            refusals = artifacts.refusals_of(r, upload.attempt)
            refused = next((one for one in refusals if one.hash == upload.hash), None)
            if refused is not None:
                return Standing(line, accepted=False, problem=refused.problem, detail=refused.detail)
            return Standing(line, accepted=False)

        return await self._desk.read(look)

    @asynccontextmanager
    async def _alone(self, upload: Upload) -> AsyncIterator[None]:
        """Calls about one upload go one after the other: nobody writes to what is being hashed."""
        lock, users = self._locks.get(upload, (anyio.Lock(), 0))
        self._locks[upload] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[upload]
            if users == 1:
                del self._locks[upload]
            else:
                self._locks[upload] = (lock, users - 1)
