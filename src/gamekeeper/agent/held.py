"""An attempt this agent holds, from its grant until nothing more is owed for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.agent.endings import Ending
from gamekeeper.agent.messages import SealedFile
from gamekeeper.core.jobs import EndReason, ProcessIdentity
from gamekeeper.protocol import AttemptProgress, Finish, Grant, Started


class Phase(StrEnum):
    """Where an attempt stands on this node. `ready`: its inputs are here.

    While `starting` or `running` it may have a process.
    """

    FETCHING = "fetching"
    READY = "ready"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class FileState(StrEnum):
    """How far a sealed file is. The last two are final."""

    WAITING = "waiting"
    SHIPPING = "shipping"
    ACCEPTED = "accepted"
    REFUSED = "refused"


@dataclass(slots=True)
class HeldFile:
    """A sealed file on its way to the coordinator."""

    sealed: SealedFile
    state: FileState = FileState.WAITING
    not_before: float = 0.0
    tries_without_room: int = 0


@dataclass(slots=True)
class Held:
    """Everything the agent knows of one attempt.

    `order` is why it was told to stop, `dropped` that its results no longer count: once its process is gone it is
    forgotten without a word. Times are boot seconds.
    """

    grant: Grant
    phase: Phase = Phase.FETCHING
    order: EndReason | None = None
    dropped: bool = False
    stop_sent: bool = False
    identity: ProcessIdentity | None = None
    started_at: float | None = None
    announced: bool = False
    awaiting: int | None = None
    not_before: float = 0.0
    fetch_tries: int = 0
    ending: Ending | None = None
    units: int = 0
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    files: dict[str, HeldFile] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def id(self) -> int:
        """The attempt's number."""
        return self.grant.attempt

    @property
    def occupies_slot(self) -> bool:
        """Whether it uses a process slot, now or soon. Shipping the rest and reporting needs none."""
        return self.phase is not Phase.ENDED

    @property
    def may_have_process(self) -> bool:
        """Whether a process of it may be alive."""
        return self.phase in (Phase.STARTING, Phase.RUNNING)

    @property
    def all_settled(self) -> bool:
        """Whether every sealed file got its verdict."""
        return all(file.state in (FileState.ACCEPTED, FileState.REFUSED) for file in self.files.values())

    def seconds_of_process(self, now: float) -> float:
        """How long its process has been running."""
        if self.ending is not None:
            return self.ending.process_s
        return max(0.0, now - self.started_at) if self.started_at is not None else 0.0

    def progress(self, now: float) -> AttemptProgress:
        """Its line in the next beat."""
        return AttemptProgress(
            attempt=self.id,
            token=self.grant.token,
            units=self.units,
            note=self.note,
            figures=self.figures,
            process_s=self.seconds_of_process(now),
        )

    def started(self) -> Started:
        """The message that tells which process it is."""
        if self.identity is None:
            raise ValueError(f"attempt {self.id} has no process")
        return Started(
            token=self.grant.token,
            boot_id=self.identity.boot_id,
            pid=self.identity.pid,
            start_ticks=self.identity.start_ticks,
        )

    def finish(self) -> Finish:
        """The message that reports its end."""
        if self.ending is None:
            raise ValueError(f"attempt {self.id} has not ended")
        detail = "; ".join(part for part in [self.ending.detail, *self.problems] if part)
        return Finish(
            token=self.grant.token,
            reason=self.ending.reason,
            detail=detail[:2000].encode("utf-8", "replace").decode(),
            exit_code=self.ending.exit_code,
            receipt=self.ending.receipt,
            units=self.units,
            process_s=self.ending.process_s,
        )
