"""What people change: jobs, one or many, and which nodes are granted work."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from gamekeeper.inspection import ActedRow, BulkPlan, BulkRow, JobDetail, NodeRow
from gamekeeper.protocol import Because, BulkRequest, ExcludeRequest, SubmitJobs, SubmittedJob
from gamekeeper.server import controlling, listing
from gamekeeper.server.http import Here, admin, sane_body
from gamekeeper.store import bulk, exclusions
from gamekeeper.store.job_control import Verb
from gamekeeper.store.session import Writing

router = APIRouter(tags=["people"], dependencies=[Depends(admin)])
BODY = [Depends(sane_body)]
Id = Annotated[int, Path(ge=1, lt=1 << 62)]
NodeId = Annotated[str, Path(max_length=120)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/v1/jobs", dependencies=BODY)
async def submit_jobs(message: SubmitJobs, here: Here) -> list[SubmittedJob]:
    """Store jobs, all or none, in the order given."""
    answer = await controlling.submit(here.desk, message)
    here.desk.hints.distribution.signal()
    return answer


@router.get("/v1/jobs/{job_id}")
async def get_job(job_id: Id, here: Here) -> JobDetail:
    """All that is known of one job."""
    return await here.desk.read(lambda r: listing.job_detail(r, job_id))


@router.post("/v1/jobs/{job_id}/{verb}", dependencies=BODY)
async def act_on_job(job_id: Id, verb: Verb, message: Because, here: Here) -> ActedRow:
    """Cancel, hold, release or retry one job."""
    return await controlling.act(here.desk, verb, job_id, message.reason)


@router.post("/v1/bulk/plan", dependencies=BODY)
async def plan_bulk(message: BulkRequest, here: Here) -> BulkPlan:
    """What an operation on many jobs would touch; nothing is done."""
    return await controlling.plan(here.desk, message)


@router.post("/v1/bulk", dependencies=BODY)
async def start_bulk(message: BulkRequest, here: Here) -> BulkRow:
    """Start an operation on many jobs; it goes on over restarts until it is done or stopped."""
    return await controlling.start(here.desk, message)


@router.get("/v1/bulk")
async def list_bulk(here: Here, limit: Limit = 50) -> list[BulkRow]:
    """Operations on many jobs, newest first."""
    return await here.desk.read(lambda r: [controlling.bulk_row(one) for one in bulk.newest(r, limit)])


@router.get("/v1/bulk/{bulk_id}")
async def get_bulk(bulk_id: Id, here: Here) -> BulkRow:
    """How far an operation on many jobs has come."""
    return await here.desk.read(lambda r: controlling.bulk_row(bulk.get(r, bulk_id)))


@router.post("/v1/bulk/{bulk_id}/stop")
async def stop_bulk(bulk_id: Id, here: Here) -> BulkRow:
    """End an operation where it stands; what it did stays."""
    return await here.desk.write(lambda w: controlling.bulk_row(bulk.stop(w, bulk_id)))


@router.post("/v1/nodes/{node_id}/exclude", dependencies=BODY)
async def exclude_node(node_id: NodeId, message: ExcludeRequest, here: Here) -> NodeRow:
    """Grant nothing to a node for a while; what runs on it goes on."""

    def change(w: Writing) -> NodeRow:
        exclusions.exclude(w, node_id, message.because, controlling.PEOPLE, w.now + message.for_s)
        return next(row for row in listing.nodes(w, here.desk.settings.hash) if row.id == node_id)

    return await here.desk.write(change)


@router.post("/v1/nodes/{node_id}/allow")
async def allow_node(node_id: NodeId, here: Here) -> NodeRow:
    """End a node's exclusions."""

    def change(w: Writing) -> NodeRow:
        exclusions.lift(w, node_id, controlling.PEOPLE)
        return next(row for row in listing.nodes(w, here.desk.settings.hash) if row.id == node_id)

    answer = await here.desk.write(change)
    here.desk.hints.distribution.signal()
    return answer
