"""What the coordinator does for agents: enrol, connect, grant, renew, judge. No sockets, threads or wall clock here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gamekeeper.core.errors import NotAllowed, StaleToken, UsageError
from gamekeeper.core.jobs import Attempt, EndReason, ProcessIdentity
from gamekeeper.core.nodes import Observation
from gamekeeper.daemons import looks
from gamekeeper.policy.continuous_loop import Phase
from gamekeeper.protocol import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
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
    Observed,
    Started,
)
from gamekeeper.server import booking, grants
from gamekeeper.server.board import ClaimBoard, Rest
from gamekeeper.server.desk import ROLE, Desk
from gamekeeper.server.principals import (
    ADMIN_TOKEN,
    JOIN_TOKEN,
    MAX_SECRET,
    Principal,
    Right,
    Shown,
    Unauthenticated,
    Unrecognised,
    mint_secret,
    same_hash,
    secret_hash,
)
from gamekeeper.server.reporting import FileAudit
from gamekeeper.server.uploads import Uploads
from gamekeeper.store import inventory, job_queue, leases
from gamekeeper.store.session import Reading, Writing

Caller = str | Shown
"""An enrolled node: its verified id, or a credential to be verified in the transaction that serves the call."""


class Coordinator:
    """The protocol's methods. Each takes a message and the verified identity of the caller.

    Those that take a `Caller` raise `Unrecognised`, having done nothing, when its credential is not the node's.
    """

    def __init__(self, desk: Desk, *, mint: Callable[[], str] = mint_secret) -> None:
        self.desk = desk
        self.board = ClaimBoard()
        self.uploads = Uploads(desk)
        self.serving_since = desk.clock.now()
        self.audit = FileAudit()
        self._mint = mint
        self._handed = grants.HandedOver(desk.settings.timings.beat_s)

    async def principal(self, secret: str) -> Principal:
        """Who shows this secret; raises `Unauthenticated` when nobody does."""
        if not secret or len(secret) > MAX_SECRET:
            raise _unknown_caller()
        shown = secret_hash(secret)

        def look(r: Reading) -> Principal | None:
            if same_hash(inventory.token_hash(r, ADMIN_TOKEN), shown):
                return Principal(Right.ADMIN)
            if same_hash(inventory.token_hash(r, JOIN_TOKEN), shown):
                return Principal(Right.JOIN)
            node = inventory.node_by_credential(r, shown)
            return Principal(Right.NODE, node.id) if node is not None else None

        found = await self.desk.read(look)
        if found is None:
            raise _unknown_caller()
        return found

    async def enrol(self, message: Enrol) -> Enrolled:
        """Issue an identity to a machine."""
        _check_version(message.protocol)
        credential = self._mint()
        node = await self.desk.write(
            lambda w: inventory.enrol(w, message.host_name, message.slots, secret_hash(credential))
        )
        return Enrolled(node_id=node.id, credential=credential, protocol=PROTOCOL_VERSION)

    async def connect(self, who: Caller, message: Connect) -> Connected:
        """Give a fresh agent incarnation its node's lease, with the attempts it re-adopted."""
        _check_version(message.protocol)
        lease_s = self.desk.settings.timings.lease_s
        held = [(one.attempt, one.token) for one in message.held]

        def change(w: Writing) -> Connected:
            lease, keep, stop = leases.connect_agent(
                w,
                _verified(w, who),
                message.incarnation,
                lease_s,
                held=held,
                slots=message.slots,
                observation=_observation(message.observed, w.now),
            )
            return Connected(
                lease_s=lease_s,
                expires_in_s=lease.expires_at - w.now,
                keep=keep,
                stop=stop,
                settings_hash=self.desk.settings.hash,
            )

        answer = await self.desk.write(change)
        self.desk.hints.pipeline.signal()
        return answer

    async def claim(self, who: Caller, message: Claim, rest: Rest | None = None) -> Claimed:
        """Hand over the attempts granted to this incarnation, waiting for some up to `wait_s`.

        The reply is built from the store: a grant whose reply was lost is handed over again by the next claim. `rest`
        waits for a time to pass and tells when the caller has left, who is then granted nothing more.
        """
        until = self.desk.clock.monotonic() + message.wait_s
        node_id = who if isinstance(who, str) else who.node_id
        offer = self.board.park(node_id, message.incarnation, message.slots)
        try:
            while True:
                answer = await self.granted(who, message)
                left = until - self.desk.clock.monotonic()
                done = answer.grants or answer.draining or left <= 0
                if done or self.board.closing or offer.replaced:
                    return answer
                self.desk.hints.distribution.signal()
                if await offer.rest(rest or self._sleep, left):
                    return Claimed(grants=[])
        finally:
            self.board.leave(offer)

    async def _sleep(self, seconds: float) -> bool:
        await self.desk.clock.sleep(seconds)
        return False

    async def granted(self, who: Caller, message: Claim) -> Claimed:
        """The attempts this incarnation holds and has not been handed; never waits."""
        now = self.desk.clock.now()
        node_id = who if isinstance(who, str) else who.node_id

        def look(r: Reading) -> grants.Pending:
            if isinstance(who, Shown):
                # Most claims find nothing; that is told in one statement.
                standing = looks.standing(r, who.credential_hash, message.incarnation)
                if standing is None or standing.owner != who.node_id:
                    raise Unrecognised
                if standing.incarnation == message.incarnation and not standing.granted:
                    return grants.Pending([], [], standing.draining)
            skip = self._handed.skip(message.incarnation, now)
            return grants.pending(r, node_id, message.incarnation, message.slots, skip)

        found = await self.desk.read(look)
        for attempt, problem in found.unfit:
            await self.desk.write(partial(_end_unfit, attempt=attempt, problem=problem))
        self._handed.note(message.incarnation, [grant.attempt for grant in found.grants], now)
        return Claimed(grants=found.grants, draining=found.draining)

    async def beat(self, who: Caller, message: Beat) -> BeatReply:
        """Renew the lease of an incarnation and take down its progress."""
        lease_s = self.desk.settings.timings.lease_s
        progress = [
            leases.Progress(
                attempt_id=one.attempt,
                token=one.token,
                units=one.units,
                note=one.note,
                figures=dict(one.figures),
                process_s=one.process_s,
            )
            for one in message.attempts
        ]

        def change(w: Writing) -> BeatReply:
            grants.check_incarnation(w, _verified(w, who), message.incarnation)
            lease, stop = leases.beat(
                w, message.incarnation, lease_s, progress, _observation(message.observed, w.now)
            )
            return BeatReply(
                expires_in_s=lease.expires_at - w.now,
                stop=stop,
                draining=looks.draining(w),
                settings_hash=self.desk.settings.hash,
            )

        answer = await self.desk.write(change)
        self._handed.known(message.incarnation, [one.attempt for one in message.attempts])
        return answer

    async def started(self, node_id: str, attempt_id: int, message: Started) -> None:
        """Take down the identity of an attempt's process."""
        identity = ProcessIdentity(message.boot_id, message.pid, message.start_ticks)

        def change(w: Writing) -> None:
            check_attempt(w, node_id, attempt_id, message.token)
            job_queue.started(w, attempt_id, message.token, identity)

        await self.desk.write(change)

    async def finish(self, node_id: str, attempt_id: int, message: Finish) -> Finished:
        """Judge an ended attempt and book what it made, in one transaction."""

        def change(w: Writing) -> Finished:
            check_attempt(w, node_id, attempt_id, message.token)
            return booking.finish(w, attempt_id, message)

        answer = await self.desk.write(change)
        await self.forget_uploads([(attempt_id, message.token)])
        for hint in (self.desk.hints.pipeline, self.desk.hints.promotion, self.desk.hints.distribution):
            hint.signal()
        return answer

    async def forget_uploads(self, over: Sequence[tuple[int, int]]) -> None:
        """Drop what these ended (attempt, token) had begun to upload."""
        for attempt_id, token in over:
            await self.desk.workers.run(partial(self.desk.files.discard_attempt, attempt_id, token))

    async def stop(self, reason: str, phase: Phase = Phase.DRAINING) -> None:
        """Ask for a phase of the loop, as a rule to wind it down: finish what runs, start nothing more.

        It stays so over restarts.
        """
        await self.desk.write(lambda w: looks.set_phase(w, phase, ROLE, reason))
        self.desk.hints.pipeline.signal()
        self.desk.hints.distribution.signal()
        if phase is Phase.DRAINING:
            self.board.wake_all()


def _verified(r: Reading, who: Caller) -> str:
    if isinstance(who, str):
        return who
    node = inventory.node_by_credential(r, who.credential_hash)
    if node is None or node.id != who.node_id:
        raise Unrecognised
    return node.id


def check_attempt(r: Reading, node_id: str, attempt_id: int, token: int) -> None:
    """Raise unless the attempt is this node's and was granted under this token; says nothing about its state."""
    attempt = job_queue.attempt(r, attempt_id)
    if attempt.node_id != node_id:
        raise NotAllowed(f"attempt {attempt_id} belongs to another node")
    if attempt.token != token:
        raise StaleToken(f"attempt {attempt_id} was not granted under token {token}")


def _end_unfit(w: Writing, *, attempt: Attempt, problem: str) -> None:
    job_queue.end_from_here(w, attempt.id, attempt.token, EndReason.INPUT_UNAVAILABLE, problem)


def _observation(observed: Observed, now: float) -> Observation:
    return Observation(
        observed.cpu_count, observed.memory_bytes, observed.disk_free_bytes, observed.load, observed_at=now
    )


def _check_version(version: int) -> None:
    if not OLDEST_VERSION <= version <= PROTOCOL_VERSION:
        raise UsageError(
            f"protocol version {version} is not spoken here ({OLDEST_VERSION} to {PROTOCOL_VERSION} are)",
            remedy="use the same gamekeeper version on both sides",
        )


def _unknown_caller() -> Unauthenticated:
    return Unauthenticated(
        "the Authorization header holds no known token", remedy="send `Authorization: Bearer TOKEN`"
    )
