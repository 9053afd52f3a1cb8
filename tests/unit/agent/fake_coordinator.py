"""A coordinator in memory: the protocol's leases, tokens, uploads and verdicts, without a store. Thread-safe.

Stale tokens, ended attempts, offsets that do not fit and wrong hashes are refused as the protocol demands. `outage`
makes every call fail; `swallow` carries out the named call once and loses its answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from blake3 import blake3

from gamekeeper.core.clock import boot_seconds
from gamekeeper.core.errors import GamekeeperError, NotAllowed, NotFound, Refused, StaleToken, Unreachable
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
    FinishedOne,
    Grant,
    InputFile,
    SealArtifact,
    Sealed,
    Started,
    Step,
    Stepped,
    UploadState,
)

JOIN_TOKEN = "join-secret-0123"
CREDENTIAL = "credential-secret-4567"


@dataclass
class FakeAttempt:
    """What the coordinator knows of one attempt."""

    grant: Grant
    incarnation: str
    live: bool = True
    started: Started | None = None
    finish: Finish | None = None
    end: str = ""
    units: int = 0
    accepted: dict[str, SealArtifact] = field(default_factory=dict)


class FakeCoordinator:
    """See the module. All methods are called by the served interface under one lock."""

    def __init__(self, lease_s: float = 20.0) -> None:
        self.lease_s = lease_s
        self.lock = threading.RLock()
        self.changed = threading.Event()
        self.queue: list[dict[str, object]] = []
        self.attempts: dict[int, FakeAttempt] = {}
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[str, bytearray] = {}
        self.incarnation = ""
        self.expires_at = 0.0
        self.slots = 0
        self.draining = False
        self.cancelled: set[int] = set()
        self.outage = False
        self.swallow: set[str] = set()
        self.refuse: dict[str, str] = {}
        self.chunk_most = 1 << 16
        self.connects = 0
        self.calls: list[str] = []
        self.bad_blobs: set[str] = set()
        self._number = 0

    # --- for tests

    def add_job(
        self,
        command: list[str],
        *,
        inputs: dict[str, list[InputFile]] | None = None,
        grace_s: float = 2.0,
        time_limit_s: float | None = None,
        parameters: dict[str, object] | None = None,
    ) -> None:
        with self.lock:
            self.queue.append({
                "command": command, "inputs": inputs or {}, "grace_s": grace_s,
                "time_limit_s": time_limit_s, "parameters": parameters or {},
            })  # fmt: skip
            self.changed.set()

    def add_blob(self, data: bytes, name: str = "model.npz") -> InputFile:
        digest = blake3(data).hexdigest()
        with self.lock:
            self.blobs[digest] = data
        return InputFile(hash=digest, bytes=len(data), name=name, metadata={})

    def finished(self, attempt: int = 1) -> Finish | None:
        with self.lock:
            found = self.attempts.get(attempt)
            return found.finish if found else None

    def expire(self) -> None:
        """End the lease and all its attempts now, as a reaper would."""
        with self.lock:
            self.incarnation = ""
            for attempt in self.attempts.values():
                attempt.live = False
                attempt.end = attempt.end or "lease-expired"

    # --- protocol

    def note(self, call: str) -> None:
        self.calls.append(call)
        if self.outage:
            raise Unreachable("planned outage")

    def swallowed(self, call: str) -> None:
        if call in self.swallow:
            self.swallow.discard(call)
            raise Unreachable("the answer was lost")

    def enrol(self, token: str, message: Enrol) -> Enrolled:
        self.note("enrol")
        if token != JOIN_TOKEN:
            raise NotAllowed("wrong join token")
        return Enrolled(node_id="n-1", credential=CREDENTIAL, protocol=1)

    def check_credential(self, token: str) -> None:
        if token != CREDENTIAL:
            raise NotAllowed("unknown credential")

    def connect(self, message: Connect) -> Connected:
        self.note("connect")
        self.connects += 1
        held = {item.attempt: item.token for item in message.held}
        keep, stop = [], []
        for number, token in held.items():
            attempt = self.attempts.get(number)
            if attempt and attempt.live and attempt.grant.token == token:
                attempt.incarnation = message.incarnation
                keep.append(number)
            else:
                stop.append(number)
        for number, attempt in self.attempts.items():
            if attempt.live and number not in keep and attempt.incarnation != message.incarnation:
                attempt.live, attempt.end = False, "agent-restarted"
        self.incarnation = message.incarnation
        self.slots = message.slots
        self.expires_at = boot_seconds() + self.lease_s
        self.swallowed("connect")
        return Connected(
            lease_s=self.lease_s, expires_in_s=self.lease_s, keep=keep, stop=stop, settings_hash="s"
        )

    def check_lease(self, incarnation: str) -> None:
        if incarnation != self.incarnation:
            raise StaleToken("another incarnation holds the lease")

    def claim(self, message: Claim) -> Claimed | None:
        """`None`: nothing yet."""
        self.note("claim")
        self.changed.clear()
        self.check_lease(message.incarnation)
        grants: list[Grant] = []
        live = sum(attempt.live for attempt in self.attempts.values())
        while self.queue and len(grants) < message.slots and live < self.slots and not self.draining:
            job = self.queue.pop(0)
            self._number += 1
            live += 1
            document = {
                "attempt": self._number, "token": 100 + self._number, "job": self._number,
                "kind": "selfplay", "line": "x", "purpose": "", "seed": 5, "wanted": {"games": 2}, **job,
            }  # fmt: skip
            grants.append(Grant.model_validate(document))
            self.attempts[self._number] = FakeAttempt(grants[-1], message.incarnation)
        if grants or self.draining:
            self.swallowed("claim")
            return Claimed(grants=grants, draining=self.draining)
        return None

    def beat(self, message: Beat) -> BeatReply:
        self.note("beat")
        self.check_lease(message.incarnation)
        self.expires_at = boot_seconds() + self.lease_s
        for progress in message.attempts:
            found = self.attempts.get(progress.attempt)
            if found and found.grant.token == progress.token:
                assert progress.units >= found.units, "progress went back"
                found.units = progress.units
        stop = [
            item.attempt
            for item in message.attempts
            if item.attempt in self.cancelled or not self.attempts[item.attempt].live
        ]
        self.swallowed("beat")
        return BeatReply(expires_in_s=self.lease_s, stop=stop, draining=self.draining, settings_hash="s")

    def live_attempt(self, number: int, token: int) -> FakeAttempt:
        attempt = self.attempts.get(number)
        if attempt is None:
            raise NotFound(f"attempt {number} does not exist")
        if attempt.grant.token != token or not attempt.live:
            raise StaleToken(f"attempt {number} is over")
        return attempt

    def started(self, number: int, message: Started) -> None:
        self.note("started")
        self.live_attempt(number, message.token).started = message

    def upload_state(self, number: int, token: int, digest: str) -> UploadState:
        self.note("upload")
        self.live_attempt(number, token)
        return UploadState(offset=len(self.partial.get(digest, b"")), complete=digest in self.blobs)

    def put_chunk(self, number: int, token: int, digest: str, offset: int, chunk: bytes) -> UploadState:
        self.note("chunk")
        self.live_attempt(number, token)
        have = self.partial.setdefault(digest, bytearray())
        if offset == len(have):
            have += chunk[: self.chunk_most]
        self.swallowed("chunk")
        return UploadState(offset=len(have), complete=False)

    def seal(self, number: int, token: int, digest: str, message: SealArtifact) -> Sealed:
        self.note("seal")
        attempt = self.live_attempt(number, token)
        data = bytes(self.partial.get(digest, b""))
        if len(data) != message.bytes or blake3(data).hexdigest() != digest:
            return Sealed(accepted=False, problem="hash", detail="the bytes are not what was declared")
        if message.name in self.refuse:
            return Sealed(accepted=False, problem="contract", detail=self.refuse[message.name])
        self.blobs[digest] = data
        attempt.accepted[digest] = message
        self.swallowed("seal")
        return Sealed(accepted=True)

    def finish(self, number: int, message: Finish) -> Finished:
        self.note("finish")
        attempt = self.attempts.get(number)
        if attempt is not None and attempt.finish == message:
            return Finished(result="already", state="succeeded", reason=message.reason, detail="")
        attempt = self.live_attempt(number, message.token)
        if attempt.finish is not None:
            raise Refused("finished twice, and differently")
        attempt.finish, attempt.live, attempt.end = message, False, message.reason
        self.changed.set()
        self.swallowed("finish")
        return Finished(result="applied", state="succeeded", reason=message.reason, detail="")

    def step(self, message: Step) -> Stepped:
        """All of it under one lock, as one commit."""
        self.check_lease(message.incarnation)
        done = []
        for ended in message.finished:
            finish = Finish(**{name: getattr(ended, name) for name in Finish.model_fields})
            try:
                found = self.finish(ended.attempt, finish)
            except (StaleToken, NotFound) as error:
                found = Finished(result="already", state="", reason="", detail=error.message)
                done.append(FinishedOne(attempt=ended.attempt, stale=True, **dict(found)))
            else:
                done.append(FinishedOne(attempt=ended.attempt, **dict(found)))
        beat = self.beat(
            Beat(incarnation=message.incarnation, attempts=message.attempts, observed=message.observed)
        )
        claimed = None
        if message.slots:
            claimed = self.claim(Claim(incarnation=message.incarnation, slots=message.slots, wait_s=0))
        return Stepped(
            expires_in_s=beat.expires_in_s, stop=beat.stop, draining=beat.draining, settings_hash="s",
            finished=done, grants=claimed.grants if claimed else [],
        )  # fmt: skip

    def blob(self, digest: str) -> bytes:
        self.note("download")
        if digest not in self.blobs:
            raise NotFound(f"no artifact {digest}")
        return b"x" * len(self.blobs[digest]) if digest in self.bad_blobs else self.blobs[digest]


def status_of(error: GamekeeperError) -> int:
    return {
        "usage": 400, "not-allowed": 403, "not-found": 404, "refused": 409, "stale-token": 409, "busy": 503,
        "storage-full": 507,
    }.get(error.code, 502)  # fmt: skip
