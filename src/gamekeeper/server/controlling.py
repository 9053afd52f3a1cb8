"""What people ask for concerning jobs and nodes, as the store takes it, and the answers to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from gamekeeper.core.errors import UsageError
from gamekeeper.core.job_filter import JobFilter, parse
from gamekeeper.core.jobs import JobSpec, Need
from gamekeeper.core.requirements import Requirements
from gamekeeper.inspection import ActedRow, BulkCount, BulkPlan, BulkRow, BulkSample
from gamekeeper.protocol import BulkRequest, JobRequest, NeedOf, SubmitJobs, SubmittedJob
from gamekeeper.server.desk import Desk
from gamekeeper.store import bulk, job_control, submission
from gamekeeper.store.job_control import Verb
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.submission import Terms

PEOPLE = "admin"
WINDOWS_PER_READ = 4


async def submit(desk: Desk, message: SubmitJobs) -> list[SubmittedJob]:
    """Store jobs, all or none."""
    specs = [spec_of(one, message.producer, place) for place, one in enumerate(message.jobs)]
    stored = await desk.write(partial(_submit, specs=specs, terms=desk.terms))
    return [SubmittedJob(id=job_id, created=created) for job_id, created in stored]


def _submit(w: Writing, *, specs: Sequence[JobSpec], terms: Terms) -> list[tuple[int, bool]]:
    return submission.submit_many(w, specs, terms)


def spec_of(wanted: JobRequest, producer: str, place: int = 0) -> JobSpec:
    """The specification that a request writes. Raises `UsageError` that names the job's place in the group."""
    try:
        return JobSpec(
            kind=wanted.kind,
            line=wanted.line,
            command=tuple(wanted.command),
            parameters=dict(wanted.parameters),
            wanted=dict(wanted.wanted),
            inputs={role: tuple(hashes) for role, hashes in wanted.inputs.items()},
            purpose=wanted.purpose,
            seed=wanted.seed,
            key=wanted.key,
            grace_s=wanted.grace_s,
            time_limit_s=wanted.time_limit_s,
            failures_allowed=wanted.failures_allowed,
            losses_allowed=wanted.losses_allowed,
            requirements=Requirements.from_map(dict(wanted.requirements)),
            needs=tuple(map(_need, wanted.needs)),
            share=wanted.share,
            producer=producer,
            not_before=wanted.not_before,
            deadline=wanted.deadline,
        )
    except UsageError as error:
        raise UsageError(f"job {place} of the group: {error.message}", remedy=error.remedy) from error


def _need(wanted: NeedOf) -> Need:
    if (wanted.job is None) is (wanted.in_group is None):
        raise UsageError("a need names either a job or a place in the group", remedy='use {"job": 17}')
    if wanted.job is not None:
        return Need(wanted.job, wanted.rule)
    assert wanted.in_group is not None  # noqa: S101 - one of them is set
    return submission.in_group(wanted.in_group, wanted.rule)


async def act(desk: Desk, verb: Verb, job_id: int, reason: str) -> ActedRow:
    """Do one thing to one job."""

    def change(w: Writing) -> ActedRow:
        if verb is Verb.RETRY:
            following, _ = job_control.retry(w, job_id, desk.terms)
            return ActedRow(id=job_id, state=_state(w, job_id), successor=following)
        if verb is Verb.CANCEL:
            job_control.cancel(w, job_id, reason or f"cancelled by {PEOPLE}")
        elif verb is Verb.HOLD:
            job_control.hold(w, job_id, reason or f"held by {PEOPLE}")
        else:
            job_control.release(w, job_id)
        return ActedRow(id=job_id, state=_state(w, job_id))

    answer = await desk.write(change)
    desk.hints.distribution.signal()
    desk.hints.pipeline.signal()
    return answer


def _state(w: Writing, job_id: int) -> str:
    return str(job_control.state_of(w, job_id))


async def plan(desk: Desk, message: BulkRequest) -> BulkPlan:
    """What an operation would touch, looked up in many short reads."""
    verb, wanted = Verb(message.verb), filter_of(message)
    found = await desk.read(lambda r: bulk.begin_plan(r, wanted))

    def go_on(r: Reading) -> bool:
        return all(bulk.go_on_planning(r, found, verb, wanted) for _ in range(WINDOWS_PER_READ))

    while await desk.read(go_on):
        pass
    return BulkPlan(
        verb=verb,
        filter=str(wanted),
        jobs=found.jobs,
        counts=[
            BulkCount(state=state, kind=kind, line=line, jobs=n)
            for (state, kind, line), n in sorted(found.counts.items())
        ],
        samples=[
            BulkSample(id=one.job_id, kind=one.kind, line=one.line, state=one.state, reason=one.reason)
            for one in found.samples
        ],
    )


async def start(desk: Desk, message: BulkRequest) -> BulkRow:
    """Write an operation down; the coordinator does it in batches."""
    verb, wanted = Verb(message.verb), filter_of(message)
    reason = message.reason or f"{verb} of many jobs by {PEOPLE}"
    row = await desk.write(lambda w: bulk_row(bulk.get(w, bulk.start(w, verb, wanted, reason, PEOPLE))))
    desk.hints.bulk.signal()
    return row


def filter_of(message: BulkRequest) -> JobFilter:
    """The filter of a request. Raises `UsageError`, also when it would hold for every job."""
    found = parse(message.where, message.ids)
    if found.is_empty:
        raise UsageError(
            "an operation on all jobs must say so",
            remedy="name ids or conditions, as in: --where state=ready",
        )
    return found


def bulk_row(known: bulk.Operation) -> BulkRow:
    """An operation as people see it."""
    return BulkRow(
        id=known.id,
        verb=known.verb,
        filter=str(known.filter),
        reason=known.reason,
        author=known.author,
        state=known.state,
        looked_at=1.0 if known.cursor >= known.last_id else max(0.0, known.cursor / known.last_id),
        seen=known.seen,
        changed=known.changed,
        skipped=known.skipped,
        created_at=known.created_at,
        ended_at=known.ended_at,
    )
