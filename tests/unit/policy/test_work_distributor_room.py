"""Where a job runs: fit, devices, locality, targets and exclusions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gamekeeper.core.requirements import GpuShare, Requirements
from gamekeeper.policy.work_distributor import (
    Limits,
    Occupant,
    Reason,
    census,
    decide,
    fitting,
    matching,
    rooms,
)
from tests.unit.policy.work_cases import (
    GIB,
    NOW,
    agent,
    asks,
    evidence,
    granted_ids,
    grants,
    jobs,
    machine,
    node,
    reason,
    verdict,
    view,
    where,
    with_inputs,
)

# The parts whose behaviour these tests pin.
PINNED = (census, fitting, rooms)

WHOLE = Requirements(cpus=8.0)
QUARTER = Requirements(cpus=2.0)
ONE_GPU = Requirements(gpus=1.0)

# --- fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "there", "words"),
    [
        (Requirements(cpus=9), machine(), "1 too few CPUs (9 asked, at most 8)"),
        (
            Requirements(memory_bytes=17 * GIB),
            machine(),
            "1 too little memory (17 GiB asked, at most 16 GiB)",
        ),
        (Requirements(disk_bytes=101 * GIB), machine(), "1 too little disk (101 GiB asked, at most 100 GiB)"),
        (Requirements(gpus=2), machine(gpus=(8,)), "1 too few GPUs (2 asked, at most 1)"),
        (
            Requirements(gpus=0.5, gpu_memory_bytes=9 * GIB),
            machine(gpus=(8,)),
            "1 too little GPU memory (9 GiB asked, at most 8 GiB)",
        ),
        (
            Requirements(gpus=2, gpu_memory_bytes=9 * GIB),
            machine(gpus=(8, 16)),
            "1 too little GPU memory (9 GiB asked, at most 16 GiB)",
        ),
        (
            Requirements(labels=(("zone", "east"),)),
            machine(labels={"zone": "west"}),
            "1 other labels (zone=east asked)",
        ),
        (
            Requirements(architectures=("arm64", "ppc64")),
            machine(architecture="x86_64"),
            "1 another architecture (arm64 or ppc64 asked)",
        ),
        (Requirements(lasting=True), machine(ephemeral=True), "1 not lasting"),
        (Requirements(), machine(slots=0), "1 no slot"),
    ],
)
def test_what_no_known_node_has_is_named(asked: Requirements, there: object, words: str) -> None:
    """A job that can never run must say which requirement is in its way, not wait for ever."""
    decision = decide(view([], (jobs(1, requirements=asked),), [node("n-1", there)]), Limits(), NOW)  # type: ignore[arg-type]
    assert reason(decision, "class/1") == Reason.UNSATISFIABLE
    sentence = verdict(decision, "class/1").sentence
    assert sentence.startswith(f"no known node could ever run it: 1 node: {words}; a node with ")


@pytest.mark.parametrize(
    ("asked", "there", "words"),
    [
        (Requirements(cpus=1), machine(cpus=None), "unknown CPUs"),
        (Requirements(memory_bytes=1), machine(memory=None), "unknown memory"),
        (Requirements(disk_bytes=1), machine(disk=None), "unknown disk"),
        (Requirements(gpus=1), machine(gpus=None), "unknown GPUs"),
        (Requirements(gpus=1, gpu_memory_bytes=1), machine(gpus=(None,)), "unknown GPU memory"),
        (Requirements(architectures=("arm64",)), machine(), "unknown architecture"),
    ],
)
def test_an_unknown_quantity_fits_no_job_that_asks_for_it(
    asked: Requirements, there: object, words: str
) -> None:
    """Unknown is not plenty, and not zero: it is measured or declared, and then it is known."""
    on = node("n-1", there)  # type: ignore[arg-type]
    decision = decide(view([asks(on)], (jobs(1, requirements=asked), jobs(2))), Limits(), NOW)
    assert granted_ids(decision) == [20]
    assert reason(decision, "class/1") == Reason.UNKNOWN
    assert verdict(decision, "class/1").sentence.endswith(f"measure or declare: {words}")


def test_a_short_quantity_outweighs_an_unknown_one() -> None:
    """Measuring the memory of a machine with too few CPUs would help nobody."""
    asked = Requirements(cpus=99, memory_bytes=GIB, architectures=("arm64",), gpus=1, gpu_memory_bytes=GIB)
    known = node("n-1", machine(memory=None, gpus=(None,)))
    decision = decide(view([], (jobs(1, requirements=asked),), [known]), Limits(), NOW)
    assert reason(decision, "class/1") == Reason.UNSATISFIABLE


def test_exactly_enough_is_enough() -> None:
    """Off by an equality, a machine bought for a job would never get it."""
    asked = Requirements(1.0, 8 * GIB, 8.0, 16 * GIB, 100 * GIB)
    assert granted_ids(
        decide(view([asks(node("n-1", machine(gpus=(8,))))], (jobs(1, requirements=asked),)), Limits(), NOW)
    ) == [10]


def test_the_head_that_fits_nowhere_blocks_nobody() -> None:
    """One job too large for what is free would stop the whole queue."""
    busy = node("n-1", machine(), Occupant(QUARTER))
    classes = (jobs(1, "found", requirements=WHOLE), jobs(2, n=2))
    decision = decide(view([asks(busy)], classes), Limits(), NOW)
    assert granted_ids(decision) == [20, 21]
    assert reason(decision, "class/1") == Reason.NO_ROOM
    words = "waits for room; 1 node: 1 busy; room on one that fits (n-1) unblocks it"
    assert verdict(decision, "class/1").sentence == words
    assert reason(decision, "node/n-1") == Reason.NOTHING_FITS
    assert "1 by too few CPUs" in verdict(decision, "node/n-1").sentence


def test_nodes_are_counted_by_what_rules_them_out() -> None:
    """Six nodes and no room: a person must see at one glance which of them is worth looking at."""
    asked = Requirements(gpus=1, gpu_memory_bytes=24 * GIB)
    big = machine(gpus=(24,))
    taken = Occupant(ONE_GPU, (GpuShare(0, 1.0),))
    nodes = [
        *(node(f"s-{n}", machine(gpus=(16,))) for n in range(3)),
        node("b-1", big, taken),
        node("b-2", big, excluded_until=NOW + 60),
        node("b-3", big, reachable=False),
        node("b-4", big, target_slots=0),
    ]
    decision = decide(view([asks(nodes[3])], (jobs(1, requirements=asked),), nodes), Limits(), NOW)
    assert (
        "7 nodes: 3 too little GPU memory (24 GiB asked), 1 excluded, 1 told to run nothing, 1 unreachable, 1 busy"
        in (verdict(decision, "class/1").sentence)
    )
    found = evidence(decision, "class/1")
    assert found["nodes with too little GPU memory"] == 3
    assert found["nodes that fit and may get work"] == 1
    none = decide(view([agent("x")], (jobs(1, requirements=asked),), nodes[4:]), Limits(), NOW)
    assert verdict(none, "class/1").sentence.startswith(
        "waits: no node that fits may get work; 4 nodes: 1 too few GPUs"
    )


# --- choice ----------------------------------------------------------------------------------------------------


def test_devices_are_packed() -> None:
    """A part of every device taken leaves no whole one for training."""
    on = node("n-1", machine(6, gpus=(24, 8, 24, 24)), Occupant(Requirements(gpus=0.5), (GpuShare(2, 0.5),)))
    part = jobs(1, n=3, requirements=Requirements(gpus=0.25))
    decision = decide(
        view([asks(on)], (part, jobs(2, "train", requirements=Requirements(gpus=2)))), Limits(), NOW
    )
    assert {grant.job_id: grant.gpus for grant in grants(decision)} == {
        20: (GpuShare(1, 1.0), GpuShare(0, 1.0)),
        10: (GpuShare(2, 0.25),),
        11: (GpuShare(2, 0.25),),
        12: (GpuShare(3, 0.25),),
    }


def test_memory_of_a_shared_device_counts() -> None:
    """Two halves of a device whose jobs need three quarters of its memory each would both fail."""
    asked = Requirements(gpus=0.25, gpu_memory_bytes=12 * GIB)
    on = node("n-1", machine(gpus=(16,)))
    decision = decide(view([asks(on)], (jobs(1, n=2, requirements=asked),)), Limits(), NOW)
    assert [grant.gpus for grant in grants(decision)] == [(GpuShare(0, 0.75),)]


def test_a_whole_device_is_one_nobody_uses() -> None:
    """Training beside another job's share runs out of memory."""
    on = node("n-1", machine(gpus=(16,)), Occupant(Requirements(gpus=0.1), (GpuShare(0, 0.1),)))
    decision = decide(view([asks(on)], (jobs(1, requirements=ONE_GPU),)), Limits(), NOW)
    assert decision.actions == ()
    assert reason(decision, "class/1") == Reason.NO_ROOM


def test_a_job_goes_where_it_wastes_least() -> None:
    """CPU work on GPU nodes, and small models on large GPUs, keep out the jobs that need them."""
    plain, small, large = (
        node(name, machine(2, gpus=gpus)) for name, gpus in (("n-3", ()), ("n-2", (8,)), ("n-1", (24,)))
    )
    agents = [asks(plain), asks(small), asks(large)]
    assert where(decide(view(agents, (jobs(1, n=3),)), Limits(), NOW)) == {10: "n-3", 11: "n-3", 12: "n-1"}
    assert where(decide(view(agents, (jobs(1, requirements=ONE_GPU),)), Limits(), NOW)) == {10: "n-2"}
    little = machine(8, cpus=2.0)
    mixed = (
        jobs(1, requirements=Requirements(cpus=2)),
        jobs(2, n=0, later=1, requirements=Requirements(cpus=8)),
    )
    roomy = [asks(node("n-1", machine(8))), asks(node("n-2", little))]
    assert where(decide(view(roomy, mixed), Limits(), NOW)) == {10: "n-2"}


def test_parts_of_devices_go_to_the_fullest_one_of_the_fleet() -> None:
    """Best fit on each node by itself would open a fresh device on every node."""
    half = node("n-2", machine(gpus=(16,)), Occupant(Requirements(gpus=0.5), (GpuShare(0, 0.5),)))
    most = node("n-3", machine(gpus=(16,)), Occupant(Requirements(gpus=0.75), (GpuShare(0, 0.75),)))
    agents = [asks(node("n-1", machine(gpus=(16,)))), asks(half), asks(most)]
    asked = jobs(1, n=4, requirements=Requirements(gpus=0.25))
    assert where(decide(view(agents, (asked,)), Limits(), NOW)) == {
        10: "n-3",
        11: "n-2",
        12: "n-2",
        13: "n-1",
    }


def test_data_at_hand_comes_before_the_best_fit() -> None:
    """Gigabytes moved for want of a look cost more than a slot on the wrong node."""
    near = node("n-9", machine(1, gpus=(8,)), cached=frozenset({"a", "b"}))
    half = node("n-8", machine(4), cached=frozenset({"a", "z"}))
    agents = [asks(node("n-1")), asks(half), asks(near)]
    classes = (with_inputs(jobs(1, n=2), "a", "b", "c"),)
    decision = decide(view(agents, classes), Limits(), NOW)
    assert where(decision) == {10: "n-9", 11: "n-8"}
    assert evidence(decision, "job/10")["inputs at hand"] == 2


def test_popular_data_is_found_on_every_node_that_has_it() -> None:
    """The champion is on all nodes: a bound on how many are compared may not hide the ones still free."""
    agents = [
        asks(node(f"n-{n:03}", machine(1), cached=frozenset({"model"} if n >= 10 else ())))
        for n in range(120)
    ]
    decision = decide(view(agents, (with_inputs(jobs(1, n=110, first=1000), "model"),)), Limits(), NOW)
    assert len(grants(decision)) == 110
    assert all(name >= "n-010" for name in where(decision).values())


def test_a_job_that_failed_on_all_nodes_may_return() -> None:
    """Avoiding the last node for ever is a job lost without a word; parking it is for others to decide."""
    failing = node("n-1", failed_jobs=frozenset({10}))
    other = node("n-2", machine(1))
    once = decide(view([asks(failing), asks(other)], (jobs(1, n=2),)), Limits(), NOW)
    assert where(once) == {10: "n-2", 11: "n-1"}
    alone = decide(view([asks(failing)], (jobs(1),), [replace(other, excluded_until=NOW + 9)]), Limits(), NOW)
    assert where(alone) == {10: "n-1"}
    waits = decide(view([asks(failing)], (jobs(1, n=2),), [other]), Limits(), NOW)
    assert where(waits) == {11: "n-1"}
    assert reason(waits, "class/1") == Reason.AVOIDS_FAILURE
    assert "failed here before" in verdict(waits, "node/n-1").sentence


def test_a_target_bounds_what_a_node_gets() -> None:
    """A node told to run two jobs must not run four because it offers four slots."""
    on = node("n-1", machine(6), Occupant(QUARTER), target_slots=2)
    decision = decide(view([asks(on)], (jobs(1, n=4),)), Limits(), NOW)
    assert len(grants(decision)) == 1
    assert (reason(decision, "node/n-1"), verdict(decision, "node/n-1").acted) == (
        Reason.TARGET_REACHED,
        True,
    )
    assert evidence(decision, "node/n-1")["jobs on the node"] == 2
    above = node("n-1", machine(6), Occupant(QUARTER), Occupant(QUARTER), target_slots=1)
    decision = decide(view([asks(above)], (jobs(1),)), Limits(), NOW)
    assert (decision.actions, reason(decision, "node/n-1")) == ((), Reason.TARGET_REACHED)


def test_an_exclusion_ends() -> None:
    """An excluded node that stayed out for ever would shrink the fleet."""
    on = node("n-1", excluded_until=NOW + 60.0, exclusion_cause="disk")
    before = decide(view([asks(on)], (jobs(1),)), Limits(), NOW)
    assert verdict(before, "node/n-1").sentence == "given nothing for another 60 s: excluded (disk)"
    assert before.actions == ()
    assert granted_ids(decide(view([asks(on, expires_at=NOW + 99)], (jobs(1),)), Limits(), NOW + 60)) == [10]


def test_the_fit_is_looked_at_per_kind_of_machine() -> None:
    """A pass that compares each class with each node, or looks at each waiting job, cannot serve a fleet."""
    agents = [
        asks(node(f"n-{n:04}", machine(2, disk=100 + n, gpus=(8,) if n % 2 else ()))) for n in range(1000)
    ]
    classes = [
        jobs(n, line=f"l{n % 7}", n=5, due=1_000_000, requirements=Requirements(cpus=float(n % 3)))
        for n in range(1, 101)
    ]
    done = matching.opened(view(agents, classes), Limits(), NOW)
    matching.match(done)
    assert len(done.grants) == 500
    assert sum(len(ask.preferences) + len(ask.obstacles) for ask in done.asks.values()) < 100
