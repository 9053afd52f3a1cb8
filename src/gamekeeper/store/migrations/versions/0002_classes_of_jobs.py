"""Classes of jobs, needs, requirements, exclusions, operations on many jobs, and one table for all counters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"

INT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME: TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
STATES = ("cancelled", "dead", "done", "failed", "held", "ready", "running", "skipped", "waiting")
COUNTED_STATE = "state IN (" + ", ".join(f"'{state}'" for state in STATES) + ")"
KNOWN_STATE = " OR ".join(f"state = '{state}'" for state in STATES)
LIVE = "ended_at IS NULL"
ENDED_JOB = (
    "(ended_at IS NULL) = (state = 'held' OR state = 'ready' OR state = 'running' OR state = 'waiting')"
)
TRIED = ("ending", "failed", "hollow", "leased", "lost", "refused", "running", "stopped", "succeeded")
KNOWN_TRY = " OR ".join(f"state = '{state}'" for state in TRIED)
REASONS = (
    "agent-restarted", "cannot-start", "data-refused", "finished", "input-unavailable", "killed", "lease-expired",
    "missing-output", "no-evidence", "no-receipt", "node-going-away", "out-of-memory", "own-error", "spool-full",
    "stop-requested", "time-limit",
)  # fmt: skip
KNOWN_REASON = " OR ".join(f"reason = '{reason}'" for reason in REASONS)
ENDED_TRY = "(ended_at IS NULL) = (state = 'ending' OR state = 'leased' OR state = 'running')"
BUDGETS = "failures >= 0 AND losses >= 0 AND unmet >= 0"


def upgrade() -> None:
    """Bring a store of the first schema here with all it holds."""
    _one_table_of_counters()
    _classes()
    if op.get_bind().dialect.name == "sqlite":
        _rebuild_jobs()
        _rebuild_attempts()
    else:
        _alter_jobs()
        _alter_attempts()
    _index_jobs_and_attempts()
    _count_by_class()
    _extend_nodes()
    _add_tables()


def _one_table_of_counters() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), primary_key=True, nullable=False), sa.Column("value", INT, nullable=False),
        sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.execute("INSERT INTO counters (name, value) SELECT 'fence', value FROM fence")
    # An attempt's id is its token from now on: both continue above the greatest of either.
    op.execute(
        "UPDATE counters SET value = (SELECT max(v) FROM"
        " (SELECT value AS v FROM fence UNION ALL SELECT coalesce(max(id), 0) FROM attempts) AS highest)"
        " WHERE name = 'fence'"
    )
    op.execute("INSERT INTO counters (name, value) SELECT 'jobs', coalesce(max(id), 0) FROM jobs")
    op.execute("INSERT INTO counters (name, value) SELECT 'events', coalesce(max(position), 0) FROM events")
    op.drop_table("fence")


def _classes() -> None:
    op.create_table(
        "job_classes",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("line", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False), sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("producer", sa.Text(), nullable=False), sa.Column("share", TIME, nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False), sa.Column("last_granted_at", TIME, nullable=True),
        sa.UniqueConstraint(
            "line", "kind", "purpose", "producer", "share", "requirements", name="one_class_each"),
        sqlite_strict=True,
    )  # fmt: skip
    op.execute(
        "INSERT INTO job_classes (line, kind, purpose, producer, share, requirements, last_granted_at)"
        " SELECT j.line, j.kind, j.purpose, '', 1.0, '{}', max(a.leased_at)"
        " FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id GROUP BY j.line, j.kind, j.purpose"
        " ORDER BY j.line, j.kind, j.purpose"
    )


_JOB_COLUMNS = (
    "id, kind, line, purpose, job_key, state, reason, command, parameters, wanted, inputs, seed, grace_s,"
    " time_limit_s, failures_allowed, losses_allowed, failures, losses, created_at, not_before, ended_at,"
    " cancel_requested"
)


def _rebuild_jobs() -> None:
    op.create_table(
        "jobs_rebuilt",
        sa.Column("id", INT, primary_key=True, nullable=False),
        sa.Column("class_id", INT, sa.ForeignKey("job_classes.id"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
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
        sa.Column("requirements", sa.Text(), nullable=False), sa.Column("share", TIME, nullable=False),
        sa.Column("producer", sa.Text(), nullable=False), sa.Column("deadline", TIME, nullable=True),
        sa.Column("unmet", INT, nullable=False), sa.Column("retry_of", INT, nullable=True),
        sa.CheckConstraint(KNOWN_STATE, name="known_state"),
        sa.CheckConstraint("cancel_requested IN (0, 1)", name="flag_cancel_requested"),
        sa.CheckConstraint(ENDED_JOB, name="ended_when_final"),
        sa.CheckConstraint(BUDGETS, name="budgets_count_up"),
        sa.UniqueConstraint("retry_of", name="one_retry_each"), sqlite_strict=True,
    )  # fmt: skip
    op.execute(
        f"INSERT INTO jobs_rebuilt ({_JOB_COLUMNS}, class_id, requirements, share, producer, unmet)"  # noqa: S608 - constants
        f" SELECT {_of('j', _JOB_COLUMNS)}, c.id, '{{}}', 1.0, '', 0"
        " FROM jobs j JOIN job_classes c ON c.line = j.line AND c.kind = j.kind AND c.purpose = j.purpose"
    )
    op.drop_table("jobs")
    op.rename_table("jobs_rebuilt", "jobs")


_ATTEMPT_COLUMNS = (
    "id, job_id, node_id, incarnation, token, state, reason, detail, leased_at, seen_at, started_at, ended_at,"
    " ended_here, boot_id, pid, start_ticks, units, note, figures, process_s, receipt"
)


def _rebuild_attempts() -> None:
    op.create_table(
        "attempts_rebuilt",
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
        sa.Column("gpus", sa.Text(), nullable=False), sa.Column("blameless", INT, nullable=False),
        sa.CheckConstraint(KNOWN_TRY, name="known_state"),
        sa.CheckConstraint(KNOWN_REASON, name="known_reason"),
        sa.CheckConstraint("ended_here IN (0, 1)", name="flag_ended_here"),
        sa.CheckConstraint("blameless IN (0, 1)", name="flag_blameless"),
        sa.CheckConstraint(ENDED_TRY, name="ended_when_final"),
        sa.CheckConstraint("(ended_at IS NULL) = (reason IS NULL)", name="end_has_reason"),
        sa.CheckConstraint("units >= 0 AND process_s >= 0", name="progress_counts_up"), sqlite_strict=True,
    )  # fmt: skip
    op.execute(
        f"INSERT INTO attempts_rebuilt ({_ATTEMPT_COLUMNS}, gpus, blameless)"  # noqa: S608 - constants
        f" SELECT {_ATTEMPT_COLUMNS}, '[]', 0 FROM attempts"
    )
    op.drop_table("attempts")
    op.rename_table("attempts_rebuilt", "attempts")


def _alter_jobs() -> None:
    for name in ("jobs_final", "jobs_held", "jobs_key", "jobs_ready"):
        op.drop_index(name, "jobs")
    for name in ("known_state", "ended_when_final", "budgets_count_up"):
        op.drop_constraint(name, "jobs", type_="check")
    op.add_column("jobs", sa.Column("class_id", INT, sa.ForeignKey("job_classes.id"), nullable=True))
    for column in (
        sa.Column("requirements", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("share", TIME, nullable=False, server_default="1"),
        sa.Column("producer", sa.Text(), nullable=False, server_default=""),
        sa.Column("unmet", INT, nullable=False, server_default="0"),
    ):
        op.add_column("jobs", column)
        op.alter_column("jobs", column.name, server_default=None)
    op.add_column("jobs", sa.Column("deadline", TIME, nullable=True))
    op.add_column("jobs", sa.Column("retry_of", INT, nullable=True))
    op.execute(
        "UPDATE jobs SET class_id = c.id FROM job_classes c"
        " WHERE c.line = jobs.line AND c.kind = jobs.kind AND c.purpose = jobs.purpose"
    )
    op.alter_column("jobs", "class_id", nullable=False)
    op.create_check_constraint("known_state", "jobs", KNOWN_STATE)
    op.create_check_constraint("ended_when_final", "jobs", ENDED_JOB)
    op.create_check_constraint("budgets_count_up", "jobs", BUDGETS)
    op.create_unique_constraint("one_retry_each", "jobs", ["retry_of"])


def _alter_attempts() -> None:
    for name in ("attempts_by_job", "attempts_live_by_node", "attempts_one_live"):
        op.drop_index(name, "attempts")
    op.drop_constraint("token_once", "attempts", type_="unique")
    op.add_column("attempts", sa.Column("gpus", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("attempts", sa.Column("blameless", INT, nullable=False, server_default="0"))
    for name in ("gpus", "blameless"):
        op.alter_column("attempts", name, server_default=None)
    op.create_check_constraint("flag_blameless", "attempts", "blameless IN (0, 1)")
    for name, words in (
        ("known_state", KNOWN_TRY), ("known_reason", KNOWN_REASON), ("ended_when_final", ENDED_TRY)
    ):  # fmt: skip
        op.drop_constraint(name, "attempts", type_="check")
        op.create_check_constraint(name, "attempts", words)


def _index_jobs_and_attempts() -> None:
    ended = "ended_at IS NOT NULL"
    keyed = "job_key IS NOT NULL AND (ended_at IS NULL OR state = 'done')"
    _partial("jobs_final", "jobs", ["line", "kind", "ended_at"], ended)
    _partial("jobs_held", "jobs", ["line", "kind"], LIVE)
    _partial("jobs_key", "jobs", ["job_key"], keyed, unique=True)
    _partial("jobs_ready", "jobs", ["class_id", "not_before", "id"], "state = 'ready'")
    _partial("jobs_deadline", "jobs", ["deadline"], f"deadline IS NOT NULL AND {LIVE}")
    op.create_index("attempts_by_job", "attempts", ["job_id"])
    _partial("attempts_live_by_node", "attempts", ["node_id"], LIVE)
    _partial("attempts_one_live", "attempts", ["job_id"], LIVE, unique=True)
    _partial("attempts_failed", "attempts", ["ended_at"], "state IN ('failed', 'hollow')")


def _count_by_class() -> None:
    op.drop_table("job_counts")
    op.create_table(
        "job_counts",
        sa.Column("class_id", INT, sa.ForeignKey("job_classes.id"), primary_key=True, nullable=False),
        sa.Column("state", sa.Text(), primary_key=True, nullable=False), sa.Column("n", INT, nullable=False),
        sa.CheckConstraint(COUNTED_STATE, name="known_state"),
        sa.CheckConstraint("n >= 0", name="n_counts"), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    for state in STATES:
        op.execute(
            f"INSERT INTO job_counts (class_id, state, n) SELECT c.id, '{state}',"  # noqa: S608 - a constant
            f" (SELECT count(*) FROM jobs j WHERE j.class_id = c.id AND j.state = '{state}') FROM job_classes c"
        )


def _extend_nodes() -> None:
    op.add_column("nodes", sa.Column("architecture", sa.Text(), nullable=True))
    op.add_column("nodes", sa.Column("gpus", sa.Text(), nullable=True))
    op.add_column("nodes", sa.Column("labels", sa.Text(), nullable=False, server_default="{}"))
    ephemeral = sa.Column("ephemeral", INT, nullable=False, server_default=sa.text("0"))
    op.add_column("nodes", ephemeral)
    op.add_column("nodes", sa.Column("target_slots", INT, nullable=True))
    op.add_column("nodes", sa.Column("settings_hash", sa.Text(), nullable=True))
    op.add_column("nodes", sa.Column("declared_cpus", TIME, nullable=True))
    op.add_column("nodes", sa.Column("declared_memory_bytes", INT, nullable=True))


def _add_tables() -> None:
    op.create_table(
        "job_needs",
        sa.Column("job_id", INT, sa.ForeignKey("jobs.id"), primary_key=True, nullable=False),
        sa.Column("needs_id", INT, primary_key=True, nullable=False),
        sa.Column("rule", sa.Text(), nullable=False), sa.Column("met", INT, nullable=False),
        sa.CheckConstraint("rule IN ('cancel', 'run', 'skip')", name="known_rule"),
        sa.CheckConstraint("met IN (0, 1)", name="flag_met"), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    _partial("job_needs_unmet", "job_needs", ["needs_id"], "met = 0")
    op.create_index("job_needs_by_needed", "job_needs", ["needs_id"])
    op.create_table(
        "removed_counts",
        *(
            sa.Column(name, sa.Text(), primary_key=True, nullable=False)
            for name in ("what", "line", "kind", "state", "node_id")
        ),
        sa.Column("n", INT, nullable=False), sa.Column("leased_s", TIME, nullable=False),
        sa.Column("process_s", TIME, nullable=False),
        sa.CheckConstraint("what IN ('attempts', 'jobs')", name="known_what"),
        sa.CheckConstraint("n >= 0", name="n_counts"), sqlite_strict=True, sqlite_with_rowid=False,
    )  # fmt: skip
    op.create_table(
        "exclusions",
        sa.Column("id", INT, primary_key=True, nullable=False),
        sa.Column("node_id", sa.Text(), sa.ForeignKey("nodes.id"), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False), sa.Column("author", sa.Text(), nullable=False),
        sa.Column("since", TIME, nullable=False), sa.Column("until", TIME, nullable=False),
        sa.Column("lifted_at", TIME, nullable=True), sqlite_strict=True,
    )  # fmt: skip
    op.create_index("exclusions_by_node", "exclusions", ["node_id", "until"])
    op.create_table(
        "bulk_operations",
        sa.Column("id", INT, primary_key=True, nullable=False), sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False), sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False), sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cursor", INT, nullable=False), sa.Column("last_id", INT, nullable=False),
        sa.Column("seen", INT, nullable=False), sa.Column("changed", INT, nullable=False),
        sa.Column("skipped", INT, nullable=False), sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint("verb IN ('cancel', 'hold', 'release', 'retry')", name="known_verb"),
        sa.CheckConstraint("state IN ('done', 'running', 'stopped')", name="known_state"), sqlite_strict=True,
    )  # fmt: skip


def _partial(name: str, table: str, columns: list[str], condition: str, *, unique: bool = False) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _of(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{name.strip()}" for name in columns.split(","))
