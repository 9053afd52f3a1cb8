"""The calls of agents."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse

from gamekeeper.core.artifacts import Upload
from gamekeeper.core.errors import NotAllowed
from gamekeeper.protocol import (
    Beat,
    BeatReply,
    Claim,
    Claimed,
    Connect,
    Connected,
    Enrol,
    Enrolled,
    Finish,
    Finished,
    Hash,
    SealArtifact,
    Sealed,
    Started,
    Step,
    Stepped,
    UploadState,
)
from gamekeeper.server.http import Caller, Here, joiner, node, rest_of, sane_body
from gamekeeper.server.principals import Principal, Right

# Defaults are left out of answers, so that an agent of the protocol before this one, which takes no unknown field, is
# served as long as it is told nothing that is beyond it.
router = APIRouter(prefix="/v1", tags=["agents"])

Number = Annotated[int, Path(ge=1, lt=1 << 63)]
Offset = Annotated[int, Query(ge=0, lt=1 << 62)]
NodeId = Annotated[str, Depends(node)]
BODY = [Depends(sane_body)]


@router.post("/enrol", dependencies=BODY)
async def enrol(message: Enrol, here: Here, _who: Annotated[Principal, Depends(joiner)]) -> Enrolled:
    """Issue an identity to a machine that holds the join token."""
    return await here.enrol(message)


@router.post("/agent/connect", dependencies=BODY, response_model_exclude_defaults=True)
async def connect(message: Connect, here: Here, node_id: NodeId) -> Connected:
    """Take the node's lease for a fresh agent process."""
    return await here.connect(node_id, message)


@router.post("/agent/claim", dependencies=BODY, response_model_exclude_defaults=True)
async def claim(message: Claim, here: Here, node_id: NodeId, request: Request) -> Claimed:
    """Ask for jobs; waits up to `wait_s` while there are none."""
    return await here.claim(node_id, message, rest_of(request.receive))


@router.post("/agent/step", dependencies=BODY, response_model_exclude_defaults=True)
async def step(message: Step, here: Here, node_id: NodeId, request: Request) -> Stepped:
    """Report ends, renew the lease, and ask for jobs: all in one."""
    return await here.step(node_id, message, rest_of(request.receive))


@router.post("/agent/beat", dependencies=BODY, response_model_exclude_defaults=True)
async def beat(message: Beat, here: Here, node_id: NodeId) -> BeatReply:
    """Renew the lease."""
    return await here.beat(node_id, message)


@router.post("/attempts/{attempt}/started", dependencies=BODY)
async def started(attempt: Number, message: Started, here: Here, node_id: NodeId) -> dict[str, str]:
    """The attempt's process runs."""
    await here.started(node_id, attempt, message)
    return {}


@router.post("/attempts/{attempt}/finish", dependencies=BODY)
async def finish(attempt: Number, message: Finish, here: Here, node_id: NodeId) -> Finished:
    """The attempt ended; the receipt is judged here."""
    return await here.finish(node_id, attempt, message)


@router.get("/attempts/{attempt}/{token}/artifacts/{digest}")
async def upload_state(
    attempt: Number, token: Number, digest: Hash, here: Here, node_id: NodeId
) -> UploadState:
    """How much of an upload has arrived."""
    return await here.uploads.state(node_id, Upload(attempt, token, digest))


@router.put(
    "/attempts/{attempt}/{token}/artifacts/{digest}",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload(
    *,
    attempt: Number,
    token: Number,
    digest: Hash,
    offset: Offset,
    here: Here,
    node_id: NodeId,
    request: Request,
) -> UploadState:
    """Add the body, at most 8 MiB, at `offset`. The answer tells where to go on."""
    return await here.uploads.append(node_id, Upload(attempt, token, digest), offset, await request.body())


@router.post("/attempts/{attempt}/{token}/artifacts/{digest}/seal", dependencies=BODY)
async def seal(
    *, attempt: Number, token: Number, digest: Hash, message: SealArtifact, here: Here, node_id: NodeId
) -> Sealed:
    """All bytes are up: verify, validate, publish."""
    return await here.uploads.seal(node_id, Upload(attempt, token, digest), message)


@router.get("/artifacts/{digest}", response_class=FileResponse)
async def download(digest: Hash, here: Here, who: Caller) -> FileResponse:
    """The bytes of a verified artifact; ranges are served."""
    if who.right is Right.JOIN:
        raise NotAllowed("a join token only enrols machines")
    path = await here.uploads.download(digest)
    # Immutable by construction, so its hash is the perfect validator.
    return FileResponse(path, media_type="application/octet-stream", headers={"ETag": f'"{digest}"'})
