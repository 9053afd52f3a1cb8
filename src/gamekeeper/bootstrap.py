"""The composition root: settings in, a running process out. Only here are the parts of a process put together."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import uvicorn

from gamekeeper.adapters.object_store import FolderStore
from gamekeeper.agent.config import AgentConfig
from gamekeeper.agent.start import run_agent as serve_node
from gamekeeper.core.actions import EndAttempt
from gamekeeper.core.clock import Clock, SystemClock
from gamekeeper.core.errors import RoleHeld, SettingsError, StaleToken, UsageError
from gamekeeper.core.events import SettingsApplied
from gamekeeper.daemons import jobs, looks, models, pipeline
from gamekeeper.daemons.duty import Duty
from gamekeeper.data.safe_files import write_atomic
from gamekeeper.runtime.daemon import Cyclic
from gamekeeper.runtime.executor import Executor, RoleLost
from gamekeeper.runtime.supervisor import RUN_VARIABLE, keep_daemons
from gamekeeper.runtime.telemetry import logger
from gamekeeper.server.app import create_app
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.desk import ROLE, ArtifactFiles, Desk, ThreadWorkers
from gamekeeper.server.principals import ADMIN_TOKEN, JOIN_TOKEN, mint_secret, secret_hash
from gamekeeper.server.reporting import FileAudit
from gamekeeper.settings import Settings
from gamekeeper.store import inventory, leases
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing

VALIDATORS = 2
AUDIT_PAGE = 2000
ANNOUNCEMENT = "coordinator.json"
LOOK_AGAIN_S = 0.2
MAX_SMALL_FILE = 1 << 16


def run_coordinator(settings: Settings) -> int:
    """Be the coordinator of `settings.data_dir` until SIGTERM or SIGINT; returns the exit code.

    Raises `RoleHeld` when another process is, `SettingsError` when the port is taken, `UsageError` when the data
    folder cannot be written, and what opening the store raises.
    """
    clock = SystemClock()
    folder = settings.data_dir.resolve()
    make_data_dir(folder)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(only_coordinator(folder))
        listener = stack.enter_context(listen(settings, announced_port(folder)))
        url = url_of(settings, listener)
        lock.tell(url)
        store = stack.enter_context(Store.open(folder / "gamekeeper.db", clock))
        files = FolderStore(
            folder / "artifacts",
            max_bytes=settings.artifacts.max_bytes,
            min_free_bytes=settings.artifacts.min_free_bytes,
        )
        admin, join = (token_file(folder, name) for name in (ADMIN_TOKEN, JOIN_TOKEN))
        run = os.environ.get(RUN_VARIABLE, "")
        epoch = store.write(
            lambda w: take_over(w, settings, url, {ADMIN_TOKEN: admin, JOIN_TOKEN: join}, run)
        )
        desk = Desk(
            store=store,
            clock=clock,
            settings=settings,
            files=files,
            workers=ThreadWorkers(VALIDATORS),
            epoch=epoch,
        )
        anyio.run(_serve, Coordinator(desk), listener, folder, url)
    return 0


def run_agent(settings: Settings) -> int:
    """Be this machine's agent until SIGTERM or SIGINT; returns the exit code."""
    folder = settings.data_dir.resolve()
    make_data_dir(folder)
    anyio.run(_follow_coordinator, settings, folder, SystemClock())
    return 0


# --- the data folder


def make_data_dir(folder: Path) -> None:
    """Make the data folder, or see that it can be written. Raises `UsageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"the data folder {folder} cannot be written: {error.strerror}",
            remedy="name another one with --data-dir or data_dir, or correct its permissions",
        ) from None


@dataclass(frozen=True, slots=True)
class HeldLock:
    """The lock of a data folder, as its holder has it."""

    descriptor: int

    def tell(self, url: str) -> None:
        """Write down who holds it, for the message that others get."""
        text = json.dumps({"pid": os.getpid(), "url": url}).encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text, 0)


@contextlib.contextmanager
def only_coordinator(folder: Path) -> Iterator[HeldLock]:
    """Hold the lock of the data folder. The kernel frees it when the process ends, however it ends."""
    descriptor = os.open(folder / "coordinator.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(folder, os.pread(descriptor, MAX_SMALL_FILE, 0)) from None
        yield HeldLock(descriptor)
    finally:
        os.close(descriptor)


def _held(folder: Path, text: bytes) -> RoleHeld:
    who = _object_of(text)
    holder = f"process {who.get('pid', '?')} at {who.get('url', 'an unknown address')}"
    return RoleHeld(
        f"a coordinator works on {folder} already: {holder}",
        remedy=f"use that one (gamekeeper status --data-dir {folder}), stop it first, or name another --data-dir",
    )


def token_file(folder: Path, name: str) -> str:
    """The token in DIR/tokens, made on first use; readable by this user only."""
    path = folder / "tokens" / f"{name}.token"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        known = path.read_text(encoding="utf-8").strip()
        if known:
            return known
    secret = mint_secret()
    part = path.with_suffix(f".{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(secret + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    return secret


def take_over(w: Writing, settings: Settings, url: str, tokens: dict[str, str], run: str) -> int:
    """Take the role under a fresh epoch and make the stored settings those in force.

    The lock of the folder proves that an earlier holder is gone, so its lease need not run out first.
    """
    epoch = leases.take_role(w, ROLE, f"{os.getpid()} {url}", settings.timings.lease_s, displace=True)
    for name, secret in tokens.items():
        inventory.set_token_hash(w, name, secret_hash(secret))
    if run:
        looks.begin_run(w, run)
    w.emit(SettingsApplied(settings.hash))
    return epoch


# --- the address


@contextlib.contextmanager
def listen(settings: Settings, earlier_port: int) -> Iterator[socket.socket]:
    """A listening socket. With port 0, the port of the coordinator before this one if it is free: agents know it."""
    host, port = settings.coordinator.host, settings.coordinator.port
    listener = _bind(host, earlier_port) if port == 0 and earlier_port else None
    listener = listener or _bind(host, port)
    if listener is None:
        raise SettingsError(
            f"port {port} on {host} cannot be listened on: it is taken, or the address is not this machine's",
            remedy="stop what listens there, or set [coordinator] port (0 takes any free one)",
        )
    with listener:
        yield listener


def _bind(host: str, port: int) -> socket.socket | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        return None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        return None
    return listener


def url_of(settings: Settings, listener: socket.socket) -> str:
    """The address under which this machine reaches the listener."""
    host = settings.coordinator.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


def announced_url(folder: Path) -> str:
    """The address that the coordinator of this folder announced; "" when none did."""
    with contextlib.suppress(OSError):
        with (folder / ANNOUNCEMENT).open("rb") as stream:
            url = _object_of(stream.read(MAX_SMALL_FILE)).get("url")
        return url if isinstance(url, str) else ""
    return ""


def announced_port(folder: Path) -> int:
    """The port of that address; 0 when unknown."""
    port = announced_url(folder).rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536 else 0


def _object_of(text: bytes) -> dict[str, object]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


# --- the coordinator's process


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to us and says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled by the root."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer."""
        await super().startup(sockets)
        self.answering.set()


async def _serve(coordinator: Coordinator, listener: socket.socket, folder: Path, url: str) -> None:
    desk = coordinator.desk
    log = logger("coordinator")
    coordinator.audit = await clean_up(desk)
    if coordinator.audit.lost:
        log.error("files of the catalogue are lost", files=coordinator.audit.lost)
    server = _Server(
        uvicorn.Config(
            create_app(coordinator),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    )
    coordinator.serving_since = desk.clock.now()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listener])
        await server.answering.wait()
        document = {"url": url, "pid": os.getpid()}
        await anyio.to_thread.run_sync(write_atomic, folder / ANNOUNCEMENT, json.dumps(document).encode())
        log.info(
            "answering", url=url, data_dir=str(folder), epoch=desk.epoch, settings=desk.settings.hash[:12]
        )
        async with anyio.create_task_group() as duties:
            duties.start_soon(_keep_role, coordinator)
            duties.start_soon(_keep_daemons, coordinator)
            duties.start_soon(_until_told, duties.cancel_scope)
            await desk.role_lost.wait()
            duties.cancel_scope.cancel()
        log.info("stopping", role_lost=desk.role_lost.is_set())
        coordinator.board.close()
        server.should_exit = True
    await _leave(desk, folder)


async def _leave(desk: Desk, folder: Path) -> None:
    if desk.role_lost.is_set():
        raise RoleHeld(
            "another process took the coordinator's role",
            remedy="see `gamekeeper status` for the one that runs",
        )
    (folder / ANNOUNCEMENT).unlink(missing_ok=True)
    with contextlib.suppress(StaleToken):
        await desk.store.awrite(lambda w: leases.release_role(w, ROLE, desk.epoch))


async def _until_told(scope: anyio.CancelScope) -> None:
    """Wait for SIGTERM, or for SIGINT unless the parent process handles that."""
    wanted = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        wanted.append(signal.SIGINT)
    with anyio.open_signal_receiver(*wanted) as received:
        async for _ in received:
            scope.cancel()
            return


async def _keep_role(coordinator: Coordinator) -> None:
    """Renew the role. After a pause of this process agents get a whole lease again before any is judged."""
    desk, timings = coordinator.desk, coordinator.desk.settings.timings
    renewed = desk.clock.monotonic()
    while True:
        await desk.clock.sleep(timings.beat_s)
        now = desk.clock.monotonic()
        if now - renewed > 2 * timings.beat_s:
            coordinator.serving_since = desk.clock.now()
        renewed = now
        try:
            await desk.store.awrite(lambda w: leases.renew_role(w, ROLE, desk.epoch, timings.lease_s))
        except StaleToken:
            desk.role_lost.set()
            return


async def _keep_daemons(coordinator: Coordinator) -> None:
    try:
        await keep_daemons(daemons_of(coordinator), coordinator.desk.clock, fatal=(RoleLost,))
    except* RoleLost:
        coordinator.desk.role_lost.set()


def daemons_of(coordinator: Coordinator) -> Sequence[Cyclic]:
    """All duties of the coordinator, wired to its board and hints."""
    desk, board, hints = coordinator.desk, coordinator.board, coordinator.desk.hints
    duty = Duty(desk.store, Executor(desk.store, ROLE), desk.epoch)
    lines, timings = desk.settings.lines, desk.settings.timings

    def waiting() -> list[jobs.Waiting]:
        return [jobs.Waiting(one.node_id, one.incarnation, one.slots) for one in board.waiting()]

    async def ended(over: Sequence[EndAttempt]) -> None:
        await coordinator.forget_uploads([(one.attempt_id, one.token) for one in over])
        hints.distribution.signal()
        hints.pipeline.signal()

    distributor = jobs.distributor(duty, waiting, board.wake)
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
    return [distributor, looping, promoter, reaper]


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


async def _follow_coordinator(settings: Settings, folder: Path, clock: Clock) -> None:
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
            await serve_node(agent_config(settings, folder, url), clock)
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
    )
