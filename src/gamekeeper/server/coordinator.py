"""What the coordinator does for agents: enrol, connect, grant, renew, judge. No sockets, threads or wall clock here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gamekeeper.core.errors import StaleToken, UsageError
from gamekeeper.core.jobs import Attempt, EndReason, ProcessIdentity
from gamekeeper.core.requirements import Capacity, Gpu
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
    Started,
    Step,
    Stepped,
)
from gamekeeper.server import booking, grants, stepping
from gamekeeper.server.board import ClaimBoard
from gamekeeper.server.desk import ROLE, Desk
from gamekeeper.server.principals import (
    ADMIN_TOKEN,
    JOIN_TOKEN,
    MAX_SECRET,
    Principal,
    Right,
    Unauthenticated,
    mint_secret,
    same_hash,
    secret_hash,
)
from gamekeeper.server.reporting import FileAudit
from gamekeeper.server.uploads import Uploads
from gamekeeper.store import inventory, job_queue, leases
from gamekeeper.store.session import Reading, Writing


class Coordinator:
    """The protocol's methods. Each takes a message and the verified identity of the caller."""

    def __init__(self, desk: Desk, *, mint: Callable[[], str] = mint_secret) -> None:
        self.desk = desk
        self.board = ClaimBoard()
        self.uploads = Uploads(desk)
        self.serving_since = desk.clock.now()
        self.audit = FileAudit()
        self._mint = mint
        self.matching: Callable[[], stepping.Match] = stepping.Later
        self._joint = self._take_steps
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

    async def connect(self, node_id: str, message: Connect) -> Connected:
        """Give a fresh agent incarnation its node's lease, with the attempts it re-adopted."""
        _check_version(message.protocol)
        lease_s = self.desk.settings.timings.lease_s
        held = [(one.attempt, one.token) for one in message.held]

        def change(w: Writing) -> Connected:
            lease, keep, stop = leases.connect_agent(
                w,
                node_id,
                message.incarnation,
                lease_s,
                held=held,
                slots=message.slots,
                observation=stepping.observation(message.observed, w.now),
            )
            inventory.set_machine(w, node_id, _capacity(message))
            inventory.note_settings(w, [node_id], message.settings_hash)
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

    async def claim(self, node_id: str, message: Claim) -> Claimed:
        """Hand over the attempts granted to this incarnation, waiting for some up to `wait_s`.

        The reply is built from the store: a grant whose reply was lost is handed over again by the next claim.
        """
        until = self.desk.clock.monotonic() + message.wait_s
        offer = self.board.park(node_id, message.incarnation, message.slots)
        try:
            while True:
                answer = await self.granted(node_id, message)
                left = until - self.desk.clock.monotonic()
                done = answer.grants or answer.draining or left <= 0
                if done or self.board.closing or offer.replaced:
                    return answer
                self.desk.hints.distribution.signal()
                await offer.woken.wait(self.desk.clock, left)
        finally:
            self.board.leave(offer)

    async def granted(self, node_id: str, message: Claim) -> Claimed:
        """The attempts this incarnation holds and has not been handed; never waits."""
        now = self.desk.clock.now()

        def look(r: Reading) -> grants.Pending:
            skip = self._handed.skip(message.incarnation, now)
            return grants.pending(r, node_id, message.incarnation, message.slots, skip)

        found = await self.desk.read(look)
        for attempt, problem in found.unfit:
            await self.desk.write(partial(_end_unfit, attempt=attempt, problem=problem))
        self._handed.note(message.incarnation, [grant.attempt for grant in found.grants], now)
        return Claimed(grants=found.grants, draining=found.draining)

    async def beat(self, node_id: str, message: Beat) -> BeatReply:
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
            grants.check_incarnation(w, node_id, message.incarnation)
            inventory.note_settings(w, [node_id], message.settings_hash)
            lease, stop = leases.beat(
                w, message.incarnation, lease_s, progress, stepping.observation(message.observed, w.now)
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

    async def step(self, node_id: str, message: Step) -> Stepped:
        """Book ends, renew the lease and grant, all in one commit; then wait up to `wait_s` for work."""
        taken = await self.desk.join(self._joint, stepping.Said(node_id, message))
        if taken.reply is None:
            raise taken.refused or StaleToken(f"agent {message.incarnation} does not hold its node any more")
        reply = taken.reply
        self._handed.known(message.incarnation, [one.attempt for one in message.attempts])
        self._handed.note(message.incarnation, [one.attempt for one in reply.grants], self.desk.clock.now())
        if message.finished:
            await self.forget_uploads([(one.attempt, one.token) for one in message.finished])
            for hint in (self.desk.hints.pipeline, self.desk.hints.promotion, self.desk.hints.distribution):
                hint.signal()
        if reply.grants or reply.draining or not (message.slots and message.wait_s):
            return reply
        claim = Claim(
            incarnation=message.incarnation, slots=message.slots, wait_s=message.wait_s, cached=message.cached
        )
        claimed = await self.claim(node_id, claim)
        return reply.model_copy(update={"grants": claimed.grants, "draining": claimed.draining})

    def _take_steps(self, w: Writing, said: Sequence[stepping.Said]) -> list[stepping.Taken]:
        settings = self.desk.settings
        return stepping.take(w, said, settings.timings.lease_s, settings.hash, self.matching())

    async def started(self, node_id: str, attempt_id: int, message: Started) -> None:
        """Take down the identity of an attempt's process."""
        identity = ProcessIdentity(message.boot_id, message.pid, message.start_ticks)

        def change(w: Writing) -> None:
            stepping.check_attempt(w, node_id, attempt_id, message.token)
            job_queue.started(w, attempt_id, message.token, identity)

        await self.desk.write(change)

    async def finish(self, node_id: str, attempt_id: int, message: Finish) -> Finished:
        """Judge an ended attempt and book what it made, in one transaction."""

        def change(w: Writing) -> Finished:
            stepping.check_attempt(w, node_id, attempt_id, message.token)
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


def _end_unfit(w: Writing, *, attempt: Attempt, problem: str) -> None:
    job_queue.end_from_here(w, attempt.id, attempt.token, EndReason.INPUT_UNAVAILABLE, problem)


def _capacity(message: Connect) -> Capacity:
    machine = message.machine
    gpus = None if machine.gpus is None else tuple(Gpu(one.name, one.memory_bytes) for one in machine.gpus)
    return Capacity(
        slots=message.slots, cpus=machine.cpus, memory_bytes=machine.memory_bytes, gpus=gpus,
        architecture=machine.architecture, labels=dict(machine.labels), ephemeral=machine.ephemeral,
    )  # fmt: skip


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
