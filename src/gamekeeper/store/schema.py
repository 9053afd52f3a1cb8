"""The tables, for both engines. States are checked by the database against the enums of `core`.

Times are seconds since the Unix epoch, JSON is text, flags are 0 or 1. Counters (`job_counts`, `attempt_counts`,
`line_counts`, `pair_counts`, `slot_time`) are kept in the transaction that changes what they count.

Jobs alike in everything that decides where and when they run form a class: whoever matches jobs with nodes looks at
classes and their oldest jobs, never at all jobs.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeEngine

from gamekeeper.core.artifacts import ArtifactKind
from gamekeeper.core.jobs import FINAL_JOBS, LIVE_ATTEMPTS, AttemptState, EndReason, FailureRule, JobState
from gamekeeper.core.matches import Purpose
from gamekeeper.core.models import ModelState
from gamekeeper.core.nodes import NodeStatus

metadata = MetaData()

_INT = BigInteger().with_variant(Integer(), "sqlite")
_TIME: TypeEngine[float] = Double().with_variant(REAL(), "sqlite")


def listed(states: Iterable[str]) -> str:
    """`'a', 'b'`: values of an enum for the right side of IN, in a fixed order."""
    return ", ".join(f"'{state}'" for state in sorted(map(str, states)))


HELD_JOBS: Final = frozenset(JobState) - FINAL_JOBS

# What is over has an end: cheaper to compare than many states, and the tables check that both say the same.
LIVE_ATTEMPT: Final = "ended_at IS NULL"
READY_JOB: Final = f"state = '{JobState.READY}'"
HELD_JOB: Final = "ended_at IS NULL"
FINAL_JOB: Final = "ended_at IS NOT NULL"
FAILED_ATTEMPT: Final = "state IN ('failed', 'hollow')"
KEYED_JOB: Final = f"job_key IS NOT NULL AND (ended_at IS NULL OR state = '{JobState.DONE}')"
HELD_STATE: Final = f"state IN ({listed(HELD_JOBS)})"

# The words of the partial indexes: a query that uses one must hold its very condition.
CONDITIONS: Final = {
    "live_attempt": LIVE_ATTEMPT, "ready_job": READY_JOB, "held_job": HELD_JOB, "final_job": FINAL_JOB,
    "keyed_job": KEYED_JOB, "failed_attempt": FAILED_ATTEMPT, "held_state": HELD_STATE,
}  # fmt: skip


def _one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({listed(values)})", name=f"known_{column}")


def any_of(column: str, values: Iterable[str]) -> str:
    """The condition that a column holds one of these, in a form that SQLite checks fast.

    For an IN list of more than two it fills a temporary table, once for every row that is written.
    """
    return " OR ".join(f"{column} = '{value}'" for value in sorted(map(str, values)))


def _any_of(column: str, values: Iterable[str]) -> CheckConstraint:
    return CheckConstraint(any_of(column, values), name=f"known_{column}")


def _flag(column: str) -> CheckConstraint:
    return CheckConstraint(f"{column} IN (0, 1)", name=f"flag_{column}")


def _table(name: str, *parts: SchemaItem) -> Table:
    return Table(name, metadata, *parts, sqlite_strict=True)


def _keyed(name: str, *parts: SchemaItem) -> Table:
    """A table that lives in its primary key's index."""
    return Table(name, metadata, *parts, sqlite_strict=True, sqlite_with_rowid=False)


def _partial(name: str, condition: str, *columns: Column[Any], unique: bool = False) -> Index:
    return Index(
        name, *columns, unique=unique, sqlite_where=text(condition), postgresql_where=text(condition)
    )


def _id() -> Column[int]:
    return Column("id", _INT, primary_key=True)


def _int(name: str, *parts: ForeignKey, key: bool = False, default: str | None = None) -> Column[int]:
    return Column(
        name, _INT, *parts, nullable=False, primary_key=key, server_default=text(default) if default else None
    )


def _int_or_none(name: str, *parts: ForeignKey) -> Column[int | None]:
    return Column(name, _INT, *parts, nullable=True)


def _time(name: str) -> Column[float]:
    return Column(name, _TIME, nullable=False)


def _time_or_none(name: str) -> Column[float | None]:
    return Column(name, _TIME, nullable=True)


def _text(name: str, *parts: ForeignKey, key: bool = False, default: str | None = None) -> Column[str]:
    return Column(name, Text(), *parts, nullable=False, primary_key=key, server_default=default)


def _text_or_none(name: str) -> Column[str | None]:
    return Column(name, Text(), nullable=True)


# The last number handed out of each sequence without gaps: "fence" for every fencing token and epoch that this store
# ever issues (an attempt's id is its token), "jobs" for job ids, "events" for positions in the log. Whoever takes from
# one holds its row until the commit, so that numbers become visible in their order, on every engine.
counters = _keyed("counters", _text("name", key=True), _int("value"))

tokens = _keyed("tokens", _text("name", key=True), _text("hash"), _time("set_at"))

controls = _keyed("controls", _text("name", key=True), _text("value"), _time("set_at"))

roles = _keyed(
    "roles",
    _text("role", key=True), _text("holder"), _int("epoch"), _time("taken_at"), _time("expires_at"), _int("released"),
    _flag("released"),
)  # fmt: skip

nodes = _table(
    "nodes",
    _text("id", key=True), _text("host_name"), _int("slots"), _text("status"), _text("credential_hash"),
    _time("enrolled_at"), _time_or_none("last_seen_at"),
    _int_or_none("cpu_count"), _int_or_none("memory_bytes"), _int_or_none("disk_free_bytes"), _time_or_none("load"),
    _time_or_none("observed_at"), _text_or_none("architecture"), _text_or_none("gpus"), _text("labels", default="{}"),
    _int("ephemeral", default="0"), _int_or_none("target_slots"), _text_or_none("settings_hash"),
    _time_or_none("declared_cpus"), _int_or_none("declared_memory_bytes"),
    _one_of("status", NodeStatus), CheckConstraint("slots > 0", name="some_slots"),
    UniqueConstraint("credential_hash", name="one_node_each"),
)  # fmt: skip

# The newest lease of each node. It stays after its end (`reaped`), so that whoever held it last is known.
agent_leases = _table(
    "agent_leases",
    _text("node_id", ForeignKey("nodes.id"), key=True), _text("incarnation"), _int("token"),
    _time("since"), _time("expires_at"), _int("reaped"),
    _flag("reaped"), UniqueConstraint("incarnation", name="one_lease_each"),
)  # fmt: skip

# Every incarnation that ever connected: one that was overtaken can never take its node back.
incarnations = _keyed(
    "incarnations", _text("incarnation", key=True), _text("node_id", ForeignKey("nodes.id")), _time("since"),
)  # fmt: skip

job_classes = _table(
    "job_classes",
    _id(), _text("line"), _text("kind"), _text("purpose"), _text("producer"), _time("share"), _text("requirements"),
    _time_or_none("last_granted_at"),
    UniqueConstraint("line", "kind", "purpose", "producer", "share", "requirements", name="one_class_each"),
)  # fmt: skip

jobs = _table(
    "jobs",
    _id(), _int("class_id", ForeignKey("job_classes.id")),
    _text("kind"), _text("line"), _text("purpose"), _text_or_none("job_key"), _text("state"), _text("reason"),
    _text("command"), _text("parameters"), _text("wanted"), _text("inputs"), _int("seed"),
    _time("grace_s"), _time_or_none("time_limit_s"),
    _int("failures_allowed"), _int("losses_allowed"), _int("failures"), _int("losses"),
    _time("created_at"), _time("not_before"), _time_or_none("ended_at"), _int("cancel_requested"),
    _text("requirements"), _time("share"), _text("producer"), _time_or_none("deadline"), _int("unmet"),
    _int_or_none("retry_of"),
    _any_of("state", JobState), _flag("cancel_requested"),
    CheckConstraint(f"(ended_at IS NULL) = ({any_of('state', HELD_JOBS)})", name="ended_when_final"),
    CheckConstraint("failures >= 0 AND losses >= 0 AND unmet >= 0", name="budgets_count_up"),
    UniqueConstraint("retry_of", name="one_retry_each"),
)  # fmt: skip
_partial("jobs_ready", READY_JOB, jobs.c.class_id, jobs.c.not_before, jobs.c.id)
_partial("jobs_held", HELD_JOB, jobs.c.line, jobs.c.kind)
_partial("jobs_final", FINAL_JOB, jobs.c.line, jobs.c.kind, jobs.c.ended_at)
_partial("jobs_key", KEYED_JOB, jobs.c.job_key, unique=True)
_partial("jobs_deadline", f"deadline IS NOT NULL AND {HELD_JOB}", jobs.c.deadline)

# What a job needs: `met` when the needed job was done, or its end counts as such by the rule.
job_needs = _keyed(
    "job_needs",
    _int("job_id", ForeignKey("jobs.id"), key=True), _int("needs_id", key=True), _text("rule"), _int("met"),
    _one_of("rule", FailureRule), _flag("met"),
)  # fmt: skip
_partial("job_needs_unmet", "met = 0", job_needs.c.needs_id)
Index("job_needs_by_needed", job_needs.c.needs_id)

attempts = _table(
    "attempts",
    _id(), _int("job_id", ForeignKey("jobs.id")), _text("node_id", ForeignKey("nodes.id")), _text("incarnation"),
    _int("token"), _text("state"), _text_or_none("reason"), _text("detail"),
    _time("leased_at"), _time("seen_at"), _time_or_none("started_at"), _time_or_none("ended_at"), _int("ended_here"),
    _text_or_none("boot_id"), _int_or_none("pid"), _int_or_none("start_ticks"),
    _int("units"), _text("note"), _text("figures"), _time("process_s"), _text_or_none("receipt"), _text("gpus"),
    _int("blameless"),
    _any_of("state", AttemptState), _any_of("reason", EndReason), _flag("ended_here"), _flag("blameless"),
    CheckConstraint(f"(ended_at IS NULL) = ({any_of('state', LIVE_ATTEMPTS)})", name="ended_when_final"),
    CheckConstraint("(ended_at IS NULL) = (reason IS NULL)", name="end_has_reason"),
    CheckConstraint("units >= 0 AND process_s >= 0", name="progress_counts_up"),
)  # fmt: skip
_partial("attempts_one_live", LIVE_ATTEMPT, attempts.c.job_id, unique=True)
_partial("attempts_live_by_node", LIVE_ATTEMPT, attempts.c.node_id)
_partial("attempts_failed", FAILED_ATTEMPT, attempts.c.ended_at)
Index("attempts_by_job", attempts.c.job_id)

# Nodes that are granted nothing for a while, with who or what said so. An exclusion ends by itself, or is lifted.
exclusions = _table(
    "exclusions",
    _id(), _text("node_id", ForeignKey("nodes.id")), _text("cause"), _text("author"), _time("since"), _time("until"),
    _time_or_none("lifted_at"),
)  # fmt: skip
Index("exclusions_by_node", exclusions.c.node_id, exclusions.c.until)

# Operations on many jobs, done in batches: `cursor` is the last job looked at, `last_id` the last one that counts.
bulk_operations = _table(
    "bulk_operations",
    _id(), _text("verb"), _text("filter"), _text("reason"), _text("author"), _text("state"),
    _int("cursor"), _int("last_id"), _int("seen"), _int("changed"), _int("skipped"),
    _time("created_at"), _time_or_none("ended_at"),
    CheckConstraint("verb IN ('cancel', 'hold', 'release', 'retry')", name="known_verb"),
    CheckConstraint("state IN ('done', 'running', 'stopped')", name="known_state"),
)  # fmt: skip

job_counts = _keyed(
    "job_counts",
    _int("class_id", ForeignKey("job_classes.id"), key=True), _text("state", key=True), _int("n"),
    _one_of("state", JobState), CheckConstraint("n >= 0", name="n_counts"),
)  # fmt: skip

attempt_counts = _keyed(
    "attempt_counts",
    _text("line", key=True), _text("kind", key=True), _text("state", key=True), _int("n"),
    _one_of("state", AttemptState), CheckConstraint("n >= 0", name="n_counts"),
)  # fmt: skip

# Ended attempts only; the live part is computed when asked for.
slot_time = _keyed(
    "slot_time",
    _text("node_id", ForeignKey("nodes.id"), key=True), _time("first_leased_at"), _time("leased_s"), _time("process_s"),
    _int("attempts"),
)  # fmt: skip

# What jobs and attempts that are no longer kept had been counted for: totals ever are these and those that are kept.
# Jobs stand under node "" with no time.
removed_counts = _keyed(
    "removed_counts",
    _text("what", key=True), _text("line", key=True), _text("kind", key=True), _text("state", key=True),
    _text("node_id", key=True), _int("n"), _time("leased_s"), _time("process_s"),
    CheckConstraint("what IN ('attempts', 'jobs')", name="known_what"), CheckConstraint("n >= 0", name="n_counts"),
)  # fmt: skip

artifacts = _table(
    "artifacts",
    _id(), _text("hash"), _text("kind"), _text("line"), _text("name"), _int("bytes"), _int("games"), _int("samples"),
    _int("attempt_id", ForeignKey("attempts.id")), _text("node_id", ForeignKey("nodes.id")), _text("metadata"),
    _time("created_at"),
    _one_of("kind", ArtifactKind), CheckConstraint("bytes > 0 AND games >= 0 AND samples >= 0", name="sane_counts"),
    UniqueConstraint("hash", "line", "kind", name="counted_once"),
)  # fmt: skip
Index("artifacts_by_line", artifacts.c.line, artifacts.c.kind, artifacts.c.id)

# Every attempt that handed a file in: a retry that makes the same bytes again has its proof, and counts nothing twice.
artifact_sources = _keyed(
    "artifact_sources",
    _int("attempt_id", ForeignKey("attempts.id"), key=True), _int("artifact_id", ForeignKey("artifacts.id"), key=True),
)  # fmt: skip

refusals = _table(
    "refusals",
    _id(), _int("attempt_id", ForeignKey("attempts.id")), _text("hash"), _text("kind"), _text("name"), _int("bytes"),
    _text("problem"), _text("detail"), _time("refused_at"),
    _one_of("kind", ArtifactKind), UniqueConstraint("attempt_id", "hash", name="refused_once"),
)  # fmt: skip

line_counts = _keyed(
    "line_counts",
    _text("line", key=True), _text("kind", key=True), _int("files"), _int("bytes"), _int("games"), _int("samples"),
    _one_of("kind", ArtifactKind),
)  # fmt: skip

models = _table(
    "models",
    _id(), _text("line"), _text("hash"), _int_or_none("parent_id", ForeignKey("models.id")),
    _int("job_id", ForeignKey("jobs.id")), _text("state"), _int("steps"), _int("samples"), _time_or_none("loss"),
    _time("created_at"), _time_or_none("decided_at"), _text("reason"), _int_or_none("decision_id"),
    _one_of("state", ModelState), UniqueConstraint("line", "hash", name="once_a_line"),
    CheckConstraint(f"(decided_at IS NULL) = (state = '{ModelState.CANDIDATE}')", name="decided_when_final"),
)  # fmt: skip
_partial("models_candidates", f"state = '{ModelState.CANDIDATE}'", models.c.line, models.c.id)

champions = _keyed(
    "champions",
    _text("line", key=True), _int("model_id", ForeignKey("models.id")), _int("generation"), _time("since"),
)  # fmt: skip

decisions = _table(
    "decisions",
    _id(), _text("policy"), _time("decided_at"), _int("epoch"), _int("pinned"), _flag("pinned"),
)  # fmt: skip
_partial("decisions_prunable", "pinned = 0", decisions.c.policy, decisions.c.id)

decision_actions = _keyed(
    "decision_actions",
    _int("decision_id", ForeignKey("decisions.id"), key=True), _int("ordinal", key=True), _text("kind"),
    _text("fields"), _text("outcome"), _text("detail"),
)  # fmt: skip

verdicts = _table(
    "verdicts",
    _id(), _int("decision_id", ForeignKey("decisions.id")), _text("subject"), _text("policy"), _text("reason"),
    _text("sentence"), _int("acted"), _text("evidence"), _time("at"), _flag("acted"),
)  # fmt: skip
Index("verdicts_by_subject", verdicts.c.subject, verdicts.c.id)
Index("verdicts_by_decision", verdicts.c.decision_id)

current_verdicts = _keyed(
    "current_verdicts",
    _text("policy", key=True), _text("subject", key=True), _int("decision_id", ForeignKey("decisions.id")),
    _text("band"), _text("reason"), _text("sentence"), _int("acted"), _text("evidence"), _time("at"), _flag("acted"),
)  # fmt: skip
Index("current_verdicts_by_subject", current_verdicts.c.subject)
Index("current_verdicts_by_decision", current_verdicts.c.decision_id)

decision_counts = _keyed("decision_counts", _text("policy", key=True), _int("kept"))

promotions = _table(
    "promotions",
    _id(), _text("line"), _int("generation"), _int("model_id", ForeignKey("models.id")),
    _int_or_none("previous_id", ForeignKey("models.id")), _time("at"),
    _int("decision_id", ForeignKey("decisions.id")), _text("pairs"), _text("evidence"),
    UniqueConstraint("line", "generation", name="one_a_generation"),
)  # fmt: skip

pairs = _table(
    "pairs",
    _id(), _text("line"), _int("candidate_id", ForeignKey("models.id")), _text("opponent"), _text("purpose"),
    _int("number"), _time("first"), _time("second"), _text("replay"), _int("job_id", ForeignKey("jobs.id")),
    _int("attempt_id", ForeignKey("attempts.id")), _time("booked_at"),
    _one_of("purpose", Purpose), CheckConstraint("number >= 0", name="number_counts"),
    CheckConstraint("first IN (0, 0.5, 1) AND second IN (0, 0.5, 1)", name="known_scores"),
    UniqueConstraint("candidate_id", "opponent", "purpose", "number", name="number_once"),
    UniqueConstraint("candidate_id", "opponent", "purpose", "replay", name="replay_once"),
)  # fmt: skip

pair_counts = _keyed(
    "pair_counts",
    _int("candidate_id", ForeignKey("models.id"), key=True), _text("opponent", key=True), _text("purpose", key=True),
    *(_int(f"n{index}") for index in range(5)), _int("duplicates"), _int("next_pair"),
    _one_of("purpose", Purpose),
)  # fmt: skip

# Positions are given by the one writer: 1, 2, 3, … without a gap.
events = _table(
    "events",
    _int("position", key=True), _time("at"), _text("name"), _int("version"), _text("fields"),
)  # fmt: skip

event_subjects = _keyed(
    "event_subjects",
    _text("subject", key=True), _int("position", ForeignKey("events.position"), key=True),
)  # fmt: skip
