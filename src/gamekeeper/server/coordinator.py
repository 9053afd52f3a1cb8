"""What the coordinator does for agents: enrol, connect, grant, renew, judge. No sockets, threads or wall clock here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from gamekeeper.core.errors import StaleToken, UsageError
from gamekeeper.core.jobs import Attempt, AttemptState, EndReason, ProcessIdentity
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

_FAILED = frozenset({AttemptState.FAILED, AttemptState.HOLLOW})


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

    async def connect(self, who: Caller, message: Connect) -> Connected:
        """Give a fresh agent incarnation its node's lease, with the attempts it re-adopted."""
        _check_version(message.protocol)
        lease_s = self.desk.settings.timings.lease_s
        held = [(one.attempt, one.token) for one in message.held]

        def change(w: Writing) -> Connected:
            node_id = _verified(w, who)
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

    async def claim(self, who: Caller, message: Claim, rest: Rest | None = None) -> Claimed:
        """Hand over the attempts granted to this incarnation, waiting for some up to `wait_s`.

        The reply is built from the store: a grant whose reply was lost is handed over again by the next claim. `rest`
        waits for a time to pass and tells when the caller has left, who is then granted nothing more.
        """
        until = self.desk.clock.monotonic() + message.wait_s
        node_id = who if isinstance(who, str) else who.node_id
        offer = self.board.park(node_id, message.incarnation, message.slots, frozenset(message.cached))
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
        said = stepping.Said(
            *_shown(who),
            Step(
                incarnation=message.incarnation,
                attempts=message.attempts,
                observed=message.observed,
                settings_hash=message.settings_hash,
            ),
        )
        reply = await self._taken(said)
        return BeatReply(
            expires_in_s=reply.expires_in_s,
            stop=reply.stop,
            draining=reply.draining,
            settings_hash=reply.settings_hash,
        )

    async def step(self, who: Caller, message: Step, rest: Rest | None = None) -> Stepped:
        """Book ends, renew the lease and grant, all in one commit; then wait up to `wait_s` for work."""
        reply = await self._taken(stepping.Said(*_shown(who), message))
        self._handed.note(message.incarnation, [one.attempt for one in reply.grants], self.desk.clock.now())
        if message.finished:
            await self.forget_uploads([(one.attempt, one.token) for one in message.finished])
            for hint in (self.desk.hints.pipeline, self.desk.hints.promotion, self.desk.hints.distribution):
                hint.signal()
            if any(one.state in _FAILED for one in reply.finished):
                self.desk.hints.parking.signal()
        if reply.grants or reply.draining or not (message.slots and message.wait_s):
            return reply
        claim = Claim(
            incarnation=message.incarnation, slots=message.slots, wait_s=message.wait_s, cached=message.cached
        )
        claimed = await self.claim(who, claim, rest)
        return reply.model_copy(update={"grants": claimed.grants, "draining": claimed.draining})

    async def _taken(self, said: stepping.Said) -> Stepped:
        """Take a step together with all others that wait for the writer. Raises what it was refused for."""
        taken = await self.desk.join(self._joint, said)
        if taken.unrecognised:
            raise Unrecognised
        if taken.reply is None:
            raise taken.refused or StaleToken("the agent does not hold its node any more")
        named = [one.attempt for one in said.message.attempts]
        self._handed.known(said.message.incarnation, named)
        return taken.reply

    def _take_steps(self, w: Writing, said: Sequence[stepping.Said]) -> list[stepping.Taken]:
        settings = self.desk.settings
        return stepping.take(
            w, said, settings.timings.lease_s, settings.hash, self.matching(), kinds=settings.kinds
        )

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
            return booking.finish(w, attempt_id, message, self.desk.settings.kinds)

        answer = await self.desk.write(change)
        await self.forget_uploads([(attempt_id, message.token)])
        for hint in (self.desk.hints.pipeline, self.desk.hints.promotion, self.desk.hints.distribution):
            hint.signal()
        if answer.state in _FAILED:
            self.desk.hints.parking.signal()
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


def _shown(who: Caller) -> tuple[str, str | None]:
    """The node, and the credential that is still to be verified, if any."""
    return (who, None) if isinstance(who, str) else (who.node_id, who.credential_hash)


def _verified(r: Reading, who: Caller) -> str:
    if isinstance(who, str):
        return who
    node = inventory.node_by_credential(r, who.credential_hash)
    if node is None or node.id != who.node_id:
        raise Unrecognised
    return node.id


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
