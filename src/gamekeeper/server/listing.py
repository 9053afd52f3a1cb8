"""Lists of things, newest first, in bounded number."""

from __future__ import annotations

from gamekeeper.core.jobs import FINAL_JOBS, JobState
from gamekeeper.core.nodes import Node
from gamekeeper.core.receipts import BUILT_IN_KINDS
from gamekeeper.inspection import EventRow, JobDetail, JobRow, ModelRow, NeedRow, NodeRow
from gamekeeper.server.rows import attempt_row, event_row, json_object
from gamekeeper.store import (
    decisions,
    event_log,
    exclusions,
    inventory,
    job_control,
    job_queue,
    leases,
    needs,
    registry,
)
from gamekeeper.store.exclusions import Exclusion
from gamekeeper.store.job_queue import JobLine
from gamekeeper.store.session import Reading


def jobs(
    r: Reading, *, state: JobState | None, line: str | None, kind: str | None, limit: int
) -> list[JobRow]:
    """The newest jobs that match."""
    states = () if state is None else (state,)
    return [job_row(r, one) for one in job_queue.listing(r, states=states, line=line, kind=kind, limit=limit)]


def job_row(r: Reading, known: JobLine) -> JobRow:
    """A job with its newest attempt."""
    job, attempt = known.job, known.attempt
    kind = BUILT_IN_KINDS.get(job.spec.kind)
    return JobRow(
        id=job.id,
        kind=job.spec.kind,
        line=job.spec.line,
        purpose=job.spec.purpose,
        state=job.state,
        why=_why(r, known),
        failures=job.failures,
        losses=job.losses,
        node=attempt.node_id if attempt else None,
        attempt=attempt.id if attempt else None,
        units=attempt.units if attempt else 0,
        unit=kind.progress_unit if kind else "",
        created_at=job.created_at,
        ended_at=job.ended_at,
    )


def job_detail(r: Reading, job_id: int) -> JobDetail:
    """All that is known of one job. Raises `NotFound`."""
    known = job_queue.line_of(r, job_id)
    spec = known.job.spec
    return JobDetail(
        job=job_row(r, known),
        command=list(spec.command),
        parameters=json_object(spec.parameters),
        wanted=json_object(spec.wanted),
        inputs={role: list(hashes) for role, hashes in spec.inputs.items()},
        requirements=json_object(spec.requirements.to_map()),
        key=spec.key,
        producer=spec.producer,
        seed=spec.seed,
        share=spec.share,
        grace_s=spec.grace_s,
        time_limit_s=spec.time_limit_s,
        failures_allowed=spec.failures_allowed,
        losses_allowed=spec.losses_allowed,
        not_before=known.job.not_before,
        deadline=spec.deadline,
        retry_of=known.job.retry_of,
        successor=job_control.successor(r, job_id),
        needs=[
            NeedRow(job=need.job_id, rule=need.rule, met=met, state=state)
            for need, met, state in needs.needs_of(r, job_id)
        ],
        needed_by=needs.needed_by(r, job_id),
        attempts=[attempt_row(one) for one in job_queue.attempts_of(r, job_id)],
    )


def _why(r: Reading, known: JobLine) -> str:
    """The reason code of a job's state."""
    job, attempt = known.job, known.attempt
    if known.cancel_requested:
        return "cancel-requested"
    if job.state in FINAL_JOBS:
        return job.reason
    if job.state is JobState.RUNNING:
        return str(attempt.state) if attempt else ""
    said = decisions.current(r, f"class/{job_queue.class_id(r, job.id)}")
    return said[0].verdict.reason if said else job.reason


def nodes(r: Reading, settings_hash: str) -> list[NodeRow]:
    """All machines. `settings_hash` is that of the coordinator's settings."""
    busy = {state.lease.node_id: state.busy for state in leases.agents(r)}
    excluded = exclusions.current(r)
    reported = inventory.settings_hashes(r)
    rows = [node_row(node, busy.get(node.id, 0), excluded.get(node.id)) for node in inventory.nodes(r)]
    return [_with_settings(row, reported.get(row.id), settings_hash) for row in rows]


def _with_settings(row: NodeRow, reported: str | None, in_force: str) -> NodeRow:
    other = None if reported is None else reported != in_force
    return row.model_copy(update={"settings_hash": reported, "other_settings": other})


def node_row(node: Node, busy: int, excluded: Exclusion | None = None) -> NodeRow:
    """One machine."""
    seen = node.observation
    return NodeRow(
        id=node.id,
        host_name=node.host_name,
        status=node.status,
        slots=node.slots,
        busy=busy,
        last_seen_at=node.last_seen_at,
        cpu_count=seen.cpu_count if seen else None,
        memory_bytes=seen.memory_bytes if seen else None,
        disk_free_bytes=seen.disk_free_bytes if seen else None,
        load=seen.load if seen else None,
        excluded_until=excluded.until if excluded else None,
        excluded_for=f"{excluded.cause} ({excluded.author})" if excluded else "",
    )


def models(r: Reading, *, line: str | None, limit: int) -> list[ModelRow]:
    """The newest models."""
    champions = {champion.model_id for champion in registry.champions(r)}
    return [
        ModelRow(
            id=model.id,
            line=model.line,
            hash=model.hash,
            state=model.state,
            champion=model.id in champions,
            parent=model.parent_id,
            steps=model.steps,
            samples=model.samples,
            loss=model.loss,
            created_at=model.created_at,
            why=model.reason or _undecided(r, model.id),
        )
        for model in registry.models(r, line, limit)
    ]


def _undecided(r: Reading, model_id: int) -> str:
    said = decisions.current(r, f"model/{model_id}")
    return said[0].verdict.reason if said else ""


def events(r: Reading, *, of: str | None, after: int | None, limit: int) -> list[EventRow]:
    """The log after a position; without one, its newest rows. In the order of the log."""
    if after is not None:
        found = event_log.after(r, after, limit, of)
    elif of is not None:
        found = event_log.story(r, of, limit)
    else:
        found = event_log.newest(r, limit)
    return [event_row(one) for one in found]
