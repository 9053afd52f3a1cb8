"""How long a step takes beside a great many ready and finished jobs, against an empty store.

    python bench/queue/claim.py [--ready 1000000] [--finished 10000000] [--steps 2000]

Each measured step finishes one attempt and is granted the next job, in the calling process, with free flushes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from functools import partial
from pathlib import Path

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.jobs import EndReason, JobSpec
from gamekeeper.core.nodes import Observation
from gamekeeper.store import inventory, job_queue, leases
from gamekeeper.store.endings import Finish
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing
from gamekeeper.store.statements import sql
from gamekeeper.store.step import Step, take_steps

LEASE_S = 3600.0
AT_ONCE = 250_000
SEEN = Observation(cpu_count=2, memory_bytes=2**34, disk_free_bytes=None, load=0.5, observed_at=0.0)

_COLUMNS = (
    "class_id, kind, line, purpose, command, parameters, wanted, inputs, seed, grace_s, failures_allowed,"
    " losses_allowed, failures, losses, created_at, not_before, cancel_requested, requirements, share, producer, unmet,"
    " reason"
)
_READY = sql(
    f"INSERT INTO jobs (id, state, {_COLUMNS})"
    " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :n)"
    f" SELECT :first + i, 'ready', {_COLUMNS} FROM n JOIN jobs j ON j.id = 1"
)
_DONE = sql(
    f"INSERT INTO jobs (id, state, ended_at, {_COLUMNS})"
    " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :n)"
    f" SELECT :first + i, 'done', :now + i * 0.001, {_COLUMNS} FROM n JOIN jobs j ON j.id = 1"
)
_COUNT = sql("UPDATE job_counts SET n = n + :n WHERE class_id = 1 AND state = :state")


def fill(w: Writing, state: str, n: int) -> None:
    last = w.take("jobs", n)
    w.run(_READY if state == "ready" else _DONE, n=n, first=last - n, now=w.now)
    w.run(_COUNT, n=n, state=state)


def measured(store: Store, steps: int) -> tuple[list[float], float]:
    """Seconds that each of many steps took, in order of length, and the processor time of one on average."""
    node = store.write(lambda w: inventory.enrol(w, "bench", 2, f"c{random.getrandbits(60)}")).id
    name = f"agent-{node}"
    store.write(lambda w: leases.connect_agent(w, node, name, LEASE_S, held=[], slots=2, observation=SEEN))
    took, held = [], []
    cpu = time.process_time()
    for _ in range(steps):
        step = Step(name, LEASE_S, finishes=held, want=1)
        since = time.perf_counter()
        (reply,) = store.write(lambda w, step=step: take_steps(w, [step]))
        took.append(time.perf_counter() - since)
        held = [Finish(one.attempt_id, one.token, EndReason.FINISHED) for one in reply.granted]
    return sorted(took), (time.process_time() - cpu) / steps


def beside(folder: Path, ready: int, finished: int, steps: int) -> tuple[list[float], float]:
    """What steps take in a store of so many jobs."""
    with Store.open(folder / "gamekeeper.db", SystemClock()) as store:
        spec = JobSpec(kind="command", line="bench", command=("true",), parameters={"sent": 0})
        store.write(lambda w: job_queue.submit(w, spec))
        for state, n in (("ready", ready), ("done", finished)):
            for first in range(0, n, AT_ONCE):
                store.write(partial(fill, state=state, n=min(AT_ONCE, n - first)))
        measured(store, 200)
        return measured(store, steps)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ready", type=int, default=1_000_000)
    parser.add_argument("--finished", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--folder", default="/dev/shm")
    options = parser.parse_args()
    for ready, finished in ((options.steps + 10, 0), (options.ready, options.finished)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            took, cpu = beside(Path(folder), ready, finished, options.steps)
        p50, p99 = took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3
        print(
            f"{ready:,} ready, {finished:,} finished: step p50 {p50:.3f} ms, p99 {p99:.3f} ms,"
            f" processor {cpu * 1e3:.3f} ms",
            flush=True,
        )


if __name__ == "__main__":
    main()
