"""Keeping things running: daemons inside a process, and child processes under `gamekeeper up`.

What to do about an ended child is decided by `after_exit`, a pure function; `ChildSupervisor` only carries it out.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import anyio

from gamekeeper.core.clock import Clock, unseeded
from gamekeeper.core.errors import GamekeeperError
from gamekeeper.runtime.daemon import Cyclic
from gamekeeper.runtime.telemetry import logger

RUN_VARIABLE = "GAMEKEEPER_RUN"
"""Names one start by a person to all children, over their restarts."""
_PR_SET_PDEATHSIG = 1
EXITS_FOR_GOOD = frozenset({0, 2, 5, 130})
"""Exit codes a restart cannot mend: done, wrong settings, refused by a safety rule, interrupted by a person."""


async def keep_daemon(daemon: Cyclic, clock: Clock, *, fatal: tuple[type[Exception], ...] = ()) -> None:
    """Run a daemon's cycles until cancelled. Only an error in `fatal` gets out and ends its siblings."""
    log = logger(daemon.name)
    while True:
        try:
            await daemon.cycle(clock.now())
        except fatal:
            raise
        except Exception as error:
            delay = daemon.note_failure(error)
            log.warning(
                "cycle failed", error=daemon.tally.last_error, again_in_s=delay, failures=daemon.tally.failures,
                exc_info=not isinstance(error, GamekeeperError),
            )  # fmt: skip
            await clock.sleep(delay)
        else:
            await daemon.sleep(clock)


async def keep_daemons(
    daemons: Sequence[Cyclic], clock: Clock, *, fatal: tuple[type[Exception], ...] = ()
) -> None:
    """Run all daemons beside each other until cancelled; the failures of one do not touch another."""
    async with anyio.create_task_group() as tasks:
        for daemon in daemons:
            tasks.start_soon(partial(keep_daemon, daemon, clock, fatal=fatal))


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the child again after `delay_s`; `streak` is how many quick ends came in a row."""

    delay_s: float
    streak: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not start the child again."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """Delays grow from `first_s` by doubling to `most_s`, jittered; a run of `steady_s` starts over."""

    first_s: float = 0.2
    most_s: float = 20.0
    steady_s: float = 20.0

    def after_exit(self, exit_code: int, ran_s: float, streak: int, chance: float) -> Restart | GiveUp:
        """What follows an end with `exit_code` after `ran_s` seconds; `chance` in [0, 1) spreads the delay."""
        if exit_code in EXITS_FOR_GOOD:
            return GiveUp(exit_code)
        if ran_s >= self.steady_s:
            streak = 0
        ceiling = min(self.most_s, self.first_s * 2 ** min(streak, 32))
        return Restart(ceiling * (0.5 + chance / 2), streak + 1)


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running: its name in the log, and its argument list. No shell is involved."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] | None = None


class ChildSupervisor:
    """Keeps child processes alive. None of them outlives this process, not even a SIGKILL of it."""

    def __init__(
        self,
        clock: Clock,
        *,
        policy: RestartPolicy | None = None,
        stop_grace_s: float = 20.0,
        chance: Callable[[], float] | None = None,
        noticed: Callable[[Child, int], None] | None = None,
    ) -> None:
        self._clock = clock
        self._policy = policy or RestartPolicy()
        self._stop_grace_s = stop_grace_s
        self._chance = chance or unseeded().random
        self._noticed = noticed
        self._log = logger("supervisor")
        self._run_name = f"{os.getpid()}-{unseeded().getrandbits(64):016x}"
        self.pids: dict[str, int] = {}

    async def run(self, children: Sequence[Child]) -> int:
        """Run all until cancelled, or until one ends for good; then the others are stopped in reverse order.

        Returns the exit code of the child that ended for good.
        """
        code = 0
        scopes: list[tuple[anyio.CancelScope, anyio.Event]] = []
        async with anyio.create_task_group() as tasks:
            ended = anyio.Event()

            async def one(child: Child, scope: anyio.CancelScope, done: anyio.Event) -> None:
                nonlocal code
                try:
                    with scope:
                        code = await self._keep(child)
                finally:
                    done.set()
                    ended.set()

            for child in children:
                scope, done = anyio.CancelScope(shield=True), anyio.Event()
                scopes.append((scope, done))
                tasks.start_soon(one, child, scope, done)
            try:
                await ended.wait()
            finally:
                with anyio.CancelScope(shield=True):
                    for scope, done in reversed(scopes):
                        scope.cancel()
                        await done.wait()
        return code

    async def _keep(self, child: Child) -> int:
        streak = 0
        while True:
            started = self._clock.monotonic()
            exit_code = await self._run_once(child)
            if self._noticed is not None:
                self._noticed(child, exit_code)
            following = self._policy.after_exit(
                exit_code, self._clock.monotonic() - started, streak, self._chance()
            )
            if isinstance(following, GiveUp):
                self._log.info("child ended", child=child.name, exit_code=exit_code)
                return exit_code
            streak = following.streak
            self._log.warning(
                "child ended, starting it again",
                child=child.name, exit_code=exit_code, after_s=round(following.delay_s, 2),
            )  # fmt: skip
            await self._clock.sleep(following.delay_s)

    async def _run_once(self, child: Child) -> int:
        process = await asyncio.create_subprocess_exec(
            *child.command,
            env={
                **(os.environ if child.environment is None else child.environment),
                RUN_VARIABLE: self._run_name,
            },
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=die_with_parent(os.getpid()),
        )
        self.pids[child.name] = process.pid
        try:
            return await process.wait()
        finally:
            self.pids.pop(child.name, None)
            if process.returncode is None:
                with anyio.CancelScope(shield=True):
                    await self._stop(process)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        _signal(process, signal.SIGTERM)
        async with anyio.create_task_group() as tasks:

            async def insist() -> None:
                await self._clock.sleep(self._stop_grace_s)
                _signal(process, signal.SIGKILL)

            tasks.start_soon(insist)
            await process.wait()
            tasks.cancel_scope.cancel()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The process is our own unreaped child, so its pid cannot have been given to another.
    if process.returncode is None:
        process.send_signal(number)


def die_with_parent(parent: int) -> Callable[[], None]:
    """What a child runs before its program: have the kernel end it when `parent` ends."""
    libc = ctypes.CDLL(None, use_errno=True)

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange
