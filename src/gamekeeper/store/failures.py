"""Failed attempts, as those who look for their cause need them, and the pardon of those a node was to blame for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gamekeeper.core.control_events import AttemptsForgiven
from gamekeeper.core.jobs import JobState
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import sql

LOOKED_AT = 20_000

_ANY_FAILED = sql(
    "SELECT id FROM attempts WHERE {failed_attempt} AND ended_at > :since AND blameless = 0 LIMIT 1"
)
_NEWEST = sql("SELECT coalesce(max(id), 0) FROM attempts")
_ENDS = sql(
    "SELECT a.id, a.job_id, a.node_id, a.state, a.reason, a.ended_at, j.kind, j.state AS job_state"
    " FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.id > :after AND a.ended_at > :since"
    " AND (a.state = 'succeeded' OR (a.{failed_attempt} AND a.blameless = 0)) ORDER BY a.ended_at, a.id"
)
_OF_JOBS = sql(
    "SELECT a.id, a.job_id, a.node_id, a.state, a.reason, a.ended_at, j.kind, j.state AS job_state"
    " FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.job_id IN LIST(:ids)"
    " AND a.{failed_attempt} AND a.blameless = 0 ORDER BY a.ended_at, a.id"
)
_OVERDUE = sql(
    "SELECT id, state, deadline FROM jobs WHERE deadline IS NOT NULL AND {held_job} AND deadline <= :now"
    " AND cancel_requested = 0 ORDER BY deadline, id LIMIT :limit"
)
_FORGIVEN = sql(
    "SELECT id, job_id FROM attempts WHERE id IN LIST(:ids) AND node_id = :node_id AND {failed_attempt}"
    " AND blameless = 0 ORDER BY id FOR UPDATE"
)
_FORGIVE = sql("UPDATE attempts SET blameless = 1 WHERE id IN LIST(:ids)")
_UNCHARGE = sql("UPDATE jobs SET failures = failures - :n WHERE id = :id")


@dataclass(frozen=True, slots=True)
class EndedTry:
    """An attempt that succeeded, or failed by its own fault as far as is known, with its job's kind and state."""

    attempt_id: int
    job_id: int
    job_state: JobState
    kind: str
    node_id: str
    succeeded: bool
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Overdue:
    """A job that is not over, though its deadline is."""

    job_id: int
    state: JobState
    deadline: float


def recent(r: Reading, since: float) -> list[EndedTry]:
    """Successes and failures since then, in order, among the newest attempts; nothing when none of them failed.

    All failures are taken from the same newest attempts as the successes, so no failure is held against a node whose
    success was not looked at.
    """
    if r.first(_ANY_FAILED, since=since) is None:
        return []
    after = max(0, r.number(_NEWEST) - LOOKED_AT)
    return [_try(row) for row in r.rows(_ENDS, after=after, since=since)]


def failures_of(r: Reading, ids: Sequence[int]) -> list[EndedTry]:
    """All failures charged to these jobs, in order, however old."""
    return [_try(row) for row in r.rows(_OF_JOBS, ids=list(ids))] if ids else []


def overdue(r: Reading, limit: int) -> list[Overdue]:
    """Jobs whose deadline is over and which are not, nor asked to stop; the longest overdue first."""
    return [
        Overdue(row["id"], JobState(row["state"]), row["deadline"])
        for row in r.rows(_OVERDUE, now=r.now, limit=limit)
    ]


def forgive(w: Writing, node_id: str, attempt_ids: Sequence[int]) -> int:
    """Charge failures on a node to it, not to their jobs, whose budgets are given back: how many attempts.

    A job that is over stays so. Attempts of other nodes, or that did not fail, are left alone.
    """
    rows = w.rows(_FORGIVEN, ids=list(attempt_ids), node_id=node_id) if attempt_ids else []
    if not rows:
        return 0
    w.run(_FORGIVE, ids=[row["id"] for row in rows])
    charged: dict[int, int] = {}
    for row in rows:
        charged[row["job_id"]] = charged.get(row["job_id"], 0) + 1
    w.run_many(_UNCHARGE, [{"id": job_id, "n": n} for job_id, n in sorted(charged.items())])
    w.emit(AttemptsForgiven(node_id, len(rows), len(charged)))
    return len(rows)


def _try(row: Row) -> EndedTry:
    return EndedTry(
        row["id"], row["job_id"], JobState(row["job_state"]), row["kind"], row["node_id"],
        row["state"] == "succeeded", row["reason"], row["ended_at"],
    )  # fmt: skip
