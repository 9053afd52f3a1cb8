"""The one way attempts end: many at once, each under its own token, with what it costs their jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gamekeeper.core import jobs as vocabulary
from gamekeeper.core.errors import GamekeeperError, IllegalTransition, NotFound
from gamekeeper.core.events import AttemptEnded
from gamekeeper.core.jobs import (
    END_BUDGETS,
    END_STATES,
    FINAL_JOBS,
    LIVE_ATTEMPTS,
    AttemptState,
    Budget,
    EndReason,
    JobState,
)
from gamekeeper.store.attempts import backoff, stale
from gamekeeper.store.counters import Tally
from gamekeeper.store.encoding import sentence, to_json
from gamekeeper.store.schema import attempts, jobs
from gamekeeper.store.session import Row, Writing
from gamekeeper.store.statements import Value, changing, sql

_ROWS = sql(
    "SELECT a.id, a.job_id, a.node_id, a.token, a.state, a.reason, a.detail, a.leased_at, a.ended_at, a.ended_here,"
    " a.units, a.process_s, j.class_id, j.line, j.kind, j.state AS job_state, j.reason AS job_reason, j.failures,"
    " j.losses, j.failures_allowed, j.losses_allowed, j.cancel_requested, j.not_before"
    " FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.id IN LIST(:ids) ORDER BY a.id FOR UPDATE"
)
_END_COLUMNS = ("state", "reason", "detail", "receipt", "ended_at", "ended_here", "units", "process_s")
_END = changing(attempts, keys=("id", "token"), columns=_END_COLUMNS, guard="{live_attempt}")
_JOB_COLUMNS = ("state", "reason", "failures", "losses", "ended_at", "not_before")
_JOB_END = changing(jobs, keys=("id",), columns=_JOB_COLUMNS, guard="state = 'running'")


@dataclass(frozen=True, slots=True)
class Ending:
    """That an attempt is over, in the word of its agent, or of the coordinator (`here`).

    `node_id`, when given, must be the attempt's. `units` and `process_s` are totals.
    """

    attempt_id: int
    token: int
    reason: EndReason
    detail: str = ""
    receipt: object = None
    units: int = 0
    process_s: float = 0.0
    here: bool = False
    node_id: str | None = None


class Ended(NamedTuple):
    """What came of an ending.

    answer: `applied` once; `already` for a repetition of the agent's word, with what was applied then; `fenced` when
    the token is not the attempt's, the attempt is unknown or it was ended otherwise: nothing was changed, `refusal`
    says why, and the other fields are empty. `job_state` is the job's state now.
    """

    attempt_id: int
    answer: Literal["applied", "already", "fenced"]
    state: AttemptState | None = None
    reason: EndReason | None = None
    detail: str = ""
    job_id: int = 0
    job_state: JobState | None = None
    refusal: GamekeeperError | None = None


def end_many(w: Writing, endings: Sequence[Ending]) -> list[Ended]:
    """End attempts, charge their jobs' budgets and decide what becomes of the jobs: one answer for each, in order.

    Progress never falls below what was reported, process time never exceeds the time of the lease. Raises `UsageError`
    for a receipt that JSON cannot hold.
    """
    if not endings:
        return []
    work = _Work(w, {row["id"]: row for row in w.rows(_ROWS, ids=[each.attempt_id for each in endings])})
    answers = [work.answer(each) for each in endings]
    work.write()
    return answers


def jobs_over(w: Writing, over: Sequence[tuple[int, JobState]]) -> None:
    """What follows when jobs reach a final state: called once for all that do so together."""


class _Work:
    """The endings of one call, in memory until `write`."""

    def __init__(self, w: Writing, rows: dict[int, Row]) -> None:
        self._w = w
        self._rows = rows
        self._done: dict[int, Ended] = {}
        self._attempts: list[tuple[Value, ...]] = []
        self._jobs: list[tuple[Value, ...]] = []
        self._over: list[tuple[int, JobState]] = []
        self._tally = Tally()

    def answer(self, said: Ending) -> Ended:
        row = self._rows.get(said.attempt_id)
        if row is None or said.node_id not in (None, row["node_id"]):
            unknown = f"attempt {said.attempt_id} does not exist"
            return _fenced(said, NotFound(unknown, remedy="see `gamekeeper jobs`"))
        if row["token"] != said.token:
            return _fenced(said, stale(row, said.token))
        done = self._done.get(said.attempt_id)
        if done is not None:
            return done._replace(answer="already")
        if row["state"] in LIVE_ATTEMPTS:
            return self._apply(said, row)
        if said.here or row["ended_here"]:
            return _fenced(said, stale(row, said.token))
        return Ended(
            said.attempt_id, "already", AttemptState(row["state"]), EndReason(row["reason"]), row["detail"],
            row["job_id"], JobState(row["job_state"]),
        )  # fmt: skip

    def _apply(self, said: Ending, row: Row) -> Ended:
        w, state, reason = self._w, END_STATES[said.reason], said.reason
        leased_s = max(0.0, w.now - row["leased_at"])
        process_s = min(max(said.process_s, row["process_s"]), leased_s)
        detail = sentence(said.detail)
        receipt = None if said.receipt is None else to_json(said.receipt)
        self._attempts.append(
            (state, reason, detail, receipt, w.now, int(said.here), max(said.units, row["units"]), process_s,
             said.attempt_id, said.token)
        )  # fmt: skip
        self._tally.attempt_ended(row["line"], row["kind"], state)
        self._tally.slot_used(row["node_id"], leased_s, process_s)
        job_id, following = row["job_id"], self._end_job(row, state, reason)
        w.emit(
            AttemptEnded(
                said.attempt_id, job_id, row["node_id"], row["line"], state, reason, detail, following
            )
        )
        ended = Ended(said.attempt_id, "applied", state, reason, detail, job_id, following)
        self._done[said.attempt_id] = ended
        return ended

    def _end_job(self, row: Row, ended: AttemptState, reason: EndReason) -> JobState:
        w, budget = self._w, END_BUDGETS[ended]
        failures = row["failures"] + (budget is Budget.FAILURE)
        losses = row["losses"] + (budget is Budget.LOSS)
        following, delay, words = JobState.READY, 0.0, str(reason)
        if ended is AttemptState.SUCCEEDED:
            following = JobState.DONE
        elif row["cancel_requested"]:
            following, words = JobState.CANCELLED, row["job_reason"]
        elif budget is Budget.FAILURE:
            exhausted = failures >= row["failures_allowed"]
            following, delay = (JobState.FAILED, 0.0) if exhausted else (JobState.READY, backoff(w, failures))
        elif budget is Budget.LOSS:
            exhausted = losses >= row["losses_allowed"]
            following, delay = (JobState.DEAD, 0.0) if exhausted else (JobState.READY, backoff(w, losses))
        job_id = row["job_id"]
        vocabulary.check_job_transition(job_id, JobState.RUNNING, following)
        final = following in FINAL_JOBS
        if final:
            self._over.append((job_id, following))
        ended_at, not_before = (w.now, row["not_before"]) if final else (None, w.now + delay)
        self._jobs.append((following, words, failures, losses, ended_at, not_before, job_id))
        self._tally.job_moved(row["class_id"], JobState.RUNNING, following)
        return following

    def write(self) -> None:
        w, ended = self._w, len(self._attempts)
        if not ended:
            return
        if w.run_rows(_END, (*_END_COLUMNS, "id", "token"), self._attempts) != ended:
            raise IllegalTransition("an attempt that was live a moment ago is not")
        if w.run_rows(_JOB_END, (*_JOB_COLUMNS, "id"), self._jobs) != ended:
            raise self._not_running()
        self._tally.write(w)
        if self._over:
            jobs_over(w, self._over)

    def _not_running(self) -> IllegalTransition:
        wrong = next(
            row
            for row in self._rows.values()
            if row["state"] in LIVE_ATTEMPTS and row["job_state"] != JobState.RUNNING
        )
        return IllegalTransition(
            f"job {wrong['job_id']} is not running, though attempt {wrong['id']} is live"
        )


def _fenced(said: Ending, refusal: GamekeeperError) -> Ended:
    return Ended(said.attempt_id, "fenced", refusal=refusal)
