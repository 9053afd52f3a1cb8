"""The parts of a fit: devices, ranks, and the room of a node as it shrinks."""

from __future__ import annotations

import pytest

from gamekeeper.core.requirements import GpuShare, Requirements
from gamekeeper.policy.work_distributor import Free, Node, fitting
from gamekeeper.policy.work_distributor.fitting import NOT_ASKED, UNKNOWN, Obstacle, Room, Scale
from tests.unit.policy.work_cases import GIB, machine, node

HALF = Requirements(gpus=0.5)


@pytest.mark.parametrize(
    ("asked", "memories", "free", "indices"),
    [
        (HALF, (8, 8), (1.0, 0.5), (1,)),
        (HALF, (8, 8), (1.0, 0.4), (0,)),
        (HALF, (8, 8, 8), (0.9, 0.6, 0.8), (1,)),
        (HALF, (16, 8), (0.5, 0.5), (1,)),
        (HALF, (None, 8), (0.5, 0.5), (0,)),
        (HALF, (8, 8), (0.5, 0.5), (0,)),
        (HALF, (8,), (0.5 - 5e-7,), (0,)),
        (HALF, (8,), (0.499,), None),
        (HALF, (), (), None),
        (Requirements(gpus=0.1), (8, 8), (0.999, 1.0), (0,)),
        (Requirements(gpus=1.0), (8, 8), (0.999, 1.0), (1,)),
        (Requirements(gpus=1.0), (8, 8), (1.0 - 5e-7, 0.9), (0,)),
        (Requirements(gpus=2.0), (8, 4, 2, 2), (1.0, 1.0, 0.5, 1.0), (3, 1)),
        (Requirements(gpus=3.0), (8, 4, 2, 2), (1.0, 1.0, 0.5, 0.9), None),
        (Requirements(gpus=1.0, gpu_memory_bytes=4), (8, 4, 2), (1.0, 1.0, 1.0), (1,)),
        (Requirements(gpus=0.25, gpu_memory_bytes=4), (8, 16), (0.5, 0.5), (0,)),
        (Requirements(gpus=0.25, gpu_memory_bytes=6), (8, 16), (0.7, 0.4), (1,)),
        (Requirements(), (8,), (0.0,), ()),
    ],
)
def test_devices_are_chosen_by_best_fit(
    asked: Requirements,
    memories: tuple[int | None, ...],
    free: tuple[float, ...],
    indices: tuple[int, ...] | None,
) -> None:
    """Shared devices first, then the one with least left, then the smallest: else large jobs find no whole one."""
    placed = fitting.place(asked, memories, free)
    assert (None if placed is None else tuple(part.index for part in placed)) == indices


@pytest.mark.parametrize(
    ("asked", "memory", "share"),
    [
        (HALF, None, 0.5),
        (Requirements(gpus=4.0), None, 1.0),
        (Requirements(gpus=0.5, gpu_memory_bytes=6), 8, 0.75),
        (Requirements(gpus=0.5, gpu_memory_bytes=2), 8, 0.5),
        (Requirements(gpus=0.5, gpu_memory_bytes=8), 8, 1.0),
        (Requirements(gpus=2.0, gpu_memory_bytes=2), 8, 1.0),
        (Requirements(gpus=0.5, gpu_memory_bytes=9), 8, None),
        (Requirements(gpus=0.5, gpu_memory_bytes=1), None, None),
    ],
)
def test_the_share_of_a_device_covers_its_memory(
    asked: Requirements, memory: int | None, share: float | None
) -> None:
    """A share that says nothing of memory lets two jobs take it twice."""
    assert fitting.device_share(asked, memory) == share


def test_quantities_are_ranked_by_what_is_asked() -> None:
    """A rank too high grants what does not fit; one too low leaves a machine idle."""
    asked = [
        Requirements(cpus=2.0, memory_bytes=5),
        Requirements(cpus=4.0, disk_bytes=7),
        Requirements(memory_bytes=3),
    ]
    scale = Scale.of(asked)
    assert [scale.needed(one) for one in asked] == [
        (0, 1, NOT_ASKED),
        (1, NOT_ASKED, 0),
        (NOT_ASKED, 0, NOT_ASKED),
    ]
    assert scale.ranks(1.9, 2, 6) == (-1, -1, -1)
    assert scale.ranks(2.0, 3, 7) == (0, 0, 0)
    assert scale.ranks(9.0, 5, 99) == (1, 1, 0)
    assert scale.ranks(None, None, None) == (UNKNOWN, UNKNOWN, UNKNOWN)
    assert Scale.of([]).ranks(None, 5, 0) == (NOT_ASKED, NOT_ASKED, NOT_ASKED)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_rank_counts_by_itself(place: int) -> None:
    """One dimension compared with another's need fits at random."""
    needed, ranks = [0, 1, 2], [0, 1, 2]
    assert fitting.enough((0, 1, 2), (0, 1, 2))
    ranks[place] -= 1
    assert not fitting.enough((0, 1, 2), (ranks[0], ranks[1], ranks[2]))
    ranks[place] = UNKNOWN
    assert not fitting.enough((0, 1, 2), (ranks[0], ranks[1], ranks[2]))
    needed[place] = NOT_ASKED
    assert fitting.enough((needed[0], needed[1], needed[2]), (ranks[0], ranks[1], ranks[2]))


def test_a_room_shrinks_and_grows_by_what_a_job_holds() -> None:
    """A room that forgets one thing a job took gives it away twice."""
    room = Room.of(node("n-1", machine(4, gpus=(8, 8))), 3)
    asked = Requirements(gpus=0.5, cpus=2.0, memory_bytes=GIB, disk_bytes=3 * GIB)
    other = room.copy()
    room.take(asked, (GpuShare(1, 0.5), GpuShare(2, 1.0)))
    room.take(asked, (GpuShare(1, 0.5),))
    assert (room.slots, room.cpus, room.memory, room.disk) == (1, 4.0, 14 * GIB, 94 * GIB)
    assert room.gpus == [1.0, 0.0]
    assert (other.slots, other.cpus, other.gpus, other.memories) == (3, 8.0, [1.0, 1.0], (8 * GIB, 8 * GIB))
    room.change(asked, (GpuShare(1, 0.5),), 1)
    assert (room.slots, room.cpus, room.memory, room.disk) == (1, 6.0, 15 * GIB, 97 * GIB)
    assert room.gpus == [1.0, 0.5]


def test_what_is_not_known_of_a_room_stays_unknown() -> None:
    """Unknown less two is not minus two."""
    room = Room.of(Node("n-1", machine(gpus=None), Free()), 2)
    room.take(Requirements(cpus=1.0, memory_bytes=1, disk_bytes=1), ())
    assert (room.slots, room.cpus, room.memory, room.disk, room.gpus) == (1, None, None, None, None)
    assert room.placed(HALF) is None
    assert room.placed(Requirements()) == ()
    unsaid = Room.of(Node("n-1", machine(gpus=(8, 8)), Free(gpus=(1.0,))), 2)
    assert unsaid.gpus == [1.0, 0.0]
    assert Room.of(Node("n-1", machine(gpus=(8,)), Free()), 2).gpus is None
    assert Room.of(Node("n-1", machine(gpus=None), Free(gpus=(1.0,))), 2).gpus is None


@pytest.mark.parametrize(
    ("asked", "lack"),
    [
        ({}, None),
        ({"cpus": 8.0, "memory_bytes": 16 * GIB, "disk_bytes": 100 * GIB, "gpus": 1.0}, None),
        ({"cpus": 8.5}, Obstacle.CPUS),
        ({"memory_bytes": 16 * GIB + 1}, Obstacle.MEMORY),
        ({"disk_bytes": 100 * GIB + 1}, Obstacle.DISK),
        ({"gpus": 2.0, "cpus": 9.0}, Obstacle.GPUS),
    ],
)
def test_what_lacks_now_is_told(asked: dict[str, float], lack: Obstacle | None) -> None:
    """The wrong word sends a person to free the wrong thing; a room has what does not lack."""
    wanted = Requirements(**asked)  # type: ignore[arg-type]
    room = Room.of(node("n-1", machine(gpus=(8,))), 1)
    assert fitting.lacking(room, wanted) == lack
    assert room.has(wanted) == (lack is None)
    room.slots = 0
    assert fitting.lacking(room, wanted) == Obstacle.SLOTS
    assert not room.has(wanted)
    blank = Room.of(Node("n-1", machine(), Free()), 1)
    assert blank.has(wanted) == (not asked)
    assert (fitting.lacking(blank, wanted) is None) == (not asked)
