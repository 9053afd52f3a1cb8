"""The one way attempts end: many at once, each under its own token, with what it costs their jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from gamekeeper.core.errors import GamekeeperError, IllegalTransition, NotFound, StaleToken
from gamekeeper.core.events import AttemptEnded
from gamekeeper.core.jobs import (
    END_BUDGETS,
    END_STATES,
    AttemptState,
    Budget,
    EndReason,
    JobState,
)
from gamekeeper.store import needs
from gamekeeper.store.attempts import backoff, stale
from gamekeeper.store.counters import Tally
from gamekeeper.store.encoding import sentence, to_json
from gamekeeper.store.schema import attempts, jobs
from gamekeeper.store.session import Writing
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


ENDS: Final[Mapping[EndReason, tuple[AttemptState, Budget]]] = {
    reason: (state, END_BUDGETS[state]) for reason, state in END_STATES.items()
}


class Finish(NamedTuple):
    """The word that an attempt is over. `units` and `process_s` are totals of the attempt."""

    attempt_id: int
    token: int
    reason: EndReason
    detail: str = ""
    receipt: object = None
    units: int = 0
    process_s: float = 0.0


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


def end_many(
    w: Writing, said: Sequence[Finish], *, here: bool = False, nodes: Sequence[str] | None = None
) -> list[Ended]:
    """End attempts, charge their jobs' budgets and decide what becomes of the jobs: one answer for each, in order.

    `here`: the coordinator ends them without a word of their agents. `nodes`: for each the node it is said from, and
    must have run on. Progress never falls below what was reported, process time never exceeds the time of the lease.
    Raises `UsageError` for a receipt that JSON cannot hold.
    """
    if not said:
        return []
    rows = {row["id"]: tuple(row) for row in w.rows(_ROWS, ids=[each[0] for each in said])}
    work = _Work(w, rows, here)
    if nodes is None:
        answers = [work.answer(each, None) for each in said]
    else:
        answers = [work.answer(each, node) for each, node in zip(said, nodes, strict=True)]
    work.write()
    return answers


def jobs_over(w: Writing, over: Sequence[tuple[int, JobState]]) -> None:
    """What follows when jobs reach a final state: called once for all that do so together."""
    needs.settle(w, over)


class _Work:
    """The endings of one call, in memory until `write`."""

    def __init__(self, w: Writing, rows: dict[int, tuple[Any, ...]], here: bool) -> None:
        self._w = w
        self._rows = rows
        self._here = here
        self._done: dict[int, Ended] = {}
        self._attempts: list[tuple[Value, ...]] = []
        self._jobs: list[tuple[Value, ...]] = []
        self._over: list[tuple[int, JobState]] = []
        self._tally = Tally()

    def answer(self, said: Finish, node: str | None) -> Ended:
        attempt_id, token, reason, detail, receipt, units, process_s = said
        row = self._rows.get(attempt_id)
        if row is None or (node is not None and node != row[2]):
            unknown = f"attempt {attempt_id} does not exist"
            return _fenced(attempt_id, NotFound(unknown, remedy="see `gamekeeper jobs`"))
        (_, job_id, node_id, its_token, state, its_reason, its_detail, leased_at, ended_at, ended_here, its_units,
         its_process_s, class_id, line, kind, job_state, *budgets) = row  # fmt: skip
        if its_token != token:
            return _fenced(attempt_id, _stale(attempt_id, its_token, state, its_reason, token))
        if attempt_id in self._done:
            return self._done[attempt_id]._replace(answer="already")
        if ended_at is not None:
            if self._here or ended_here:
                return _fenced(attempt_id, _stale(attempt_id, its_token, state, its_reason, token))
            ended = AttemptState(state), EndReason(its_reason), its_detail, job_id, JobState(job_state)
            return Ended(attempt_id, "already", *ended)
        if job_state != JobState.RUNNING:
            raise IllegalTransition(f"job {job_id} is not running, though attempt {attempt_id} is live")
        w = self._w
        leased_s = max(0.0, w.now - leased_at)
        process_s = min(max(process_s, its_process_s), leased_s)
        detail = sentence(detail) if detail else ""
        to, budget = ENDS[reason]
        self._attempts.append(
            (to, reason, detail, None if receipt is None else to_json(receipt), w.now, int(self._here),
             max(units, its_units), process_s, attempt_id, token)
        )  # fmt: skip
        following = self._end_job(job_id, to, budget, reason, budgets)
        self._tally.job_moved(class_id, JobState.RUNNING, following)
        self._tally.attempt_ended(line, kind, to)
        self._tally.slot_used(node_id, leased_s, process_s)
        w.emit(AttemptEnded(attempt_id, job_id, node_id, line, to, reason, detail, following))
        answer = self._done[attempt_id] = Ended(attempt_id, "applied", to, reason, detail, job_id, following)
        return answer

    def _end_job(
        self, job_id: int, ended: AttemptState, budget: Budget, reason: EndReason, budgets: list[Any]
    ) -> JobState:
        w = self._w
        words, failures, losses, failures_allowed, losses_allowed, cancel_requested, not_before = budgets
        following, delay = JobState.READY, 0.0
        if budget is Budget.FAILURE:
            failures += 1
        elif budget is Budget.LOSS:
            losses += 1
        if not cancel_requested or ended is AttemptState.SUCCEEDED:
            words = reason
        if ended is AttemptState.SUCCEEDED:
            following = JobState.DONE
        elif cancel_requested:
            following = JobState.CANCELLED
        elif budget is Budget.FAILURE:
            exhausted = failures >= failures_allowed
            following, delay = (JobState.FAILED, 0.0) if exhausted else (JobState.READY, backoff(w, failures))
        elif budget is Budget.LOSS:
            exhausted = losses >= losses_allowed
            following, delay = (JobState.DEAD, 0.0) if exhausted else (JobState.READY, backoff(w, losses))
        if following is JobState.READY:
            self._jobs.append((following, words, failures, losses, None, w.now + delay, job_id))
        else:
            self._over.append((job_id, following))
            self._jobs.append((following, words, failures, losses, w.now, not_before, job_id))
        return following

    def write(self) -> None:
        w, ended = self._w, len(self._attempts)
        if not ended:
            return
        if w.run_rows(_END, (*_END_COLUMNS, "id", "token"), self._attempts) != ended:
            raise IllegalTransition("an attempt that was live a moment ago is not")
        if w.run_rows(_JOB_END, (*_JOB_COLUMNS, "id"), self._jobs) != ended:
            raise IllegalTransition("a job that was running a moment ago is not")
        self._tally.write(w)
        if self._over:
            jobs_over(w, self._over)


def _stale(attempt_id: int, its_token: int, state: str, reason: str, token: int) -> StaleToken:
    return stale({"id": attempt_id, "token": its_token, "state": state, "reason": reason}, token)


def _fenced(attempt_id: int, refusal: GamekeeperError) -> Ended:
    return Ended(attempt_id, "fenced", refusal=refusal)
