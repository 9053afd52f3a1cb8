"""How long one pass of the distributor takes for a large fleet.

    python bench/distributor/run.py [--repeat 7]

Prints the median and the worst of the repetitions, in milliseconds of one `decide`, garbage collection included; the
view is built beforehand. It is time of the processor, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import statistics
import time

from gamekeeper.core.requirements import Capacity, Gpu, Requirements
from gamekeeper.policy.work_distributor import (
    Free,
    JobClass,
    Limits,
    Node,
    ReadyJob,
    View,
    WaitingAgent,
    decide,
)

GIB = 1 << 30
NOW = 10_000.0


def fleet(nodes: int, slots: int) -> tuple[WaitingAgent, ...]:
    """Nodes of four kinds, each with a disk as full as none other, all waiting; every second one has the model."""
    agents = []
    for n in range(nodes):
        gpus = (Gpu("any", (16 if n % 4 == 1 else 24) * GIB),) * (n % 4)
        there = Capacity(slots, 16.0, 64 * GIB, (100 * GIB) + n, gpus, "x86_64", {"zone": f"z{n % 3}"})
        node = Node(f"n-{n:05}", there, Free.beside(there, ()), cached=frozenset({"model"} if n % 2 else ()))
        agents.append(WaitingAgent(node, "i", NOW + 30, slots))
    return tuple(agents)


def classes(number: int, heads: int, lines: int) -> tuple[JobClass, ...]:
    """Classes of twelve different requirements, with a million jobs behind the oldest ones."""
    asked = [
        Requirements(),
        Requirements(cpus=2.0),
        Requirements(cpus=8.0, memory_bytes=8 * GIB),
        Requirements(gpus=0.25),
        Requirements(gpus=0.5, gpu_memory_bytes=8 * GIB),
        Requirements(gpus=1.0),
        Requirements(gpus=1.0, gpu_memory_bytes=20 * GIB),
        Requirements(gpus=2.0, cpus=4.0),
        Requirements(cpus=4.0, labels=(("zone", "z1"),)),
        Requirements(memory_bytes=32 * GIB, disk_bytes=50 * GIB),
        Requirements(cpus=1.0, architectures=("x86_64",), lasting=True),
        Requirements(gpus=8.0),
    ]
    made = []
    for n in range(number):
        jobs = tuple(
            ReadyJob(n * 10_000 + k, NOW - 400, NOW - 400, frozenset({"model", f"shard-{n}-{k}"}))
            for k in range(heads)
        )
        made.append(
            JobClass(
                n, f"line-{n % lines}", ("train", "selfplay", "evaluate")[n % 3], producer=f"p{n}",
                requirements=asked[n % len(asked)], due=1_000_000 // number, heads=jobs, running=n % 7,
                last_granted_at=NOW - n,
            )
        )  # fmt: skip
    return tuple(made)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one pass of the distributor.")
    parser.add_argument("--repeat", type=int, default=7, help="passes of each case")
    repeat = parser.parse_args().repeat
    print(f"{'case':44} {'median ms':>10} {'worst ms':>10} {'grants':>7} {'verdicts':>9}")
    for name, view in {
        "200 classes x 1,000 waiting nodes": View(fleet(1000, 2), classes(200, 20, 10)),
        "5 classes x 10,000 waiting nodes": View(fleet(10_000, 2), classes(5, 500, 2)),
        "200 classes x 1,000 nodes, one slot free": View(
            fleet(1, 1), classes(200, 20, 10), tuple(one.node for one in fleet(1000, 2))
        ),
        "no job, 1,000 waiting nodes": View(fleet(1000, 2), ()),
    }.items():
        took = []
        for _ in range(repeat):
            began = time.process_time()
            decision = decide(view, Limits(), NOW)
            took.append((time.process_time() - began) * 1000)
        counts = f"{len(decision.actions):7,} {len(decision.verdicts):9,}"
        print(f"{name:44} {statistics.median(took):10.1f} {max(took):10.1f} {counts}")


if __name__ == "__main__":
    main()
