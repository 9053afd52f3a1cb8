"""What people and policies do to jobs: cancel, hold, release, retry, park; one at a time or many in one transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gamekeeper.core.control_events import JobCancelRequested, JobHeld, JobReleased, JobRetried
from gamekeeper.core.errors import IllegalTransition, NotFound
from gamekeeper.core.jobs import FailureRule, JobSpec, JobState, Need
from gamekeeper.store import job_moves, needs, submission
from gamekeeper.store.attempts import job_of
from gamekeeper.store.encoding import sentence
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import sql
from gamekeeper.store.submission import ANY_TERMS, Terms

RETRIED_STATES = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.SKIPPED, JobState.DEAD})

_JOBS = sql("SELECT * FROM jobs WHERE id IN LIST(:ids) ORDER BY id FOR UPDATE")
_ASK_CANCEL = sql(
    "UPDATE jobs SET cancel_requested = 1, reason = :reason WHERE id IN LIST(:ids) AND state = 'running'"
)
_SUCCESSORS = sql("SELECT id, retry_of FROM jobs WHERE retry_of IN LIST(:ids) ORDER BY id")
_STATES = sql("SELECT id, state FROM jobs WHERE id IN LIST(:ids)")


class Verb(StrEnum):
    """What can be done to many jobs."""

    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of each job: changed by this call, as wanted already, or refused with the reason why.

    `successors`: for retries, {job: its successor}, those of earlier calls included.
    """

    changed: tuple[int, ...]
    already: tuple[int, ...]
    refused: dict[int, str]
    successors: dict[int, int] = dataclasses.field(default_factory=dict)


def act(w: Writing, verb: Verb, ids: Sequence[int], reason: str, terms: Terms = ANY_TERMS) -> Done:
    """Do one thing to many jobs. A job that it cannot be done to is refused and stops nothing; unknown ones too."""
    return _ACTS[verb](w, list(dict.fromkeys(ids)), sentence(reason), terms)


def cancel(w: Writing, job_id: int, reason: str, *, if_ready: bool = False) -> JobState:
    """Cancel a job; the state it is in afterwards.

    One that has not started is cancelled at once. One that runs is marked: its agent is told at its next beat, and the
    job ends cancelled unless its work is done by then; with `if_ready` it is left alone. Cancelling a cancelled job
    changes nothing. Raises `IllegalTransition` for a job that ended otherwise, or that runs and must not; `NotFound`.
    """
    row = _one(w, job_id)
    if if_ready and row["state"] == JobState.RUNNING:
        raise IllegalTransition(f"job {job_id} runs already", remedy="leave it, or cancel it all the same")
    _single(act(w, Verb.CANCEL, [job_id], reason), job_id)
    return JobState(_one(w, job_id)["state"])


def hold(w: Writing, job_id: int, reason: str) -> JobState:
    """Hold back a job that has not started; its state. Holding it again changes nothing.

    Raises `IllegalTransition` for one that runs or is over; `NotFound`.
    """
    _one(w, job_id)
    _single(act(w, Verb.HOLD, [job_id], reason), job_id)
    return JobState.HELD


def release(w: Writing, job_id: int) -> JobState:
    """Hold a job back no longer; the state it is in: ready, or waiting for the jobs it needs.

    One that is not held is left as it is. Raises `IllegalTransition` for one that runs or is over; `NotFound`.
    """
    _one(w, job_id)
    _single(act(w, Verb.RELEASE, [job_id], ""), job_id)
    return JobState(_one(w, job_id)["state"])


def retry(w: Writing, job_id: int, terms: Terms = ANY_TERMS) -> tuple[int, bool]:
    """Give a job that came to nothing a successor with the same specification and fresh budgets: (its id, created).

    Asked again, the same successor is answered. It has the job's key if that is free, and needs what the job needed
    (of a needed job that was retried, the successor). A deadline that is over is dropped. Raises `IllegalTransition`
    for a job that is not over or is done, or needs one that came to nothing; `NotFound`; `OverQuota`.
    """
    _one(w, job_id)
    done = act(w, Verb.RETRY, [job_id], "", terms)
    _single(done, job_id)
    return done.successors[job_id], bool(done.changed)


def park(w: Writing, job_id: int, reason: str) -> None:
    """End a job that does harm wherever it runs as dead. Raises `IllegalTransition` when it runs or is over."""
    row = _one(w, job_id)
    job_moves.move(w, [row], JobState.DEAD, {job_id: reason})
    needs.settle(w, [(job_id, JobState.DEAD)])


def successor(r: Reading, job_id: int) -> int | None:
    """The job that was made of this one by a retry."""
    row = r.first(_SUCCESSORS, ids=[job_id])
    return None if row is None else int(row["id"])


def state_of(r: Reading, job_id: int) -> JobState:
    """The state of a job. Raises `NotFound`."""
    row = r.first(_STATES, ids=[job_id])
    if row is None:
        raise _missing(job_id)
    return JobState(row["state"])


def _cancel_all(w: Writing, ids: list[int], reason: str, _terms: Terms) -> Done:
    rows = job_moves.rows_of(w, ids)
    already, unstarted, running, refused = [], [], [], _unknown(ids, rows)
    for job_id, row in rows.items():
        state = JobState(row["state"])
        if state is JobState.CANCELLED or (state is JobState.RUNNING and row["cancel_requested"]):
            already.append(job_id)
        elif state is JobState.RUNNING:
            running.append(job_id)
        elif state in job_moves.UNSTARTED:
            unstarted.append(job_id)
        else:
            refused[job_id] = f"job {job_id} cannot go from {state} to cancelled: it is over"
    job_moves.move(w, [rows[one] for one in unstarted], JobState.CANCELLED, dict.fromkeys(unstarted, reason))
    if running:
        w.run(_ASK_CANCEL, ids=running, reason=reason)
        for job_id in running:
            w.emit(JobCancelRequested(job_id, rows[job_id]["line"], reason))
    needs.settle(w, [(job_id, JobState.CANCELLED) for job_id in unstarted])
    return Done((*unstarted, *running), tuple(already), refused)


def _hold_all(w: Writing, ids: list[int], reason: str, _terms: Terms) -> Done:
    rows = job_moves.rows_of(w, ids)
    already, changed, refused = [], [], _unknown(ids, rows)
    for job_id, row in rows.items():
        state = JobState(row["state"])
        if state is JobState.HELD:
            already.append(job_id)
        elif state in job_moves.UNSTARTED:
            changed.append(job_id)
        else:
            refused[job_id] = f"job {job_id} cannot go from {state} to held: it has started, or is over"
    job_moves.move(w, [rows[one] for one in changed], JobState.HELD, dict.fromkeys(changed, reason))
    for job_id in changed:
        w.emit(JobHeld(job_id, rows[job_id]["line"], reason))
    return Done(tuple(changed), tuple(already), refused)


def _release_all(w: Writing, ids: list[int], _reason: str, _terms: Terms) -> Done:
    rows = job_moves.rows_of(w, ids)
    already, refused = [], _unknown(ids, rows)
    changed: dict[JobState, list[int]] = {JobState.READY: [], JobState.WAITING: []}
    for job_id, row in rows.items():
        state = JobState(row["state"])
        if state is JobState.HELD:
            changed[JobState.WAITING if row["unmet"] else JobState.READY].append(job_id)
        elif state in job_moves.UNSTARTED:
            already.append(job_id)
        else:
            refused[job_id] = f"job {job_id} cannot be released from {state}: it is not held"
    for following, moved in changed.items():
        job_moves.move(w, [rows[one] for one in moved], following, dict.fromkeys(moved, ""))
        for job_id in moved:
            w.emit(JobReleased(job_id, rows[job_id]["line"], str(following)))
    return Done((*changed[JobState.READY], *changed[JobState.WAITING]), tuple(already), refused)


def _retry_all(w: Writing, ids: list[int], _reason: str, terms: Terms) -> Done:
    rows = {row["id"]: row for row in w.rows(_JOBS, ids=ids)}
    refused = _unknown(ids, rows)
    successors = {row["retry_of"]: row["id"] for row in w.rows(_SUCCESSORS, ids=ids)}
    already, again = [], []
    for job_id, row in rows.items():
        state = JobState(row["state"])
        if job_id in successors:
            already.append(job_id)
        elif state in RETRIED_STATES:
            again.append(job_id)
        elif state is JobState.DONE:
            refused[job_id] = f"job {job_id} is done: submit it anew to do it again"
        else:
            refused[job_id] = f"job {job_id} is {state}: it is still being worked on"
    specs = _specs_again(w, [rows[job_id] for job_id in again], refused)
    made = submission.submit_again(w, [(spec, job_id) for job_id, spec in specs.items()], terms)
    for job_id, following in zip(specs, made, strict=True):
        successors[job_id] = following
        w.emit(JobRetried(job_id, following, rows[job_id]["line"]))
    return Done(tuple(specs), tuple(already), refused, successors)


def _specs_again(w: Writing, rows: Sequence[Row], refused: dict[int, str]) -> dict[int, JobSpec]:
    """What is submitted for each ended job; jobs that cannot be retried go to `refused`.

    Jobs of the same call that need one another stay so: needed ones come first, as their ids do.
    """
    wanted = needs.needs_of_many(w, [row["id"] for row in rows])
    latest = _latest(w, sorted({need.job_id for each in wanted.values() for need in each}))
    ids = sorted(set(latest.values()))
    states = {row["id"]: JobState(row["state"]) for row in w.rows(_STATES, ids=ids)} if ids else {}
    keys = set(submission.taken_keys(w, [row["job_key"] for row in rows if row["job_key"] is not None]))
    specs: dict[int, JobSpec] = {}
    places: dict[int, int] = {}
    for row in rows:
        fresh: list[Need] = []
        for need in wanted.get(row["id"], ()):
            if need.job_id in places:
                fresh.append(submission.in_group(places[need.job_id], need.rule))
            elif latest[need.job_id] in states:
                fresh.append(Need(latest[need.job_id], need.rule))
        hopeless = [
            need.job_id
            for need in fresh
            if need.rule is not FailureRule.RUN
            and states.get(need.job_id) in RETRIED_STATES - needs.MET_STATES
        ]
        if hopeless:
            refused[row["id"]] = (
                f"job {row['id']} needs job {hopeless[0]}, which came to nothing: retry that first"
            )
            continue
        spec = job_of(row).spec
        key = spec.key if spec.key not in keys else None
        keys |= {key} if key else set()
        deadline = spec.deadline if spec.deadline is not None and spec.deadline > w.now else None
        places[row["id"]] = len(specs)
        specs[row["id"]] = dataclasses.replace(
            spec, key=key, deadline=deadline, not_before=0.0, needs=tuple(fresh)
        )
    return specs


def _latest(w: Writing, ids: Sequence[int]) -> dict[int, int]:
    """Each job's last successor by retries; the job itself when it has none."""
    latest = {job_id: job_id for job_id in ids}
    front = list(ids)
    while front:
        following = {row["retry_of"]: row["id"] for row in w.rows(_SUCCESSORS, ids=front)}
        latest = {job_id: following.get(last, last) for job_id, last in latest.items()}
        front = list(following.values())
    return latest


def _one(w: Writing, job_id: int) -> Row:
    row = job_moves.rows_of(w, [job_id]).get(job_id)
    if row is None:
        raise _missing(job_id)
    return row


def _missing(job_id: int) -> NotFound:
    return NotFound(f"job {job_id} does not exist", remedy="see `gamekeeper jobs`")


def _single(done: Done, job_id: int) -> None:
    if job_id in done.refused:
        raise IllegalTransition(done.refused[job_id], remedy=f"see `gamekeeper why job {job_id}`")


def _unknown(ids: Sequence[int], rows: dict[int, Row]) -> dict[int, str]:
    return {job_id: f"job {job_id} does not exist" for job_id in ids if job_id not in rows}


_ACTS: dict[Verb, Callable[[Writing, list[int], str, Terms], Done]] = {
    Verb.CANCEL: _cancel_all,
    Verb.HOLD: _hold_all,
    Verb.RELEASE: _release_all,
    Verb.RETRY: _retry_all,
}
