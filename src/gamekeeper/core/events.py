"""Events: the closed set of facts the log may hold.

Each event is a frozen dataclass with a name and a version. `encode` writes it as a JSON object with
every field; `decode` accepts exactly those fields, so that a drifting payload is an error where it is made. An event
names the subjects whose story it belongs to.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Union, get_args, get_origin, get_type_hints

from gamekeeper.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. Subclasses set `name`, `version` and `about`: {subject kind: the field that holds its id}."""

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    about: ClassVar[Mapping[str, str]] = {}

    def subjects(self) -> tuple[str, ...]:
        """The things this event is about, as "kind/id"."""
        named = ((kind, getattr(self, field)) for kind, field in self.about.items())
        return tuple(f"{kind}/{value}" for kind, value in named if value not in (None, ""))


@dataclass(frozen=True, slots=True)
class CoordinatorStarted(Event):
    """A coordinator took its role under a new epoch."""

    name = "coordinator-started"
    about = {"role": "role"}
    role: str
    epoch: int
    holder: str


@dataclass(frozen=True, slots=True)
class NodeEnrolled(Event):
    """A machine was issued its identity."""

    name = "node-enrolled"
    about = {"node": "node_id"}
    node_id: str
    host_name: str
    slots: int


@dataclass(frozen=True, slots=True)
class AgentConnected(Event):
    """An agent incarnation took the lease of its node; `adopted` attempts go on under it."""

    name = "agent-connected"
    about = {"node": "node_id"}
    node_id: str
    incarnation: str
    token: int
    adopted: int


@dataclass(frozen=True, slots=True)
class NodeLost(Event):
    """The last lease of a node ran out."""

    name = "node-lost"
    about = {"node": "node_id"}
    node_id: str


@dataclass(frozen=True, slots=True)
class JobSubmitted(Event):
    """A job was accepted."""

    name = "job-submitted"
    about = {"job": "job_id", "line": "line"}
    job_id: int
    kind: str
    line: str
    purpose: str


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


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """A job reached a final state."""

    name = "job-ended"
    about = {"job": "job_id", "line": "line"}
    job_id: int
    line: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptLeased(Event):
    """An agent was granted a job under a fresh token."""

    name = "attempt-leased"
    about = {"job": "job_id", "node": "node_id"}
    attempt_id: int
    job_id: int
    node_id: str
    token: int


@dataclass(frozen=True, slots=True)
class AttemptStarted(Event):
    """The attempt's process runs."""

    name = "attempt-started"
    about = {"job": "job_id", "node": "node_id"}
    attempt_id: int
    job_id: int
    node_id: str
    boot_id: str
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class AttemptEnded(Event):
    """An attempt reached a final state; `job_state` is what became of its job."""

    name = "attempt-ended"
    about = {"job": "job_id", "node": "node_id"}
    attempt_id: int
    job_id: int
    node_id: str
    state: str
    reason: str
    detail: str
    job_state: str


@dataclass(frozen=True, slots=True)
class ArtifactAccepted(Event):
    """A file was verified, validated and made visible."""

    name = "artifact-accepted"
    about = {"artifact": "hash", "job": "job_id", "line": "line"}
    hash: str
    kind: str
    line: str
    job_id: int
    bytes: int
    games: int
    samples: int


@dataclass(frozen=True, slots=True)
class ArtifactRefused(Event):
    """A file was refused at the door."""

    name = "artifact-refused"
    about = {"job": "job_id", "line": "line", "node": "node_id"}
    hash: str
    kind: str
    line: str
    job_id: int
    node_id: str
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class ModelRegistered(Event):
    """A model became known with its parent."""

    name = "model-registered"
    about = {"model": "model_id", "line": "line", "job": "job_id"}
    model_id: int
    line: str
    hash: str
    parent_id: int | None
    job_id: int


@dataclass(frozen=True, slots=True)
class MatchesRecorded(Event):
    """Game pairs of a candidate were booked; `duplicates` were already known and changed nothing."""

    name = "matches-recorded"
    about = {"model": "model_id", "line": "line", "job": "job_id"}
    line: str
    model_id: int
    opponent: str
    purpose: str
    pairs: int
    duplicates: int
    job_id: int


@dataclass(frozen=True, slots=True)
class ChampionMoved(Event):
    """A line's champion changed by a decision."""

    name = "champion-moved"
    about = {"model": "model_id", "line": "line"}
    line: str
    model_id: int
    previous: int | None
    generation: int
    decision_id: int


@dataclass(frozen=True, slots=True)
class CandidateRejected(Event):
    """A candidate was closed by a decision."""

    name = "candidate-rejected"
    about = {"model": "model_id", "line": "line"}
    line: str
    model_id: int
    reason: str
    decision_id: int


@dataclass(frozen=True, slots=True)
class SettingsApplied(Event):
    """The coordinator runs with the settings of this hash."""

    name = "settings-applied"
    about = {"settings": "hash"}
    hash: str


@dataclass(frozen=True, slots=True)
class StopRequested(Event):
    """A person asked the loop to wind down (`draining`: finish what runs, start nothing more)."""

    name = "stop-requested"
    about = {"role": "role"}
    role: str
    reason: str


EVENT_TYPES: Mapping[str, type[Event]] = {cls.name: cls for cls in Event.__subclasses__()}


def encode(event: Event) -> dict[str, object]:
    """All fields of `event` by name."""
    return {field.name: getattr(event, field.name) for field in fields(event)}


def decode(name: str, version: int, document: Mapping[str, object]) -> Event:
    """Rebuild an event.

    Raises `UsageError` for an unknown name or version, a missing or unknown field, or a wrong type.
    """
    cls = EVENT_TYPES.get(name)
    if cls is None or cls.version != version:
        raise UsageError(f"unknown event {name!r} version {version}")
    hints = get_type_hints(cls)
    wanted = {field.name for field in fields(cls)}
    if set(document) != wanted:
        missing, unknown = sorted(wanted - set(document)), sorted(set(document) - wanted)
        raise UsageError(f"event {name}: missing fields {missing}, unknown fields {unknown}")
    for field, value in document.items():
        if not _fits(value, hints[field]):
            raise UsageError(f"event {name}: field {field} holds {value!r:.60}, not {hints[field]}")
    return cls(**document)


def _fits(value: object, hint: object) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if hint is type(None):
        return value is None
    if isinstance(value, bool):
        return hint is bool
    return isinstance(hint, type) and isinstance(value, hint)
