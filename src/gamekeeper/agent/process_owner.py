"""The process owner: starts attempts under wardens, finds them again, ends them.

Whether an attempt's warden lives is told by its lock file, which the warden has held since before it ran. Whom to
signal is told by the recorded identity, and nobody is signalled whose boot id, pid and start time do not
match it. Where the two disagree, nobody is signalled at all: the deadline file ends the job.

All methods but `gone` block and belong in a worker thread.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import anyio

from gamekeeper.adapters import processes
from gamekeeper.agent.attempt_dir import AttemptDir, ProcessRecord
from gamekeeper.agent.config import AgentConfig
from gamekeeper.agent.endings import Exit
from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import Refused, StorageFull
from gamekeeper.protocol import Grant

READY_S = 30.0
SETTLE_S = 10.0
SWEEPS = 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_LAUNCH = "import sys; sys.path.insert(0, sys.argv.pop(1)); from gamekeeper.agent.warden import main; main()"
_PACKAGES = Path(__file__).parents[2]
_GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip
JOB_DIR_VARIABLE = "GAMEKEEPER_JOB_DIR"


class Standing(StrEnum):
    """What is left of an attempt on this machine. `never`: no process of it was ever recorded."""

    NEVER = "never"
    LIVE = "live"
    ENDED = "ended"
    VANISHED = "vanished"


class ProcessOwner:
    """Owns the processes of one agent folder."""

    def __init__(self, config: AgentConfig, clock: Clock, boot: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._boot = boot
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, place: AttemptDir, grant: Grant, stop_at: float, gone_by: float) -> ProcessRecord:
        """Start the job under a warden that will end it at `stop_at` unless that is moved (boot seconds).

        Raises `StorageFull` when there is no room, `Refused` when it cannot be started for another cause. Nothing
        of it runs then.
        """
        try:
            place.write_parameters(grant, self._config.threads)
            place.write_deadline(stop_at, gone_by)
            return self._launch(place, grant)
        except BlockingIOError:
            raise Refused(f"attempt {grant.attempt} has a warden already") from None
        except OSError as error:
            self._sweep(place)
            if error.errno in _NO_ROOM:
                raise StorageFull(f"no room to start attempt {grant.attempt}: {error}") from None
            raise Refused(f"attempt {grant.attempt} cannot be started: {error}") from None

    def _launch(self, place: AttemptDir, grant: Grant) -> ProcessRecord:
        config = self._config
        if not grant.command or any("\0" in word for word in grant.command):
            raise Refused("the command is empty or holds a zero byte")
        command = [word.replace("{python}", str(config.python)) for word in grant.command]
        limit = "-" if grant.time_limit_s is None else str(grant.time_limit_s)
        arguments = [
            str(config.python), "-I", "-S", "-c", _LAUNCH, str(_PACKAGES),
            str(place.root),
        ]  # fmt: skip
        lock = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        log = os.open(place.root / "warden.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        ready, tell = os.pipe()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            arguments += [str(lock), str(tell), str(grant.grace_s), limit]
            arguments += [str(config.output_head_bytes), str(config.output_tail_bytes), *command]
            child = self._children[place.root] = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(place, grant),
                cwd=place.root,
                pass_fds=(lock, tell),
                start_new_session=True,
            )
            os.close(tell)
            tell = -1
            word = self._await_word(ready)
        finally:
            for fd in (lock, log, ready, tell):
                if fd >= 0:
                    os.close(fd)
        record = place.processes() if word == b"1" else None
        if record is None:
            raise self._given_up(place, child, word)
        return record

    @staticmethod
    def _await_word(ready: int) -> bytes:
        """The warden's word: b"1" the job runs, b"0" it cannot, b"" the warden died or says nothing."""
        poller = select.poll()
        poller.register(ready, select.POLLIN)
        return os.read(ready, 1) if poller.poll(READY_S * 1000) else b""

    def _given_up(
        self, place: AttemptDir, child: subprocess.Popen[bytes], word: bytes
    ) -> StorageFull | Refused:
        """End what there may be of a failed start; the error that says why it failed."""
        try:
            child.wait(SETTLE_S if word == b"0" else 0.2)
        except subprocess.TimeoutExpired:
            child.kill()  # our own child, not reaped: its number is still its own
            child.wait()
        self.settle(place)
        seen = place.exit()
        log = _tail(place.root / "warden.log")
        if "No space left" in log or "Disk quota" in log:
            return StorageFull(f"no room to start attempt {place.attempt}")
        return Refused(seen.detail if seen else f"the warden did not start: {log or 'no word from it'}")

    def environment(self, place: AttemptDir, grant: Grant) -> dict[str, str]:
        """The job's environment: this process's own without anything of Gamekeeper's, with threads pinned.

        Where GPUs were declared, a job sees those that were set aside for it and no others.
        """
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GAMEKEEPER_")}
        path = inherited.get("PATH", os.defpath)
        if self._config.machine.gpus:
            inherited[_GPUS_VARIABLE] = ",".join(str(part.index) for part in grant.gpus)
        return {
            **inherited,
            **dict.fromkeys(_THREAD_VARIABLES, str(self._config.threads)),
            "PATH": f"{self._config.python.parent}{os.pathsep}{path}",
            JOB_DIR_VARIABLE: str(place.job),
        }

    def warden_lives(self, place: AttemptDir) -> bool:
        """Whether the attempt's lock is held."""
        try:
            fd = os.open(place.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def standing(self, place: AttemptDir) -> Standing:
        """What is left of an attempt that an earlier agent process started, or was about to."""
        for _ in range(500):
            if not self.warden_lives(place):
                break
            if place.processes() is not None:
                return Standing.LIVE
            self._clock.block(0.02)  # it has only just been started
        if place.processes() is None:
            return Standing.NEVER
        return Standing.ENDED if place.exit() is not None else Standing.VANISHED

    async def gone(self, place: AttemptDir, record: ProcessRecord, within_s: float) -> bool:
        """Wait up to `within_s` for the warden to end; whether it has."""
        with processes.pidfd(record.warden) as fd:
            if fd is None:
                if not self.warden_lives(place):
                    return True
                await self._clock.sleep(within_s)  # its record is wrong: only the lock can tell
            else:
                with anyio.move_on_after(within_s):
                    await anyio.wait_readable(fd)
        return not self.warden_lives(place)

    def stop(self, place: AttemptDir, record: ProcessRecord) -> None:
        """Have the warden begin the ladder: ask, SIGTERM, grace, SIGKILL. Returns at once."""
        with contextlib.suppress(OSError):  # a full disk; the signals follow
            os.close(os.open(place.job / "stop", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        if not processes.send(record.warden, signal.SIGTERM):
            now = self._boot()
            place.write_deadline(now, now + SETTLE_S)

    def put_down(self, place: AttemptDir, record: ProcessRecord) -> None:
        """The last rung, when the warden itself does not end: kill it, which kills the job, and sweep."""
        processes.send(record.warden, signal.SIGKILL)
        processes.wait_gone(record.warden, SETTLE_S)
        self._sweep(place)

    def settle(self, place: AttemptDir) -> Exit:
        """After the warden ended: reap it, make sure nothing of the job is left, and tell how it ended."""
        child = self._children.pop(place.root, None)
        if child is not None:
            child.wait()
        seen = place.exit()
        if seen is None:
            self._sweep(place)
            record = place.processes()
            ran_s = max(0.0, self._boot() - record.started_at) if record else 0.0
            seen = Exit("vanished", detail="its warden died or the machine restarted", process_s=ran_s)
        return seen

    def _sweep(self, place: AttemptDir) -> None:
        """Kill what a dead warden left: the job by its identity, its descendants by the mark in their environment."""
        record = place.processes()
        for _ in range(SWEEPS):
            left = processes.with_variable(JOB_DIR_VARIABLE, str(place.job))
            wardens = {record.warden} if record else set()
            left = [found for found in left if found not in wardens]
            if record and record.job not in left and processes.is_alive(record.job):
                left.append(record.job)
            if not left:
                return
            for found in left:
                processes.send(found, signal.SIGKILL)
            processes.wait_gone(left[0], 0.1)


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-1000:].decode("utf-8", "replace").strip()
    except OSError:
        return ""
