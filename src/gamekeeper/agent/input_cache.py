"""The input cache: artifacts by hash, bounded, verified each time they are used.

An input is linked into the attempt's folder, not copied, so the same bytes serve many jobs. A job could write through
that link; therefore nothing leaves the cache unverified, and a file that no longer matches its name is fetched again.
What this node shipped itself is kept here as well: it need not come back over the network.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import OrderedDict
from pathlib import Path

import anyio
import anyio.to_thread

from gamekeeper.agent.spool import check
from gamekeeper.agent.transport import Coordinator
from gamekeeper.core.errors import Corrupt, StorageFull
from gamekeeper.core.receipts import is_hash
from gamekeeper.protocol import InputFile

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_bytes(folder: Path) -> int:
    """Bytes an unprivileged process may still write to the file system of `folder`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class InputCache:
    """Artifacts on this node's disk: at most `bytes_most` of them, the least recently used go first.

    `free_least` bytes of the disk are left free whatever comes.
    """

    def __init__(self, folder: Path, bytes_most: int, free_least: int) -> None:
        self._folder = folder
        self._bytes_most = bytes_most
        self._free_least = free_least
        self._entries: OrderedDict[str, int] = OrderedDict()
        self._locks: dict[str, anyio.Lock] = {}
        self._guard = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        for path in folder.iterdir():
            if is_hash(path.name):
                facts = path.stat()
                found.append((facts.st_mtime, path.name, facts.st_size))
            else:
                path.unlink()
        for _, name, size in sorted(found):
            self._entries[name] = size

    @property
    def bytes_held(self) -> int:
        """The size of all entries."""
        return sum(self._entries.values())

    def newest(self, most: int) -> list[str]:
        """The hashes of up to `most` entries, the ones used last first."""
        with self._guard:
            return list(reversed(self._entries))[:most]

    async def provide(self, coordinator: Coordinator, file: InputFile, target: Path) -> None:
        """Put the verified file at `target`, from here or from the coordinator.

        Raises `StorageFull`, `Corrupt` when the coordinator's bytes are not what the hash says, and as calls do.
        """
        lock = self._locks.setdefault(file.hash, anyio.Lock())
        async with lock:
            try:
                if not await anyio.to_thread.run_sync(self._take, file.hash, target):
                    await self._fetch(coordinator, file)
                    await anyio.to_thread.run_sync(_link, self._folder / file.hash, target)
                    await anyio.to_thread.run_sync(self._shrink, 0)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise StorageFull(f"no room for input {file.name}: {error}") from None
                raise
        if not lock.statistics().tasks_waiting:
            self._locks.pop(file.hash, None)

    def keep(self, path: Path, digest: str, size: int) -> None:
        """Remember a file that was shipped from here. It is verified when it is used; losing it costs a download."""
        if size > self._bytes_most // 4:
            return
        with self._guard:
            if digest in self._entries:
                return
            try:
                os.link(path, self._folder / digest, follow_symlinks=False)
            except OSError:
                return
            self._entries[digest] = size
        self._shrink(0)

    def _take(self, digest: str, target: Path) -> bool:
        if digest not in self._entries:
            return False
        path = self._folder / digest
        try:
            check(path, digest)
        except (OSError, Corrupt):
            with self._guard:
                self._evict(digest)
            return False
        with self._guard:
            if digest not in self._entries:  # evicted meanwhile
                return False
            _link(path, target)
            self._entries.move_to_end(digest)
            os.utime(path)
        return True

    async def _fetch(self, coordinator: Coordinator, file: InputFile) -> None:
        """Download to a part file, going on where an earlier try broke off; verify; rename."""
        await anyio.to_thread.run_sync(self._shrink, file.bytes)
        if free_bytes(self._folder) - file.bytes < self._free_least:
            raise StorageFull(
                f"input {file.name} of {file.bytes} bytes would leave less than {self._free_least} bytes free",
                remedy=f"free space below {self._folder}",
            )
        part = self._folder / f"{file.hash}.part"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            offset = os.fstat(fd).st_size
            if offset < file.bytes:
                async with coordinator.download(file.hash, offset) as pieces:
                    async for piece in pieces:
                        offset += len(piece)
                        if offset > file.bytes:
                            break
                        await anyio.to_thread.run_sync(_append, fd, piece)
            await anyio.to_thread.run_sync(os.fsync, fd)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        try:
            if offset != file.bytes:
                raise Corrupt(f"input {file.name} has {offset} bytes, not {file.bytes}")
            await anyio.to_thread.run_sync(check, part, file.hash)
        except Corrupt:
            part.unlink(missing_ok=True)
            raise
        part.chmod(0o400)
        with self._guard:
            os.replace(part, self._folder / file.hash)
            self._entries[file.hash] = file.bytes

    def _shrink(self, coming: int) -> None:
        """Evict until `coming` bytes fit the bound and the disk."""
        with self._guard:
            while self._entries and (
                self.bytes_held + coming > self._bytes_most
                or free_bytes(self._folder) - coming < self._free_least
            ):
                self._evict(next(iter(self._entries)))

    def _evict(self, digest: str) -> None:
        self._entries.pop(digest, None)
        (self._folder / digest).unlink(missing_ok=True)


def _append(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _link(path: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        shutil.copyfile(path, target)
