"""What the coordinator tells people: the answers of its read API, and so the `--json` output of the command line."""

from __future__ import annotations

from pydantic import JsonValue

from gamekeeper.protocol import Message


class EvidenceRow(Message):
    """One number a policy compared, the limit, and the setting that limit came from."""

    name: str
    value: JsonValue
    limit: JsonValue
    origin: str


class VerdictRow(Message):
    """A stored verdict about one subject."""

    decision: int
    at: float
    policy: str
    subject: str
    reason: str
    sentence: str
    acted: bool
    evidence: list[EvidenceRow]


class PromotionTest(Message):
    """The running promotion test of a candidate. `low`/`high`: 95 % interval of the Elo difference."""

    model: int
    opponent: int
    pairs: list[int]
    llr: float
    lower: float
    upper: float
    elo: float | None
    low: float | None
    high: float | None


class LineRow(Message):
    """Where one line's loop stands. `stages` counts live jobs by kind: {"selfplay": {"ready": 1, "running": 2}}."""

    line: str
    champion: int | None
    champion_hash: str | None
    generation: int | None
    promotions: int
    verified_games: int
    samples: int
    samples_since_training: int
    loss: float | None
    test: PromotionTest | None
    stages: dict[str, dict[str, int]]
    last_verdict: VerdictRow | None


class JobRow(Message):
    """A job with its latest attempt. `why` is the reason code of its state."""

    id: int
    kind: str
    line: str
    purpose: str
    state: str
    why: str
    failures: int
    losses: int
    node: str | None
    attempt: int | None
    units: int
    unit: str
    created_at: float
    ended_at: float | None


class AttemptRow(Message):
    """One try at a job."""

    id: int
    job: int
    node: str
    state: str
    reason: str | None
    detail: str
    token: int
    units: int
    leased_at: float
    started_at: float | None
    ended_at: float | None


class NeedRow(Message):
    """A job that another needs. `state` is `None` when it is no longer kept."""

    job: int
    rule: str
    met: bool
    state: str | None


class JobDetail(Message):
    """All that is known of a job."""

    job: JobRow
    command: list[str]
    parameters: dict[str, JsonValue]
    wanted: dict[str, JsonValue]
    inputs: dict[str, list[str]]
    requirements: dict[str, JsonValue]
    key: str | None
    producer: str
    seed: int
    share: float
    grace_s: float
    time_limit_s: float | None
    failures_allowed: int
    losses_allowed: int
    not_before: float
    deadline: float | None
    retry_of: int | None
    successor: int | None
    needs: list[NeedRow]
    needed_by: list[int]
    attempts: list[AttemptRow]


class ActedRow(Message):
    """A job after something was done to it. `successor`: the job that a retry made, now or before."""

    id: int
    state: str
    successor: int | None = None


class BulkCount(Message):
    """How many jobs of one state, kind and line an operation would touch."""

    state: str
    kind: str
    line: str
    jobs: int


class BulkSample(Message):
    """A job that an operation would touch."""

    id: int
    kind: str
    line: str
    state: str
    reason: str


class BulkPlan(Message):
    """What an operation on many jobs would touch, and nothing of it done."""

    verb: str
    filter: str
    jobs: int
    counts: list[BulkCount]
    samples: list[BulkSample]


class BulkRow(Message):
    """An operation on many jobs. `looked_at`: the part of the jobs it has been through, from 0 to 1."""

    id: int
    verb: str
    filter: str
    reason: str
    author: str
    state: str
    looked_at: float
    seen: int
    changed: int
    skipped: int
    created_at: float
    ended_at: float | None


class NodeRow(Message):
    """A machine: what it has, what it does, when it was last heard.

    `excluded_until`: until when it is granted nothing, and `excluded_for` what reason.
    `settings_hash`: the settings its agent said it runs under; `other_settings`: whether they are not the
    coordinator's, `None` when it has not said.
    """

    id: str
    host_name: str
    status: str
    slots: int
    busy: int
    last_seen_at: float | None
    cpu_count: int | None
    memory_bytes: int | None
    disk_free_bytes: int | None
    load: float | None
    excluded_until: float | None = None
    excluded_for: str = ""
    settings_hash: str | None = None
    other_settings: bool | None = None


class ModelRow(Message):
    """A model, its parent, and how it fared."""

    id: int
    line: str
    hash: str
    state: str
    champion: bool
    parent: int | None
    steps: int
    samples: int
    loss: float | None
    created_at: float
    why: str


class EventRow(Message):
    """One line of the log."""

    position: int
    at: float
    name: str
    subjects: list[str]
    fields: dict[str, JsonValue]


class Attention(Message):
    """Something a person should look at: what, since when, why, and the next command."""

    subject: str
    sentence: str
    hint: str


class Status(Message):
    """The one-screen answer: the verdict first, then what needs attention, then supply and demand."""

    at: float
    verdict: str
    healthy: bool | None
    draining: bool
    attention: list[Attention]
    lines: list[LineRow]
    slots: int
    slots_busy: int
    slot_utilisation: float | None
    jobs: dict[str, int]
    nodes: dict[str, int]
    last_decision: VerdictRow | None


class Why(Message):
    """The explanation of one subject: a headline, its verdicts (newest first), its attempts and its story."""

    subject: str
    headline: str
    facts: dict[str, JsonValue]
    verdicts: list[VerdictRow]
    attempts: list[AttemptRow]
    events: list[EventRow]
    hint: str


class EloEstimate(Message):
    """An Elo difference with its 95 % interval, from `pairs` game pairs (pentanomial counts of 0 … 2 points)."""

    value: float
    ci95: tuple[float, float]
    pairs: list[int]


class PromotionRow(Message):
    """One move of the champion, with the evidence that allowed it."""

    generation: int
    model: int
    previous: int | None
    at: float
    decision: int
    pairs: list[int]
    score: float | None
    llr: float | None
    elo0: float | None
    elo1: float | None
    alpha: float | None
    beta: float | None
    elo: EloEstimate | None


class ChampionRatings(Message):
    """Measured strength of one champion, from rating games only: {"random": …, "alphabeta:4": …, "first": …}."""

    generation: int
    model: int
    elo: dict[str, EloEstimate]


class LineReport(Message):
    """What one line's loop achieved."""

    line: str
    promotions: int
    verified_games: int
    samples: int
    champion: int | None
    champion_hash: str | None
    elo_vs_random: EloEstimate | None
    elo_vs_first: EloEstimate | None
    elo_vs_alphabeta4: EloEstimate | None
    history: list[PromotionRow]
    ratings: list[ChampionRatings]
    losses: list[float]


class Report(Message):
    """The record of a run, written as report.json."""

    lines: list[LineReport]
    jobs: dict[str, int]
    """Jobs and attempts by outcome: at least done, failed, hollow, lost."""
    slot_utilisation: float | None
    seconds: float
    bytes_verified: int
    lost_artifacts: int
    unverified_visible: int
