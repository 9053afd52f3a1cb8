"""The composition root: settings in, a running process out. Only here are the parts of a process put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import uvicorn
from anyio.abc import TaskGroup

from gamekeeper.adapters.object_store import FolderStore
from gamekeeper.agent.config import AgentConfig, declared
from gamekeeper.agent.start import run_agent as serve_node
from gamekeeper.core.actions import EndAttempt
from gamekeeper.core.clock import Clock, SystemClock, unseeded
from gamekeeper.core.errors import RoleHeld, StaleToken
from gamekeeper.core.events import SettingsApplied
from gamekeeper.daemons import jobs, looks, models, parking, pipeline, upkeep
from gamekeeper.daemons.duty import Duty
from gamekeeper.daemons.fused import StepMatch
from gamekeeper.runtime.daemon import Cyclic, Hint
from gamekeeper.runtime.data_dir import (
    announce,
    announced_port,
    announced_url,
    make_data_dir,
    only_coordinator,
    token_file,
    withdraw,
)
from gamekeeper.runtime.executor import Executor, RoleLost
from gamekeeper.runtime.supervisor import RUN_VARIABLE, keep_daemons
from gamekeeper.runtime.telemetry import logger
from gamekeeper.server.app import create_app
from gamekeeper.server.connections import bounded, raise_file_limit
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.desk import ROLE, ArtifactFiles, Desk, ThreadWorkers
from gamekeeper.server.front import Front
from gamekeeper.server.gates import Gates, bounds_of
from gamekeeper.server.principals import ADMIN_TOKEN, JOIN_TOKEN, secret_hash
from gamekeeper.server.process import Server, listen, prepare_interpreter, url_of, watch_lag
from gamekeeper.server.reporting import FileAudit
from gamekeeper.server.role_keeping import keep_role, win_role
from gamekeeper.settings import Settings
from gamekeeper.store import inventory, leases, retention
from gamekeeper.store.engine import IDLE_S, Store
from gamekeeper.store.places import is_server
from gamekeeper.store.session import Writing

VALIDATORS = 2
AUDIT_PAGE = 2000
LOOK_AGAIN_S = 0.2
STORE_FILE = "gamekeeper.db"


Serve = Callable[[AgentConfig, Clock], Awaitable[None]]


def run_coordinator(settings: Settings) -> int:
    """Be the coordinator of `settings.data_dir` until SIGTERM or SIGINT; returns the exit code.

    Raises `RoleHeld` when another process is, `SettingsError` when the port is taken, `UsageError` when the data
    folder cannot be written, and what opening the store raises.
    """
    folder = settings.data_dir.resolve()
    make_data_dir(folder)
    place = store_place(settings, folder)
    shared = isinstance(place, str) and is_server(place)
    with contextlib.ExitStack() as stack:
        # A file has one coordinator. Of those on a server, one holds the role and the others stand by.
        lock = None if shared else stack.enter_context(only_coordinator(folder))
        listener = stack.enter_context(listen(settings, announced_port(folder)))
        url = url_of(settings, listener)
        if lock is not None:
            lock.tell(url)
        idle_s = min(IDLE_S, settings.timings.lease_s / 2)
        store = stack.enter_context(
            Store.open(place, SystemClock(), idle_s=idle_s, passfile=settings.store.passfile)
        )
        prepare_interpreter()
        begin = Start(settings, folder, store, url, displace=not shared)
        anyio.run(_serve, begin, listener, backend_options={"use_uvloop": True})
    return 0


def store_place(settings: Settings, folder: Path) -> str | Path:
    """Where the state of this data folder is kept: on the server that the settings name, or in a file of the folder."""
    return settings.store.url or folder / STORE_FILE


@dataclass(frozen=True, slots=True)
class Start:
    """What a coordinator is made of once it holds the role. `displace`: take it though its lease runs."""

    settings: Settings
    folder: Path
    store: Store
    url: str
    displace: bool

    def tokens(self) -> dict[str, str]:
        """The secrets in the data folder, made when there are none."""
        return {name: token_file(self.folder, name) for name in (ADMIN_TOKEN, JOIN_TOKEN)}

    def take(self, w: Writing, tokens: dict[str, str]) -> int:
        """Take the role and make settings and tokens those in force."""
        run = os.environ.get(RUN_VARIABLE, "")
        return take_over(w, self.settings, self.url, tokens, run, displace=self.displace)

    def coordinator(self, epoch: int) -> Coordinator:
        """The coordinator of that epoch. Its clock is the store's, so that it agrees with those that stand by."""
        files = FolderStore(
            self.folder / "artifacts",
            max_bytes=self.settings.artifacts.max_bytes,
            min_free_bytes=self.settings.artifacts.min_free_bytes,
        )
        desk = Desk(
            store=self.store,
            clock=self.store.clock,
            settings=self.settings,
            files=files,
            workers=ThreadWorkers(VALIDATORS),
            epoch=epoch,
        )
        return Coordinator(desk)


def run_agent(settings: Settings) -> int:
    """Be this machine's agent until SIGTERM or SIGINT; returns the exit code."""
    folder = settings.data_dir.resolve()
    make_data_dir(folder)
    anyio.run(follow_coordinator, settings, folder, SystemClock())
    return 0


# --- the role and the address


def take_over(
    w: Writing, settings: Settings, url: str, tokens: dict[str, str], run: str, *, displace: bool = True
) -> int:
    """Take the role under a fresh epoch and make the stored settings those in force.

    `displace`: the lock of the folder proves that an earlier holder is gone, so its lease need not run out first.
    Raises `RoleHeld` without it while another's lease runs.
    """
    holder = f"process {os.getpid()} on {socket.gethostname()} at {url}"
    epoch = leases.take_role(w, ROLE, holder, settings.timings.lease_s, displace=displace)
    for name, secret in tokens.items():
        inventory.set_token_hash(w, name, secret_hash(secret))
    if run:
        looks.begin_run(w, run)
    w.emit(SettingsApplied(settings.hash))
    return epoch


async def _serve(start: Start, listener: socket.socket) -> None:
    front = Front()
    server = Server(
        uvicorn.Config(
            front,
            http=bounded(raise_file_limit()),
            ws="none",
            proxy_headers=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    )
    led: list[Coordinator] = []
    # From here on a signal ends it in good order: before anybody is told the address and may send one.
    with anyio.open_signal_receiver(*_ending_signals()) as received:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            await server.answering.wait()
            try:
                async with anyio.create_task_group() as duties:
                    duties.start_soon(_until_told, received, duties.cancel_scope)
                    await _lead(start, front, duties, led)
            finally:
                for coordinator in led:
                    coordinator.board.close()
                server.should_exit = True
    await _leave(start, led)


async def _lead(start: Start, front: Front, duties: TaskGroup, led: list[Coordinator]) -> None:
    """Wait for the role if another holds it, then be the coordinator until the role is lost."""
    store, log, wake = start.store, logger("coordinator"), Hint()
    hints = [wake]
    _hear(store, hints)
    tokens = await anyio.to_thread.run_sync(start.tokens)
    take = partial(start.take, tokens=tokens)
    epoch = await store.awrite(take) if start.displace else await win_role(store, front, wake, tokens, take)
    coordinator = start.coordinator(epoch)
    desk = coordinator.desk
    led.append(coordinator)
    hints[:] = [desk.hints.distribution, desk.hints.pipeline, desk.hints.promotion]
    duties.start_soon(keep_role, coordinator)
    coordinator.audit = await clean_up(desk)
    if coordinator.audit.lost:
        log.error("files of the catalogue are lost", files=coordinator.audit.lost)
    coordinator.serving_since = desk.clock.now()
    gates = Gates(bounds_of(desk.settings.admission.calls), unseeded())
    front.app, front.held_by = create_app(coordinator, gates), start.url
    await anyio.to_thread.run_sync(announce, start.folder, start.url)
    log.info(
        "answering",
        url=start.url,
        data_dir=str(start.folder),
        epoch=epoch,
        settings=desk.settings.hash[:12],
    )
    duties.start_soon(_keep_daemons, coordinator)
    duties.start_soon(watch_lag, desk.clock, gates)
    await desk.role_lost.wait()
    duties.cancel_scope.cancel()


def _hear(store: Store, hints: list[Hint]) -> None:
    """Signal all of `hints` when another process on the store says that there is something to see."""
    loop = asyncio.get_running_loop()

    def signal_all() -> None:
        for hint in hints:
            hint.signal()

    def hear() -> None:
        # A loop that has ended needs no hint.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(signal_all)

    store.listen(hear)


async def _leave(start: Start, led: list[Coordinator]) -> None:
    for coordinator in led:
        desk = coordinator.desk
        logger("coordinator").info("stopping", role_lost=desk.role_lost.is_set())
        if desk.role_lost.is_set():
            raise RoleHeld(
                "another process took the coordinator's role",
                remedy="see `gamekeeper status` for the one that runs",
            )
        withdraw(start.folder)
        with contextlib.suppress(StaleToken):
            await desk.store.awrite(partial(leases.release_role, role=ROLE, epoch=desk.epoch))


def _ending_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGINT unless the parent process handles that."""
    wanted = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        wanted.append(signal.SIGINT)
    return wanted


async def _until_told(received: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    """Wait for a signal to end."""
    async for _ in received:
        scope.cancel()
        return


async def _keep_daemons(coordinator: Coordinator) -> None:
    try:
        await keep_daemons(daemons_of(coordinator), coordinator.desk.clock, fatal=(RoleLost,))
    except* RoleLost:
        coordinator.desk.role_lost.set()


def daemons_of(coordinator: Coordinator) -> Sequence[Cyclic]:
    """All duties of the coordinator, wired to its board and hints."""
    desk, board, hints = coordinator.desk, coordinator.board, coordinator.desk.hints
    duty = Duty(
        desk.store,
        Executor(desk.store, ROLE, terms=desk.terms, decisions_kept=desk.settings.retention.decisions_max),
        desk.epoch,
    )
    lines, timings = desk.settings.lines, desk.settings.timings

    async def ended(over: Sequence[EndAttempt]) -> None:
        await coordinator.forget_uploads([(one.attempt_id, one.token) for one in over])
        hints.distribution.signal()
        hints.pipeline.signal()

    limits = desk.settings.distribution.to_limits()
    coordinator.matching = partial(StepMatch, limits, desk.epoch)
    distributor = jobs.distributor(duty, limits, board, board.wake)
    looping = pipeline.pipeline(duty, lines, desk.settings.seed, hints.distribution.signal)
    promoter = models.promoter(duty, lines, hints.pipeline.signal)
    distributor.hint, looping.hint, promoter.hint = hints.distribution, hints.pipeline, hints.promotion
    reaper = jobs.reaper(
        duty,
        lease_s=timings.lease_s,
        every_s=timings.reap_every_s,
        serving_since=lambda: coordinator.serving_since,
        ended=ended,
    )

    def changed() -> None:
        hints.distribution.signal()
        hints.pipeline.signal()

    kept = desk.settings.retention
    parker = parking.parker(duty, parking.limits_of(desk.settings.job_parking), changed)
    bulk = upkeep.bulk_operations(duty, ROLE, desk.terms, changed)
    parker.hint, bulk.hint = hints.parking, hints.bulk
    keeper = upkeep.job_retention(
        duty, ROLE, retention.Limits(kept.finished_jobs_days, kept.finished_jobs_max)
    )
    return [distributor, looping, promoter, reaper, parker, bulk, keeper]


async def clean_up(desk: Desk) -> FileAudit:
    """Sweep uploads that no live attempt owns, and see which files of the catalogue are there."""
    live = await desk.read(looks.live_tokens)
    await desk.workers.run(lambda: desk.files.sweep(live))
    lost = cut = after = 0
    while page := await desk.read(partial(looks.catalogue_page, after=after, limit=AUDIT_PAGE)):
        gone, short = await desk.workers.run(partial(_missing, desk.files, page))
        lost, cut, after = lost + gone, cut + short, page[-1][0]
    return FileAudit(lost=lost, unverified=cut)


def _missing(files: ArtifactFiles, page: Sequence[tuple[int, str, int]]) -> tuple[int, int]:
    """(files that are not there, files that have another size)."""
    lost = cut = 0
    for _, digest, size in page:
        if not files.path(digest).exists():
            lost += 1
        elif not files.holds(digest, size):
            cut += 1
    return lost, cut


# --- the agent's process


async def follow_coordinator(
    settings: Settings, folder: Path, clock: Clock, serve: Serve = serve_node
) -> None:
    """Run the agent; start it anew when the coordinator of this folder comes back under another address.

    Jobs do not notice: they survive their agent and are taken over by the next one.
    """
    while True:
        url = settings.agent.url or await _first_url(folder, clock)
        moved = False
        async with anyio.create_task_group() as tasks:

            async def watch(known: str = url) -> None:
                nonlocal moved
                while settings.agent.url or announced_url(folder) in {known, ""}:
                    await clock.sleep(5 * LOOK_AGAIN_S)
                moved = True
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            await serve(agent_config(settings, folder, url), clock)
            tasks.cancel_scope.cancel()
        if not moved:
            return
        logger("agent").info("the coordinator moved", url=announced_url(folder))


async def _first_url(folder: Path, clock: Clock) -> str:
    told = False
    while not (url := announced_url(folder)):
        if not told:
            logger("agent").info("waiting for a coordinator", data_dir=str(folder))
            told = True
        await clock.sleep(LOOK_AGAIN_S)
    return url


def agent_config(settings: Settings, folder: Path, url: str) -> AgentConfig:
    """What the agent is told, from the settings."""
    return AgentConfig(
        url=url,
        folder=folder / "agent",
        slots=settings.agent.slots,
        join_token=folder / "tokens" / f"{JOIN_TOKEN}.token",
        host_name=socket.gethostname(),
        free_bytes_least=settings.agent.min_free_bytes,
        machine=declared(settings.agent),
    )
