"""Processes of this machine, named by (boot id, pid, start ticks) and signalled through pidfds only.

A pid alone says nothing: it is reused. Every function here that could harm a process opens a pidfd first, checks that
the process behind it has the wanted start time, and signals that pidfd; so a reused number can never be hit, not even
in a race. A zombie counts as dead: it holds no resource but its number.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gamekeeper.core.jobs import ProcessIdentity

_PROC = Path("/proc")
_DEAD_STATES = frozenset("ZXx")
_ENVIRON_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What /proc/PID/stat says: `state` is the kernel's letter, `start_ticks` clock ticks after boot."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start_ticks: int


def boot_id() -> str:
    """The kernel's random name for this boot."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def status(pid: int) -> ProcessStatus | None:
    """The status of a process, or `None` when there is none with that number."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(b")")[2].split()
    return ProcessStatus(
        pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19])
    )


def identity(pid: int) -> ProcessIdentity | None:
    """The lasting name of the process that now has this pid."""
    found = status(pid)
    return None if found is None else ProcessIdentity(boot_id(), pid, found.start_ticks)


def is_alive(wanted: ProcessIdentity) -> bool:
    """Whether exactly this process still runs (zombies do not)."""
    if wanted.boot_id != boot_id():
        return False
    found = status(wanted.pid)
    return found is not None and found.start_ticks == wanted.start_ticks and found.state not in _DEAD_STATES


@contextmanager
def pidfd(wanted: ProcessIdentity) -> Iterator[int | None]:
    """A file descriptor that refers to exactly this process, or `None` when it is gone.

    It becomes readable when the process ends. It is closed on leaving the block.
    """
    fd = _open(wanted)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _open(wanted: ProcessIdentity) -> int | None:
    if wanted.pid <= 0 or wanted.boot_id != boot_id():
        return None
    try:
        fd = os.pidfd_open(wanted.pid)
    except (ProcessLookupError, OverflowError):
        return None
    if is_alive(wanted):  # looked at after opening: the descriptor cannot come to mean another process
        return fd
    os.close(fd)
    return None


def send(wanted: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal exactly this process. `False` when it is gone (then nobody was signalled)."""
    with pidfd(wanted) as fd:
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        return True


def wait_gone(wanted: ProcessIdentity, within_s: float) -> bool:
    """Block until this process has ended, at most `within_s` seconds; whether it has."""
    with pidfd(wanted) as fd:
        if fd is None:
            return True
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(within_s * 1000))


def with_variable(name: str, value: str) -> list[ProcessIdentity]:
    """All live processes whose environment, as they were started, holds NAME=VALUE; this one excepted."""
    entry = os.fsencode(f"{name}={value}")
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        before = identity(int(folder.name))
        try:
            with (folder / "environ").open("rb") as file:
                entries = file.read(_ENVIRON_BYTES).split(b"\0")
        except OSError:  # gone, or not ours to look at
            continue
        if before is not None and entry in entries and is_alive(before):
            found.append(before)
    return found
