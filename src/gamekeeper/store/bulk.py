"""Operations on many jobs: looked at first, then written down and done in batches, so that they survive any crash.

An operation counts for the jobs that exist when it is started. Each batch moves a cursor over their ids in the
transaction that changes them: what was done is never done twice, whoever goes on with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, bindparam, func, select

from gamekeeper.core.control_events import BulkEnded, BulkStarted
from gamekeeper.core.errors import IllegalTransition, NotFound, UsageError
from gamekeeper.core.job_filter import JobFilter, parse
from gamekeeper.core.jobs import JobState
from gamekeeper.store import job_control, job_moves
from gamekeeper.store.encoding import sentence
from gamekeeper.store.job_control import Verb
from gamekeeper.store.schema import bulk_operations, jobs
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import Value, adding, sql
from gamekeeper.store.submission import ANY_TERMS, Terms

BATCH = 500
WINDOW = 5000
SAMPLES = 5

_LAST_ID = sql("SELECT value FROM counters WHERE name = 'jobs'")
_LEAST_ID = sql("SELECT coalesce(min(id), 1) FROM jobs")
_ADD = adding(bulk_operations, returning="id")
_GET = sql("SELECT * FROM bulk_operations WHERE id = :id")
_TAKE = sql("SELECT id FROM bulk_operations WHERE id = :id FOR UPDATE")
_LIST = sql("SELECT * FROM bulk_operations ORDER BY id DESC LIMIT :limit")
_RUNNING = sql("SELECT id FROM bulk_operations WHERE state = 'running' ORDER BY id")
_ADVANCE = sql(
    "UPDATE bulk_operations SET cursor = :cursor, seen = seen + :seen, changed = changed + :changed,"
    " skipped = skipped + :skipped WHERE id = :id"
)
_CLOSE = sql("UPDATE bulk_operations SET state = :state, ended_at = :now WHERE id = :id")

# The states from which each operation leads anywhere: others are not even looked at.
TOUCHED: Mapping[Verb, frozenset[JobState]] = {
    Verb.CANCEL: job_moves.UNSTARTED | {JobState.RUNNING},
    Verb.HOLD: frozenset({JobState.WAITING, JobState.READY}),
    Verb.RELEASE: frozenset({JobState.HELD}),
    Verb.RETRY: job_control.RETRIED_STATES,
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A job that an operation would change."""

    job_id: int
    kind: str
    line: str
    state: str
    reason: str


@dataclass(slots=True)
class Plan:
    """What an operation would change: how many jobs in all, by (state, kind, line), and the first few of them.

    `after`: the last id looked at; the plan is whole when it is `last_id`.
    """

    after: int
    last_id: int
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)

    @property
    def jobs(self) -> int:
        """How many jobs were found so far."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Operation:
    """A stored operation. seen: jobs that matched so far; changed: those it changed; skipped: those it could not."""

    id: int
    verb: Verb
    filter: JobFilter
    reason: str
    author: str
    state: str
    cursor: int
    last_id: int
    seen: int
    changed: int
    skipped: int
    created_at: float
    ended_at: float | None


def begin_plan(r: Reading, wanted: JobFilter) -> Plan:
    """An empty plan over the jobs of now."""
    first, last = _range(r, wanted)
    return Plan(first - 1, last)


def go_on_planning(r: Reading, plan: Plan, verb: Verb, wanted: JobFilter) -> bool:
    """Look at the next jobs; whether some are left to look at. Costs the same however many there are."""
    upto = min(plan.last_id, plan.after + WINDOW)
    for row in _matching(r, verb, wanted, after=plan.after, upto=upto, limit=WINDOW, at=r.now):
        plan.counts[row["state"], row["kind"], row["line"]] += 1
        if len(plan.samples) < SAMPLES:
            plan.samples.append(Sample(row["id"], row["kind"], row["line"], row["state"], row["reason"]))
    plan.after = upto
    return upto < plan.last_id


def start(w: Writing, verb: Verb, wanted: JobFilter, reason: str, author: str) -> int:
    """Write an operation down, to be done in batches: its id. Raises `UsageError` for a filter that names all jobs."""
    if wanted.is_empty:
        raise UsageError(
            "an operation on all jobs must say so", remedy="name ids or conditions, as in: state=ready"
        )
    first, last = _range(w, wanted)
    found = w.number(
        _ADD, verb=verb, filter=str(wanted), reason=sentence(reason), author=sentence(author, 255), state="running",
        cursor=first - 1, last_id=last, seen=0, changed=0, skipped=0, created_at=w.now, ended_at=None,
    )  # fmt: skip
    w.emit(BulkStarted(found, str(verb), str(wanted), sentence(author, 255)))
    return found


def step(w: Writing, bulk_id: int, terms: Terms = ANY_TERMS) -> bool:
    """Do the next batch of an operation; whether it is still running.

    Nothing is done to one that is not running. Raises `NotFound`; `OverQuota` when retried jobs must wait for room.
    """
    w.first(_TAKE, id=bulk_id)
    known = get(w, bulk_id)
    if known.state != "running":
        return False
    upto = min(known.last_id, known.cursor + WINDOW)
    rows = _matching(
        w, known.verb, known.filter, after=known.cursor, upto=upto, limit=BATCH, at=known.created_at
    )
    if len(rows) == BATCH:
        upto = rows[-1]["id"]
    ids = [row["id"] for row in rows]
    done = job_control.act(w, known.verb, ids, known.reason, terms)
    w.run(
        _ADVANCE, id=bulk_id, cursor=upto, seen=len(ids), changed=len(done.changed),
        skipped=len(done.refused) + len(done.already),
    )  # fmt: skip
    if upto < known.last_id:
        return True
    _close(w, bulk_id, "done")
    return False


def stop(w: Writing, bulk_id: int) -> Operation:
    """End an operation where it stands; what it did stays. Stopping a stopped one changes nothing.

    Raises `IllegalTransition` for one that is done, `NotFound`.
    """
    w.first(_TAKE, id=bulk_id)
    known = get(w, bulk_id)
    if known.state == "done":
        raise IllegalTransition(
            f"operation {bulk_id} is done already", remedy="see `gamekeeper jobs bulk list`"
        )
    if known.state == "running":
        _close(w, bulk_id, "stopped")
    return get(w, bulk_id)


def get(r: Reading, bulk_id: int) -> Operation:
    """The operation. Raises `NotFound`."""
    row = r.first(_GET, id=bulk_id)
    if row is None:
        raise NotFound(f"operation {bulk_id} does not exist", remedy="see `gamekeeper jobs bulk list`")
    return _operation(row)


def newest(r: Reading, limit: int = 50) -> list[Operation]:
    """The newest operations, newest first."""
    return [_operation(row) for row in r.rows(_LIST, limit=limit)]


def running(r: Reading) -> list[int]:
    """Operations that are not done, the oldest first."""
    return [row["id"] for row in r.rows(_RUNNING)]


def _close(w: Writing, bulk_id: int, state: str) -> None:
    w.run(_CLOSE, id=bulk_id, state=state, now=w.now)
    known = get(w, bulk_id)
    w.emit(BulkEnded(bulk_id, state, known.seen, known.changed, known.skipped))


def _range(r: Reading, wanted: JobFilter) -> tuple[int, int]:
    """The first and last id that an operation is about."""
    first, last = r.number(_LEAST_ID), r.number(_LAST_ID)
    if wanted.ids:
        return max(first, min(wanted.ids)), min(last, max(wanted.ids))
    return first, last


def _matching(
    r: Reading, verb: Verb, wanted: JobFilter, *, after: int, upto: int, limit: int, at: float
) -> list[Row]:
    """Jobs with ids in (after, upto] that the operation would touch, by id. Ages are measured at `at`."""
    states = TOUCHED[verb] & set(wanted.state) if wanted.state else TOUCHED[verb]
    ids = [one for one in wanted.ids if after < one <= upto]
    if not states or (wanted.ids and not ids):
        return []
    values: dict[str, Value] = {"after": after, "upto": upto, "limit": limit}
    clauses: list[ColumnElement[bool]] = [
        jobs.c.id > bindparam("after"), jobs.c.id <= bindparam("upto"), jobs.c.state.in_(sorted(map(str, states))),
    ]  # fmt: skip
    for name in ("line", "kind", "purpose", "producer"):
        if getattr(wanted, name):
            clauses.append(jobs.c[name].in_(getattr(wanted, name)))
    if ids:
        clauses.append(jobs.c.id.in_(ids))
    if wanted.reason:
        clauses.append(func.lower(jobs.c.reason).contains(wanted.reason.lower(), autoescape=True))
    if wanted.older is not None:
        clauses.append(jobs.c.created_at <= at - wanted.older)
    if wanted.newer is not None:
        clauses.append(jobs.c.created_at >= at - wanted.newer)
    columns = (jobs.c.id, jobs.c.kind, jobs.c.line, jobs.c.state, jobs.c.reason)
    clause = select(*columns).where(*clauses).order_by(jobs.c.id).limit(bindparam("limit"))
    # Run through SQLAlchemy: the values of such lists are not parameters of one fixed statement.
    found = r.conn.execute(clause, values).mappings().all()
    return list(found)


def _operation(row: Row) -> Operation:
    return Operation(
        row["id"], Verb(row["verb"]), parse(row["filter"]), row["reason"], row["author"], row["state"], row["cursor"],
        row["last_id"], row["seen"], row["changed"], row["skipped"], row["created_at"], row["ended_at"],
    )  # fmt: skip
