"""Group commit: one thread owns the writing connection and takes all waiting callers into one transaction.

Each caller runs inside a savepoint of its own, so an error undoes its work alone. Callers that ask for the same joint
work share one call and one savepoint, and are run one by one when that fails. Nobody hears of success before the
commit is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import GamekeeperError, Refused
from gamekeeper.store.session import Link, Writing, in_words

BATCH_MAX = 512

# How long to wait for a group to fill: this part of a commit's usual time, and never longer than that many seconds.
WAIT_PART = 0.75
WAIT_MOST_S = 0.01
# After so many waits for nothing in a row, twice as many commits go without as after one less.
FRUITLESS_MOST = 6

Joint = Callable[[Writing, Sequence[Any]], Sequence[Any]]


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
    """Work that waits for the writer, and where its answer goes.

    `function` for one caller alone, or `joint` with this caller's `item`. `waiter`, where the caller is in an event
    loop, is answered there instead of `future`.
    """

    function: Callable[[Writing], Any] | None
    future: Future[Any] = field(default_factory=Future)
    joint: Joint | None = None
    item: Any = None
    waiter: asyncio.Future[Any] | None = None
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Committer:
    """Runs requests on a connection, many in one transaction. Not safe for use by two threads at once.

    `flush_s` is what a commit takes, smoothed.
    """

    link: Link
    clock: Clock
    rng: random.Random
    commits: int = 0
    served: int = 0
    flush_s: float = 0.0

    def run(self, batch: Sequence[Request]) -> None:
        """Serve all of `batch` with one commit; afterwards each request has its result or its error."""
        with Outcome(self.link) as whole:
            now = self.link.begin()
            # A caller alone needs no savepoint: its error undoes the transaction, which is all its own.
            alone = len(batch) == 1
            for group in grouped(batch):
                self._serve(group, now, alone=alone)
                failed = group[-1].error
                if failed is not None and (alone or not self.link.in_transaction):
                    # Or the engine threw the whole transaction away (disk full, for one): nobody's work is left.
                    raise failed
            since = self.clock.monotonic()
            self.link.commit()
            self.flush_s += 0.2 * (self.clock.monotonic() - since - self.flush_s)
            self.commits += 1
            self.served += len(batch)
        if whole.error is not None:
            with Outcome(self.link):
                self.link.rollback()
            for request in batch:
                request.error = request.error or whole.error

    def _serve(self, group: Sequence[Request], now: float | None, *, alone: bool = False) -> None:
        joint, function = group[0].joint, group[0].function
        if joint is None:
            assert function is not None  # noqa: S101 - one of the two is given
            group[0].result, group[0].error = self._one(function, now, alone=alone)
            return
        items = [request.item for request in group]
        answers, error = self._one(lambda w: _joined(w, joint, items), now, alone=alone)
        if error is not None and len(group) > 1 and self.link.in_transaction:
            for request in group:
                self._serve([request], now)
        elif error is not None:
            for request in group:
                request.error = error
        else:
            for request, answer in zip(group, answers, strict=True):
                if isinstance(answer, BaseException):
                    request.error = answer
                else:
                    request.result = answer

    def _one(
        self, function: Callable[[Writing], Any], now: float | None, *, alone: bool
    ) -> tuple[Any, BaseException | None]:
        writing, result = Writing(self.link, self.clock.now() if now is None else now, self.rng), None
        with Outcome(self.link) as own, contextlib.nullcontext() if alone else writing.savepoint():
            result = function(writing)
            writing.flush()
        return result, own.error


def _joined(w: Writing, joint: Joint, items: Sequence[Any]) -> Sequence[Any]:
    answers = joint(w, items)
    if len(answers) != len(items):
        raise RuntimeError(f"{len(answers)} answers to {len(items)} joined requests")
    return answers


def grouped(batch: Iterable[Request]) -> list[list[Request]]:
    """Requests in the order in which they are run: joined ones together, at the place of the last of them."""
    places: dict[object, list[Request]] = {}
    for place, request in enumerate(batch):
        key = place if request.joint is None else request.joint
        group = places.pop(key, [])
        group.append(request)
        places[key] = group
    return list(places.values())


class Writer:
    """The writer thread."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._expected = 1
        self._fruitless = 0
        self._without = 0
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Future[Any]:
        """Queue a request; it is answered after the commit. Cancelling its future works until its turn has come."""
        with self._gate:
            if self._closed:
                raise closed(self._committer.link.path)
            self._queue.put(request)
        return request.future

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
                # Whoever is answered now may soon ask again, together with those who came meanwhile.
                self._expected = len(batch) + self._queue.qsize()
                _answer(batch)

    def _take(self) -> tuple[list[Request], bool]:
        """Wait for one request, then take all that wait with it; True: it was the last batch."""
        batch: list[Request] = []
        ending = not self._add(batch, self._queue.get()) or not self._drain(batch)
        if not ending and batch and len(batch) < min(self._expected, BATCH_MAX):
            ending = not self._fill(batch)
        return batch, ending

    def _fill(self, batch: list[Request]) -> bool:
        """Give other callers of late a moment to join, unless that was in vain; False: the queue is closed.

        Without it, a few callers fall into two groups of which one computes while the other's commit is flushed, and
        each flush serves half of them. One caller alone is never kept waiting.
        """
        if self._without:
            self._without -= 1
            return True
        clock, had = self._committer.clock, len(batch)
        patience = min(WAIT_MOST_S, WAIT_PART * self._committer.flush_s)
        until = clock.monotonic() + patience
        going_on = True
        while going_on and patience > 0 and len(batch) < min(self._expected, BATCH_MAX):
            try:
                going_on = self._add(batch, self._queue.get(timeout=patience)) and self._drain(batch)
            except Empty:
                break
            patience = until - clock.monotonic()
        if len(batch) > had:
            self._fruitless = 0
        else:
            self._fruitless = min(self._fruitless + 1, FRUITLESS_MOST)
            self._without = 2**self._fruitless
        return going_on

    def _drain(self, batch: list[Request]) -> bool:
        """Take what waits; False: the queue is closed."""
        while len(batch) < BATCH_MAX:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return True
            if not self._add(batch, item):
                return False
        return True

    @staticmethod
    def _add(batch: list[Request], item: Request | None) -> bool:
        if item is not None and item.future.set_running_or_notify_cancel():
            batch.append(item)
        return item is not None


def _answer(batch: Sequence[Request]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[Request]] = {}
    for request in batch:
        if request.waiter is not None:
            loops.setdefault(request.waiter.get_loop(), []).append(request)
        elif request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.result)
    for loop, requests in loops.items():
        # A loop that was closed has nobody left to be told.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_tell, requests)


def _tell(requests: Sequence[Request]) -> None:
    for request in requests:
        waiter = request.waiter
        if waiter is None or waiter.done():
            continue
        if request.error is not None:
            waiter.set_exception(request.error)
        else:
            waiter.set_result(request.result)


def closed(path: str) -> GamekeeperError:
    """The store was closed before the call."""
    return Refused(f"the store {path} is closed", remedy="open it again")
