"""Jobs and their attempts: grant, start, finish, list. Every step is guarded by state and token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import bindparam, or_, select

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.errors import NotFound, StaleToken, UsageError
from gamekeeper.core.events import AttemptStarted
from gamekeeper.core.jobs import (
    END_STATES,
    FINAL_JOBS,
    Attempt,
    AttemptState,
    EndReason,
    Job,
    JobState,
    ProcessIdentity,
)
from gamekeeper.core.requirements import GpuShare
from gamekeeper.store import attempts as tries
from gamekeeper.store import job_control, submission
from gamekeeper.store.attempts import attempt_of, job_of
from gamekeeper.store.encoding import sentence
from gamekeeper.store.endings import Ended, Finish, end_many
from gamekeeper.store.granting import Granted, grant_many
from gamekeeper.store.schema import jobs
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import Statement, sql

_JOB = sql("SELECT * FROM jobs WHERE id = :id")
_READY = sql(
    "SELECT * FROM jobs WHERE {ready_job} AND not_before <= :now ORDER BY not_before, id LIMIT :limit"
)
_WAITING = sql("SELECT * FROM jobs WHERE {ready_job} ORDER BY not_before, id LIMIT :limit")
_HELD = sql("SELECT * FROM jobs WHERE {held_job} ORDER BY line, kind, id")
_HELD_OF_LINE = sql("SELECT * FROM jobs WHERE {held_job} AND line = :line ORDER BY kind, id")
_LIVE_ATTEMPTS = sql("SELECT * FROM attempts WHERE {live_attempt} ORDER BY id")
_FAILED_ON = sql(
    "SELECT a.node_id, a.job_id FROM attempts a JOIN jobs j ON j.id = a.job_id"
    " WHERE a.job_id IN LIST(:ids) AND j.failures > 0 AND a.{failed_attempt} AND a.blameless = 0"
)
_ATTEMPTS_OF = sql("SELECT * FROM attempts WHERE job_id = :job_id ORDER BY id")
_ENDED = sql(
    "SELECT * FROM jobs WHERE {final_job} AND line = :line AND kind = :kind"
    " ORDER BY ended_at DESC, id DESC LIMIT :limit"
)
_ENDED_PURPOSE = sql(
    "SELECT * FROM jobs WHERE {final_job} AND line = :line AND kind = :kind AND purpose = :purpose"
    " ORDER BY ended_at DESC, id DESC LIMIT :limit"
)
_LAST_DONE = sql(
    "SELECT * FROM jobs WHERE {final_job} AND line = :line AND kind = :kind AND state = 'done'"
    " ORDER BY ended_at DESC, id DESC LIMIT 1"
)
_START = sql(
    "UPDATE attempts SET state = CASE state WHEN 'leased' THEN 'running' ELSE state END, started_at = :now,"
    " seen_at = :now, boot_id = :boot_id, pid = :pid, start_ticks = :start_ticks"
    " WHERE id = :id AND token = :token AND started_at IS NULL AND {live_attempt}"
)
_COUNTS = sql(
    "SELECT c.line, c.kind, c.purpose, t.state, sum(t.n) AS n FROM job_counts t JOIN job_classes c ON c.id = t.class_id"
    " WHERE t.n > 0 GROUP BY c.line, c.kind, c.purpose, t.state ORDER BY c.line, c.kind, c.purpose, t.state"
)


submit = submission.submit
submit_many = submission.submit_many
cancel = job_control.cancel


@dataclass(frozen=True, slots=True)
class FinishResult:
    """What a `finish` did: `applied` once; `already` for a repetition, with what was applied then."""

    result: Literal["applied", "already"]
    attempt: Attempt
    job_state: JobState


@dataclass(frozen=True, slots=True)
class JobCount:
    """How many jobs of one line, kind and purpose are in one state."""

    line: str
    kind: str
    purpose: str
    state: JobState
    n: int


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job with its newest attempt, as lists show it."""

    job: Job
    attempt: Attempt | None
    cancel_requested: bool


def get(r: Reading, job_id: int) -> Job:
    """The job. Raises `NotFound`."""
    return job_of(_job_row(r, job_id))


def class_id(r: Reading, job_id: int) -> int:
    """The class of jobs that a job belongs to. Raises `NotFound`."""
    return int(_job_row(r, job_id)["class_id"])


def attempt(r: Reading, attempt_id: int) -> Attempt:
    """The attempt. Raises `NotFound`."""
    return attempt_of(tries.row_of(r, attempt_id))


def ready(r: Reading, limit: int) -> list[Job]:
    """Jobs that may be granted now, the longest due first."""
    return [job_of(row) for row in r.rows(_READY, now=r.now, limit=limit)]


def waiting(r: Reading, limit: int) -> list[Job]:
    """Jobs in state ready, those that back off until later included, the first due first."""
    return [job_of(row) for row in r.rows(_WAITING, limit=limit)]


def live(r: Reading, line: str | None = None) -> list[Job]:
    """Jobs that are not final (of `line`, if given), by line, kind and id."""
    rows = r.rows(_HELD) if line is None else r.rows(_HELD_OF_LINE, line=line)
    return [job_of(row) for row in rows]


def live_attempts(r: Reading) -> list[Attempt]:
    """All attempts that are not final, the oldest first."""
    return [attempt_of(row) for row in r.rows(_LIVE_ATTEMPTS)]


def attempts_of(r: Reading, job_id: int) -> list[Attempt]:
    """All tries at a job, the first first."""
    return [attempt_of(row) for row in r.rows(_ATTEMPTS_OF, job_id=job_id)]


def failed_on(r: Reading, job_ids: Sequence[int]) -> dict[str, frozenset[int]]:
    """Which of these jobs failed on which node, by node id; failures that the node was blamed for do not count."""
    found: dict[str, set[int]] = {}
    for row in r.rows(_FAILED_ON, ids=list(job_ids)) if job_ids else ():
        found.setdefault(row["node_id"], set()).add(row["job_id"])
    return {node_id: frozenset(jobs) for node_id, jobs in found.items()}


def ended(r: Reading, line: str, kind: str, purpose: str | None = None, limit: int = 50) -> list[Job]:
    """Final jobs of a line and kind (and purpose, if given), the newest first."""
    if purpose is None:
        return [job_of(row) for row in r.rows(_ENDED, line=line, kind=kind, limit=limit)]
    return [job_of(row) for row in r.rows(_ENDED_PURPOSE, line=line, kind=kind, purpose=purpose, limit=limit)]


def last_done(r: Reading, line: str, kind: str) -> Job | None:
    """The job of a line and kind that was done last."""
    row = r.first(_LAST_DONE, line=line, kind=kind)
    return None if row is None else job_of(row)


def counts(r: Reading) -> list[JobCount]:
    """How many jobs stand where, zeros left out; kept incrementally, nothing is scanned."""
    return [
        JobCount(row["line"], row["kind"], row["purpose"], JobState(row["state"]), row["n"])
        for row in r.rows(_COUNTS)
    ]


def grant(w: Writing, job_id: int, node_id: str, incarnation: str, gpus: Sequence[GpuShare] = ()) -> Attempt:
    """Lease a ready job to an agent incarnation under a fresh token, with `gpus` set aside for it.

    Raises `StaleToken`, and changes nothing, when the job is not ready or not due, the incarnation is not the node's
    current one, its lease is over, or no slot is free; `NotFound` for an unknown job.
    """
    (answer,) = grant_many(w, [GrantJob(job_id, node_id, incarnation, tuple(gpus))])
    if not isinstance(answer, Granted):
        raise answer
    return answer.attempt


def started(w: Writing, attempt_id: int, token: int, identity: ProcessIdentity) -> Attempt:
    """Note that the attempt's process runs. Said again for the same process, it changes nothing.

    Raises `StaleToken` when the token is not the attempt's, it is over, or it runs as another process; `NotFound`.
    """
    changed = w.run(
        _START, id=attempt_id, token=token, now=w.now, boot_id=sentence(identity.boot_id, 64), pid=identity.pid,
        start_ticks=identity.start_ticks,
    )  # fmt: skip
    row = tries.row_of(w, attempt_id)
    if changed:
        w.emit(
            AttemptStarted(
                attempt_id,
                row["job_id"],
                row["node_id"],
                identity.boot_id,
                identity.pid,
                identity.start_ticks,
            )
        )
        return attempt_of(row)
    if row["token"] != token or row["ended_at"] is not None:
        raise tries.stale(row, token)
    if (row["boot_id"], row["pid"], row["start_ticks"]) != (
        identity.boot_id, identity.pid, identity.start_ticks,
    ):  # fmt: skip
        raise StaleToken(
            f"attempt {attempt_id} runs as process {row['pid']}, not {identity.pid}",
            remedy="end the second process",
        )
    return attempt_of(row)


def finish(
    w: Writing,
    attempt_id: int,
    token: int,
    state: AttemptState,
    reason: EndReason,
    *,
    detail: str = "",
    receipt: object = None,
    units: int = 0,
    process_s: float = 0.0,
) -> FinishResult:
    """End an attempt on its agent's word, and its job or the job's try with it.

    `state` must be the one of `reason`. A repetition changes nothing and answers `already` with what was applied the
    first time. Raises `StaleToken` when the token is not the attempt's, or the coordinator ended it before; `NotFound`.
    """
    if END_STATES[reason] is not state:
        raise UsageError(f"an attempt that ends for {reason} is {END_STATES[reason]}, not {state}")
    said = Finish(attempt_id, token, reason, detail, receipt, units, process_s)
    return _ended(w, end_many(w, [said])[0])


def end_from_here(w: Writing, attempt_id: int, token: int, reason: EndReason, detail: str) -> FinishResult:
    """End a live attempt without its agent (its lease is over). Raises `StaleToken` when it is over; `NotFound`."""
    return _ended(w, end_many(w, [Finish(attempt_id, token, reason, detail)], here=True)[0])


def _ended(w: Writing, answer: Ended) -> FinishResult:
    if answer.refusal is not None:
        raise answer.refusal
    assert answer.answer != "fenced"  # noqa: S101 - a fenced answer has its refusal
    assert answer.job_state is not None  # noqa: S101 - and any other a state
    return FinishResult(answer.answer, attempt(w, answer.attempt_id), answer.job_state)


def listing(
    r: Reading,
    *,
    states: Sequence[JobState] = (),
    line: str | None = None,
    kind: str | None = None,
    limit: int = 100,
) -> list[JobLine]:
    """The newest jobs that match, each with its newest attempt; newest first."""
    statement = _listing(tuple(sorted(states)), line is not None, kind is not None)
    found = r.rows(statement, line=line, kind=kind, limit=limit)
    return [_job_line(r, row) for row in found]


def line_of(r: Reading, job_id: int) -> JobLine:
    """A job with its newest attempt. Raises `NotFound`."""
    return _job_line(r, _job_row(r, job_id))


_LISTINGS: dict[tuple[tuple[JobState, ...], bool, bool], Statement] = {}
_LAST_ATTEMPT = sql("SELECT * FROM attempts WHERE job_id = :job_id ORDER BY id DESC LIMIT 1")


def _listing(states: tuple[JobState, ...], by_line: bool, by_kind: bool) -> Statement:
    key = (states, by_line, by_kind)
    if key not in _LISTINGS:
        clause = select(jobs).order_by(jobs.c.id.desc()).limit(bindparam("limit"))
        if states:
            clause = clause.where(or_(*(jobs.c.state == str(state) for state in states)))
        if by_line:
            clause = clause.where(jobs.c.line == bindparam("line"))
        if by_kind:
            clause = clause.where(jobs.c.kind == bindparam("kind"))
        _LISTINGS[key] = Statement(clause)
    return _LISTINGS[key]


def _job_line(r: Reading, row: Row) -> JobLine:
    newest = r.first(_LAST_ATTEMPT, job_id=row["id"])
    asked = bool(row["cancel_requested"]) and JobState(row["state"]) not in FINAL_JOBS
    return JobLine(job_of(row), None if newest is None else attempt_of(newest), asked)


def _job_row(r: Reading, job_id: int) -> Row:
    row = r.first(_JOB, id=job_id)
    if row is None:
        raise NotFound(f"job {job_id} does not exist", remedy="see `gamekeeper jobs`")
    return row
