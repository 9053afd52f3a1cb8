"""Room held for jobs that ask for much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gamekeeper.core.requirements import GpuShare, Requirements
from gamekeeper.policy.work_distributor import (
    JobClass,
    Limits,
    Node,
    Occupant,
    Reason,
    decide,
    fitting,
    matching,
    reservations,
    rooms,
)
from gamekeeper.policy.work_distributor.shares import entry_of
from tests.unit.policy.work_cases import (
    GIB,
    NOW,
    asks,
    evidence,
    granted_ids,
    jobs,
    machine,
    node,
    reason,
    verdict,
    view,
)

# The parts whose behaviour these tests pin.
PINNED = (matching, reservations)

WHOLE = Requirements(cpus=8.0)
QUARTER = Requirements(cpus=2.0)
ONE_GPU = Requirements(gpus=1.0)

# --- reservation -----------------------------------------------------------------------------------------------


def half_full(name: str = "n-1", ends_at: float | None = None) -> Node:
    """Four slots and eight CPUs, six of which are taken by jobs that end at some time."""
    return node(name, machine(), *(Occupant(QUARTER, ends_at=ends_at) for _ in range(3)))


BIG = jobs(1, "train", requirements=WHOLE, waited=301)
SMALL = jobs(2, "selfplay", n=4, requirements=QUARTER)


def test_room_is_held_for_a_large_job_that_waited_long() -> None:
    """A stream of small jobs takes every CPU that becomes free, and the large one never starts."""
    decision = decide(view([asks(half_full())], (BIG, SMALL)), Limits(), NOW)
    assert decision.actions == ()
    assert (reason(decision, "class/1"), reason(decision, "class/2")) == (
        Reason.RESERVED_FOR,
        Reason.BEHIND_OTHERS,
    )
    assert evidence(decision, "class/1")["held for seconds"] == 1.0
    assert "is held for class 1" in verdict(decision, "class/2").sentence
    assert reason(decision, "node/n-1") == Reason.RESERVED
    assert verdict(decision, "node/n-1").sentence == "1 slot idle: its room is held for class 1 (c4/train)"


@pytest.mark.parametrize(
    ("big", "limits"),
    [
        (replace(BIG, last_granted_at=NOW - 300), Limits()),
        (BIG, Limits(reserve_after_s=301)),
        (BIG, Limits(reservations=0)),
        (replace(BIG, requirements=QUARTER), Limits()),
        (replace(BIG, requirements=Requirements(cpus=9)), Limits()),
    ],
    ids=["served lately", "waited too little", "turned off", "no larger than others", "fits no node"],
)
def test_room_is_not_held_without_need(big: JobClass, limits: Limits) -> None:
    """A slot held for nothing is a slot lost."""
    decision = decide(view([asks(half_full())], (big, SMALL)), limits, NOW)
    assert len(decision.actions) == 1


@pytest.mark.parametrize("facts", [{"excluded_until": NOW + 9}, {"reachable": False}, {"target_slots": 0}])
def test_a_reservation_moves_off_a_node_that_is_lost(facts: dict[str, object]) -> None:
    """Room held on a machine that will not come back idles for ever, here or elsewhere."""
    better = replace(node("n-0", machine(), Occupant(QUARTER)), **facts)  # type: ignore[arg-type]
    decision = decide(view([asks(half_full())], (BIG, SMALL), [better]), Limits(), NOW)
    assert "room on node n-1" in verdict(decision, "class/1").sentence
    healthy = node("n-0", machine(), Occupant(QUARTER))
    moved = decide(view([asks(half_full())], (BIG, SMALL), [healthy]), Limits(), NOW)
    assert "room on node n-0" in verdict(moved, "class/1").sentence
    assert granted_ids(moved) == [20]


def test_jobs_that_leave_enough_run_beside_a_reservation() -> None:
    """Holding more than the large job needs wastes the rest of the node."""
    on = node("n-1", machine(5, gpus=(8,)), Occupant(QUARTER), Occupant(QUARTER))
    big = replace(BIG, requirements=Requirements(cpus=6.0))
    classes = (big, jobs(2, requirements=QUARTER), jobs(3, n=9), jobs(4, "x", requirements=ONE_GPU))
    decision = decide(view([asks(on)], classes), Limits(), NOW)
    assert sorted(granted_ids(decision)) == [30, 40]
    roomy = replace(big, requirements=Requirements(cpus=8.0, memory_bytes=GIB))
    assert 20 not in granted_ids(decide(view([asks(on)], (roomy, *classes[1:])), Limits(), NOW))


@pytest.mark.parametrize(
    ("expected", "ends", "given_out"),
    [(60.0, NOW + 60, 1), (60.1, NOW + 60, 0), (None, NOW + 60, 0), (1.0, None, 0)],
)
def test_short_jobs_fill_the_time_until_a_reservation_starts(
    expected: float | None, ends: float | None, given_out: int
) -> None:
    """Backfill keeps the held node busy, but only when it is known to end in time."""
    small = replace(SMALL, expected_s=expected)
    decision = decide(view([asks(half_full(ends_at=ends))], (BIG, small)), Limits(), NOW)
    assert len(decision.actions) == given_out
    assert ("expected in 60 s" in verdict(decision, "class/1").sentence) == (ends is not None)


def test_the_node_that_is_free_soonest_is_held() -> None:
    """Held on any other, the large job waits longer and more room idles."""
    late, soon, unsaid = half_full("n-1", NOW + 900), half_full("n-2", NOW + 50), half_full("n-3")
    decision = decide(view([], (BIG, SMALL), [late, soon, unsaid]), Limits(), NOW)
    assert reason(decision, "class/1") == Reason.NO_AGENT
    decision = decide(view([asks(late)], (BIG, SMALL), [soon, unsaid]), Limits(), NOW)
    assert "room on node n-2" in verdict(decision, "class/1").sentence
    emptier = node("n-4", machine(), Occupant(QUARTER))
    decision = decide(view([asks(half_full())], (BIG, SMALL), [emptier]), Limits(), NOW)
    assert "room on node n-4" in verdict(decision, "class/1").sentence


def test_a_started_reservation_is_free_for_others_in_the_same_pass() -> None:
    """Who stepped back for a large job must not wait for the next pass when it found its place elsewhere."""
    empty = node("n-1", machine(4, cpus=16.0))
    decision = decide(view([asks(empty)], (BIG, SMALL)), Limits(), NOW)
    assert sorted(granted_ids(decision)) == [10, 20, 21, 22]


def test_reservations_are_bounded() -> None:
    """A queue of large jobs may not idle the whole fleet."""
    agents = [asks(half_full(f"n-{n}")) for n in range(4)]
    big = tuple(jobs(n, "train", f"l{n}", requirements=WHOLE, waited=400 + n) for n in range(10, 14))
    decision = decide(view(agents, (*big, SMALL)), Limits(reservations=2), NOW)
    held = [one.subject for one in decision.verdicts if one.reason == Reason.RESERVED_FOR]
    assert held == ["class/12", "class/13"]
    assert len(decision.actions) == 2


def test_a_more_urgent_small_job_passes_a_reservation() -> None:
    """Large classes in turn, one always waiting, would hold the only node against everybody else."""
    urgent = replace(SMALL, heads=tuple(replace(job, due_at=NOW - 1300) for job in SMALL.heads))
    decision = decide(view([asks(half_full())], (BIG, urgent)), Limits(), NOW)
    assert granted_ids(decision) == [20]


def test_what_a_held_node_gives_stays_held() -> None:
    """Offered to all again after the first job that may run beside it, the room would be gone with the second."""
    on = node("n-1", machine(6), Occupant(QUARTER))
    beside = jobs(3, "evaluate", n=2)
    decision = decide(view([asks(on)], (BIG, SMALL, beside)), Limits(), NOW)
    assert sorted(granted_ids(decision)) == [30, 31]
    assert reason(decision, "class/2") == Reason.BEHIND_OTHERS


def test_a_job_does_not_return_to_a_held_node_on_which_it_failed() -> None:
    """A reservation is no reason to fail again, neither beside it nor for it."""
    on = replace(half_full(), failed_jobs=frozenset({10, 30}))
    beside = jobs(3, "evaluate")
    busy = half_full("n-2")
    decision = decide(view([asks(on)], (BIG, beside), [busy]), Limits(), NOW)
    assert decision.actions == ()
    assert "room on node n-2" in verdict(decision, "class/1").sentence
    assert reason(decision, "class/3") == Reason.AVOIDS_FAILURE


# --- the parts of it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "lack"),
    [
        (Requirements(), 0.0),
        (Requirements(cpus=6.0), 0.0),
        (Requirements(cpus=7.0), 1 / 8),
        (Requirements(memory_bytes=16 * GIB), 4 / 16),
        (Requirements(disk_bytes=100 * GIB), 10 / 100),
        (Requirements(disk_bytes=90 * GIB), 0.0),
        (Requirements(cpus=8.0, memory_bytes=14 * GIB, disk_bytes=95 * GIB), 2 / 8 + 2 / 16 + 5 / 100),
        (Requirements(gpus=1.0), 0.0),
        (Requirements(gpus=2.0), 0.5 / 4),
        (Requirements(gpus=4.0, cpus=7.0), (0.5 + 1 + 1) / 4 + 1 / 8),
    ],
)
def test_what_lacks_is_summed_over_all_that_is_asked(asked: Requirements, lack: float) -> None:
    """A measure that forgets one requirement holds a node that will be the last to fit."""
    taken = Requirements(gpus=1.0, cpus=2.0, memory_bytes=4 * GIB, disk_bytes=10 * GIB)
    shares = (GpuShare(0, 1.0), GpuShare(1, 1.0), GpuShare(2, 0.5))
    on = node("n-1", machine(4, gpus=(8, 8, 8, 8)), Occupant(taken, shares))
    assert reservations.missing(fitting.Room.of(on, 3), asked) == pytest.approx(lack, abs=1e-5)
    assert reservations.missing(fitting.Room.of(on, 0), asked) == pytest.approx(lack + 1 / 4, abs=1e-5)


def test_parts_of_devices_and_unknown_quantities_lack_too() -> None:
    """A node about which nothing is known looks as far from fitting as it can."""
    half = node(
        "n-1", machine(gpus=(8, 8)), Occupant(Requirements(gpus=1.0), (GpuShare(0, 0.75), GpuShare(1, 1.0)))
    )
    assert reservations.missing(fitting.Room.of(half, 1), Requirements(gpus=0.5)) == pytest.approx(0.25 / 2)
    blank = fitting.Room.of(Node("n-2", machine(0, None, None, None, None)), 0)
    assert reservations.missing(blank, Requirements(cpus=2.0, memory_bytes=5, disk_bytes=7)) == 4.0
    assert reservations.missing(blank, Requirements(gpus=2.0)) == 3.0


@pytest.mark.parametrize("part", ["gpus", "gpu_memory_bytes", "cpus", "memory_bytes", "disk_bytes"])
def test_asking_for_less_of_anything_is_smaller(part: str) -> None:
    """Compared by one quantity only, a job that takes the rest would pass for large."""
    one = Requirements(2.0, 4, 4.0, 4, 4)
    less = replace(one, **{part: 1})  # type: ignore[arg-type]
    assert reservations.smaller(less, one)
    assert not reservations.smaller(one, less)
    assert not reservations.smaller(one, one)


@pytest.mark.parametrize(
    ("asked", "held", "admitted"),
    [
        ({}, {"cpus": 8.0}, True),
        ({"cpus": 2.0}, {"cpus": 6.0}, True),
        ({"cpus": 2.5}, {"cpus": 6.0}, False),
        ({"cpus": 1.0}, {"cpus": 2.0, "memory_bytes": 99 * GIB}, True),
        ({"memory_bytes": 4 * GIB}, {"memory_bytes": 12 * GIB, "cpus": 9.0}, True),
        ({"memory_bytes": 5 * GIB}, {"memory_bytes": 12 * GIB}, False),
        ({"disk_bytes": 10 * GIB}, {"disk_bytes": 90 * GIB, "cpus": 9.0}, True),
        ({"disk_bytes": 11 * GIB}, {"disk_bytes": 90 * GIB}, False),
        ({"gpus": 1.0}, {"gpus": 1.0, "cpus": 9.0}, True),
        ({"gpus": 0.5}, {"gpus": 2.0}, False),
        ({"cpus": 1.0}, {"gpus": 3.0}, True),
        ({"gpus": 1.0}, {"gpus": 1.0, "gpu_memory_bytes": 16 * GIB}, True),
        ({"gpus": 2.0}, {"gpus": 1.0, "gpu_memory_bytes": 16 * GIB}, False),
        ({"gpus": 3.0}, {"gpus": 1.0, "cpus": 1.0}, False),
    ],
)
def test_a_job_leaves_enough_of_what_both_ask_for(
    asked: dict[str, float], held: dict[str, float], admitted: bool
) -> None:
    """Too strict idles the node; too lax gives away what is held. What only one of them asks for is not contested."""
    room = fitting.Room.of(node("n-1", machine(4, gpus=(8, 16))), 2)
    big, small = (
        entry_of(one, rooms.Ask(one.requirements, (-1, -1, -1)), list(one.heads), Limits(), NOW)
        for one in (
            jobs(1, requirements=Requirements(**held), waited=301),  # type: ignore[arg-type]
            jobs(2, requirements=Requirements(**asked)),  # type: ignore[arg-type]
        )
    )
    hold = reservations.Hold(big, room, None)
    assert hold.admits(small, NOW) is admitted
    assert hold.admits(big, NOW)
    assert hold.room.slots == 2


def test_a_job_may_not_take_the_last_slot_of_a_held_node() -> None:
    """Without a slot the room that was held for so long is of no use."""
    on = node("n-1", machine(1))
    held = entry_of(BIG, rooms.Ask(WHOLE, (0, -1, -1)), list(BIG.heads), Limits(), NOW)
    other = jobs(3, n=1)
    small = entry_of(other, rooms.Ask(other.requirements, (-1, -1, -1)), list(other.heads), Limits(), NOW)
    assert not reservations.Hold(held, fitting.Room.of(on, 1), None).admits(small, NOW)


@pytest.mark.parametrize(("waited", "admitted"), [(1204.0, False), (1205.0, True), (300.0, False)])
def test_urgency_is_waiting_by_weight(waited: float, admitted: bool) -> None:
    """Equal claims may not pass each other; a heavier class waits less for the same claim."""
    held = entry_of(BIG, rooms.Ask(WHOLE, (0, -1, -1)), list(BIG.heads), Limits(), NOW)
    assert held.urgency == 301 * 4
    other = jobs(3, requirements=QUARTER, waited=waited)
    small = entry_of(other, rooms.Ask(QUARTER, (0, -1, -1)), list(other.heads), Limits(), NOW)
    assert reservations.Hold(held, fitting.Room.of(half_full(), 1), None).admits(small, NOW) is admitted


def test_a_start_is_told_from_the_jobs_that_must_end_first() -> None:
    """A start told too early lets jobs in that are still there when it comes."""
    ends = (NOW + 30, None, NOW + 10, NOW + 20)
    on = node("n-1", machine(4), *(Occupant(QUARTER, ends_at=at) for at in ends))
    room = fitting.Room.of(on, 0)
    assert reservations.start(room, Requirements(cpus=2.0)) == NOW + 10
    assert reservations.start(room, Requirements(cpus=4.0)) == NOW + 20
    assert reservations.start(room, Requirements(cpus=6.0)) == NOW + 30
    assert reservations.start(room, Requirements(cpus=8.0)) is None
    assert (room.slots, room.cpus) == (0, 0.0)
