"""The agent's core: a state machine without input or output.

`AgentCore.handle(event, now)` returns commands. It reads no clock, draws only from the generator it was given, and so
runs the same on a real machine and in a simulated one. What it keeps:

- nothing is started, shipped or reported without a lease; the lease counts from before the request that got it;
- when the lease is lost, all processes are ordered to stop and their results are dropped;
- a claim whose fate is unknown may have been granted: the agent takes a fresh incarnation and names the
  attempts it holds, so that the coordinator ends the ones that never arrived;
- process slots in use and slots asked for are never more than there are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from gamekeeper.agent.desk import Desk, Outbox, StepUnderWay
from gamekeeper.agent.endings import Ending
from gamekeeper.agent.messages import (
    BeatAnswered,
    ClaimAnswered,
    Command,
    ConnectAnswered,
    Event,
    Failed,
    Failure,
    FileSealed,
    FileUnusable,
    FinishAnswered,
    InputsReady,
    Leave,
    Measured,
    Note,
    ProcessEnded,
    ProcessStarted,
    Progressed,
    Restored,
    SendBeat,
    SendClaim,
    SendConnect,
    SendStep,
    Shipped,
    ShutdownOrdered,
    StartedAnswered,
    StartFailed,
    StepAnswered,
    Tick,
)
from gamekeeper.agent.pacing import Delays, Lease
from gamekeeper.core.jobs import EndReason
from gamekeeper.protocol import (
    PROTOCOL_VERSION,
    Beat,
    BeatReply,
    Claim,
    Connect,
    FinishOne,
    Grant,
    Machine,
    Observed,
    Step,
    Stepped,
)

UNKILLABLE_S = 30.0
MOST_BETWEEN_RENEWALS_S = 2.0
FINISHES_AT_ONCE = 256
_OVERGRANTED = Ending(EndReason.CANNOT_START, "more jobs were granted than were asked for")


class AgentCore:
    """One agent process. `next_wake` tells when `Tick` is due if nothing else happens (boot seconds)."""

    def __init__(
        self,
        slots: int,
        rng: random.Random,
        *,
        machine: Machine | None = None,
        claim_wait_s: float = 20.0,
        patience_s: float = 5.0,
    ) -> None:
        self.slots = slots
        self._machine = machine or Machine()
        self._cached: tuple[str, ...] = ()
        self._rng = rng
        self._claim_wait_s = claim_wait_s
        self._patience_s = patience_s
        self._out = Outbox()
        self.desk = Desk(self._out, rng)
        self.incarnation = self._fresh_incarnation()
        self.lease: Lease | None = None
        self.connected = False
        self._renewed = False
        self._restored = False
        self._observed = Observed()
        self.settings_hash: str | None = None
        self._room = False
        self._draining = False
        self._connecting: int | None = None
        self._connect_at = 0.0
        self._connect_delays = Delays(rng, 0.2, 10.0)
        self._beating: int | None = None
        self._beat_at = 0.0
        self._beat_delays = Delays(rng, 0.2, MOST_BETWEEN_RENEWALS_S)
        self._claims: dict[int, tuple[int, float]] = {}
        self._steps: dict[int, StepUnderWay] = {}
        self._claim_at = 0.0
        self._claim_delays = Delays(rng, 0.25, 30.0)
        self._unstarted_seen = 0
        self._stopping = False
        self._left = False
        self._refusal = ""
        self._quiet_since: float | None = None
        self._leave_by = float("inf")

    @property
    def next_wake(self) -> float:
        """When to look again at the latest, in boot seconds."""
        return self._out.wake_at

    @property
    def asked(self) -> int:
        """Slots asked for in claims and steps under way."""
        claimed = sum(slots for slots, _ in self._claims.values())
        return claimed + sum(step.slots for step in self._steps.values())

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event and say what to do about it. `now` is boot seconds."""
        if self._left:
            return []
        self._out.turn(now)
        self._take_in(event)
        self._check_lease()
        self._connect()
        self.desk.step(self.lease if self.connected else None)
        self._step()
        self._beat()
        self._claim()
        self._leave()
        return self._out.commands

    def _measured(self, event: Measured) -> None:
        if event.room != self._room:
            free = event.observed.disk_free_bytes
            left = "" if free is None else f" ({free >> 20} MiB free)"
            none = "no room on the disk: no work is claimed until there is"
            self._out.put(Note(None, f"{'there is room to work' if event.room else none}{left}"))
        self._observed, self._room, self._cached = event.observed, event.room, event.cached

    def _take_in(self, event: Event) -> None:
        match event:
            case Restored():
                self._restored = True
                for found in event.attempts:
                    self.desk.restore(found)
            case Measured():
                self._measured(event)
            case ConnectAnswered():
                self._connect_answered(event)
            case BeatAnswered():
                self._beat_answered(event)
            case ClaimAnswered():
                self._claim_answered(event)
            case Failed():
                self._failed(event)
            case StepAnswered():
                self._step_answered(event)
            case InputsReady() | StartedAnswered() | FinishAnswered() | Shipped():
                self.desk.answered(event)
            case ProcessStarted():
                self.desk.process_started(event, self.lease)
            case StartFailed():
                self.desk.start_failed(event)
            case ProcessEnded():
                self.desk.process_ended(event)
            case FileSealed():
                self.desk.file_sealed(event)
            case FileUnusable():
                self.desk.file_unusable(event)
            case Progressed():
                self.desk.progressed(event)
            case ShutdownOrdered():
                self._shut_down()
            case Tick():
                pass

    # --- the lease

    def _fresh_incarnation(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def _connect(self) -> None:
        ready = self._restored and not self.connected and self._connecting is None and not self._refusal
        if ready and self._out.due(self._connect_at):
            self._connecting = self._out.serial()
            message = Connect(
                protocol=PROTOCOL_VERSION,
                incarnation=self.incarnation,
                slots=self.slots,
                held=self.desk.claims_of_ownership(),
                observed=self._observed,
                machine=self._machine,
                settings_hash=self.settings_hash,
            )
            self._out.put(SendConnect(self._connecting, message))

    def _connect_answered(self, event: ConnectAnswered) -> None:
        if event.serial != self._connecting:
            return
        self._connecting = None
        self._connect_delays.worked()
        reply = event.reply
        self.connected = True
        self.settings_hash = reply.settings_hash
        self.lease = Lease(self.incarnation, reply.lease_s, event.sent_at + reply.expires_in_s)
        self._beat_at = event.sent_at + self.lease.beat_every_s
        keep = set(reply.keep) - set(reply.stop)
        for held in self.desk:
            if not held.dropped and held.id not in keep:
                self.desk.drop(held, EndReason.LEASE_EXPIRED)
        self._renewed = True

    def _beat(self) -> None:
        if self.lease is None or not self.connected or self._beating is not None:
            return
        if self._out.due(self._beat_at):
            self._beating = self._out.serial()
            message = Beat(
                incarnation=self.incarnation,
                attempts=self.desk.progress(),
                observed=self._observed,
                settings_hash=self.settings_hash,
            )
            self._out.put(SendBeat(self._beating, message))

    def _beat_answered(self, event: BeatAnswered) -> None:
        if event.serial != self._beating or self.lease is None:
            return
        self._beating = None
        self._beat_delays.worked()
        self._renew(self.lease, event.sent_at, event.reply)

    def _renew(self, lease: Lease, sent_at: float, reply: BeatReply | Stepped) -> None:
        expires_at = max(lease.expires_at, sent_at + reply.expires_in_s)
        self.lease = Lease(self.incarnation, lease.lease_s, expires_at)
        self._beat_at = max(self._beat_at, sent_at + lease.beat_every_s)
        self._draining = reply.draining
        if reply.settings_hash != self.settings_hash:
            self.settings_hash = reply.settings_hash
            self._out.put(Note(None, f"the settings in force are now {self.settings_hash[:12]}"))
        for attempt in reply.stop:
            self.desk.order(attempt, EndReason.STOP_REQUESTED)
        self._renewed = True

    def _check_lease(self) -> None:
        """An answer may have been so late that the lease it brought is over."""
        if self.lease is not None and self._out.due(self.lease.lost_at):
            self._lose_lease("the lease was not renewed in time")
        if self.lease is not None and self._renewed:
            self.desk.extend(self.lease)
        self._renewed = False

    def _lose_lease(self, why: str) -> None:
        self._out.put(Note(None, f"{why}: all jobs are stopped"))
        self.lease = None
        for held in self.desk:
            self.desk.drop(held, EndReason.LEASE_EXPIRED)
        self._disconnect()

    def _disconnect(self) -> None:
        """Give up this incarnation; whatever its calls still bring is of no interest."""
        self.connected = False
        self.incarnation = self._fresh_incarnation()
        self._connecting = self._beating = None
        self._claims.clear()
        steps, self._steps = self._steps, {}
        for step in steps.values():
            self._release(step, Failure.UNREACHABLE, "the lease it was sent under is over")
        # All agents lose a coordinator that stops at the same moment: the first try is spread, too.
        within_s = self.lease and self.lease.return_within_s
        delay = self._rng.uniform(0.0, within_s) if within_s else self._connect_delays.failed()
        self._connect_at = self._out.now + delay

    def _connect_delay(self) -> float:
        """As long as jobs run under a lease, it is worth asking often: they end with it."""
        delay = self._connect_delays.failed()
        if self.lease is None:
            return delay
        return min(delay, max(MOST_BETWEEN_RENEWALS_S, self.lease.return_within_s))

    # --- claims

    def _wanted(self) -> int:
        """How many jobs may be asked for now."""
        if not self.connected or self._stopping or self._draining or not self._room:
            return 0
        if self.desk.unstarted > self._unstarted_seen:
            self._claim_at = max(self._claim_at, self._out.now + self._claim_delays.failed())
        self._unstarted_seen = self.desk.unstarted
        free = self.slots - self.desk.occupied - self.asked
        return free if free > 0 and self._out.due(self._claim_at) else 0

    def _step(self) -> None:
        """Put the ends that are to be reported now into one call, with the progress of the rest and a claim."""
        for first in range(0, len(self._out.ends), FINISHES_AT_ONCE):
            ends = self._out.ends[first : first + FINISHES_AT_ONCE]
            serial, free = self._out.serial(), self._wanted()
            self._steps[serial] = StepUnderWay(free, {end.attempt: end.serial for end in ends})
            message = Step(
                incarnation=self.incarnation,
                finished=[FinishOne(attempt=end.attempt, **dict(end.message)) for end in ends],
                attempts=self.desk.progress(),
                observed=self._observed,
                slots=free,
                cached=list(self._cached),
                settings_hash=self.settings_hash,
            )
            self._out.put(SendStep(serial, message))

    def _step_answered(self, event: StepAnswered) -> None:
        step = self._steps.pop(event.serial, None)
        if step is None or self.lease is None:
            return
        self._beat_delays.worked()
        self._renew(self.lease, event.sent_at, event.reply)
        for ended in event.reply.finished:
            serial = step.serials.pop(ended.attempt, 0)
            if ended.stale:
                self.desk.answered(Failed(serial, Failure.STALE, ended.detail))
            else:
                self.desk.answered(FinishAnswered(serial))
        self._release(step, Failure.UNREACHABLE, "the answer did not speak of it")
        self._accept(event.reply.grants, step.slots)

    def _release(self, step: StepUnderWay, failure: Failure, why: str, retry_after_s: float = 0.0) -> None:
        """The ends in this step were not booked."""
        for serial in step.serials.values():
            self.desk.answered(Failed(serial, failure, why, retry_after_s))

    def _accept(self, grants: Sequence[Grant], slots: int) -> None:
        for number, grant in enumerate(grants):
            self.desk.accept(grant, _OVERGRANTED if number >= slots else None)
            if self._stopping:
                self.desk.order(grant.attempt, EndReason.NODE_GOING_AWAY)
        if grants and self.desk.unstarted == 0:
            self._claim_delays.worked()

    def _claim(self) -> None:
        free = self._wanted()
        if free > 0:
            serial = self._out.serial()
            self._claims[serial] = (free, self._out.now)
            message = Claim(
                incarnation=self.incarnation, slots=free, wait_s=self._claim_wait_s, cached=list(self._cached)
            )
            self._out.put(SendClaim(serial, message))

    def _claim_answered(self, event: ClaimAnswered) -> None:
        if event.serial not in self._claims:
            return
        slots, sent_at = self._claims.pop(event.serial)
        self._draining = event.reply.draining
        self._accept(event.reply.grants, slots)
        if (
            not event.reply.grants and self._out.now - sent_at < 0.5 * self._claim_wait_s
        ):  # nothing to wait for there
            self._claim_at = self._out.now + self._claim_delays.failed()

    # --- failures

    def _failed(self, event: Failed) -> None:
        claimed = self._claims.pop(event.serial, None)
        if event.serial == self._connecting:
            self._connecting = None
            self._refused(event)
            # The time a busy coordinator names is a place in its schedule: later would be as bad as earlier.
            self._connect_at = self._out.now + (event.retry_after_s or self._connect_delay())
            if event.failure is Failure.STALE:
                self.incarnation = self._fresh_incarnation()
        elif event.serial == self._beating:
            self._beating = None
            self._beat_failed(event)
        elif claimed is not None:
            self._claim_failed(event)
        elif event.serial in self._steps:
            self._step_failed(self._steps.pop(event.serial), event)
        else:
            self.desk.answered(event)

    def _beat_failed(self, event: Failed) -> None:
        if event.failure is Failure.STALE:
            self._lose_lease(f"the coordinator no longer knows this incarnation ({event.detail})")
        elif not self._refused(event):
            self._beat_at = self._out.now + max(event.retry_after_s, self._beat_delays.failed())

    def _claim_failed(self, event: Failed) -> None:
        if event.failure is Failure.STALE:
            self._lose_lease(f"the coordinator no longer knows this incarnation ({event.detail})")
        elif event.failure is Failure.UNREACHABLE:
            self._disconnect()
        elif not self._refused(event):
            self._claim_at = self._out.now + max(event.retry_after_s, self._claim_delays.failed())

    def _step_failed(self, step: StepUnderWay, event: Failed) -> None:
        if event.failure is Failure.STALE:
            self._lose_lease(f"the coordinator no longer knows this incarnation ({event.detail})")
            return
        self._release(step, event.failure, event.detail, event.retry_after_s)
        if step.slots and event.failure is Failure.UNREACHABLE:
            self._disconnect()
        else:
            self._refused(event)

    def _refused(self, event: Failed) -> bool:
        if event.failure is not Failure.NOT_ALLOWED:
            return False
        self._refusal = event.detail
        self.connected = False
        self._shut_down()
        return True

    # --- leaving

    def _shut_down(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        graces = [held.grant.grace_s for held in self.desk]
        self._leave_by = self._out.now + max(graces, default=0.0) + UNKILLABLE_S
        for held in self.desk:
            self.desk.order(held.id, EndReason.NODE_GOING_AWAY)

    def _leave(self) -> None:
        """Leave once all is reported, or when reporting makes no headway; the next agent then reports the rest."""
        if not self._stopping:
            return
        if any(held.may_have_process for held in self.desk):
            gone = self._out.due(self._leave_by)
        else:
            if self._quiet_since is None:
                self._quiet_since = self._out.now
            since = max(self._quiet_since, self.desk.last_answer_at)
            gone = not len(self.desk) or bool(self._refusal) or self._out.due(since + self._patience_s)
        if gone:
            self._left = True
            self._out.put(Leave(self._refusal))
