"""What goes into the agent's core (events) and what comes out (commands).

A command that expects an answer carries a `serial`; the answer carries the same. An answer with a serial that is not
awaited any more is a late or doubled one and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pydantic import JsonValue

from gamekeeper.agent.endings import Exit
from gamekeeper.core.artifacts import ArtifactKind
from gamekeeper.core.jobs import EndReason, ProcessIdentity
from gamekeeper.protocol import (
    Beat,
    BeatReply,
    Claim,
    Claimed,
    Connect,
    Connected,
    Finish,
    Grant,
    Observed,
    Started,
    Step,
    Stepped,
)


class Failure(StrEnum):
    """Why a call or a step did not come through, as far as the core treats them differently.

    `unreachable`: nobody knows whether it took effect. `busy`: it did not, come again. `stale`: the
    right to it is gone. `not-allowed`: the credential is not accepted. `full`: no room. `rejected`: it will never do.
    """

    UNREACHABLE = "unreachable"
    BUSY = "busy"
    STALE = "stale"
    NOT_ALLOWED = "not-allowed"
    FULL = "full"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file a job sealed in its outbox, as its seal declares it. `hash` is `None` when the seal gives none."""

    name: str
    kind: ArtifactKind
    bytes: int
    hash: str | None
    metadata: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class RestoredAttempt:
    """An attempt found on disk at start. Whether it still runs is told by the events that follow.

    `started_at` is in boot seconds; `identity` names the job's process.
    """

    grant: Grant
    identity: ProcessIdentity
    started_at: float


# --- events


@dataclass(frozen=True, slots=True)
class Restored:
    """The first event of all: what was found on disk."""

    attempts: tuple[RestoredAttempt, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """A fresh look at the machine. `room`: whether there is disk space to start anything. `cached`: inputs at hand."""

    observed: Observed
    room: bool
    cached: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectAnswered:
    """The coordinator granted the lease. `sent_at`: boot seconds just before the request was sent."""

    serial: int
    sent_at: float
    reply: Connected


@dataclass(frozen=True, slots=True)
class BeatAnswered:
    """The lease was renewed. `sent_at`: boot seconds just before the request was sent."""

    serial: int
    sent_at: float
    reply: BeatReply


@dataclass(frozen=True, slots=True)
class ClaimAnswered:
    """Grants arrived, or none."""

    serial: int
    reply: Claimed


@dataclass(frozen=True, slots=True)
class StartedAnswered:
    """The coordinator knows the attempt's process."""

    serial: int


@dataclass(frozen=True, slots=True)
class FinishAnswered:
    """The coordinator booked the end of the attempt."""

    serial: int


@dataclass(frozen=True, slots=True)
class StepAnswered:
    """The coordinator booked what ended, renewed the lease and granted what it had. `sent_at` as for a beat."""

    serial: int
    sent_at: float
    reply: Stepped


@dataclass(frozen=True, slots=True)
class InputsReady:
    """All inputs of an attempt lie verified in its folder."""

    serial: int


@dataclass(frozen=True, slots=True)
class Shipped:
    """The coordinator gave its verdict on a file; `problem` is "" when it was accepted."""

    serial: int
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The call or step with this serial did not come through."""

    serial: int
    failure: Failure
    detail: str
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """The job's process runs since `started_at` (boot seconds)."""

    attempt: int
    identity: ProcessIdentity
    started_at: float


@dataclass(frozen=True, slots=True)
class StartFailed:
    """No process was left running."""

    attempt: int
    reason: EndReason
    detail: str


@dataclass(frozen=True, slots=True)
class ProcessEnded:
    """Nothing of the attempt's process is left, and all its sealed files were announced before."""

    attempt: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class FileSealed:
    """A sealed file was seen in the outbox."""

    attempt: int
    file: SealedFile


@dataclass(frozen=True, slots=True)
class FileUnusable:
    """A seal in the outbox that cannot be honoured."""

    attempt: int
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """Cumulative progress, as the job wrote it."""

    attempt: int
    units: int
    note: str
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ShutdownOrdered:
    """This agent shall end: stop all jobs, report them, and leave."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""


Event = (
    Restored | Measured | ConnectAnswered | BeatAnswered | ClaimAnswered | StepAnswered | StartedAnswered
    | FinishAnswered | InputsReady | Shipped | Failed | ProcessStarted | StartFailed | ProcessEnded | FileSealed
    | FileUnusable | Progressed | ShutdownOrdered | Tick
)  # fmt: skip


# --- commands


@dataclass(frozen=True, slots=True)
class SendConnect:
    """Take the node's lease."""

    serial: int
    message: Connect


@dataclass(frozen=True, slots=True)
class SendBeat:
    """Renew the lease."""

    serial: int
    message: Beat


@dataclass(frozen=True, slots=True)
class SendClaim:
    """Ask for jobs."""

    serial: int
    message: Claim


@dataclass(frozen=True, slots=True)
class SendStarted:
    """Tell that the attempt's process runs."""

    serial: int
    attempt: int
    message: Started


@dataclass(frozen=True, slots=True)
class SendStep:
    """Report ends of attempts, renew the lease and ask for jobs, all in one."""

    serial: int
    message: Step


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an attempt, to be reported: the core puts all that are due at one time into one step."""

    serial: int
    attempt: int
    message: Finish


@dataclass(frozen=True, slots=True)
class Ship:
    """Hash and upload a sealed file, and have it judged."""

    serial: int
    attempt: int
    token: int
    file: SealedFile


@dataclass(frozen=True, slots=True)
class FetchInputs:
    """Make the attempt's folder and bring its inputs there."""

    serial: int
    grant: Grant


@dataclass(frozen=True, slots=True)
class StartProcess:
    """Start the attempt's process. It must ask itself to stop at `stop_at` and be gone by `gone_by` (boot seconds)."""

    grant: Grant
    stop_at: float
    gone_by: float


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """Move the deadline of a running attempt (boot seconds)."""

    attempt: int
    stop_at: float
    gone_by: float


@dataclass(frozen=True, slots=True)
class StopProcess:
    """End the attempt's process by the ladder; `ProcessEnded` follows."""

    attempt: int
    reason: EndReason


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing more is owed for this attempt: give up what is under way for it and remove its folder."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Leave:
    """The agent is done. `refusal` says why the coordinator does not accept it, or is ""."""

    refusal: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person may want to read in the log. `attempt` is `None` when it is about the agent."""

    attempt: int | None
    text: str


Command = (
    SendConnect | SendBeat | SendClaim | SendStep | SendStarted | Ship | FetchInputs | StartProcess
    | SetDeadline | StopProcess | Forget | Leave | Note
)  # fmt: skip
