"""What every queue under test is made of, and the log in which workers note when a job was over."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any

_PAIR = struct.Struct("<qq")


class Log:
    """(sent, over) stamps of one worker, in a file of fixed size: no system call a job, readable after a kill."""

    def __init__(self, folder: Path, most: int) -> None:
        path = folder / f"log-{os.getpid()}"
        path.write_bytes(bytes(8 + _PAIR.size * most))
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), 0)
        self._n, self._most = 0, most

    def over(self, sent: int = 0) -> None:
        """A job that was sent at `sent` (monotonic nanoseconds) is over now."""
        if self._n < self._most:
            _PAIR.pack_into(self._page, 8 + _PAIR.size * self._n, sent, time.monotonic_ns())
            self._n += 1
            struct.pack_into("<q", self._page, 0, self._n)


def counted(folder: Path) -> int:
    """How many jobs all workers noted."""
    found = [path.open("rb") for path in folder.glob("log-*")]
    heads = [file.read(8) for file in found]
    for file in found:
        file.close()
    return sum(struct.unpack("<q", head)[0] for head in heads if len(head) == 8)


def stamps(folder: Path) -> list[tuple[int, int]]:
    """All that the workers noted."""
    pairs: list[tuple[int, int]] = []
    for path in folder.glob("log-*"):
        data = path.read_bytes()
        (n,) = struct.unpack_from("<q", data)
        pairs += [_PAIR.unpack_from(data, 8 + _PAIR.size * place) for place in range(n)]
    return pairs


class Queue:
    """One queue under test; each method runs in a process of its own, on the same folder."""

    jobs = 4000
    batches = True

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self.folder, self.options = folder, options

    def prepare(self) -> None:
        """Make the empty queue."""

    def serve(self) -> None:
        """Be the server, until killed; a queue without one says so by `served`."""

    served = False

    def send(self, n: int, sent: int = 0) -> None:
        """Enqueue `n` jobs, one durable call each."""
        raise NotImplementedError

    def send_batch(self, n: int) -> None:
        """Enqueue `n` jobs in one durable call."""
        raise NotImplementedError

    def ready(self, log: Log) -> None:
        """Connect a worker."""

    def work(self, log: Log, slots: int, one_by_one: bool) -> None:
        """Take jobs, `slots` at a time, until killed; note each when its completion is durable.

        `one_by_one`: execute before asking for more, and note the moment of execution (for latency).
        """
        raise NotImplementedError
