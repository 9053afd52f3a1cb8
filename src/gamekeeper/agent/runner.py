"""The agent process: carries out what the core commands, and tells it what happened.

One task owns the core and hands every command to a task of its own, so a slow upload can delay neither a beat nor a
stop. Anything that may block (disk, hashing, starting a process) happens in worker threads.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from gamekeeper.agent import messages as m
from gamekeeper.agent.attempt_dir import AttemptDir, ProcessRecord
from gamekeeper.agent.config import AgentConfig
from gamekeeper.agent.core import AgentCore
from gamekeeper.agent.input_cache import InputCache, free_bytes
from gamekeeper.agent.machine import describe, observe
from gamekeeper.agent.process_owner import ProcessOwner, Standing
from gamekeeper.agent.process_watch import ProcessWatch
from gamekeeper.agent.spool import ship
from gamekeeper.agent.transport import Coordinator
from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import (
    Busy,
    Corrupt,
    GamekeeperError,
    IllegalTransition,
    NotAllowed,
    Refused,
    StaleToken,
    StorageFull,
    Unreachable,
)
from gamekeeper.core.jobs import EndReason
from gamekeeper.protocol import Grant

CACHED_TOLD = 256
_BEAT_S = 5.0
_log = structlog.get_logger("gamekeeper.agent")


def failure_of(serial: int, error: GamekeeperError) -> m.Failed:
    """An error as the core sees it. What nobody can classify may have taken effect: as good as no answer."""
    kind = m.Failure.REJECTED
    if isinstance(error, Busy):
        return m.Failed(serial, m.Failure.BUSY, error.message, error.retry_after_s)
    if isinstance(error, Unreachable) or type(error) is GamekeeperError:
        kind = m.Failure.UNREACHABLE
    elif isinstance(error, StaleToken | IllegalTransition):
        kind = m.Failure.STALE
    elif isinstance(error, NotAllowed):
        kind = m.Failure.NOT_ALLOWED
    elif isinstance(error, StorageFull):
        kind = m.Failure.FULL
    return m.Failed(serial, kind, error.message)


class Runner:
    """One run of the agent on one folder, whose lock is held by the caller."""

    def __init__(
        self,
        config: AgentConfig,
        clock: Clock,
        coordinator: Coordinator,
        *,
        rng: random.Random,
        boot: Callable[[], float],
    ) -> None:
        self._config = config
        self._clock = clock
        self._coordinator = coordinator
        self._boot = boot
        self._core = AgentCore(
            config.slots, rng, machine=describe(config.machine), claim_wait_s=config.claim_wait_s,
            patience_s=config.shutdown_patience_s,
        )  # fmt: skip
        self._attempts = config.folder / "attempts"
        self._cache = InputCache(config.folder / "cache", config.cache_bytes, config.free_bytes_least)
        self._owner = ProcessOwner(config, clock, boot)
        self._events, self._inbox = anyio.create_memory_object_stream[m.Event](float("inf"))
        self._watch = ProcessWatch(config, self._owner, self._events)
        self._scopes: dict[int, set[anyio.CancelScope]] = {}

    def shut_down(self) -> None:
        """Have the agent stop its jobs, report them and leave. Call it on the event loop."""
        self._tell(m.ShutdownOrdered())

    async def run(self, heed: tuple[signal.Signals, ...] = ()) -> None:
        """Work until told to leave, by one of the signals in `heed` or by `shut_down`.

        Raises `NotAllowed` when the coordinator does not accept this node.
        """
        self._attempts.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with anyio.create_task_group() as tasks:
            await self._restore(tasks)
            tasks.start_soon(self._measure)
            if heed:
                tasks.start_soon(self._heed, heed)
            refusal = await self._drive(tasks)
            tasks.cancel_scope.cancel()
        if refusal:
            raise NotAllowed(
                f"the coordinator does not accept this node: {refusal}",
                remedy=f"remove {self._config.folder / 'identity.json'} to enrol it again",
            )

    async def _heed(self, signals: tuple[signal.Signals, ...]) -> None:
        with anyio.open_signal_receiver(*signals) as received:
            async for number in received:
                _log.info("shutting down", signal=number.name)
                self.shut_down()

    async def _drive(self, tasks: TaskGroup) -> str:
        """Feed the core until it leaves; returns its refusal, or ""."""
        while True:
            event: m.Event = m.Tick()
            wait_s = max(0.0, self._core.next_wake - self._boot())
            with anyio.move_on_after(wait_s):
                event = await self._inbox.receive()
            for command in self._core.handle(event, self._boot()):
                if isinstance(command, m.Leave):
                    return command.refusal
                self._carry_out(tasks, command)

    def _tell(self, event: m.Event) -> None:
        self._events.send_nowait(event)

    def _place(self, attempt: int) -> AttemptDir:
        return AttemptDir(self._attempts / str(attempt))

    async def _restore(self, tasks: TaskGroup) -> None:
        """Tell the core what earlier agent processes left here."""
        found = await anyio.to_thread.run_sync(self._find_attempts)
        self._tell(m.Restored(tuple(attempt for attempt, _ in found)))
        for attempt, record in found:
            self._watch.begin(tasks, self._place(attempt.grant.attempt), record)

    def _find_attempts(self) -> list[tuple[m.RestoredAttempt, ProcessRecord]]:
        found = []
        for root in sorted(self._attempts.iterdir()):
            place = AttemptDir(root)
            try:
                standing = self._owner.standing(place) if root.name.isdigit() else Standing.NEVER
                record = place.processes()
                if standing is Standing.NEVER or record is None:
                    _log.info("left-over removed", path=root.name)
                    shutil.rmtree(root, ignore_errors=True)
                    continue
                grant = place.grant()
            except Corrupt as error:
                _log.warning("attempt cannot be taken over", path=root.name, why=error.message)
                continue
            _log.info("attempt found", attempt=grant.attempt, standing=standing.value)
            found.append((m.RestoredAttempt(grant, record.job, record.started_at), record))
        return found

    async def _measure(self) -> None:
        """Look at the machine at intervals."""
        folder = self._config.folder
        while True:
            observed = await anyio.to_thread.run_sync(observe, folder)
            cached = await anyio.to_thread.run_sync(self._cache.newest, CACHED_TOLD)
            free = observed.disk_free_bytes
            room = free is not None and free >= self._config.free_bytes_least
            self._tell(m.Measured(observed, room, tuple(cached)))
            await self._clock.sleep(self._config.measure_s)

    # --- commands

    def _carry_out(self, tasks: TaskGroup, command: m.Command) -> None:
        match command:
            case m.SendConnect() | m.SendBeat() | m.SendClaim() | m.SendStarted() | m.SendStep():
                tasks.start_soon(self._answering, command.serial, partial(self._send, command))
            case m.FetchInputs():
                step = partial(self._fetch, command)
                tasks.start_soon(self._for_attempt, command.grant.attempt, command.serial, step)
            case m.Ship():
                step = partial(self._ship, command)
                tasks.start_soon(self._for_attempt, command.attempt, command.serial, step)
            case m.StartProcess():
                tasks.start_soon(self._start, tasks, command)
            case m.SetDeadline():
                self._set_deadline(command)
            case m.StopProcess():
                tasks.start_soon(self._watch.stop, self._place(command.attempt), command.reason)
            case m.Forget():
                for scope in self._scopes.pop(command.attempt, set()):
                    scope.cancel()
                tasks.start_soon(self._remove, self._place(command.attempt))
            case m.Note():
                _log.info("note", attempt=command.attempt, text=command.text)
            case m.Leave():
                pass

    async def _answering(self, serial: int, step: Callable[[], Awaitable[m.Event]]) -> None:
        """Run a step and tell the core its outcome, whatever it is."""
        try:
            event = await step()
        except GamekeeperError as error:
            event = failure_of(serial, error)
        except OSError as error:
            event = m.Failed(serial, m.Failure.REJECTED, str(error))
        self._tell(event)

    async def _for_attempt(self, attempt: int, serial: int, step: Callable[[], Awaitable[m.Event]]) -> None:
        """The same, given up as soon as the attempt is forgotten."""
        scope = anyio.CancelScope()
        self._scopes.setdefault(attempt, set()).add(scope)
        with scope:
            await self._answering(serial, step)
        self._scopes.get(attempt, set()).discard(scope)

    async def _send(
        self,
        command: m.SendConnect | m.SendBeat | m.SendClaim | m.SendStarted | m.SendStep,
    ) -> m.Event:
        sent_at = self._boot()
        match command:
            case m.SendConnect():
                return m.ConnectAnswered(
                    command.serial, sent_at, await self._coordinator.connect(command.message)
                )
            case m.SendBeat():
                lease = self._core.lease
                within_s = max(1.0, lease.beat_every_s) if lease else _BEAT_S
                reply = await self._coordinator.beat(command.message, within_s)
                return m.BeatAnswered(command.serial, sent_at, reply)
            case m.SendClaim():
                return m.ClaimAnswered(command.serial, await self._coordinator.claim(command.message))
            case m.SendStarted():
                await self._coordinator.started(command.attempt, command.message)
                return m.StartedAnswered(command.serial)
            case m.SendStep():
                answer = await self._coordinator.step(command.message)
                for done in answer.finished:
                    _log.info("finished", attempt=done.attempt, state=done.state, reason=done.reason)
                return m.StepAnswered(command.serial, sent_at, answer)

    async def _fetch(self, command: m.FetchInputs) -> m.Event:
        grant = command.grant
        place = self._place(grant.attempt)
        await anyio.to_thread.run_sync(self._make_room_for, place, grant)
        wanted = {file.hash: file for files in grant.inputs.values() for file in files}
        for file in wanted.values():
            await self._cache.provide(self._coordinator, file, place.input_path(file))
        return m.InputsReady(command.serial)

    def _make_room_for(self, place: AttemptDir, grant: Grant) -> None:
        free = free_bytes(self._attempts)
        if free < self._config.free_bytes_least:
            raise StorageFull(
                f"{free} bytes are free for attempts; {self._config.free_bytes_least} are the least",
                remedy=f"free space below {self._config.folder}",
            )
        try:
            place.make(grant)
        except OSError as error:
            raise StorageFull(f"the folder of attempt {grant.attempt} cannot be made: {error}") from None

    async def _ship(self, command: m.Ship) -> m.Event:
        path = self._place(command.attempt).outbox / command.file.name
        verdict = await ship(self._coordinator, path, command.attempt, command.token, command.file)
        if not verdict.problem:
            await anyio.to_thread.run_sync(self._cache.keep, path, verdict.digest, command.file.bytes)
        return m.Shipped(command.serial, verdict.problem, verdict.detail)

    async def _start(self, tasks: TaskGroup, command: m.StartProcess) -> None:
        grant, place = command.grant, self._place(command.grant.attempt)
        start = partial(self._owner.start, place, grant, command.stop_at, command.gone_by)
        try:
            record = await anyio.to_thread.run_sync(start)
        except StorageFull as error:
            self._tell(m.StartFailed(grant.attempt, EndReason.SPOOL_FULL, error.message))
        except Refused as error:
            self._tell(m.StartFailed(grant.attempt, EndReason.CANNOT_START, error.message))
        else:
            _log.info("started", attempt=grant.attempt, job=grant.job, kind=grant.kind, pid=record.job.pid)
            self._tell(m.ProcessStarted(grant.attempt, record.job, record.started_at))
            self._watch.begin(tasks, place, record)

    def _set_deadline(self, command: m.SetDeadline) -> None:
        """A few bytes into a file that is there: not worth a thread."""
        with suppress(OSError):  # the warden then stops the job at its last deadline
            self._place(command.attempt).write_deadline(command.stop_at, command.gone_by)

    @staticmethod
    async def _remove(place: AttemptDir) -> None:
        await anyio.to_thread.run_sync(partial(shutil.rmtree, place.root, ignore_errors=True))
