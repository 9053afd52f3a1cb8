"""The end of an attempt, in one transaction: the judgement, the end itself, and what is booked to its credit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gamekeeper.core.errors import Corrupt
from gamekeeper.core.jobs import AttemptState, Job
from gamekeeper.core.matches import PairResult, Purpose
from gamekeeper.core.receipts import BUILT_IN_KINDS, JobKind
from gamekeeper.protocol import Finish, Finished
from gamekeeper.server.judging import Case, Judgement, RefusedFile, judge
from gamekeeper.store import artifacts, attempts, job_queue, matches, registry
from gamekeeper.store.session import Writing

Receipt = Mapping[str, object]


def judged(
    w: Writing, attempt_id: int, message: Finish, kinds: Mapping[str, JobKind] = BUILT_IN_KINDS
) -> tuple[Job, Judgement]:
    """The attempt's job, and how it ended in the light of what it handed in. Raises `NotFound`.

    `kinds`: the receipt that each known kind of job must hand in.
    """
    attempt = job_queue.attempt(w, attempt_id)
    job = job_queue.get(w, attempt.job_id)
    judgement = judge(
        Case(
            spec=job.spec,
            reason=message.reason,
            detail=message.detail,
            exit_code=message.exit_code,
            receipt=message.receipt,
            accepted=artifacts.by_attempt(w, attempt_id),
            refused=[
                RefusedFile(one.name, one.problem, one.detail) for one in artifacts.refusals_of(w, attempt_id)
            ],
            known_model=_known_model(w, job, message.receipt),
            cancelled=bool(attempts.row_of(w, attempt_id)["cancel_requested"]),
            kinds=kinds,
        )
    )
    return job, judgement


def finish(
    w: Writing, attempt_id: int, message: Finish, kinds: Mapping[str, JobKind] = BUILT_IN_KINDS
) -> Finished:
    """Judge and end an attempt; book its model or its matches once, and only when it succeeded."""
    job, judgement = judged(w, attempt_id, message, kinds)
    ended = job_queue.finish(
        w,
        attempt_id,
        message.token,
        judgement.state,
        judgement.reason,
        detail=judgement.detail,
        receipt=message.receipt if isinstance(message.receipt, dict) else None,
        units=message.units,
        process_s=message.process_s,
    )
    if (
        ended.result == "applied"
        and ended.attempt.state is AttemptState.SUCCEEDED
        and isinstance(message.receipt, dict)
    ):
        book(w, job, attempt_id, message.receipt)
    return Finished(
        result=ended.result,
        state=ended.attempt.state,
        reason=ended.attempt.reason or "",
        detail=ended.attempt.detail,
    )


def _known_model(w: Writing, job: Job, receipt: object) -> bool:
    digest = receipt.get("model") if isinstance(receipt, Mapping) else None
    if job.spec.kind not in {"found", "train"} or not isinstance(digest, str):
        return False
    known = registry.by_hash(w, job.spec.line, digest)
    return known is not None and known.job_id != job.id


def book(w: Writing, job: Job, attempt_id: int, receipt: Receipt) -> None:
    """Book what a succeeded attempt made: its model, or its matches."""
    if job.spec.kind in {"found", "train"}:
        _book_model(w, job, receipt)
    elif job.spec.kind == "evaluate":
        _book_pairs(w, job, attempt_id, receipt)


def _book_model(w: Writing, job: Job, receipt: Receipt) -> None:
    parent_id = None
    if "parent" in receipt:
        parent = registry.by_hash(w, job.spec.line, str(receipt["parent"]))
        if parent is None:
            raise Corrupt(
                f"job {job.id} was given parent {receipt['parent']}, which line {job.spec.line} has not"
            )
        parent_id = parent.id
    registry.register_model(
        w,
        job.spec.line,
        str(receipt["model"]),
        parent_id=parent_id,
        job_id=job.id,
        steps=_whole(receipt.get("steps", 0)),
        samples=_whole(receipt.get("samples", 0)),
        loss=_number(receipt.get("loss")),
    )


def _book_pairs(w: Writing, job: Job, attempt_id: int, receipt: Receipt) -> None:
    line = job.spec.line
    (candidate_hash,) = job.spec.inputs["candidate"]
    candidate = registry.by_hash(w, line, candidate_hash)
    if candidate is None:
        raise Corrupt(f"job {job.id} evaluates {candidate_hash[:12]}, which line {line} has not")
    opponent = str(job.spec.wanted["opponent"])
    if opponent == "model":
        (opponent_hash,) = job.spec.inputs["opponent"]
        known = registry.by_hash(w, line, opponent_hash)
        if known is None:
            raise Corrupt(f"job {job.id} plays against {opponent_hash[:12]}, which line {line} has not")
        opponent = f"model/{known.id}"
    pairs = receipt["pairs"]
    assert isinstance(pairs, Sequence)  # noqa: S101 - a judged receipt
    results = [
        PairResult(int(n), float(first), float(second), str(replay)) for n, first, second, replay in pairs
    ]
    matches.book_pairs(
        w,
        line,
        candidate.id,
        opponent,
        Purpose(job.spec.purpose),
        pairs=results,
        job_id=job.id,
        attempt_id=attempt_id,
    )


def _whole(value: object) -> int:
    assert isinstance(value, int)  # noqa: S101 - a judged receipt
    return value


def _number(value: object) -> float | None:
    assert value is None or isinstance(value, int | float)  # noqa: S101 - a judged receipt
    return None if value is None else float(value)
