"""Events: the closed set of facts the log may hold.

Each event is a frozen dataclass with a name and a version. `encode` writes it as a JSON object with
every field; `decode` accepts exactly those fields, so that a drifting payload is an error where it is made. Events of
an earlier version are read with what the later one added. An event names the subjects whose story it belongs to.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from typing import Any, Union, get_args, get_origin, get_type_hints

from gamekeeper.core.control_events import CONTROL_EVENTS
from gamekeeper.core.errors import UsageError
from gamekeeper.core.event import Event
from gamekeeper.core.jobs import FINAL_JOBS


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
class JobEnded(Event):
    """A job reached a final state without an attempt of it ending."""

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

    def subjects(self) -> tuple[str, ...]:
        """The job and the node."""
        return f"job/{self.job_id}", f"node/{self.node_id}"


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
    """An attempt reached a final state; `job_state` is what became of its job.

    Where that is final, this is the end of the job too, and belongs to its line: there is no `job-ended` beside it.
    """

    name = "attempt-ended"
    version = 2
    about = {"job": "job_id", "node": "node_id", "line": "line"}
    added = {2: {"line": ""}}
    attempt_id: int
    job_id: int
    node_id: str
    line: str
    state: str
    reason: str
    detail: str
    job_state: str

    def subjects(self) -> tuple[str, ...]:
        """The job and the node; the line when the job is over."""
        mine = (f"job/{self.job_id}", f"node/{self.node_id}")
        return (*mine, f"line/{self.line}") if self.line and self.job_state in FINAL_JOBS else mine


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


EVENT_TYPES: Mapping[str, type[Event]] = {cls.name: cls for cls in (*Event.__subclasses__(), *CONTROL_EVENTS)}


def encode(event: Event) -> dict[str, object]:
    """All fields of `event` by name."""
    return {field.name: getattr(event, field.name) for field in fields(event)}


def as_json(event: Event) -> str:
    """`encode` as compact JSON in ASCII, fast: the template of each type is made once."""
    write = _WRITERS.get(type(event))
    if write is None:
        write = _WRITERS[type(event)] = _writer(type(event))
    return write(event)


_WRITERS: dict[type[Event], Callable[[Event], str]] = {}


def _writer(cls: type[Event]) -> Callable[[Event], str]:
    names, hints = [field.name for field in fields(cls)], get_type_hints(cls)
    template = "{" + ",".join(f"{encode_basestring_ascii(name)}:%s" for name in names) + "}"
    values = attrgetter(*names)
    if len(names) == 1:
        only = _VALUES.get(hints[names[0]], _any_value)
        return lambda event: template % only(values(event))
    forms = [_VALUES.get(hints[name], _any_value) for name in names]
    return lambda event: (
        template % tuple([form(value) for form, value in zip(forms, values(event), strict=True)])
    )


def _any_value(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


_VALUES: Mapping[object, Callable[[Any], str]] = {str: encode_basestring_ascii, int: int.__repr__}


def decode(name: str, version: int, document: Mapping[str, object]) -> Event:
    """Rebuild an event, one of an earlier version too.

    Raises `UsageError` for an unknown name or version, a missing or unknown field, or a wrong type.
    """
    cls = EVENT_TYPES.get(name)
    if cls is None or not 1 <= version <= cls.version:
        raise UsageError(f"unknown event {name!r} version {version}")
    for later in range(version + 1, cls.version + 1):
        document = {**document, **cls.added.get(later, {})}
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
