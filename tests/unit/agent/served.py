"""The fake coordinator behind real HTTP on a loopback port, as a context manager."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import anyio.to_thread
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gamekeeper.core.clock import boot_seconds
from gamekeeper.core.errors import GamekeeperError
from gamekeeper.protocol import Beat, Claim, Connect, Enrol, Finish, Message, SealArtifact, Started, Step
from tests.unit.agent.fake_coordinator import FakeCoordinator, status_of
from tests.waiting import until


def _answer(message: Message) -> Response:
    return Response(message.model_dump_json(), media_type="application/json")


def _token(request: Request) -> str:
    return request.headers.get("Authorization", "").removeprefix("Bearer ")


def app_of(fake: FakeCoordinator) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.exception_handler(GamekeeperError)
    async def _refuse(_: Request, error: GamekeeperError) -> JSONResponse:
        return JSONResponse({**error.as_json(), "retry_after_s": None}, status_of(error))

    async def checked(request: Request) -> bytes:
        fake.check_credential(_token(request))
        return await request.body()

    _add_agent_routes(app, fake, checked)
    _add_attempt_routes(app, fake, checked)
    return app


Checked = Callable[[Request], Awaitable[bytes]]


def _add_agent_routes(app: FastAPI, fake: FakeCoordinator, checked: Checked) -> None:
    @app.post("/v1/enrol")
    async def _enrol(request: Request) -> Response:
        return _answer(fake.enrol(_token(request), Enrol.model_validate_json(await request.body())))

    @app.post("/v1/agent/connect")
    async def _connect(request: Request) -> Response:
        data = await checked(request)
        with fake.lock:
            return _answer(fake.connect(Connect.model_validate_json(data)))

    @app.post("/v1/agent/claim")
    async def _claim(request: Request) -> Response:
        message = Claim.model_validate_json(await checked(request))
        end = boot_seconds() + message.wait_s
        while True:
            with fake.lock:
                claimed = fake.claim(message)
            if claimed is not None:
                return _answer(claimed)
            if boot_seconds() > end or await request.is_disconnected():
                return JSONResponse({"grants": [], "draining": False})
            await anyio.to_thread.run_sync(fake.changed.wait, 0.1)

    @app.post("/v1/agent/beat")
    async def _beat(request: Request) -> Response:
        data = await checked(request)
        with fake.lock:
            return _answer(fake.beat(Beat.model_validate_json(data)))

    @app.post("/v1/agent/step")
    async def _step(request: Request) -> Response:
        data = await checked(request)
        with fake.lock:
            return _answer(fake.step(Step.model_validate_json(data)))


def _add_attempt_routes(app: FastAPI, fake: FakeCoordinator, checked: Checked) -> None:
    place = "/v1/attempts/{number}/{fence}/artifacts/{digest}"

    @app.post("/v1/attempts/{number}/started")
    async def _started(number: int, request: Request) -> Response:
        data = await checked(request)
        with fake.lock:
            fake.started(number, Started.model_validate_json(data))
        return JSONResponse({})

    @app.post("/v1/attempts/{number}/finish")
    async def _finish(number: int, request: Request) -> Response:
        data = await checked(request)
        with fake.lock:
            return _answer(fake.finish(number, Finish.model_validate_json(data)))

    @app.get(place)
    async def _state(number: int, fence: int, digest: str, request: Request) -> Response:
        await checked(request)
        with fake.lock:
            return _answer(fake.upload_state(number, fence, digest))

    @app.put(place)
    async def _chunk(number: int, fence: int, digest: str, offset: int, request: Request) -> Response:
        data = await checked(request)
        with fake.lock:
            return _answer(fake.put_chunk(number, fence, digest, offset, data))

    @app.post(f"{place}/seal")
    async def _seal(number: int, fence: int, digest: str, request: Request) -> Response:
        data = await checked(request)
        with fake.lock:
            return _answer(fake.seal(number, fence, digest, SealArtifact.model_validate_json(data)))

    @app.get("/v1/artifacts/{digest}")
    async def _blob(digest: str, request: Request) -> Response:
        await checked(request)
        with fake.lock:
            data = fake.blob(digest)
        wanted = request.headers.get("Range")
        if wanted is None:
            return Response(data)
        return Response(data[int(wanted.removeprefix("bytes=").rstrip("-")) :], 206)


@contextmanager
def serve(fake: FakeCoordinator) -> Iterator[str]:
    """Serve until the block ends; yields the address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app_of(fake), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
