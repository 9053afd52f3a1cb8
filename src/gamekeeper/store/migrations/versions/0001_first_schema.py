"""The first schema. Written out in full, so that it stays what it was when the schema moves on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None

INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME: TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")


def upgrade() -> None:
    """Create all tables, and the counter of the fencing tokens."""
    _leases()
    _jobs()
    _attempts()
    _counters()
    _artifacts()
    _models()
    _decisions()
    _matches()
    _events()
    op.execute("INSERT INTO fence (id, value) VALUES (1, 0)")


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _leases() -> None:
    op.create_table(
        "fence",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("value", INT, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"), sqlite_strict=True,
    )  # fmt: skip
    op.create_table(
        "tokens",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False), sa.Column("set_at", TIME, nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "controls",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False),
        sa.Column("value", sa.Text(), nullable=False), sa.Column("set_at", TIME, nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "roles",
        sa.Column("role", sa.Text(), primary_key=True, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False), sa.Column("epoch", INT, nullable=False),
        sa.Column("taken_at", TIME, nullable=False), sa.Column("expires_at", TIME, nullable=False),
        sa.Column("released", INT, nullable=False),
        sa.CheckConstraint("released IN (0, 1)", name="flag_released"), sqlite_strict=True,
        sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "nodes",
        sa.Column("id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("host_name", sa.Text(), nullable=False), sa.Column("slots", INT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("credential_hash", sa.Text(), nullable=False),
        sa.Column("enrolled_at", TIME, nullable=False), sa.Column("last_seen_at", TIME, nullable=True),
        sa.Column("cpu_count", INT, nullable=True), sa.Column("memory_bytes", INT, nullable=True),
        sa.Column("disk_free_bytes", INT, nullable=True), sa.Column("load", TIME, nullable=True),
        sa.Column("observed_at", TIME, nullable=True),
        sa.CheckConstraint("status IN ('lost', 'unknown', 'up')", name="known_status"),
        sa.CheckConstraint("slots > 0", name="some_slots"),
        sa.UniqueConstraint("credential_hash", name="one_node_each"), sqlite_strict=True,
    )  # fmt: skip
    op.create_table(
        "agent_leases",
        sa.Column("node_id", sa.Text(), sa.ForeignKey("nodes.id"), primary_key=True, nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False), sa.Column("token", INT, nullable=False),
        sa.Column("since", TIME, nullable=False), sa.Column("expires_at", TIME, nullable=False),
        sa.Column("reaped", INT, nullable=False), sa.CheckConstraint("reaped IN (0, 1)", name="flag_reaped"),
        sa.UniqueConstraint("incarnation", name="one_lease_each"), sqlite_strict=True,
    )  # fmt: skip
    op.create_table(
        "incarnations",
        sa.Column("incarnation", sa.Text(), primary_key=True, nullable=False),
        sa.Column("node_id", sa.Text(), sa.ForeignKey("nodes.id"), nullable=False),
        sa.Column("since", TIME, nullable=False), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False), sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("job_key", sa.Text(), nullable=True), sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False), sa.Column("command", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False), sa.Column("wanted", sa.Text(), nullable=False),
        sa.Column("inputs", sa.Text(), nullable=False), sa.Column("seed", INT, nullable=False),
        sa.Column("grace_s", TIME, nullable=False), sa.Column("time_limit_s", TIME, nullable=True),
        sa.Column("failures_allowed", INT, nullable=False), sa.Column("losses_allowed", INT, nullable=False),
        sa.Column("failures", INT, nullable=False), sa.Column("losses", INT, nullable=False),
        sa.Column("created_at", TIME, nullable=False), sa.Column("not_before", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True), sa.Column("cancel_requested", INT, nullable=False),
        sa.CheckConstraint(
            "state IN ('cancelled', 'dead', 'done', 'failed', 'ready', 'running', 'waiting')",
            name="known_state"),
        sa.CheckConstraint("cancel_requested IN (0, 1)", name="flag_cancel_requested"),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (state IN ('ready', 'running', 'waiting'))",
            name="ended_when_final"),
        sa.CheckConstraint("failures >= 0 AND losses >= 0", name="budgets_count_up"), sqlite_strict=True,
    )  # fmt: skip
    _partial(
        "jobs_final", "jobs", ["line", "kind", "ended_at"], "state IN ('cancelled', 'dead', 'done', 'failed')"
    )
    _partial("jobs_held", "jobs", ["line", "kind"], "state IN ('ready', 'running', 'waiting')")
    _partial(
        "jobs_key",
        "jobs",
        ["job_key"],
        "state IN ('done', 'ready', 'running', 'waiting') AND job_key IS NOT NULL",
        unique=True,
    )
    _partial("jobs_ready", "jobs", ["not_before", "id"], "state = 'ready'")


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", INT, primary_key=True, nullable=False),
        sa.Column("job_id", INT, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("node_id", sa.Text(), sa.ForeignKey("nodes.id"), nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False), sa.Column("token", INT, nullable=False),
        sa.Column("state", sa.Text(), nullable=False), sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False), sa.Column("leased_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False), sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True), sa.Column("ended_here", INT, nullable=False),
        sa.Column("boot_id", sa.Text(), nullable=True), sa.Column("pid", INT, nullable=True),
        sa.Column("start_ticks", INT, nullable=True), sa.Column("units", INT, nullable=False),
        sa.Column("note", sa.Text(), nullable=False), sa.Column("figures", sa.Text(), nullable=False),
        sa.Column("process_s", TIME, nullable=False), sa.Column("receipt", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "state IN ('ending', 'failed', 'hollow', 'leased', 'lost', 'refused', 'running', 'stopped',"
            " 'succeeded')",
            name="known_state"),
        sa.CheckConstraint(
            "reason IN ('agent-restarted', 'cannot-start', 'data-refused', 'finished', "
            "'input-unavailable', 'killed', 'lease-expired', 'missing-output', 'no-evidence', "
            "'no-receipt', 'node-going-away', 'out-of-memory', 'own-error', 'spool-full', "
            "'stop-requested', 'time-limit')",
            name="known_reason"),
        sa.CheckConstraint("ended_here IN (0, 1)", name="flag_ended_here"),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (state IN ('ending', 'leased', 'running'))",
            name="ended_when_final"),
        sa.CheckConstraint("(ended_at IS NULL) = (reason IS NULL)", name="end_has_reason"),
        sa.CheckConstraint("units >= 0 AND process_s >= 0", name="progress_counts_up"),
        sa.UniqueConstraint("token", name="token_once"), sqlite_strict=True,
    )  # fmt: skip
    op.create_index("attempts_by_job", "attempts", ["job_id"])
    _partial("attempts_live_by_node", "attempts", ["node_id"], "state IN ('ending', 'leased', 'running')")
    _partial(
        "attempts_one_live", "attempts", ["job_id"], "state IN ('ending', 'leased', 'running')", unique=True
    )


def _counters() -> None:
    op.create_table(
        "job_counts",
        sa.Column("line", sa.Text(), primary_key=True, nullable=False),
        sa.Column("kind", sa.Text(), primary_key=True, nullable=False),
        sa.Column("purpose", sa.Text(), primary_key=True, nullable=False),
        sa.Column("state", sa.Text(), primary_key=True, nullable=False), sa.Column("n", INT, nullable=False),
        sa.CheckConstraint(
            "state IN ('cancelled', 'dead', 'done', 'failed', 'ready', 'running', 'waiting')",
            name="known_state"),
        sa.CheckConstraint("n >= 0", name="n_counts"), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "attempt_counts",
        sa.Column("line", sa.Text(), primary_key=True, nullable=False),
        sa.Column("kind", sa.Text(), primary_key=True, nullable=False),
        sa.Column("state", sa.Text(), primary_key=True, nullable=False), sa.Column("n", INT, nullable=False),
        sa.CheckConstraint(
            "state IN ('ending', 'failed', 'hollow', 'leased', 'lost', 'refused', 'running', 'stopped',"
            " 'succeeded')",
            name="known_state"),
        sa.CheckConstraint("n >= 0", name="n_counts"), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "slot_time",
        sa.Column("node_id", sa.Text(), sa.ForeignKey("nodes.id"), primary_key=True, nullable=False),
        sa.Column("first_leased_at", TIME, nullable=False), sa.Column("leased_s", TIME, nullable=False),
        sa.Column("process_s", TIME, nullable=False), sa.Column("attempts", INT, nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "line_counts",
        sa.Column("line", sa.Text(), primary_key=True, nullable=False),
        sa.Column("kind", sa.Text(), primary_key=True, nullable=False),
        sa.Column("files", INT, nullable=False), sa.Column("bytes", INT, nullable=False),
        sa.Column("games", INT, nullable=False), sa.Column("samples", INT, nullable=False),
        sa.CheckConstraint("kind IN ('checkpoint', 'matches', 'model', 'shard')", name="known_kind"),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False), sa.Column("line", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False), sa.Column("bytes", INT, nullable=False),
        sa.Column("games", INT, nullable=False), sa.Column("samples", INT, nullable=False),
        sa.Column("attempt_id", INT, sa.ForeignKey("attempts.id"), nullable=False),
        sa.Column("node_id", sa.Text(), sa.ForeignKey("nodes.id"), nullable=False),
        sa.Column("metadata", sa.Text(), nullable=False), sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("kind IN ('checkpoint', 'matches', 'model', 'shard')", name="known_kind"),
        sa.CheckConstraint("bytes > 0 AND games >= 0 AND samples >= 0", name="sane_counts"),
        sa.UniqueConstraint("hash", "line", "kind", name="counted_once"), sqlite_strict=True,
    )  # fmt: skip
    op.create_index("artifacts_by_line", "artifacts", ["line", "kind", "id"])
    op.create_table(
        "artifact_sources",
        sa.Column("attempt_id", INT, sa.ForeignKey("attempts.id"), primary_key=True, nullable=False),
        sa.Column("artifact_id", INT, sa.ForeignKey("artifacts.id"), primary_key=True, nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "refusals",
        sa.Column("id", INT, primary_key=True, nullable=False),
        sa.Column("attempt_id", INT, sa.ForeignKey("attempts.id"), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False), sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False), sa.Column("bytes", INT, nullable=False),
        sa.Column("problem", sa.Text(), nullable=False), sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("refused_at", TIME, nullable=False),
        sa.CheckConstraint("kind IN ('checkpoint', 'matches', 'model', 'shard')", name="known_kind"),
        sa.UniqueConstraint("attempt_id", "hash", name="refused_once"), sqlite_strict=True,
    )  # fmt: skip


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("line", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("parent_id", INT, sa.ForeignKey("models.id"), nullable=True),
        sa.Column("job_id", INT, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("state", sa.Text(), nullable=False), sa.Column("steps", INT, nullable=False),
        sa.Column("samples", INT, nullable=False), sa.Column("loss", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False), sa.Column("decided_at", TIME, nullable=True),
        sa.Column("reason", sa.Text(), nullable=False), sa.Column("decision_id", INT, nullable=True),
        sa.CheckConstraint("state IN ('candidate', 'promoted', 'rejected')", name="known_state"),
        sa.UniqueConstraint("line", "hash", name="once_a_line"),
        sa.CheckConstraint("(decided_at IS NULL) = (state = 'candidate')", name="decided_when_final"),
        sqlite_strict=True,
    )  # fmt: skip
    _partial("models_candidates", "models", ["line", "id"], "state = 'candidate'")
    op.create_table(
        "champions",
        sa.Column("line", sa.Text(), primary_key=True, nullable=False),
        sa.Column("model_id", INT, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("generation", INT, nullable=False), sa.Column("since", TIME, nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", INT, primary_key=True, nullable=False),
        sa.Column("policy", sa.Text(), nullable=False), sa.Column("decided_at", TIME, nullable=False),
        sa.Column("epoch", INT, nullable=False), sa.Column("pinned", INT, nullable=False),
        sa.CheckConstraint("pinned IN (0, 1)", name="flag_pinned"), sqlite_strict=True,
    )  # fmt: skip
    _partial("decisions_prunable", "decisions", ["policy", "id"], "pinned = 0")
    op.create_table(
        "decision_actions",
        sa.Column("decision_id", INT, sa.ForeignKey("decisions.id"), primary_key=True, nullable=False),
        sa.Column("ordinal", INT, primary_key=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False), sa.Column("fields", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False), sa.Column("detail", sa.Text(), nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "verdicts",
        sa.Column("id", INT, primary_key=True, nullable=False),
        sa.Column("decision_id", INT, sa.ForeignKey("decisions.id"), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False), sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False), sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("acted", INT, nullable=False), sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False), sa.CheckConstraint("acted IN (0, 1)", name="flag_acted"),
        sqlite_strict=True,
    )  # fmt: skip
    op.create_index("verdicts_by_decision", "verdicts", ["decision_id"])
    op.create_index("verdicts_by_subject", "verdicts", ["subject", "id"])
    op.create_table(
        "current_verdicts",
        sa.Column("policy", sa.Text(), primary_key=True, nullable=False),
        sa.Column("subject", sa.Text(), primary_key=True, nullable=False),
        sa.Column("decision_id", INT, sa.ForeignKey("decisions.id"), nullable=False),
        sa.Column("band", sa.Text(), nullable=False), sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False), sa.Column("acted", INT, nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False), sa.Column("at", TIME, nullable=False),
        sa.CheckConstraint("acted IN (0, 1)", name="flag_acted"), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_index("current_verdicts_by_decision", "current_verdicts", ["decision_id"])
    op.create_index("current_verdicts_by_subject", "current_verdicts", ["subject"])
    op.create_table(
        "decision_counts",
        sa.Column("policy", sa.Text(), primary_key=True, nullable=False),
        sa.Column("kept", INT, nullable=False), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip


def _matches() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("line", sa.Text(), nullable=False),
        sa.Column("generation", INT, nullable=False),
        sa.Column("model_id", INT, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("previous_id", INT, sa.ForeignKey("models.id"), nullable=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("decision_id", INT, sa.ForeignKey("decisions.id"), nullable=False),
        sa.Column("pairs", sa.Text(), nullable=False), sa.Column("evidence", sa.Text(), nullable=False),
        sa.UniqueConstraint("line", "generation", name="one_a_generation"), sqlite_strict=True,
    )  # fmt: skip
    op.create_table(
        "pairs",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("line", sa.Text(), nullable=False),
        sa.Column("candidate_id", INT, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("opponent", sa.Text(), nullable=False), sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("number", INT, nullable=False), sa.Column("first", TIME, nullable=False),
        sa.Column("second", TIME, nullable=False), sa.Column("replay", sa.Text(), nullable=False),
        sa.Column("job_id", INT, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("attempt_id", INT, sa.ForeignKey("attempts.id"), nullable=False),
        sa.Column("booked_at", TIME, nullable=False),
        sa.CheckConstraint("purpose IN ('canary', 'promotion', 'rating')", name="known_purpose"),
        sa.CheckConstraint("number >= 0", name="number_counts"),
        sa.CheckConstraint("first IN (0, 0.5, 1) AND second IN (0, 0.5, 1)", name="known_scores"),
        sa.UniqueConstraint("candidate_id", "opponent", "purpose", "number", name="number_once"),
        sa.UniqueConstraint("candidate_id", "opponent", "purpose", "replay", name="replay_once"),
        sqlite_strict=True,
    )  # fmt: skip
    op.create_table(
        "pair_counts",
        sa.Column("candidate_id", INT, sa.ForeignKey("models.id"), primary_key=True, nullable=False),
        sa.Column("opponent", sa.Text(), primary_key=True, nullable=False),
        sa.Column("purpose", sa.Text(), primary_key=True, nullable=False),
        sa.Column("n0", INT, nullable=False), sa.Column("n1", INT, nullable=False),
        sa.Column("n2", INT, nullable=False), sa.Column("n3", INT, nullable=False),
        sa.Column("n4", INT, nullable=False), sa.Column("duplicates", INT, nullable=False),
        sa.Column("next_pair", INT, nullable=False),
        sa.CheckConstraint("purpose IN ('canary', 'promotion', 'rating')", name="known_purpose"),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("position", INT, primary_key=True, nullable=False), sa.Column("at", TIME, nullable=False),
        sa.Column("name", sa.Text(), nullable=False), sa.Column("version", INT, nullable=False),
        sa.Column("fields", sa.Text(), nullable=False), sqlite_strict=True,
    )  # fmt: skip
    op.create_table(
        "event_subjects",
        sa.Column("subject", sa.Text(), primary_key=True, nullable=False),
        sa.Column("position", INT, sa.ForeignKey("events.position"), primary_key=True, nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
