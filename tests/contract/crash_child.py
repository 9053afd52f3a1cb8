"""A process that works on a store as hard as it can until it is killed, and tells each thing once it is acknowledged.

Run as: python crash_child.py STORE SEED
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import GamekeeperError
from gamekeeper.core.jobs import END_STATES, Attempt, EndReason
from gamekeeper.core.matches import PairResult, Purpose
from gamekeeper.store import artifacts, decisions, inventory, job_queue, leases, matches, registry
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing
from tests.unit.store.rig import PROCESS, SEEN, digest, say_decision, shard, spec

THREADS = 6
LEASE_S = 600.0


class Worker:
    """One thread: a node of its own, and whatever it happens to do next."""

    def __init__(self, store: Store, seed: int, tell: Callable[[str], None]) -> None:
        self._store, self._rng, self._tell = store, random.Random(seed), tell
        self._incarnation = f"i{seed}"
        self._node = store.write(lambda w: inventory.enrol(w, "host", 3, digest(seed))).id
        store.write(
            lambda w: leases.connect_agent(
                w, self._node, self._incarnation, LEASE_S, held=[], slots=3, observation=SEEN
            )
        )

    def run(self) -> None:
        steps = (self.submit, self.grant, self.work, self.finish, self.cancel, self.promote)
        while True:
            try:
                said = self._store.write(self._rng.choice(steps))
            except (GamekeeperError, IndexError):
                continue
            for line in said:
                self._tell(line)

    def submit(self, w: Writing) -> list[str]:
        key = f"k{self._rng.getrandbits(40)}"
        job_id, _ = job_queue.submit(w, spec(key=key, failures_allowed=2))
        return [f"job {job_id} {key}"]

    def grant(self, w: Writing) -> list[str]:
        job = self._rng.choice(job_queue.ready(w, 20))
        attempt = job_queue.grant(w, job.id, self._node, self._incarnation)
        return [f"attempt {attempt.id} {attempt.token}"]

    def work(self, w: Writing) -> list[str]:
        attempt = self._rng.choice(self._mine(w))
        job_queue.started(w, attempt.id, attempt.token, PROCESS)
        number = self._rng.getrandbits(60)
        artifacts.register(w, attempt.id, attempt.token, shard(number), games=2, samples=20)
        return [f"artifact {digest(number)} {attempt.id}"]

    def finish(self, w: Writing) -> list[str]:
        attempt = self._rng.choice(self._mine(w))
        reason = self._rng.choice([EndReason.FINISHED, EndReason.OWN_ERROR, EndReason.KILLED])
        job_queue.finish(w, attempt.id, attempt.token, END_STATES[reason], reason, process_s=0.001)
        said = [f"ended {attempt.id} {END_STATES[reason]}"]
        if reason is EndReason.FINISHED:
            model = registry.register_model(
                w, "c4", digest(self._rng.getrandbits(60)), parent_id=None, job_id=attempt.job_id, steps=1, samples=1,
                loss=None,
            )  # fmt: skip
            pairs = [PairResult(n, 1, 0.5, digest(self._rng.getrandbits(60))) for n in range(3)]
            matches.book_pairs(
                w, "c4", model.id, "random", Purpose.PROMOTION, pairs=pairs, job_id=attempt.job_id,
                attempt_id=attempt.id,
            )  # fmt: skip
            said.append(f"model {model.id} {model.hash}")
        return said

    def cancel(self, w: Writing) -> list[str]:
        job = self._rng.choice(job_queue.waiting(w, 20))
        job_queue.cancel(w, job.id, "not wanted")
        return [f"cancelled {job.id} -"]

    def promote(self, w: Writing) -> list[str]:
        candidate, champion = registry.candidate(w, "c4"), registry.champion(w, "c4")
        if candidate is None:
            return []
        decision = decisions.record(w, say_decision(f"model/{candidate.id}", w.now), 1, keep=20)
        assert decision is not None
        if self._rng.random() < 0.5:
            registry.reject(w, candidate.id, "weak", decision)
            return [f"rejected {candidate.id} {decision}"]
        expected = champion.model_id if champion else None
        moved = registry.move_champion(w, "c4", candidate.id, expected, decision)
        return [f"champion {candidate.id} {moved.generation}"]

    def _mine(self, w: Writing) -> list[Attempt]:
        return [attempt for attempt in job_queue.live_attempts(w) if attempt.incarnation == self._incarnation]


def main(path: str, seed: int) -> None:
    gate = threading.Lock()

    def tell(line: str) -> None:
        with gate:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    store = Store.open(path, SystemClock(), random.Random(seed))
    workers = [Worker(store, seed * 100 + n, tell) for n in range(THREADS)]
    store.write(lambda w: [job_queue.submit(w, spec()) for _ in range(10)])
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
