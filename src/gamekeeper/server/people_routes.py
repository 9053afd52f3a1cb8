"""The questions of people, and their one wish: to stop."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from gamekeeper.core.jobs import JobState
from gamekeeper.inspection import EventRow, JobRow, LineRow, ModelRow, NodeRow, Report, Status, Why
from gamekeeper.policy.continuous_loop import Phase
from gamekeeper.protocol import Message, Sentence
from gamekeeper.server import explaining, listing, reporting, status
from gamekeeper.server.http import Here, admin, sane_body

router = APIRouter(tags=["people"])
ADMIN = [Depends(admin)]
Word = Annotated[str | None, Query(max_length=120)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Position = Annotated[int | None, Query(ge=0, lt=1 << 62)]


class Stop(Message):
    """Wind the loop down: `measuring` finishes ratings only, `draining` starts nothing; `turning` takes it back."""

    reason: Annotated[Sentence, Field(min_length=1)]
    phase: Phase = Phase.DRAINING


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Whether this process answers; says nothing about the loop."""
    return {"status": "answering"}


@router.get("/v1/status", dependencies=ADMIN)
async def get_status(here: Here) -> Status:
    """The one-screen answer."""
    return await here.desk.read(lambda r: status.status(r, here.desk.settings, here.audit.lost))


@router.get("/v1/lines", dependencies=ADMIN)
async def get_lines(here: Here) -> list[LineRow]:
    """Where each loop stands."""
    return await here.desk.read(lambda r: status.line_rows(r, here.desk.settings))


@router.get("/v1/jobs", dependencies=ADMIN)
async def get_jobs(
    here: Here, state: JobState | None = None, line: Word = None, kind: Word = None, limit: Limit = 50
) -> list[JobRow]:
    """Jobs, newest first."""
    return await here.desk.read(lambda r: listing.jobs(r, state=state, line=line, kind=kind, limit=limit))


@router.get("/v1/nodes", dependencies=ADMIN)
async def get_nodes(here: Here) -> list[NodeRow]:
    """All machines."""
    return await here.desk.read(lambda r: listing.nodes(r, here.desk.settings.hash))


@router.get("/v1/models", dependencies=ADMIN)
async def get_models(here: Here, line: Word = None, limit: Limit = 200) -> list[ModelRow]:
    """Models, newest first."""
    return await here.desk.read(lambda r: listing.models(r, line=line, limit=limit))


@router.get("/v1/events", dependencies=ADMIN)
async def get_events(
    here: Here, of: Word = None, after: Position = None, limit: Limit = 200
) -> list[EventRow]:
    """The log after a position, or its newest rows when none is given; oldest first."""
    return await here.desk.read(lambda r: listing.events(r, of=of, after=after, limit=limit))


@router.get("/v1/why/{kind}/{subject}", dependencies=ADMIN)
async def get_why(
    kind: Literal["job", "model", "line", "node"], subject: Annotated[str, Path(max_length=120)], here: Here
) -> Why:
    """Why something is as it is."""
    return await here.desk.read(lambda r: explaining.why(r, here.desk.settings, kind, subject))


@router.get("/v1/report", dependencies=ADMIN)
async def get_report(here: Here) -> Report:
    """The record of the run so far."""
    return await here.desk.read(lambda r: reporting.report(r, here.desk.settings, here.audit))


@router.post("/v1/stop", dependencies=[*ADMIN, Depends(sane_body)])
async def stop(message: Stop, here: Here) -> dict[str, str]:
    """Ask for a phase of the loop; by default, to wind down."""
    await here.stop(message.reason, message.phase)
    return {"phase": message.phase}
