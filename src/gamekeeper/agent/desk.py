"""The desk: all attempts of this agent, and the next step of each.

Part of the core: no input or output, no clock. Steps are level-triggered: after every event each attempt is looked
at as it stands, so a lost, doubled or late event cannot leave one behind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from gamekeeper.agent.endings import Ending, judge
from gamekeeper.agent.held import FileState, Held, HeldFile, Phase
from gamekeeper.agent.messages import (
    Command,
    Ended,
    Failed,
    Failure,
    FetchInputs,
    FileSealed,
    FileUnusable,
    FinishAnswered,
    Forget,
    InputsReady,
    Note,
    ProcessEnded,
    ProcessStarted,
    Progressed,
    RestoredAttempt,
    SendStarted,
    SetDeadline,
    Ship,
    Shipped,
    StartedAnswered,
    StartFailed,
    StartProcess,
    StopProcess,
)
from gamekeeper.agent.pacing import Delays, Lease
from gamekeeper.core.jobs import EndReason
from gamekeeper.protocol import AttemptProgress, Grant
from gamekeeper.protocol import Held as HeldMessage

FETCH_TRIES = 3
FULL_TRIES = 8
SHIPS_AT_ONCE = 2
PROBLEMS_TOLD = 5
_UNSTARTED = frozenset({EndReason.CANNOT_START, EndReason.INPUT_UNAVAILABLE, EndReason.SPOOL_FULL})

Answer = InputsReady | StartedAnswered | FinishAnswered | Shipped | Failed


@dataclass(slots=True)
class Outbox:
    """What one turn of the core puts out: commands, serials for their answers, and when to look again.

    `ends` are the ended attempts that are to be reported in this turn.
    """

    now: float = 0.0
    commands: list[Command] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)
    wake_at: float = float("inf")
    _serials: int = 0

    def turn(self, now: float) -> None:
        """Begin a turn with nothing put out."""
        self.now, self.commands, self.ends, self.wake_at = now, [], [], float("inf")

    def serial(self) -> int:
        """A number no earlier command had."""
        self._serials += 1
        return self._serials

    def put(self, command: Command | Ended) -> None:
        """Add a command, or an end to report."""
        if isinstance(command, Ended):
            self.ends.append(command)
        else:
            self.commands.append(command)

    def due(self, at: float) -> bool:
        """Whether `at` has come; if not, the core is woken then."""
        if self.now >= at:
            return True
        self.wake_at = min(self.wake_at, at)
        return False


class _Call(StrEnum):
    FETCH = "fetch"
    STARTED = "started"
    FINISH = "finish"
    SHIP = "ship"


_BULK = frozenset({_Call.FETCH, _Call.SHIP})


@dataclass(frozen=True, slots=True)
class _Awaited:
    call: _Call
    attempt: int
    file: str = ""


@dataclass(frozen=True, slots=True)
class StepUnderWay:
    """What a step asked for: `slots` jobs, and for each attempt it reports the serial that the desk awaits."""

    slots: int
    serials: dict[int, int]


class Desk:
    """The attempts and their steps. `unstarted` counts up with every attempt that ended before it ran."""

    def __init__(self, outbox: Outbox, rng: random.Random) -> None:
        self._out = outbox
        self._held: dict[int, Held] = {}
        self._awaited: dict[int, _Awaited] = {}
        self._delays = Delays(rng, 0.25, 10.0)
        self._calls_at = 0.0
        self.unstarted = 0
        self.last_answer_at = 0.0

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def occupied(self) -> int:
        """Process slots in use, or about to be."""
        return sum(held.occupies_slot for held in self)

    def claims_of_ownership(self) -> list[HeldMessage]:
        """The attempts this agent still stands for."""
        return [HeldMessage(attempt=held.id, token=held.grant.token) for held in self if not held.dropped]

    def progress(self) -> list[AttemptProgress]:
        """What the next beat tells."""
        return [held.progress(self._out.now) for held in self if not held.dropped][:1024]

    # --- from the link

    def restore(self, found: RestoredAttempt) -> None:
        """Take over an attempt of an earlier agent process."""
        self._held[found.grant.attempt] = Held(
            found.grant, Phase.RUNNING, identity=found.identity, started_at=found.started_at
        )

    def accept(self, grant: Grant, refusal: Ending | None) -> None:
        """Take a grant; with a `refusal` only to report it as ended. A grant already held is a repeated one."""
        if grant.attempt in self._held:
            return
        held = self._held[grant.attempt] = Held(grant)
        if refusal is not None:
            self._end(held, refusal)

    def order(self, attempt: int, reason: EndReason) -> None:
        """Have an attempt stopped and reported."""
        held = self._held.get(attempt)
        if held is not None and held.order is None:
            held.order = reason

    def drop(self, held: Held, reason: EndReason) -> None:
        """The right to an attempt is gone: end its process, tell nobody."""
        held.dropped = True
        held.order = held.order or reason
        self._await_nothing(held)

    def extend(self, lease: Lease) -> None:
        """The lease was renewed: move the deadlines of all running attempts."""
        for held in self:
            if held.phase is Phase.RUNNING and not held.dropped:
                self._set_deadline(held, lease)

    # --- events of one attempt

    def process_started(self, event: ProcessStarted, lease: Lease | None) -> None:
        """Its process runs."""
        held = self._held.get(event.attempt)
        if held is None or held.phase is not Phase.STARTING:
            return
        held.phase, held.identity, held.started_at = Phase.RUNNING, event.identity, event.started_at
        self.unstarted = 0
        if lease is not None and not held.dropped:
            self._set_deadline(held, lease)

    def start_failed(self, event: StartFailed) -> None:
        """It could not be started; nothing of it runs."""
        held = self._held.get(event.attempt)
        if held is not None and held.phase is Phase.STARTING:
            self._end(held, Ending(event.reason, event.detail))

    def process_ended(self, event: ProcessEnded) -> None:
        """Nothing of its process is left. Its slot is free from here on."""
        held = self._held.get(event.attempt)
        if held is not None and held.may_have_process:
            self._end(held, judge(event.exit, held.order))

    def file_sealed(self, event: FileSealed) -> None:
        """A file waits to be shipped."""
        held = self._held.get(event.attempt)
        if held is not None and held.may_have_process:
            held.files.setdefault(event.file.name, HeldFile(event.file))

    def file_unusable(self, event: FileUnusable) -> None:
        """A seal names no usable file: told with the attempt's end."""
        held = self._held.get(event.attempt)
        if held is not None and held.may_have_process:
            self._tell_problem(held, f"{event.name}: {event.detail}")

    def progressed(self, event: Progressed) -> None:
        """Progress is cumulative: it never goes back."""
        held = self._held.get(event.attempt)
        if held is not None and held.may_have_process and event.units >= held.units:
            held.units, held.note, held.figures = event.units, event.note, dict(event.figures)

    def answered(self, event: Answer) -> bool:
        """Take in the answer to a call made for an attempt; `False` when nobody awaits it."""
        awaited = self._awaited.pop(event.serial, None)
        held = self._held.get(awaited.attempt) if awaited else None
        if awaited is None or held is None:
            return False
        if awaited.call is not _Call.SHIP:
            held.awaiting = None
        if isinstance(event, Failed):
            self._failed(held, awaited, event)
            return True
        self.last_answer_at = self._out.now
        self._delays.worked()
        if awaited.call is _Call.FETCH and isinstance(event, InputsReady):
            held.phase = Phase.READY
        elif awaited.call is _Call.STARTED:
            held.announced = True
        elif awaited.call is _Call.FINISH:
            self._forget(held)
        elif isinstance(event, Shipped):
            self._settle(held, held.files[awaited.file], event.problem, event.detail)
        return True

    # --- failures

    def _failed(self, held: Held, awaited: _Awaited, event: Failed) -> None:
        if awaited.call is _Call.FETCH:
            self._fetch_failed(held, event)
            return
        file = held.files.get(awaited.file)
        if file is not None:
            file.state = FileState.WAITING
        passing = event.failure in (Failure.UNREACHABLE, Failure.BUSY)
        if passing or (file is None and event.failure is Failure.FULL):
            self._back_off(event)
        elif event.failure in (Failure.STALE, Failure.NOT_ALLOWED):
            self._out.put(Note(held.id, f"no longer this agent's: {event.detail}"))
            self.drop(held, EndReason.LEASE_EXPIRED)
        elif file is not None and event.failure is Failure.FULL:
            file.tries_without_room += 1
            file.not_before = self._out.now + min(30.0, 0.5 * 2.0**file.tries_without_room)
            if file.tries_without_room >= FULL_TRIES:
                self._settle(held, file, "storage-full", event.detail)
        elif file is not None:
            self._settle(held, file, "rejected", event.detail)
        elif awaited.call is _Call.STARTED:
            held.announced = True  # the finish will carry what matters
            self._out.put(Note(held.id, f"start not booked: {event.detail}"))
        else:
            self._out.put(Note(held.id, f"finish not booked: {event.detail}"))
            self.drop(held, EndReason.STOP_REQUESTED)

    def _fetch_failed(self, held: Held, event: Failed) -> None:
        if event.failure is Failure.FULL:
            self._end(held, Ending(EndReason.SPOOL_FULL, event.detail))
        elif event.failure in (Failure.UNREACHABLE, Failure.BUSY):
            self._back_off(event)
        else:
            held.fetch_tries += 1
            held.not_before = self._out.now + 0.5 * held.fetch_tries
            if held.fetch_tries >= FETCH_TRIES:
                self._end(held, Ending(EndReason.INPUT_UNAVAILABLE, event.detail))

    def _back_off(self, event: Failed) -> None:
        if self._out.now >= self._calls_at:
            self._calls_at = self._out.now + max(event.retry_after_s, self._delays.failed())

    def _may_call(self, call: _Call) -> bool:
        """Whether a call may be made now.

        After a failure one call at a time tries, ever less often, until one comes through; then all go on. A
        long transfer never keeps a short call waiting.
        """
        if not self._out.due(self._calls_at):
            return False
        under_way = [awaited.call for awaited in self._awaited.values()]
        if self._delays.troubled:
            return not under_way if call in _BULK else all(other in _BULK for other in under_way)
        return call is not _Call.SHIP or under_way.count(_Call.SHIP) < SHIPS_AT_ONCE

    # --- steps

    def step(self, lease: Lease | None) -> None:
        """Take the next step of every attempt; `lease` is `None` while the coordinator cannot be spoken to."""
        for held in self:
            if held.dropped:
                self._step_dropped(held)
                continue
            if held.phase in (Phase.FETCHING, Phase.READY) and held.order is not None:
                self._end(held, Ending(held.order, "stopped before it started"))
            if held.phase is Phase.RUNNING and held.order is not None:
                self._stop(held)
            if lease is not None:
                self._step(held, lease)

    def _step_dropped(self, held: Held) -> None:
        if held.phase is Phase.RUNNING:
            self._stop(held)
        elif held.phase is not Phase.STARTING:
            self._forget(held)

    def _step(self, held: Held, lease: Lease) -> None:
        if held.phase is Phase.FETCHING and held.awaiting is None and self._out.due(held.not_before):
            self._call(held, _Call.FETCH, partial(FetchInputs, grant=held.grant))
        elif held.phase is Phase.READY:
            held.phase = Phase.STARTING
            self._out.put(StartProcess(held.grant, lease.stop_at(held.grant.grace_s), lease.gone_by))
        elif held.phase is Phase.RUNNING and not held.announced and held.awaiting is None:
            message = held.started()
            self._call(held, _Call.STARTED, partial(SendStarted, attempt=held.id, message=message))
        if held.phase in (Phase.RUNNING, Phase.ENDED):
            for file in held.files.values():
                self._ship(held, file)
        if held.phase is Phase.ENDED and held.all_settled and held.awaiting is None:
            finish = held.finish()
            self._call(held, _Call.FINISH, partial(Ended, attempt=held.id, message=finish))

    def _ship(self, held: Held, file: HeldFile) -> None:
        if file.state is FileState.WAITING and self._out.due(file.not_before):
            make = partial(Ship, attempt=held.id, token=held.grant.token, file=file.sealed)
            if self._call(held, _Call.SHIP, make, file.sealed.name):
                file.state = FileState.SHIPPING

    def _call(self, held: Held, call: _Call, make: Callable[[int], Command | Ended], file: str = "") -> bool:
        if not self._may_call(call):
            return False
        serial = self._out.serial()
        self._awaited[serial] = _Awaited(call, held.id, file)
        if call is not _Call.SHIP:
            held.awaiting = serial
        self._out.put(make(serial))
        return True

    def _stop(self, held: Held) -> None:
        if not held.stop_sent and held.order is not None:
            held.stop_sent = True
            self._out.put(StopProcess(held.id, held.order))

    def _set_deadline(self, held: Held, lease: Lease) -> None:
        self._out.put(SetDeadline(held.id, lease.stop_at(held.grant.grace_s), lease.gone_by))

    def _settle(self, held: Held, file: HeldFile, problem: str, detail: str) -> None:
        file.state = FileState.REFUSED if problem else FileState.ACCEPTED
        if problem:
            self._tell_problem(held, f"{file.sealed.name}: {problem}: {detail}")

    def _tell_problem(self, held: Held, problem: str) -> None:
        self._out.put(Note(held.id, problem))
        if len(held.problems) < PROBLEMS_TOLD:
            held.problems.append(problem[:300])

    def _end(self, held: Held, ending: Ending) -> None:
        """The attempt has ended; what was awaited for its start is not awaited any more."""
        self._awaited.pop(held.awaiting or 0, None)
        held.awaiting, held.not_before = None, 0.0
        held.phase, held.ending = Phase.ENDED, ending
        if ending.reason in _UNSTARTED:
            self.unstarted += 1

    def _forget(self, held: Held) -> None:
        self._await_nothing(held)
        del self._held[held.id]
        self._out.put(Forget(held.id))

    def _await_nothing(self, held: Held) -> None:
        self._awaited = {
            serial: awaited for serial, awaited in self._awaited.items() if awaited.attempt != held.id
        }
        held.awaiting = None
