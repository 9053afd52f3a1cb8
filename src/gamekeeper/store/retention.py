"""Finished jobs go after a while, with their attempts, needs and verdicts; the totals ever stay right.

A job stays that a catalogued file, a model or matches came from, that a live job needs, or that an operation on many
jobs has yet to look at. A sweep walks over the ids in windows, so that no step looks at more than so many jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gamekeeper.core.control_events import JobsRemoved
from gamekeeper.core.errors import SettingsError
from gamekeeper.core.jobs import FINAL_JOBS
from gamekeeper.store import job_moves
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import sql

WINDOW = 2000
BATCH = 500

_WINDOW = sql("SELECT id, state, ended_at FROM jobs WHERE id > :cursor ORDER BY id LIMIT :limit")
_FINISHED = sql(
    "SELECT coalesce(sum(n), 0) FROM job_counts WHERE state IN ('done', 'failed', 'cancelled', 'skipped', 'dead')"
)
_FREE = sql(
    "SELECT j.id, j.class_id, j.line, j.kind, j.state FROM jobs j WHERE j.id IN LIST(:ids) AND j.{final_job}"
    " AND NOT EXISTS (SELECT 1 FROM attempts a JOIN artifact_sources s ON s.attempt_id = a.id WHERE a.job_id = j.id)"
    " AND NOT EXISTS (SELECT 1 FROM attempts a JOIN artifacts f ON f.attempt_id = a.id WHERE a.job_id = j.id)"
    " AND NOT EXISTS (SELECT 1 FROM models m WHERE m.job_id = j.id)"
    " AND NOT EXISTS (SELECT 1 FROM pairs p WHERE p.job_id = j.id)"
    " AND NOT EXISTS (SELECT 1 FROM job_needs d JOIN jobs k ON k.id = d.job_id WHERE d.needs_id = j.id"
    " AND k.{held_job})"
    " AND NOT EXISTS (SELECT 1 FROM bulk_operations b WHERE b.state = 'running' AND j.id > b.cursor"
    " AND j.id <= b.last_id) ORDER BY j.id FOR UPDATE"
)
_ATTEMPTS = sql(
    "SELECT a.id, a.node_id, a.state, a.leased_at, a.ended_at, a.process_s, j.line, j.kind"
    " FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.job_id IN LIST(:ids)"
)
_REMOVED = sql(
    "INSERT INTO removed_counts (what, line, kind, state, node_id, n, leased_s, process_s)"
    " VALUES (:what, :line, :kind, :state, :node_id, :n, :leased_s, :process_s)"
    " ON CONFLICT (what, line, kind, state, node_id) DO UPDATE SET n = removed_counts.n + :n,"
    " leased_s = removed_counts.leased_s + :leased_s, process_s = removed_counts.process_s + :process_s"
)
_DROP_OF_ATTEMPTS = (
    sql("DELETE FROM refusals WHERE attempt_id IN LIST(:ids)"),
    sql("DELETE FROM attempts WHERE id IN LIST(:ids)"),
)
_DROP_WORDS = (
    sql("DELETE FROM current_verdicts WHERE subject IN LIST(:subjects)"),
    sql(
        "DELETE FROM verdicts WHERE subject IN LIST(:subjects) AND NOT EXISTS"
        " (SELECT 1 FROM decisions d WHERE d.id = verdicts.decision_id AND d.pinned = 1)"
    ),
)
_DROP_OF_JOBS = (
    sql("DELETE FROM job_needs WHERE job_id IN LIST(:ids)"),
    sql("DELETE FROM jobs WHERE id IN LIST(:ids)"),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """finished_jobs_days: how long a job is kept after its end. finished_jobs_max: how many ended ones in all; beyond
    it, those submitted first go before their time.
    """

    finished_jobs_days: float = 30.0
    finished_jobs_max: int = 200_000

    def __post_init__(self) -> None:
        """Raise `SettingsError` for limits under which nothing could be looked up any more."""
        if not 0 < self.finished_jobs_days <= 36_500:
            raise SettingsError(
                f"finished_jobs_days {self.finished_jobs_days} must lie above 0, up to 36,500"
            )
        if self.finished_jobs_max < 100:
            raise SettingsError(
                f"finished_jobs_max {self.finished_jobs_max} is too few to see what happened",
                remedy="keep at least 100",
            )


@dataclass(frozen=True, slots=True)
class Look:
    """What a sweep found next: jobs that may go, and the cursor for the look after it (`None`: it is through)."""

    ids: tuple[int, ...]
    cursor: int | None


def look(r: Reading, cursor: int, limits: Limits) -> Look:
    """The ended jobs among the next ones that are too old, or too many. Costs the same however many there are."""
    rows = r.rows(_WINDOW, cursor=cursor, limit=WINDOW)
    excess = r.number(_FINISHED) - limits.finished_jobs_max
    before = r.now - limits.finished_jobs_days * 86400.0
    ids: list[int] = []
    for row in rows:
        if row["state"] in FINAL_JOBS and (row["ended_at"] < before or len(ids) < excess):
            ids.append(row["id"])
    return Look(tuple(ids), rows[-1]["id"] if len(rows) == WINDOW else None)


def remove(w: Writing, ids: Sequence[int], role: str) -> int:
    """Remove those of the ended jobs that nothing rests on, at most `BATCH`: how many."""
    free = w.rows(_FREE, ids=list(ids[:BATCH]))
    if not free:
        return 0
    gone = [row["id"] for row in free]
    attempts = w.rows(_ATTEMPTS, ids=gone)
    _remember(w, free, attempts)
    for statement in _DROP_OF_ATTEMPTS:
        w.run(statement, ids=[row["id"] for row in attempts])
    for statement in _DROP_WORDS:
        w.run(statement, subjects=[f"job/{job_id}" for job_id in gone])
    for statement in _DROP_OF_JOBS:
        w.run(statement, ids=gone)
    counted = Counter((row["class_id"], row["state"]) for row in free)
    job_moves.count_stored(w, {key: -n for key, n in counted.items()})
    w.emit(JobsRemoved(role, gone[0], gone[-1], len(gone), len(attempts)))
    return len(gone)


def _remember(w: Writing, jobs: Sequence[Row], attempts: Sequence[Row]) -> None:
    """Add what goes to the totals of what went before."""
    totals: dict[tuple[str, str, str, str, str], list[float]] = {}
    for row in jobs:
        totals.setdefault(("jobs", row["line"], row["kind"], row["state"], ""), [0, 0.0, 0.0])[0] += 1
    for row in attempts:
        key = ("attempts", row["line"], row["kind"], row["state"], row["node_id"])
        total = totals.setdefault(key, [0, 0.0, 0.0])
        total[0] += 1
        total[1] += row["ended_at"] - row["leased_at"]
        total[2] += row["process_s"]
    w.run_many(
        _REMOVED,
        [
            {
                "what": what, "line": line, "kind": kind, "state": state, "node_id": node_id, "n": int(n),
                "leased_s": float(leased_s), "process_s": float(process_s),
            }
            for (what, line, kind, state, node_id), (n, leased_s, process_s) in sorted(totals.items())
        ],
    )  # fmt: skip
