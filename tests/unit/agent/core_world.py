"""A world around `AgentCore`: answers, loses and repeats calls, pretends processes, and checks every command."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from gamekeeper.agent import messages as m
from gamekeeper.agent.core import AgentCore
from gamekeeper.agent.endings import Exit
from gamekeeper.core.artifacts import ArtifactKind
from gamekeeper.core.jobs import EndReason, ProcessIdentity
from gamekeeper.protocol import (
    BeatReply,
    Claimed,
    Connected,
    FinishedOne,
    FinishOne,
    Grant,
    Observed,
    Stepped,
)

LEASE_S = 20.0
Call = (
    m.SendConnect | m.SendBeat | m.SendClaim | m.SendStarted | m.SendStep | m.Ship | m.FetchInputs
)  # fmt: skip


def grant(attempt: int, grace_s: float = 2.0) -> Grant:
    return Grant(
        attempt=attempt,
        token=attempt * 10,
        job=attempt,
        kind="selfplay",
        line="x",
        purpose="",
        seed=1,
        command=["true"],
        parameters={},
        wanted={},
        inputs={},
        grace_s=grace_s,
        time_limit_s=None,
    )


def identity(attempt: int) -> ProcessIdentity:
    return ProcessIdentity("boot", 1000 + attempt, attempt)


@dataclass
class World:
    """Holds what is true outside of the core, and raises `AssertionError` when a command contradicts it."""

    slots: int = 2
    now: float = 1000.0
    next_attempt: int = 1
    lease_until: float = 0.0
    incarnation: str = ""
    settings_hash: str | None = None
    calls: dict[int, tuple[Call, float]] = field(default_factory=dict)
    answered: list[m.Event] = field(default_factory=list)
    granted: dict[int, Grant] = field(default_factory=dict)
    starting: set[int] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    ever_started: set[int] = field(default_factory=set)
    told_to_stop: set[int] = field(default_factory=set)
    forgotten: set[int] = field(default_factory=set)
    void: set[int] = field(default_factory=set)
    finishes: dict[int, list[FinishOne]] = field(default_factory=dict)
    booked: dict[int, int] = field(default_factory=dict)
    deadlines: dict[int, float] = field(default_factory=dict)
    leased: bool = False
    was_leased: bool = False
    left: bool = False
    shut: bool = False

    def __post_init__(self) -> None:
        self.core = AgentCore(self.slots, random.Random(7), claim_wait_s=10.0)

    def begin(self, *found: m.RestoredAttempt) -> None:
        for attempt in found:
            self.granted[attempt.grant.attempt] = attempt.grant
            self.running.add(attempt.grant.attempt)
            self.ever_started.add(attempt.grant.attempt)
            self.next_attempt = max(self.next_attempt, attempt.grant.attempt + 1)
        self.send(m.Restored(found))
        self.send(m.Measured(Observed(), True))

    def send(self, event: m.Event) -> list[m.Command]:
        commands = self.core.handle(event, self.now)
        if self.left:
            assert not commands, "commands after leaving"
            return []
        if self.core.lease is None and self.leased:
            assert self.now >= self.lease_until - 0.2 * LEASE_S, "gave up a good lease"
            self.lose_all()
        self.leased = self.core.lease is not None
        for command in commands:
            self._check(command)
        self.check_state()
        return commands

    # --- checks

    def _check(self, command: m.Command) -> None:
        assert not self.left, "a command after leaving"
        if isinstance(command, m.Leave):
            self.left = True
        elif isinstance(command, m.Note):
            pass
        elif isinstance(command, m.StartProcess):
            self._check_start(command)
        elif isinstance(command, m.SetDeadline):
            assert command.attempt in self.running
            assert command.attempt not in self.void
            assert command.stop_at <= command.gone_by < self.lease_until
            self.deadlines[command.attempt] = command.gone_by
        elif isinstance(command, m.StopProcess):
            assert command.attempt in self.running
            self.told_to_stop.add(command.attempt)
        elif isinstance(command, m.Forget):
            assert command.attempt not in self.forgotten, "forgotten twice"
            assert command.attempt not in self.running | self.starting, "forgotten while it runs"
            assert command.attempt in self.void or self.booked.get(command.attempt), "forgotten untold"
            self.forgotten.add(command.attempt)
        else:
            self._check_call(command)

    def _check_start(self, command: m.StartProcess) -> None:
        attempt = command.grant.attempt
        assert self.now < self.lease_until, "started without a lease"
        assert self.now <= command.stop_at <= command.gone_by < self.lease_until
        assert attempt not in self.ever_started, "a second process for one attempt"
        assert attempt not in self.void | self.forgotten, "started although its lease was lost"
        assert not self.finishes.get(attempt), "started after its end was reported"
        self.starting.add(attempt)
        self.ever_started.add(attempt)
        assert len(self.starting | self.running) <= self.slots, "more processes than slots"

    def _check_call(self, command: Call) -> None:
        assert command.serial not in self.calls
        self.calls[command.serial] = (command, self.now)
        if isinstance(command, m.SendConnect | m.SendBeat | m.SendStep):
            assert command.message.settings_hash == self.settings_hash, "names settings it was not handed"
        if isinstance(command, m.SendConnect):
            held = {item.attempt for item in command.message.held}
            assert not held & (self.void | self.forgotten), "claims what it lost"
            return
        assert self.now < self.lease_until, f"{type(command).__name__} without a lease"
        if isinstance(command, m.SendBeat | m.SendClaim):
            assert command.message.incarnation == self.incarnation
            return
        if isinstance(command, m.SendStep):
            assert command.message.incarnation == self.incarnation
            assert command.message.finished, "a step that reports nothing"
            for ended in command.message.finished:
                self._check_named(ended.attempt)
                assert ended.attempt not in self.running | self.starting, "reported while it runs"
                former = self.finishes.setdefault(ended.attempt, [])
                if former:
                    assert former[0] == ended, "a repeated report differs"
                former.append(ended)
            return
        self._check_named(command.grant.attempt if isinstance(command, m.FetchInputs) else command.attempt)

    def _check_named(self, attempt: int) -> None:
        assert attempt not in self.void, "spoke of an attempt it had lost"
        assert attempt not in self.forgotten

    def check_state(self) -> None:
        if self.left:
            return
        asking = m.SendClaim | m.SendStep
        asked = [call.message.slots for call, _ in self.calls.values() if isinstance(call, asking)]
        assert self.core.asked <= sum(asked)
        occupied = self.core.desk.occupied
        assert len(self.starting | self.running) <= occupied
        assert occupied + self.core.asked <= self.slots or not self.core.asked, "over-committed"
        if self.was_leased and self.now >= self.lease_until - 0.05 * LEASE_S:
            assert self.running <= self.told_to_stop, "runs on without a lease"
        assert self.running & self.void <= self.told_to_stop, "a lost attempt runs on"

    def lose_all(self) -> None:
        """From here on nothing granted so far counts any more."""
        self.void |= set(self.granted) - self.forgotten

    # --- the other side

    def succeed(self, serial: int, grants: int = 0, stop: tuple[int, ...] = (), drain: bool = False) -> None:
        """Answer a call as the coordinator (or the disk) would."""
        call, sent_at = self.calls.pop(serial)
        event: m.Event
        if isinstance(call, m.SendConnect):
            current = serial == self.core._connecting
            held = [item.attempt for item in call.message.held]
            keep = [attempt for attempt in held if attempt not in stop]
            reply = Connected(
                lease_s=LEASE_S,
                expires_in_s=LEASE_S,
                keep=keep,
                stop=[attempt for attempt in held if attempt in stop],
                settings_hash=f"s{serial}",
            )
            event = m.ConnectAnswered(serial, sent_at, reply)
            if current:
                self.incarnation = call.message.incarnation
                self.settings_hash = reply.settings_hash
                self.lease_until = sent_at + LEASE_S
                self.was_leased = self.leased = True
                self.void |= set(self.granted) - set(keep) - self.forgotten
        elif isinstance(call, m.SendBeat):
            if serial == self.core._beating:
                self.lease_until = max(self.lease_until, sent_at + LEASE_S)
                self.settings_hash = f"s{serial}"
            event = m.BeatAnswered(
                serial,
                sent_at,
                BeatReply(expires_in_s=LEASE_S, stop=list(stop), draining=drain, settings_hash=f"s{serial}"),
            )
        elif isinstance(call, m.SendClaim):
            fresh = [grant(self.next_attempt + number) for number in range(min(grants, call.message.slots))]
            if serial in self.core._claims:
                self.granted |= {item.attempt: item for item in fresh}
            self.next_attempt += len(fresh)
            event = m.ClaimAnswered(serial, Claimed(grants=fresh, draining=drain))
        elif isinstance(call, m.SendStarted):
            event = m.StartedAnswered(serial)
        elif isinstance(call, m.SendStep):
            event = self._step(serial, call, sent_at, grants, stop, drain)
        elif isinstance(call, m.Ship):
            event = m.Shipped(serial, "", "")
        else:
            event = m.InputsReady(serial)
        self.answered.append(event)
        self.send(event)

    def _step(
        self, serial: int, call: m.SendStep, sent_at: float, grants: int, stop: tuple[int, ...], drain: bool
    ) -> m.StepAnswered:
        """Book the ends, renew the lease, grant."""
        done = []
        for ended in call.message.finished:
            self.booked[ended.attempt] = self.booked.get(ended.attempt, 0) + 1
            done.append(
                FinishedOne(attempt=ended.attempt, result="applied", state="succeeded", reason="", detail="")
            )
        fresh = [grant(self.next_attempt + number) for number in range(min(grants, call.message.slots))]
        self.next_attempt += len(fresh)
        if serial in self.core._steps:
            self.granted |= {item.attempt: item for item in fresh}
            self.lease_until = max(self.lease_until, sent_at + LEASE_S)
            if self.core.lease is not None:
                self.settings_hash = f"s{serial}"
        reply = Stepped(
            expires_in_s=LEASE_S,
            stop=list(stop),
            draining=drain,
            settings_hash=f"s{serial}",
            finished=done,
            grants=fresh,
        )
        return m.StepAnswered(serial, sent_at, reply)

    def fail(self, serial: int, failure: m.Failure) -> None:
        """Let a call fail."""
        call, _ = self.calls.pop(serial)
        stale = failure is m.Failure.STALE
        if isinstance(call, m.SendBeat | m.SendClaim | m.SendStep):
            core = self.core
            awaited = serial == core._beating or serial in core._claims or serial in core._steps
            if (
                isinstance(call, m.SendStep)
                and failure in (m.Failure.REJECTED, m.Failure.NOT_ALLOWED)
                and awaited
            ):
                self.void |= {ended.attempt for ended in call.message.finished}
            if stale and awaited:
                self.lose_all()
                self.lease_until = self.now
        elif not isinstance(call, m.SendConnect):
            attempt = call.grant.attempt if isinstance(call, m.FetchInputs) else call.attempt
            # a dead right, or a report that will never be taken: forgetting it silently is allowed
            rejected = failure is m.Failure.REJECTED and not isinstance(call, m.FetchInputs | m.Ship)
            if rejected or failure in (m.Failure.STALE, m.Failure.NOT_ALLOWED):
                self.may_be_lost(serial, attempt, failure, call)
        event = m.Failed(serial, failure, "said so", 0.0)
        self.answered.append(event)
        self.send(event)

    def may_be_lost(self, serial: int, attempt: int, failure: m.Failure, call: Call) -> None:
        if serial not in self.core.desk._awaited or isinstance(call, m.FetchInputs):
            return
        if failure is m.Failure.REJECTED and isinstance(call, m.SendStarted):
            return
        self.void.add(attempt)

    def process_starts(self, attempt: int) -> None:
        self.starting.discard(attempt)
        self.running.add(attempt)
        self.send(m.ProcessStarted(attempt, identity(attempt), self.now))

    def start_fails(self, attempt: int) -> None:
        self.starting.discard(attempt)
        self.send(m.StartFailed(attempt, EndReason.CANNOT_START, "no such file"))

    def seal(self, attempt: int, name: str) -> None:
        self.send(m.FileSealed(attempt, m.SealedFile(name, ArtifactKind.SHARD, 10, None, {})))

    def process_ends(self, attempt: int, exit_: Exit | None = None) -> None:
        self.running.discard(attempt)
        self.send(m.ProcessEnded(attempt, exit_ or Exit("exited", 0, receipt={"games": 1})))

    def pass_time(self, seconds: float) -> None:
        """Let time pass, waking the core whenever it asked for it."""
        end = self.now + seconds
        for _ in range(1000):
            wake = self.core.next_wake
            if wake > end or self.left:
                break
            self.now = max(self.now, wake)
            self.send(m.Tick())
        self.now = end
        self.send(m.Tick())

    def settle(self, steps: int = 200, grants: int = 0) -> None:
        """A kind coordinator and willing processes: everything comes to its end."""
        for _ in range(steps):
            if self.left or (grants == 0 and self.core.connected and not len(self.core.desk)):
                break
            for serial in list(self.calls):
                if serial in self.calls and not (
                    isinstance(self.calls[serial][0], m.SendClaim) and not grants
                ):
                    self.succeed(serial, grants=grants)
            for attempt in list(self.starting):
                self.process_starts(attempt)
            for attempt in list(self.running):
                self.process_ends(attempt)
            self.pass_time(0.5)
