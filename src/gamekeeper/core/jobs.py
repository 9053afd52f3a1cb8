"""Jobs and attempts: what is wanted, and each try at it, with their legal state changes as data.

A job waits until the jobs it needs are done, is ready until an agent is granted it, runs, and ends; before it runs, a
person may hold it back. An
attempt is one try on one node under one fencing token. An attempt that ends badly sends its job
back to ready while the budget lasts: `failures` counts tries in which the work itself failed, `losses`
those in which only the machine was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.errors import IllegalTransition
from gamekeeper.core.requirements import GpuShare, Requirements

JsonMap = Mapping[str, object]


class JobState(StrEnum):
    """Where a job stands. `done`, `failed`, `cancelled`, `skipped` and `dead` are final.

    `waiting`: jobs it needs are not done. `held`: a person holds it back. `skipped`: it never ran, because one it needs
    ended badly, but counts as met for those that need it. `dead`: parked for a person.
    """

    WAITING = "waiting"
    READY = "ready"
    HELD = "held"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    DEAD = "dead"


_UNSTARTED_ENDS = frozenset({JobState.CANCELLED, JobState.SKIPPED, JobState.DEAD})

JOB_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.READY, JobState.HELD}) | _UNSTARTED_ENDS,
    JobState.READY: frozenset({JobState.RUNNING, JobState.HELD}) | _UNSTARTED_ENDS,
    JobState.HELD: frozenset({JobState.WAITING, JobState.READY}) | _UNSTARTED_ENDS,
    JobState.RUNNING: frozenset(
        {JobState.READY, JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.DEAD}
    ),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.SKIPPED: frozenset(),
    JobState.DEAD: frozenset(),
}


class AttemptState(StrEnum):
    """Where a try stands. `leased`, `running` and `ending` are live; the rest are final."""

    LEASED = "leased"
    RUNNING = "running"
    ENDING = "ending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    HOLLOW = "hollow"
    LOST = "lost"
    STOPPED = "stopped"
    REFUSED = "refused"


_ATTEMPT_ENDS = frozenset(
    {
        AttemptState.SUCCEEDED,
        AttemptState.FAILED,
        AttemptState.HOLLOW,
        AttemptState.LOST,
        AttemptState.STOPPED,
        AttemptState.REFUSED,
    }
)

ATTEMPT_TRANSITIONS: Mapping[AttemptState, frozenset[AttemptState]] = {
    AttemptState.LEASED: frozenset({AttemptState.RUNNING, AttemptState.ENDING}) | _ATTEMPT_ENDS,
    AttemptState.RUNNING: frozenset({AttemptState.ENDING}) | _ATTEMPT_ENDS,
    AttemptState.ENDING: _ATTEMPT_ENDS,
    **{end: frozenset() for end in AttemptState if end in _ATTEMPT_ENDS},
}

LIVE_ATTEMPTS = frozenset({AttemptState.LEASED, AttemptState.RUNNING, AttemptState.ENDING})
FINAL_JOBS = frozenset(state for state, following in JOB_TRANSITIONS.items() if not following)


class EndReason(StrEnum):
    """Why an attempt ended; closed, and each maps to a state through `END_STATES`."""

    FINISHED = "finished"
    OWN_ERROR = "own-error"
    NO_RECEIPT = "no-receipt"
    NO_EVIDENCE = "no-evidence"
    DATA_REFUSED = "data-refused"
    MISSING_OUTPUT = "missing-output"
    OUT_OF_MEMORY = "out-of-memory"
    TIME_LIMIT = "time-limit"
    KILLED = "killed"
    LEASE_EXPIRED = "lease-expired"
    AGENT_RESTARTED = "agent-restarted"
    NODE_GOING_AWAY = "node-going-away"
    CANNOT_START = "cannot-start"
    INPUT_UNAVAILABLE = "input-unavailable"
    SPOOL_FULL = "spool-full"
    STOP_REQUESTED = "stop-requested"


END_STATES: Mapping[EndReason, AttemptState] = {
    EndReason.FINISHED: AttemptState.SUCCEEDED,
    EndReason.OWN_ERROR: AttemptState.FAILED,
    EndReason.NO_RECEIPT: AttemptState.HOLLOW,
    EndReason.NO_EVIDENCE: AttemptState.HOLLOW,
    EndReason.DATA_REFUSED: AttemptState.FAILED,
    EndReason.MISSING_OUTPUT: AttemptState.FAILED,
    EndReason.OUT_OF_MEMORY: AttemptState.FAILED,
    EndReason.TIME_LIMIT: AttemptState.FAILED,
    EndReason.KILLED: AttemptState.LOST,
    EndReason.LEASE_EXPIRED: AttemptState.LOST,
    EndReason.AGENT_RESTARTED: AttemptState.LOST,
    EndReason.NODE_GOING_AWAY: AttemptState.STOPPED,
    EndReason.CANNOT_START: AttemptState.REFUSED,
    EndReason.INPUT_UNAVAILABLE: AttemptState.REFUSED,
    EndReason.SPOOL_FULL: AttemptState.REFUSED,
    EndReason.STOP_REQUESTED: AttemptState.STOPPED,
}


class Budget(StrEnum):
    """Which allowance of a job an ended attempt uses up."""

    FAILURE = "failure"
    LOSS = "loss"
    NONE = "none"


END_BUDGETS: Mapping[AttemptState, Budget] = {
    AttemptState.SUCCEEDED: Budget.NONE,
    AttemptState.FAILED: Budget.FAILURE,
    AttemptState.HOLLOW: Budget.FAILURE,
    AttemptState.LOST: Budget.LOSS,
    AttemptState.STOPPED: Budget.NONE,
    AttemptState.REFUSED: Budget.LOSS,
}


def check_job_transition(job_id: int, current: JobState, following: JobState) -> None:
    """Raise `IllegalTransition` unless a job may go from `current` to `following`."""
    if following not in JOB_TRANSITIONS[current]:
        raise IllegalTransition(
            f"job {job_id} cannot go from {current} to {following}",
            remedy=f"see `gamekeeper why job {job_id}`",
        )


def check_attempt_transition(attempt_id: int, current: AttemptState, following: AttemptState) -> None:
    """Raise `IllegalTransition` unless an attempt may go from `current` to `following`."""
    if following not in ATTEMPT_TRANSITIONS[current]:
        raise IllegalTransition(f"attempt {attempt_id} cannot go from {current} to {following}")


class FailureRule(StrEnum):
    """What becomes of a job when one that it needs ends without being done.

    `cancel`: it is cancelled, and those that need it are treated by their own rules. `skip`: it ends skipped, without
    having run, and counts as met for those that need it. `run`: it runs all the same.
    """

    CANCEL = "cancel"
    SKIP = "skip"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Need:
    """A job that must be done before another may run, and the rule for the case that it never will be."""

    job_id: int
    rule: FailureRule = FailureRule.CANCEL


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A piece of wanted work, as it is submitted.

    `inputs` maps a role ("model", "shards", "candidate", …) to artifact hashes, in order; `wanted` says how
    much is wanted; `parameters` are the stage's own. `purpose` tells jobs of one kind apart
    (an `evaluate` job may serve "promotion", "canary" or "rating"). `key`, when given, makes the
    submission idempotent: a second job with the key of a live or done one is not created.
    `requirements` is what it takes of a node, `share` its weight among the jobs of its lane, `producer` who
    asked for it (the unit of submission quotas). `not_before` and `deadline` are seconds since the epoch: it is not
    granted before the one, and cancelled when it is not over by the other.
    """

    kind: str
    line: str
    command: tuple[str, ...]
    parameters: JsonMap = field(default_factory=dict)
    wanted: JsonMap = field(default_factory=dict)
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    purpose: str = ""
    seed: int = 0
    key: str | None = None
    grace_s: float = 10.0
    time_limit_s: float | None = None
    failures_allowed: int = 3
    losses_allowed: int = 20
    requirements: Requirements = field(default_factory=Requirements)
    needs: tuple[Need, ...] = ()
    share: float = 1.0
    producer: str = ""
    not_before: float = 0.0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A stored job: its specification, state, and how much of its budgets is used.

    `retry_of`: the ended job it was copied from.
    """

    id: int
    spec: JobSpec
    state: JobState
    failures: int
    losses: int
    created_at: float
    not_before: float
    ended_at: float | None
    reason: str
    retry_of: int | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A stored attempt. `token` is the fencing token that every write on its behalf must carry.

    `gpus` are the devices, or the part of one, that were set aside for it on its node.
    """

    id: int
    job_id: int
    node_id: str
    incarnation: str
    token: int
    state: AttemptState
    leased_at: float
    started_at: float | None
    ended_at: float | None
    reason: EndReason | None
    detail: str
    units: int
    gpus: tuple[GpuShare, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Names one process for good: a pid alone is reused, this triple is not.

    `start_ticks` is field 22 of /proc/PID/stat (clock ticks after boot), `boot_id` the kernel's
    /proc/sys/kernel/random/boot_id.
    """

    boot_id: str
    pid: int
    start_ticks: int
