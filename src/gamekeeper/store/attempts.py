"""What job queue, leases and steps share: jobs and attempts as rows, classes of jobs and how many stand where."""

from __future__ import annotations

from collections.abc import Mapping

from gamekeeper.core.errors import NotFound, StaleToken
from gamekeeper.core.jobs import Attempt, AttemptState, EndReason, Job, JobSpec, JobState
from gamekeeper.core.requirements import GpuShare, Requirements
from gamekeeper.store.encoding import from_json, object_of
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


def stale(row: Row | Mapping[str, object], token: int) -> StaleToken:
    """Why a write under `token` on the attempt in `row` changed nothing."""
    if row["token"] != token:
        return StaleToken(f"attempt {row['id']} is not held under token {token}", remedy="drop its results")
    return StaleToken(
        f"attempt {row['id']} is over: {row['state']} ({row['reason']})",
        remedy="stop its process and drop its results",
    )


def backoff(w: Writing, times: int) -> float:
    """Seconds to wait after the `times`-th failure: full jitter below a limit that doubles up to the longest."""
    limit = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(times, 30))
    return w.rng.uniform(0.0, limit)


def _list(encoded: str) -> list[object]:
    decoded = from_json(encoded)
    return decoded if isinstance(decoded, list) else []
