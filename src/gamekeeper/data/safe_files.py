"""Files that are either whole and durable under their final name, or not there.

Theory of operation. Bytes go to a temporary file beside the final name (`.NAME.XXXXXXXX.part`), which is fsynced
before it gets its name and whose folder is fsynced afterwards. A crash at any point leaves the final name as it was
or complete; what else it leaves is a temporary file, which `sweep_stale` removes later. A full disk, like any error,
removes the temporary file at once. Replacing (`write_atomic`) is for our own small state files; data is only ever
created (`publish`, `Staging.publish`): whoever comes second finds that the name exists and changes nothing.

Every step that touches the disk is announced to an `OnStep` hook before it is done, so that tests and the simulator
can stop or fail an operation at each of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from blake3 import blake3

from gamekeeper.core.errors import Corrupt, StorageFull

OnStep = Callable[[str], None]

_PIECE = 1 << 20
_SUFFIX = ".part"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors by which a file system says that it has no hard links.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
# From linux/fcntl.h and linux/fs.h.
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


class Publication(StrEnum):
    """What publishing found: the name was free and is ours, or somebody's file stands there already."""

    CREATED = "created"
    EXISTED = "existed"


@dataclass(frozen=True, slots=True)
class Digest:
    """BLAKE3 in lower-case hex, and the number of bytes it is of."""

    hash: str
    bytes: int


def _no_step(step: str) -> None:
    """The hook of ordinary operation."""


def write_atomic(path: Path, data: bytes, *, on_step: OnStep = _no_step) -> None:
    """Make `path` hold `data`, durably; a reader sees the old content or all of the new one.

    Raises `StorageFull` when there is no room, and `OSError`; then `path` is as it was before.
    """
    with Staging(path.parent, path.name, on_step=on_step) as staging:
        staging.write(data)
        staging.replace(path)


def publish(temp: Path, final: Path, *, on_step: OnStep = _no_step) -> Publication:
    """Give the complete file `temp` the name `final`, in the same file system, if that name is free.

    On `CREATED` the file is durable under its final name and `temp` is gone. On `EXISTED` neither file was changed,
    and the one that has the name is durable. Raises `StorageFull` and `OSError`; the name may then be taken
    by the complete file already, and publishing again says `EXISTED`.
    """
    with _full_disk_named(final):
        descriptor = os.open(temp, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            on_step("fsync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        created = _name_if_free(temp, final, on_step)
        # Also for a name that exists: whoever made it may not have lived to do this.
        _sync_folder(final.parent, on_step)
        if created:
            on_step("unlink")
            temp.unlink(missing_ok=True)
    return Publication.CREATED if created else Publication.EXISTED


def copy_verified(
    source: BinaryIO, final: Path, *, expected: Digest, on_step: OnStep = _no_step
) -> Publication:
    """Stream `source` to `final`, which appears only when it is exactly what was expected.

    Never writes more than the expected number of bytes. Raises `Corrupt`, `StorageFull` and `OSError`.
    """
    with Staging(final.parent, final.name, on_step=on_step) as staging:
        while piece := source.read(min(_PIECE, expected.bytes + 1 - staging.digest.bytes)):
            staging.write(piece)
            if staging.digest.bytes > expected.bytes:
                break
        return staging.publish(final, expected=expected)


class Staging:
    """A temporary file that becomes visible whole or never; use as a context manager.

    Leaving the context without `replace` or `publish` removes it. `name` only makes the temporary file's name telling.
    """

    def __init__(self, folder: Path, name: str, *, on_step: OnStep = _no_step) -> None:
        self._on_step = on_step
        # Room for the marks within the 255 bytes that file systems allow a name.
        self.path = folder / f".{name[:200]}.{secrets.token_hex(8)}{_SUFFIX}"
        self._hash = blake3()
        self._bytes = 0
        self._descriptor = -1

    @property
    def digest(self) -> Digest:
        """Hash and number of the bytes written so far."""
        return Digest(self._hash.hexdigest(), self._bytes)

    def __enter__(self) -> Staging:
        with _full_disk_named(self.path):
            self._on_step("open")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self.path, flags, 0o644)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. Raises `StorageFull` and `OSError`."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._bytes += len(view)
        with _full_disk_named(self.path):
            for start in range(0, len(view), _PIECE):
                piece = view[start : start + _PIECE]
                while piece:
                    self._on_step("write")
                    piece = piece[os.write(self._descriptor, piece) :]

    def replace(self, final: Path) -> None:
        """Durably give the file the name `final`, in place of what has that name."""
        with _full_disk_named(final):
            self._on_step("fsync")
            os.fsync(self._descriptor)
            self._close()
            self._on_step("rename")
            self.path.replace(final)
            _sync_folder(final.parent, self._on_step)

    def publish(self, final: Path, *, expected: Digest | None = None) -> Publication:
        """Durably give the file the name `final` if that is free, and if the bytes are the expected ones.

        Raises `Corrupt` when they are not; then nothing is visible.
        """
        if expected is not None and self.digest != expected:
            raise Corrupt(
                f"{final.name}: {self._bytes} bytes with hash {self.digest.hash} came, "
                f"expected were {expected.bytes} with hash {expected.hash}",
                remedy="send the file again",
            )
        self._close()
        return publish(self.path, final, on_step=self._on_step)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def hash_file(path: Path) -> Digest:
    """BLAKE3 and size of a file, read in bounded memory. Raises `OSError`."""
    digest, size = blake3(), 0
    buffer = bytearray(_PIECE)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            size += count
    return Digest(digest.hexdigest(), size)


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged process may still write to the file system of `folder`."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def require_space(folder: Path, needed: int, *, reserve: int = 0) -> None:
    """Raise `StorageFull` unless `needed` bytes fit and leave `reserve` bytes free."""
    free = free_bytes(folder)
    if free < needed + reserve:
        raise StorageFull(
            f"{folder}: {needed} bytes are needed and {reserve} are to stay free, {free} are free",
            remedy="free some room there, or point the setting to a larger file system",
        )


def sweep_stale(folder: Path, *, modified_before: float) -> list[Path]:
    """Remove the temporary files directly in `folder` last written before that time, seconds since 1970.

    Returns what was removed. Choose a time further back than any writer may pause: a live writer's file may not go.
    """
    removed = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not (entry.name.startswith(".") and entry.name.endswith(_SUFFIX)):
                continue
            # Its writer may finish or remove it at any moment.
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and status.st_mtime < modified_before:
                    os.unlink(entry.path)
                    removed.append(Path(entry.path))
    return sorted(removed)


def _name_if_free(temp: Path, final: Path, on_step: OnStep) -> bool:
    """Whether the name was free and is now `temp`'s; `temp` may keep its own name beside it."""
    on_step("link")
    try:
        try:
            os.link(temp, final, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            on_step("rename")
            _rename_if_free(temp, final)
    except FileExistsError:
        return False
    return True


def _rename_if_free(temp: Path, final: Path) -> None:
    """renameat2 with RENAME_NOREPLACE, for file systems without hard links. Raises `OSError`."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, "neither hard links nor renameat2 to publish with", str(final))
    if rename(_AT_FDCWD, os.fsencode(temp), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(final))


def _sync_folder(folder: Path, on_step: OnStep) -> None:
    on_step("fsync-folder")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Turn the errors of a full file system or quota into `StorageFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(
            f"no room left to write {path}", remedy="free some room there; nothing was written"
        ) from error
