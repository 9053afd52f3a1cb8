"""The data folder of one machine: who may work on it, its tokens, and the address its coordinator answers at."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gamekeeper.core.errors import RoleHeld, UsageError
from gamekeeper.data.safe_files import write_atomic

ANNOUNCEMENT = "coordinator.json"
MAX_SMALL_FILE = 1 << 16


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
    secret = secrets.token_urlsafe(32)
    part = path.with_suffix(f".{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        stream.write(secret + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    return secret


def announce(folder: Path, url: str) -> None:
    """Let the agent and the commands of this machine find the coordinator."""
    write_atomic(folder / ANNOUNCEMENT, json.dumps({"url": url, "pid": os.getpid()}).encode())


def withdraw(folder: Path) -> None:
    """No coordinator answers any more."""
    (folder / ANNOUNCEMENT).unlink(missing_ok=True)


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
