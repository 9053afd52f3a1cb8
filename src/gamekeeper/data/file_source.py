"""Positional reading of one open file that must not change while it is looked at.

The file is opened once and only that descriptor is read, so the path may be swapped for another file without
effect. Memory mapping is avoided: a mapped file that shrinks kills the process with SIGBUS.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType

from gamekeeper.data.verdicts import Defect, Refusal, Undecided


class FileSource:
    """A regular file opened for reading; use as a context manager.

    Raises `Undecided` when the operating system reports an error or the file turns out shorter than it was, and
    `Refusal` when the path is no regular file.
    """

    def __init__(self, path: Path) -> None:
        # O_NONBLOCK: opening a pipe nobody writes to would otherwise hang for ever.
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise Undecided(Defect.UNREADABLE, f"cannot open {path}: {error}") from error
        self._path = path
        self._first = os.fstat(self._fd)
        self.size = self._first.st_size

    def __enter__(self) -> FileSource:
        if not stat.S_ISREG(self._first.st_mode):
            os.close(self._fd)
            raise Refusal(Defect.NOT_A_FILE, f"{self._path} is not a regular file")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def at(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes from `offset`; the caller has checked that they lie within `size`."""
        buffer = bytearray(count)
        self.fill(memoryview(buffer), offset)
        return bytes(buffer)

    def some(self, offset: int, count: int) -> bytes:
        """Between 1 and `count` bytes from `offset`, as one read delivers them."""
        try:
            piece = os.pread(self._fd, count, offset)
        except OSError as error:
            raise Undecided(
                Defect.UNREADABLE, f"cannot read {self._path} at byte {offset}: {error}"
            ) from error
        if not piece:
            raise self._shrunk(offset)
        return piece

    def fill(self, view: memoryview, offset: int) -> None:
        """Fill `view` completely with the bytes from `offset` on."""
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._fd, [view[done:]], offset + done)
            except OSError as error:
                raise Undecided(
                    Defect.UNREADABLE, f"cannot read {self._path} at byte {offset + done}: {error}"
                ) from error
            if count == 0:
                raise self._shrunk(offset + done)
            done += count

    def ensure_unchanged(self) -> None:
        """Raise `Undecided` when size or modification time are not what they were at the start."""
        last = os.fstat(self._fd)
        if (last.st_size, last.st_mtime_ns) != (self._first.st_size, self._first.st_mtime_ns):
            raise Undecided(
                Defect.CHANGED, f"{self._path} was written to while it was read; seal it, then ask again"
            )

    def _shrunk(self, offset: int) -> Undecided:
        return Undecided(
            Defect.CHANGED, f"{self._path} ended at byte {offset} of {self.size} while it was read"
        )
