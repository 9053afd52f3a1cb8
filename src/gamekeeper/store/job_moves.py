"""Changes of many jobs' states at once, with the counters and the log that go with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gamekeeper.core.errors import IllegalTransition
from gamekeeper.core.events import JobEnded
from gamekeeper.core.jobs import JobState, check_job_transition
from gamekeeper.store.encoding import sentence
from gamekeeper.store.schema import jobs
from gamekeeper.store.session import Row, Writing
from gamekeeper.store.statements import changing, sql

UNSTARTED = frozenset({JobState.WAITING, JobState.READY, JobState.HELD})

_ROWS = sql(
    "SELECT id, class_id, line, kind, state, unmet, cancel_requested, reason FROM jobs WHERE id IN LIST(:ids)"
    " ORDER BY id FOR UPDATE"
)
_GUARD = "state IN ('waiting', 'ready', 'held')"
_END = changing(jobs, keys=("id",), columns=("state", "reason", "ended_at"), guard=_GUARD)
_MOVE = changing(jobs, keys=("id",), columns=("state", "reason"), guard=_GUARD)
_COUNT = sql("UPDATE job_counts SET n = n + :n WHERE class_id = :class_id AND state = :state")


def rows_of(w: Writing, ids: Sequence[int]) -> dict[int, Row]:
    """Those of the jobs that exist, held until the commit, by id."""
    return {row["id"]: row for row in w.rows(_ROWS, ids=list(ids))} if ids else {}


def move(w: Writing, rows: Sequence[Row], following: JobState, reasons: Mapping[int, str]) -> None:
    """Bring jobs that have not started (`rows` of `rows_of`) to `following`, each for its reason.

    A final state is told in the log. Raises `IllegalTransition` when one cannot go there; the caller's transaction is
    to be given up then.
    """
    if not rows:
        return
    final = following not in UNSTARTED
    values = []
    for row in rows:
        check_job_transition(row["id"], JobState(row["state"]), following)
        values.append({
            "id": row["id"], "state": following, "reason": sentence(reasons[row["id"]]), "ended_at": w.now,
        })  # fmt: skip
    if w.run_many(_END if final else _MOVE, values) != len(rows):
        raise IllegalTransition("a job has changed while it was looked at", remedy="look again")
    count_moves(w, [(row["class_id"], row["state"], following) for row in rows])
    if final:
        for row, value in zip(rows, values, strict=True):
            w.emit(JobEnded(row["id"], row["line"], str(following), str(value["reason"])))


def count_moves(w: Writing, moves: Sequence[tuple[int, str, str]]) -> None:
    """Keep the counters true for jobs that went, in class `moves[i][0]`, from one state to another."""
    changes: Counter[tuple[int, str]] = Counter()
    for class_id, current, following in moves:
        changes[class_id, str(current)] -= 1
        changes[class_id, str(following)] += 1
    # In a fixed order: two transactions that count the same classes cannot wait for each other.
    w.run_many(
        _COUNT,
        [{"class_id": key[0], "state": key[1], "n": n} for key, n in sorted(changes.items()) if n],
    )


def count_stored(w: Writing, stored: Mapping[tuple[int, str], int]) -> None:
    """Count jobs that were just stored, or removed when negative: {(class, state): how many}."""
    w.run_many(_COUNT, [{"class_id": key[0], "state": key[1], "n": n} for key, n in sorted(stored.items())])
