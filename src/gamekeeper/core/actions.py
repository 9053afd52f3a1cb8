"""Actions: the closed set of effects a policy may ask for. Each is guarded when it is applied."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.jobs import EndReason, JobSpec
from gamekeeper.core.requirements import GpuShare


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """Enqueue a job, unless one with its key is live or done."""

    spec: JobSpec


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Cancel a job; if it runs, its agent is told to stop it. With `if_ready`, only while it has not started."""

    job_id: int
    reason: str
    if_ready: bool = False


@dataclass(frozen=True, slots=True)
class GrantJob:
    """Lease a ready job to an agent incarnation that has a free slot, with `gpus` set aside for it."""

    job_id: int
    node_id: str
    incarnation: str
    gpus: tuple[GpuShare, ...] = ()


@dataclass(frozen=True, slots=True)
class ParkJob:
    """End a job that is not running as dead: it does harm wherever it runs, and waits for a person."""

    job_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class ExcludeNode:
    """Grant nothing to a node until `until` (seconds since the epoch).

    `blameless`: attempts that failed there and are not to be charged to their jobs.
    """

    node_id: str
    cause: str
    until: float
    blameless: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """End a live attempt from the coordinator's side (its lease is over)."""

    attempt_id: int
    token: int
    reason: EndReason
    detail: str


@dataclass(frozen=True, slots=True)
class MarkNodeLost:
    """Note that no live lease of a node is left."""

    node_id: str


@dataclass(frozen=True, slots=True)
class MoveChampion:
    """Point a line at another model, provided its champion still is `expected` (compare and set)."""

    line: str
    model_id: int
    expected: int | None


@dataclass(frozen=True, slots=True)
class RejectCandidate:
    """Close a candidate for good, with the reason."""

    line: str
    model_id: int
    reason: str


Action = (
    SubmitJob
    | CancelJob
    | GrantJob
    | ParkJob
    | ExcludeNode
    | EndAttempt
    | MarkNodeLost
    | MoveChampion
    | RejectCandidate
)
