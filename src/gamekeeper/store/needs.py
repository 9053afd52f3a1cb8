"""What the end of jobs means for those that need them: made ready, skipped or cancelled, all in one transaction.

Only the rule "cancel" spreads on: whoever needs a skipped job goes on as if it were done. So all that a bad end reaches
is one closure over the needs with that rule, which the database finds in one query however long the chain is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gamekeeper.core.jobs import FailureRule, JobState, Need
from gamekeeper.store import job_moves
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.statements import sql

MET_STATES = frozenset({JobState.DONE, JobState.SKIPPED})

_ANY = sql("SELECT job_id FROM job_needs WHERE met = 0 AND needs_id IN LIST(:ids) LIMIT 1")
_CANCELLED = sql(
    "WITH RECURSIVE reached(id) AS ("
    "SELECT d.job_id FROM job_needs d JOIN jobs j ON j.id = d.job_id WHERE d.met = 0 AND d.rule = 'cancel'"
    " AND d.needs_id IN LIST(:ids) AND j.state IN ('waiting', 'held')"
    " UNION SELECT d.job_id FROM reached r JOIN job_needs d ON d.needs_id = r.id JOIN jobs j ON j.id = d.job_id"
    " WHERE d.met = 0 AND d.rule = 'cancel' AND j.state IN ('waiting', 'held')"
    ") SELECT id FROM reached ORDER BY id"
)
_CAUSES = sql(
    "SELECT job_id, min(needs_id) AS needs_id FROM job_needs WHERE met = 0 AND rule = :rule"
    " AND needs_id IN LIST(:ids) GROUP BY job_id ORDER BY job_id"
)
_MET_BY_ANY = sql(
    "SELECT job_id, count(*) AS n FROM job_needs WHERE met = 0 AND needs_id IN LIST(:ids)"
    " GROUP BY job_id ORDER BY job_id"
)
_MET_BY_RULE = sql(
    "SELECT job_id, count(*) AS n FROM job_needs WHERE met = 0 AND rule = 'run' AND needs_id IN LIST(:ids)"
    " GROUP BY job_id ORDER BY job_id"
)
_MEET_ANY = sql("UPDATE job_needs SET met = 1 WHERE met = 0 AND needs_id IN LIST(:ids)")
_MEET_BY_RULE = sql("UPDATE job_needs SET met = 1 WHERE met = 0 AND rule = 'run' AND needs_id IN LIST(:ids)")
_LESS = sql("UPDATE jobs SET unmet = unmet - :n WHERE id = :id")
_NEEDS_OF = sql(
    "SELECT d.needs_id, d.rule, d.met, j.state FROM job_needs d LEFT JOIN jobs j ON j.id = d.needs_id"
    " WHERE d.job_id = :job_id ORDER BY d.needs_id"
)
_OF_MANY = sql(
    "SELECT job_id, needs_id, rule FROM job_needs WHERE job_id IN LIST(:ids) ORDER BY job_id, needs_id"
)
_NEEDED_BY = sql("SELECT job_id FROM job_needs WHERE needs_id = :job_id ORDER BY job_id LIMIT :limit")


def settle(w: Writing, ended: Sequence[tuple[int, JobState]]) -> list[int]:
    """Apply the ends of jobs to those that need them; the ids of jobs that became ready.

    Done and skipped jobs meet the need. For the others the rule of each need decides: "cancel" cancels the job and goes
    on to those that need it, "skip" ends it skipped, "run" counts as met. Where rules of one job meet, cancel wins over
    skip, and skip over run. To be called in the transaction in which the jobs ended.
    """
    over = dict(ended)
    if not over or w.first(_ANY, ids=list(over)) is None:
        return []
    bad = {job_id: state for job_id, state in over.items() if state not in MET_STATES}
    met = [job_id for job_id in over if job_id not in bad]
    if bad:
        cancelled = [row["id"] for row in w.rows(_CANCELLED, ids=list(bad))]
        bad |= dict.fromkeys(cancelled, JobState.CANCELLED)
        _end(w, cancelled, FailureRule.CANCEL, bad, JobState.CANCELLED)
        causes = [row["job_id"] for row in w.rows(_CAUSES, rule=FailureRule.SKIP, ids=list(bad))]
        met += _end(w, causes, FailureRule.SKIP, bad, JobState.SKIPPED)
    relieved = {row["job_id"]: row["n"] for row in w.rows(_MET_BY_ANY, ids=met)} if met else {}
    if met:
        w.run(_MEET_ANY, ids=met)
    if bad:
        for row in w.rows(_MET_BY_RULE, ids=list(bad)):
            relieved[row["job_id"]] = relieved.get(row["job_id"], 0) + row["n"]
        w.run(_MEET_BY_RULE, ids=list(bad))
    return _relieve(w, relieved)


def needs_of(r: Reading, job_id: int) -> list[tuple[Need, bool, JobState | None]]:
    """What a job needs: the need, whether it is met, and the state of the needed job (`None`: no longer kept)."""
    return [
        (
            Need(row["needs_id"], FailureRule(row["rule"])),
            bool(row["met"]),
            None if row["state"] is None else JobState(row["state"]),
        )
        for row in r.rows(_NEEDS_OF, job_id=job_id)
    ]


def needs_of_many(r: Reading, ids: Sequence[int]) -> dict[int, tuple[Need, ...]]:
    """What each of the jobs needs, as it was submitted; jobs without needs are left out."""
    found: dict[int, tuple[Need, ...]] = {}
    for row in r.rows(_OF_MANY, ids=list(ids)):
        found[row["job_id"]] = (
            *found.get(row["job_id"], ()),
            Need(row["needs_id"], FailureRule(row["rule"])),
        )
    return found


def needed_by(r: Reading, job_id: int, limit: int = 100) -> list[int]:
    """Jobs that need this one, the first ones by id."""
    return [row["job_id"] for row in r.rows(_NEEDED_BY, job_id=job_id, limit=limit)]


def _end(
    w: Writing, ids: Sequence[int], rule: FailureRule, over: Mapping[int, JobState], following: JobState
) -> list[int]:
    """End those of the jobs that have not started: which. The reason names the job each needed in vain."""
    rows = [row for row in job_moves.rows_of(w, ids).values() if _waits(row["state"])]
    causes = {row["job_id"]: row["needs_id"] for row in w.rows(_CAUSES, rule=rule, ids=list(over))}
    reasons = {row["id"]: _reason(causes[row["id"]], over) for row in rows}
    job_moves.move(w, rows, following, reasons)
    return [row["id"] for row in rows]


def _relieve(w: Writing, relieved: Mapping[int, int]) -> list[int]:
    """Take met needs off jobs; those that have none left and only waited for them become ready."""
    rows = [row for row in job_moves.rows_of(w, list(relieved)).values() if _waits(row["state"])]
    w.run_many(_LESS, [{"id": row["id"], "n": relieved[row["id"]]} for row in rows])
    free = [row for row in rows if row["state"] == JobState.WAITING and row["unmet"] == relieved[row["id"]]]
    job_moves.move(w, free, JobState.READY, {row["id"]: "" for row in free})
    return [row["id"] for row in free]


def _waits(state: str) -> bool:
    return state in {JobState.WAITING, JobState.HELD}


def _reason(needed: int, over: Mapping[int, JobState]) -> str:
    return f"it needs job {needed}, which ended {over[needed]}"
