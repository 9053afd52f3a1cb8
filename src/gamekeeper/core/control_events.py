"""Events of what people and policies do to jobs and nodes, one or many."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.event import Event


@dataclass(frozen=True, slots=True)
class JobsSubmitted(Event):
    """Jobs alike with consecutive ids were accepted together. It belongs to the story of each of them."""

    name = "jobs-submitted"
    about = {"line": "line"}
    first_id: int
    last_id: int
    count: int
    kind: str
    line: str
    purpose: str

    def subjects(self) -> tuple[str, ...]:
        """Its line, and the group under its first job."""
        return f"line/{self.line}", group_subject(self.first_id)


def group_subject(first_id: int) -> str:
    """What jobs submitted together are filed under; in the order of their ids when sorted as text."""
    return f"jobs/{first_id:019d}"


@dataclass(frozen=True, slots=True)
class JobHeld(Event):
    """A person holds a job back."""

    name = "job-held"
    about = {"job": "job_id", "line": "line"}
    job_id: int
    line: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobReleased(Event):
    """A job is no longer held back: `state` is what it went to."""

    name = "job-released"
    about = {"job": "job_id", "line": "line"}
    job_id: int
    line: str
    state: str


@dataclass(frozen=True, slots=True)
class JobRetried(Event):
    """An ended job was given a successor with fresh budgets."""

    name = "job-retried"
    about = {"job": "job_id", "line": "line"}
    job_id: int
    successor_id: int
    line: str

    def subjects(self) -> tuple[str, ...]:
        """Both jobs and their line."""
        return f"job/{self.job_id}", f"job/{self.successor_id}", f"line/{self.line}"


@dataclass(frozen=True, slots=True)
class JobCancelRequested(Event):
    """The agent that runs a job is to stop it."""

    name = "job-cancel-requested"
    about = {"job": "job_id", "line": "line"}
    job_id: int
    line: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptsForgiven(Event):
    """Failures on a node are not charged to the jobs: the node was at fault."""

    name = "attempts-forgiven"
    about = {"node": "node_id"}
    node_id: str
    attempts: int
    jobs: int


@dataclass(frozen=True, slots=True)
class NodeExcluded(Event):
    """A node is granted nothing until `until` (seconds since the epoch)."""

    name = "node-excluded"
    about = {"node": "node_id"}
    node_id: str
    cause: str
    author: str
    until: float


@dataclass(frozen=True, slots=True)
class NodeAllowed(Event):
    """A node's exclusion was lifted before its time."""

    name = "node-allowed"
    about = {"node": "node_id"}
    node_id: str
    author: str


@dataclass(frozen=True, slots=True)
class BulkStarted(Event):
    """An operation on many jobs was started."""

    name = "bulk-started"
    about = {"bulk": "bulk_id"}
    bulk_id: int
    verb: str
    filter: str
    author: str


@dataclass(frozen=True, slots=True)
class BulkEnded(Event):
    """An operation on many jobs is done, or was stopped."""

    name = "bulk-ended"
    about = {"bulk": "bulk_id"}
    bulk_id: int
    state: str
    seen: int
    changed: int
    skipped: int


@dataclass(frozen=True, slots=True)
class JobsRemoved(Event):
    """Finished jobs that nothing rests on went, with their attempts."""

    name = "jobs-removed"
    about = {"role": "role"}
    role: str
    first_id: int
    last_id: int
    jobs: int
    attempts: int


CONTROL_EVENTS: tuple[type[Event], ...] = (
    JobsSubmitted, JobHeld, JobReleased, JobRetried, JobCancelRequested, AttemptsForgiven, NodeExcluded, NodeAllowed,
    BulkStarted, BulkEnded, JobsRemoved,
)  # fmt: skip
