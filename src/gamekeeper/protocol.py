"""The messages between agents, people and the coordinator: strict, bounded, versioned JSON over HTTP.

Every body is one of these models; unknown fields are errors. Times are seconds since the Unix epoch on the
coordinator's clock, durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gamekeeper.core.artifacts import ArtifactKind
from gamekeeper.core.jobs import EndReason, FailureRule

PROTOCOL_VERSION = 2
OLDEST_VERSION = 1

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")]
SettingsHash = Annotated[str, Field(max_length=64)]
Sentence = Annotated[str, Field(max_length=2000)]


class Message(BaseModel):
    """Base of all messages: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Observed(Message):
    """What an agent measured about its machine; `None` where it could not."""

    cpu_count: int | None = None
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    load: float | None = None


class GpuDevice(Message):
    """One GPU of a machine, at its place in the list; `memory_bytes` is `None` where nobody knows it."""

    name: Annotated[str, Field(max_length=120)]
    memory_bytes: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None


Label = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._/-]+$")]


class Machine(Message):
    """What a machine is: declared by whoever set it up, or measured where that is possible; `None` where unknown.

    `cpus` and `memory_bytes` stand here only when they are declared: they then count instead of what is observed.
    """

    architecture: Annotated[str, Field(max_length=40)] | None = None
    cpus: Annotated[float, Field(gt=0, le=65536)] | None = None
    memory_bytes: Annotated[int, Field(gt=0, lt=1 << 62)] | None = None
    gpus: Annotated[list[GpuDevice], Field(max_length=64)] | None = None
    labels: Annotated[dict[Label, Label], Field(max_length=32)] = {}
    ephemeral: bool = False


class Enrol(Message):
    """A machine asks for an identity, proving the right to with a join token (in the Authorization header)."""

    protocol: int
    host_name: Annotated[str, Field(min_length=1, max_length=255)]
    slots: Annotated[int, Field(ge=1, le=1024)]


class Enrolled(Message):
    """The node's identity, issued once, and the credential for all further calls (stored hashed here)."""

    node_id: str
    credential: str
    protocol: int


class Held(Message):
    """An attempt an agent still owns, with the token it was granted under."""

    attempt: int
    token: int


class Connect(Message):
    """An agent process starts: it names its fresh incarnation and the attempts it re-adopted.

    `unsure` lists attempts it was granted (or may have been) whose process it cannot find: they are lost.
    """

    protocol: int
    incarnation: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    slots: Annotated[int, Field(ge=1, le=1024)]
    held: Annotated[list[Held], Field(max_length=1024)]
    observed: Observed
    machine: Machine = Machine()
    settings_hash: SettingsHash | None = None
    """The settings this agent was last told to be in force; `None` before anybody told it."""


class Connected(Message):
    """The agent's lease. Attempts in `stop` are no longer its own: it must end them and drop their results.

    All attempts of earlier incarnations of this node that were not named in `held` have been ended as
    lost (agent-restarted).
    """

    lease_s: float
    expires_in_s: float
    keep: list[int]
    stop: list[int]
    settings_hash: SettingsHash


class InputFile(Message):
    """One input of a job: fetch it by hash."""

    hash: Hash
    bytes: int
    name: str
    metadata: dict[str, JsonValue]


class GpuPart(Message):
    """A device that was set aside for an attempt, by its place among the node's devices, and how much of it."""

    index: Annotated[int, Field(ge=0, lt=64)]
    share: Annotated[float, Field(gt=0, le=1)]


class Grant(Message):
    """A job leased to this agent: all it needs to run it. `gpus` are the devices set aside for it."""

    attempt: int
    token: int
    job: int
    kind: str
    line: str
    purpose: str
    seed: int
    command: list[str]
    parameters: dict[str, JsonValue]
    wanted: dict[str, JsonValue]
    inputs: dict[str, list[InputFile]]
    grace_s: float
    time_limit_s: float | None
    gpus: list[GpuPart] = []


class Claim(Message):
    """Ask for up to `slots` jobs, waiting up to `wait_s` while there are none.

    `cached`: inputs that this machine has at hand; jobs that need them are sent here rather than elsewhere.
    """

    incarnation: str
    slots: Annotated[int, Field(ge=1, le=1024)]
    wait_s: Annotated[float, Field(ge=0, le=60)]
    cached: Annotated[list[Hash], Field(max_length=256)] = []


class Claimed(Message):
    """Granted jobs; may be empty. `draining`: nothing will be granted any more."""

    grants: list[Grant]
    draining: bool = False


class Started(Message):
    """The attempt's process runs, under this identity."""

    token: int
    boot_id: Annotated[str, Field(max_length=64)]
    pid: int
    start_ticks: int


class AttemptProgress(Message):
    """Cumulative progress of a live attempt, in its kind's unit."""

    attempt: int
    token: int
    units: Annotated[int, Field(ge=0)]
    note: Annotated[str, Field(max_length=200)] = ""
    figures: dict[Annotated[str, Field(max_length=40)], float] = {}
    process_s: Annotated[float, Field(ge=0)] = 0.0
    """Seconds in which the attempt's process has been running, so far."""


class Beat(Message):
    """Renews the one lease of this incarnation, with all its attempts."""

    incarnation: str
    attempts: Annotated[list[AttemptProgress], Field(max_length=1024)]
    observed: Observed
    settings_hash: SettingsHash | None = None
    """The settings this agent was last told to be in force."""


class BeatReply(Message):
    """The renewed lease. `stop`: attempts to end (cancelled, or no longer this agent's)."""

    expires_in_s: float
    stop: list[int]
    draining: bool
    settings_hash: SettingsHash


class SealArtifact(Message):
    """All bytes of a file are up: verify and register it. Attempt, token and hash stand in the path."""

    kind: ArtifactKind
    name: Name
    bytes: Annotated[int, Field(gt=0)]
    metadata: dict[str, JsonValue]


class Sealed(Message):
    """The verdict on an artifact: visible (`accepted`), or refused with the class of the problem and its words."""

    accepted: bool
    problem: str = ""
    detail: str = ""


class UploadState(Message):
    """How much of an upload has arrived; `complete` when the artifact is verified and visible already."""

    offset: int
    complete: bool


class Finish(Message):
    """An attempt ended. `reason` is the agent's finding; the coordinator judges the receipt itself."""

    token: int
    reason: EndReason
    detail: Sentence = ""
    exit_code: int | None = None
    receipt: JsonValue = None
    units: Annotated[int, Field(ge=0)] = 0
    process_s: Annotated[float, Field(ge=0)] = 0.0


class Finished(Message):
    """What became of it. `applied` once; the same call again answers `already` with the same state."""

    result: Literal["applied", "already"]
    state: str
    reason: str
    detail: str


class FinishOne(Finish):
    """The end of one attempt among others."""

    attempt: int


class Step(Message):
    """All an agent has to say at once: ends of attempts, progress of the others, and how many jobs it can take.

    It renews the lease. Everything is applied in one commit, the claim too; only a step with nothing to report may
    wait (`wait_s`) until there is work.
    """

    incarnation: str
    finished: Annotated[list[FinishOne], Field(max_length=256)] = []
    attempts: Annotated[list[AttemptProgress], Field(max_length=1024)] = []
    observed: Observed
    slots: Annotated[int, Field(ge=0, le=1024)] = 0
    wait_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    cached: Annotated[list[Hash], Field(max_length=256)] = []
    settings_hash: SettingsHash | None = None
    """The settings this agent was last told to be in force."""


class FinishedOne(Finished):
    """What became of one attempt. `stale`: it was not this agent's any more, and its results are dropped."""

    attempt: int
    stale: bool = False


class Stepped(Message):
    """The answer: the renewed lease, what became of the ended attempts, and the jobs that were granted."""

    expires_in_s: float
    stop: list[int]
    draining: bool
    settings_hash: SettingsHash
    finished: list[FinishedOne]
    grants: list[Grant]


class NeedOf(Message):
    """A job that must be done first: one that exists (`job`), or an earlier one of the group by its place from 0.

    `rule`: what becomes of the needing job when it ends otherwise.
    """

    job: Annotated[int | None, Field(ge=1, lt=1 << 62)] = None
    in_group: Annotated[int | None, Field(ge=0, lt=100_000)] = None
    rule: FailureRule = FailureRule.CANCEL


class JobRequest(Message):
    """A job that somebody wants done; see `core.jobs.JobSpec` for the fields."""

    kind: Annotated[str, Field(min_length=1, max_length=120)]
    line: Annotated[str, Field(min_length=1, max_length=120)]
    command: Annotated[list[str], Field(min_length=1, max_length=4096)]
    parameters: dict[str, JsonValue] = {}
    wanted: dict[str, JsonValue] = {}
    inputs: dict[str, list[Hash]] = {}
    purpose: Annotated[str, Field(max_length=120)] = ""
    seed: int = 0
    key: Annotated[str | None, Field(min_length=1, max_length=500)] = None
    grace_s: float = 10.0
    time_limit_s: float | None = None
    failures_allowed: int = 3
    losses_allowed: int = 20
    requirements: dict[str, JsonValue] = {}
    needs: Annotated[list[NeedOf], Field(max_length=1000)] = []
    share: float = 1.0
    not_before: float = 0.0
    deadline: float | None = None


class SubmitJobs(Message):
    """Jobs to be stored together, all or none. `producer`: who asks, the unit of quotas."""

    jobs: Annotated[list[JobRequest], Field(min_length=1, max_length=10_000)]
    producer: Annotated[str, Field(min_length=1, max_length=120)] = "people"


class SubmittedJob(Message):
    """A job that was stored, or the one that had its key already."""

    id: int
    created: bool


class Because(Message):
    """Why something is asked for; kept in the log."""

    reason: Sentence = ""


class BulkRequest(Message):
    """An operation on many jobs: those with these `ids`, and of them those for which all conditions of `where` hold."""

    verb: Literal["cancel", "hold", "release", "retry"]
    where: Annotated[str, Field(max_length=10_000)] = ""
    ids: Annotated[list[Annotated[int, Field(ge=1, lt=1 << 62)]], Field(max_length=10_000)] = []
    reason: Sentence = ""


class ExcludeRequest(Message):
    """Grant nothing to a node for a while."""

    for_s: Annotated[float, Field(gt=0, le=365 * 86400)]
    because: Annotated[Sentence, Field(min_length=1)]


class ErrorBody(Message):
    """Every error answer: a stable code, what happened, and the remedy."""

    code: str
    message: str
    remedy: str
    retry_after_s: float | None = None
