"""Fleets over a long time: shares, and that nobody starves."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.requirements import GpuShare, Requirements
from gamekeeper.policy.work_distributor import (
    JobClass,
    Limits,
    Occupant,
    ReadyJob,
    View,
    decide,
)
from tests.unit.policy.work_cases import (
    GIB,
    NOW,
    asks,
    grants,
    jobs,
    machine,
    node,
)

WHOLE = Requirements(cpus=8.0)
QUARTER = Requirements(cpus=2.0)

# --- in the long run -------------------------------------------------------------------------------------------


@dataclass
class Fleet:
    """Nodes on which granted jobs run for a time, and queues that are never empty."""

    capacities: dict[str, object]
    classes: list[JobClass]
    durations: dict[int, tuple[float, float]]
    chance: random.Random
    now: float = NOW
    number: int = 0
    running: list[tuple[float, str, int, tuple[GpuShare, ...]]] = field(default_factory=list)
    queues: dict[int, list[ReadyJob]] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    longest: dict[int, float] = field(default_factory=dict)
    held_s: dict[int, float] = field(default_factory=dict)

    def look(self, depth: int) -> View:
        by_id = {one.class_id: one for one in self.classes}
        nodes = []
        for name, capacity in self.capacities.items():
            here = [
                Occupant(by_id[class_id].requirements, gpus)
                for _, on, class_id, gpus in self.running
                if on == name
            ]
            nodes.append(node(name, capacity, *here))  # type: ignore[arg-type]
        classes = []
        for one in self.classes:
            queue = self.queues.setdefault(one.class_id, [])
            while len(queue) < depth:
                self.number += 1
                queue.append(ReadyJob(self.number, self.now, self.now))
            busy = sum(class_id == one.class_id for _, _, class_id, _ in self.running)
            last = self.last.get(one.class_id)
            classes.append(
                replace(one, heads=tuple(queue), due=len(queue), running=busy, last_granted_at=last)
            )
        agents = tuple(asks(each, expires_at=self.now + 30) for each in nodes)
        return View(agents, tuple(classes), tuple(nodes))

    def step(self, limits: Limits, tick: float = 5.0, depth: int = 6) -> None:
        self.running = [one for one in self.running if one[0] > self.now]
        seen = self.look(depth)
        owner = {job.job_id: one.class_id for one in seen.classes for job in one.heads}
        for grant in grants(decide(seen, limits, self.now)):
            class_id = owner[grant.job_id]
            self.queues[class_id] = [job for job in self.queues[class_id] if job.job_id != grant.job_id]
            ends = self.now + self.chance.uniform(*self.durations[class_id])
            self.running.append((ends, grant.node_id, class_id, grant.gpus))
            waited = self.now - self.last.get(class_id, NOW)
            self.longest[class_id] = max(self.longest.get(class_id, 0.0), waited)
            self.last[class_id] = self.now
        for _, _, class_id, _ in self.running:
            self.held_s[class_id] = self.held_s.get(class_id, 0.0) + tick
        self.now += tick

    def gap(self, class_id: int) -> float:
        """The longest time the class went without a grant, the time since its last one included."""
        return max(self.longest.get(class_id, 0.0), self.now - self.last.get(class_id, NOW))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "evaluate", "selfplay"])),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_no_lane_starves(lanes: list[tuple[str, str]], slots: int, seed: int) -> None:
    """With every lane always full of work, each must be granted within a time its weight explains."""
    classes = [jobs(n, kind, line, n=0) for n, (line, kind) in enumerate(lanes, 1)]
    fleet = Fleet(
        {"n": machine(slots)}, classes, {one.class_id: (5, 30) for one in classes}, random.Random(seed)
    )
    for _ in range(300):
        fleet.step(Limits(), depth=3)
    # Weights lie between 1 and 4, two levels of them; ageing makes up for both, then all are served in turn.
    assert max(fleet.gap(one.class_id) for one in classes) <= 60 * slots * 16 + 35 * 16


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(
        [
            Requirements(cpus=8.0),
            Requirements(gpus=2.0),
            Requirements(gpus=1.0, cpus=6.0, memory_bytes=16 * GIB),
        ]
    ),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_a_large_job_is_not_starved_by_a_stream_of_small_ones(
    asked: Requirements, same_line: bool, seed: int
) -> None:
    """Small jobs fit into every gap: without a reservation the machine is never empty enough for the large one."""
    small = [
        Requirements(cpus=1.0),
        Requirements(gpus=0.5, cpus=1.0),
        Requirements(gpus=1.0, memory_bytes=4 * GIB),
    ]
    classes = [jobs(1, "train", "a", n=0, requirements=asked)]
    classes += [
        jobs(n, "selfplay", "a" if same_line else f"l{n}", n=0, requirements=one)
        for n, one in enumerate(small, 2)
    ]
    there = {name: machine(8, gpus=(16, 16)) for name in ("n-1", "n-2")}
    fleet = Fleet(there, classes, {one.class_id: (20, 120) for one in classes}, random.Random(seed))  # type: ignore[arg-type]
    limits = Limits(weights={}, reserve_after_s=120, ageing_s=15)
    for _ in range(300):
        fleet.step(limits, depth=12)
    assert fleet.gap(1) <= 120 + 6 * 120
    assert all(fleet.gap(one.class_id) <= 720 for one in classes)


def test_without_reservations_the_large_job_starves() -> None:
    """The law above must be one that a wrong policy breaks."""
    classes = [
        jobs(1, "train", "a", n=0, requirements=WHOLE),
        jobs(2, "selfplay", "b", n=0, requirements=Requirements(cpus=1.0)),
    ]
    fleet = Fleet({"n-1": machine(8)}, classes, {1: (20, 120), 2: (20, 120)}, random.Random(1))
    for _ in range(500):
        fleet.step(Limits(reservations=0), depth=12)
    assert fleet.gap(1) > 2000


@settings(max_examples=10, deadline=None)
@given(st.floats(0.5, 4), st.floats(0.5, 4), st.integers(0, 2**32))
def test_slots_converge_to_the_shares(of_line: float, of_train: float, seed: int) -> None:
    """Over time each line holds its share of slots, and in it each lane, whatever the lengths of their jobs."""
    limits = Limits(weights={"train": of_train}, line_weights={"b": of_line})
    classes = [jobs(1, "train", "a", n=0), jobs(2, "selfplay", "a", n=0), jobs(3, "selfplay", "b", n=0)]
    durations = {1: (20.0, 60.0), 2: (5.0, 10.0), 3: (40.0, 90.0)}
    fleet = Fleet({"n-1": machine(20), "n-2": machine(20)}, classes, durations, random.Random(seed))
    for _ in range(150):
        fleet.step(limits, depth=40)
    total = sum(fleet.held_s.values())
    assert fleet.held_s[3] / total == pytest.approx(of_line / (1 + of_line), abs=0.06)
    of_a = fleet.held_s[1] + fleet.held_s[2]
    assert fleet.held_s[1] / of_a == pytest.approx(of_train / (1 + of_train), abs=0.08)
