"""Group commit: one thread owns the writing connection and takes all waiting callers into one transaction.

Each caller runs inside a savepoint of its own, so an error undoes its work alone. Nobody hears of success before the
commit is on disk.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import GamekeeperError, Refused
from gamekeeper.store.session import Link, Writing, in_words

BATCH_MAX = 512


@dataclass(slots=True)
class Outcome:
    """Runs a block and keeps the error that ends it, for the caller in another thread to whom it belongs."""

    link: Link
    error: BaseException | None = None

    def __enter__(self) -> Outcome:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = in_words(error, self.link) if error is not None else None
        return True


@dataclass(slots=True)
class Request:
    """A function waiting for the writer, and where its answer goes."""

    function: Callable[[Writing], Any]
    future: Future[Any]
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Committer:
    """Runs requests on a connection, many in one transaction. Not safe for use by two threads at once."""

    link: Link
    clock: Clock
    rng: random.Random
    commits: int = 0
    served: int = field(default=0)

    def run(self, batch: list[Request]) -> None:
        """Serve all of `batch` with one commit; afterwards each request has its result or its error."""
        with Outcome(self.link) as whole:
            now = self.link.begin()
            for request in batch:
                self._one(request, now)
                if request.error is not None and not self.link.in_transaction:
                    # The engine threw the whole transaction away (disk full, for one): nobody's work is left.
                    raise request.error
            self.link.commit()
            self.commits += 1
            self.served += len(batch)
        if whole.error is not None:
            with Outcome(self.link):
                self.link.rollback()
            for request in batch:
                request.error = request.error or whole.error

    def _one(self, request: Request, now: float | None) -> None:
        writing = Writing(self.link, self.clock.now() if now is None else now, self.rng)
        with Outcome(self.link) as own, writing.savepoint():
            request.result = request.function(writing)
        request.error = own.error


class Writer:
    """The writer thread."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[Writing], Any]) -> Future[Any]:
        """Queue `function`; the future is done after the commit. Cancelling it works until its turn has come."""
        future: Future[Any] = Future()
        with self._gate:
            if self._closed:
                raise closed(self._committer.link.path)
            self._queue.put(Request(function, future))
        return future

    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return self._queue.qsize()

    def is_current_thread(self) -> bool:
        """Whether the caller runs inside a write."""
        return threading.current_thread() is self._thread

    def close(self) -> None:
        """Serve what waits, then end the thread. May be called again."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        ending = False
        while not ending:
            batch, ending = self._take()
            if batch:
                self._committer.run(batch)
                for request in batch:
                    _answer(request)

    def _take(self) -> tuple[list[Request], bool]:
        """Wait for one request, then take all that wait with it; True: it was the last batch."""
        batch: list[Request] = []
        item = self._queue.get()
        while item is not None:
            if item.future.set_running_or_notify_cancel():
                batch.append(item)
            if len(batch) >= BATCH_MAX:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True


def _answer(request: Request) -> None:
    if request.error is not None:
        request.future.set_exception(request.error)
    else:
        request.future.set_result(request.result)


def closed(path: str) -> GamekeeperError:
    """The store was closed before the call."""
    return Refused(f"the store {path} is closed", remedy="open it again")
