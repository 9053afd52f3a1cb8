"""What job queue and leases share: jobs and attempts as rows, their counters, and the one way an attempt ends."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core import jobs as vocabulary
from gamekeeper.core.errors import IllegalTransition, NotFound, StaleToken
from gamekeeper.core.events import AttemptEnded, JobEnded
from gamekeeper.core.jobs import (
    END_BUDGETS,
    END_STATES,
    FINAL_JOBS,
    Attempt,
    AttemptState,
    Budget,
    EndReason,
    Job,
    JobSpec,
    JobState,
)
from gamekeeper.core.requirements import GpuShare, Requirements
from gamekeeper.store import needs
from gamekeeper.store.encoding import from_json, object_of, sentence, to_json
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import sql

BACKOFF_FIRST_S = 1.0
BACKOFF_LONGEST_S = 60.0

_BY_ID = sql(
    "SELECT a.*, j.class_id, j.line, j.kind, j.purpose, j.failures, j.losses, j.failures_allowed, j.losses_allowed,"
    " j.cancel_requested, j.not_before, j.reason AS job_reason"
    " FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.id = :id"
)
_TOUCH = sql("UPDATE attempts SET seen_at = :now WHERE id = :id AND token = :token AND {live_attempt}")
_END = sql(
    "UPDATE attempts SET state = :state, reason = :reason, detail = :detail, receipt = :receipt, ended_at = :now,"
    " ended_here = :here, units = :units, process_s = :process_s"
    " WHERE id = :id AND token = :token AND {live_attempt}"
)
_JOB_END = sql(
    "UPDATE jobs SET state = :state, reason = :reason, failures = :failures, losses = :losses, ended_at = :ended_at,"
    " not_before = :not_before WHERE id = :id AND state = 'running'"
)
_SLOT_TIME = sql(
    "UPDATE slot_time SET leased_s = leased_s + :leased_s, process_s = process_s + :process_s, attempts = attempts + 1"
    " WHERE node_id = :node_id"
)
_MOVE_COUNT = sql(
    "UPDATE job_counts SET n = n + CASE state WHEN :following THEN 1 ELSE -1 END"
    " WHERE class_id = :class_id AND state IN (:current, :following)"
)
_COUNT_ATTEMPT = sql(
    "INSERT INTO attempt_counts (line, kind, state, n) VALUES (:line, :kind, :state, 1)"
    " ON CONFLICT (line, kind, state) DO UPDATE SET n = attempt_counts.n + 1"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """An ended attempt, and the state its job went to."""

    attempt: Attempt
    job_state: JobState


def job_of(row: Row) -> Job:
    """The job in a row of `jobs`."""
    inputs = object_of(row["inputs"])
    spec = JobSpec(
        kind=row["kind"], line=row["line"], command=tuple(map(str, _list(row["command"]))),
        parameters=object_of(row["parameters"]), wanted=object_of(row["wanted"]),
        inputs={role: tuple(map(str, hashes)) for role, hashes in inputs.items() if isinstance(hashes, list)},
        purpose=row["purpose"], seed=row["seed"], key=row["job_key"], grace_s=row["grace_s"],
        time_limit_s=row["time_limit_s"], failures_allowed=row["failures_allowed"],
        losses_allowed=row["losses_allowed"], share=row["share"], producer=row["producer"],
        requirements=Requirements.from_map(object_of(row["requirements"])), deadline=row["deadline"],
    )  # fmt: skip
    return Job(
        id=row["id"], spec=spec, state=JobState(row["state"]), failures=row["failures"], losses=row["losses"],
        created_at=row["created_at"], not_before=row["not_before"], ended_at=row["ended_at"], reason=row["reason"],
        retry_of=row["retry_of"],
    )  # fmt: skip


def attempt_of(row: Row) -> Attempt:
    """The attempt in a row of `attempts`."""
    reason = row["reason"]
    return Attempt(
        id=row["id"], job_id=row["job_id"], node_id=row["node_id"], incarnation=row["incarnation"], token=row["token"],
        state=AttemptState(row["state"]), leased_at=row["leased_at"], started_at=row["started_at"],
        ended_at=row["ended_at"], reason=None if reason is None else EndReason(reason), detail=row["detail"],
        units=row["units"], gpus=shares_of(row["gpus"]),
    )  # fmt: skip


def shares_of(encoded: str) -> tuple[GpuShare, ...]:
    """The devices in a stored list of [index, share]."""
    pairs = (pair for pair in _list(encoded) if isinstance(pair, list))
    return tuple(GpuShare(int(index), float(share)) for index, share in pairs)


def row_of(r: Reading, attempt_id: int) -> Row:
    """An attempt's row with its job's line, kind, purpose and budgets. Raises `NotFound`."""
    row = r.first(_BY_ID, id=attempt_id)
    if row is None:
        raise NotFound(f"attempt {attempt_id} does not exist", remedy="see `gamekeeper jobs`")
    return row


def guard(w: Writing, attempt_id: int, token: int) -> Row:
    """Its row, provided the attempt lives and `token` is its own; it counts as heard from.

    Raises `StaleToken` or `NotFound`; nothing was changed then.
    """
    if not w.run(_TOUCH, now=w.now, id=attempt_id, token=token):
        raise stale(row_of(w, attempt_id), token)
    return row_of(w, attempt_id)


def stale(row: Row, token: int) -> StaleToken:
    """Why a write under `token` on the attempt in `row` changed nothing."""
    if row["token"] != token:
        return StaleToken(f"attempt {row['id']} is not held under token {token}", remedy="drop its results")
    return StaleToken(
        f"attempt {row['id']} is over: {row['state']} ({row['reason']})",
        remedy="stop its process and drop its results",
    )


def end(
    w: Writing,
    row: Row,
    token: int,
    reason: EndReason,
    detail: str,
    *,
    here: bool,
    receipt: object = None,
    units: int = 0,
    process_s: float = 0.0,
) -> Ended:
    """End the attempt in `row` (of `row_of`) under `token`, charge its job's budgets and decide what becomes of it.

    `here`: the coordinator ends it without a word of its agent. Progress never falls below what was reported, process
    time never exceeds the time of the lease. Raises `StaleToken` when the attempt is over or `token` is not its own.
    """
    state = END_STATES[reason]
    leased_s = max(0.0, w.now - row["leased_at"])
    process_s = min(max(process_s, row["process_s"]), leased_s)
    detail = sentence(detail)
    changed = w.run(
        _END, id=row["id"], token=token, state=state, reason=reason, detail=detail, now=w.now, here=int(here),
        receipt=None if receipt is None else to_json(receipt), units=max(units, row["units"]), process_s=process_s,
    )  # fmt: skip
    if not changed:
        raise stale(row, token)
    w.run(_SLOT_TIME, node_id=row["node_id"], leased_s=leased_s, process_s=process_s)
    w.run(_COUNT_ATTEMPT, line=row["line"], kind=row["kind"], state=state)
    job_state, words = _end_job(w, row, state, reason)
    w.emit(
        AttemptEnded(
            row["id"], row["job_id"], row["node_id"], str(state), str(reason), detail, str(job_state)
        )
    )
    if job_state in FINAL_JOBS:
        w.emit(JobEnded(row["job_id"], row["line"], str(job_state), words))
        needs.settle(w, [(row["job_id"], job_state)])
    return Ended(attempt_of(row_of(w, row["id"])), job_state)


def _end_job(w: Writing, row: Row, ended: AttemptState, reason: EndReason) -> tuple[JobState, str]:
    budget = END_BUDGETS[ended]
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
    vocabulary.check_job_transition(row["job_id"], JobState.RUNNING, following)
    final = following in FINAL_JOBS
    changed = w.run(
        _JOB_END, id=row["job_id"], state=following, reason=words, failures=failures, losses=losses,
        ended_at=w.now if final else None, not_before=row["not_before"] if final else w.now + delay,
    )  # fmt: skip
    if not changed:
        raise IllegalTransition(f"job {row['job_id']} is not running, though attempt {row['id']} is live")
    count_moved(w, row, JobState.RUNNING, following)
    return following, words


def backoff(w: Writing, times: int) -> float:
    """Seconds to wait after the `times`-th failure: full jitter below a limit that doubles up to the longest."""
    limit = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(times, 30))
    return w.rng.uniform(0.0, limit)


def count_moved(w: Writing, row: Row, current: JobState, following: JobState) -> None:
    """Count a job's change of state; `row` holds its class."""
    w.run(_MOVE_COUNT, class_id=row["class_id"], current=current, following=following)


def _list(encoded: str) -> list[object]:
    decoded = from_json(encoded)
    return decoded if isinstance(decoded, list) else []
