"""No node is given more than it has, whatever a match says: the grant itself looks once more."""

from __future__ import annotations

import pytest

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.errors import StaleToken
from gamekeeper.core.requirements import Capacity, Gpu, GpuShare, Requirements, overcommitted
from gamekeeper.store import inventory, job_queue
from gamekeeper.store.granting import Granted, grant_many
from tests.unit.store.rig import Rig, spec

GIB = 1 << 30
ONE = Capacity(8, cpus=4.0, memory_bytes=8 * GIB, gpus=(Gpu("h", 80 * GIB),))


def give(rig: Rig, *asked: tuple[Requirements, tuple[GpuShare, ...]], machine: Capacity = ONE) -> list[bool]:
    """Grant jobs that ask for this to one node, in one round: which came true."""
    node = rig.w(inventory.enrol, "host", 8, "credential").id
    rig.connect(node, "i1", slots=8)
    rig.store.write(lambda w: inventory.set_machine(w, node, machine))
    jobs = [rig.w(job_queue.submit, spec(requirements=each))[0] for each, _ in asked]
    grants = [GrantJob(job, node, "i1", parts) for job, (_, parts) in zip(jobs, asked, strict=True)]
    answers = rig.store.write(lambda w: grant_many(w, grants))
    assert all(isinstance(each, Granted | StaleToken) for each in answers)
    return [isinstance(each, Granted) for each in answers]


def half(index: int = 0, share: float = 0.5) -> tuple[Requirements, tuple[GpuShare, ...]]:
    return Requirements(gpus=share), (GpuShare(index, share),)


def test_a_device_is_never_shared_out_twice(rig: Rig) -> None:
    """Breaks if two passes that saw the same free device both get it."""
    assert give(rig, half(), half(), half(share=0.1)) == [True, True, False]


def test_a_device_that_is_not_there_is_not_given(rig: Rig) -> None:
    """Breaks if a job is told to use a device its node lacks, or asks for one and gets none."""
    assert give(rig, half(index=1), (Requirements(gpus=1.0), ()), half()) == [False, False, True]


def test_processors_and_memory_are_counted(rig: Rig) -> None:
    """Breaks if only devices are."""
    asked = [(Requirements(cpus=3.0, memory_bytes=GIB), ()), (Requirements(cpus=2.0), ())]
    assert give(rig, *asked, (Requirements(memory_bytes=7 * GIB), ())) == [True, False, True]


def test_what_nobody_measured_is_not_given(rig: Rig) -> None:
    """Breaks if unknown counts as enough."""
    asked = [(Requirements(disk_bytes=1), ()), (Requirements(cpus=1.0), ())]
    # The node measured its processors, and nobody its disk.
    assert give(rig, *asked, machine=Capacity(8)) == [False, True]


@pytest.mark.parametrize(
    ("taken", "lacking"),
    [
        ([(Requirements(cpus=4.0), ())], ""),
        ([(Requirements(cpus=2.5), ()), (Requirements(cpus=2.5), ())], "cpus"),
        ([(Requirements(memory_bytes=9 * GIB), ())], "memory_bytes"),
        ([(Requirements(disk_bytes=1), ())], "disk_bytes"),
        ([half(share=0.6), half(share=0.6)], "gpus"),
    ],
)
def test_the_quantity_that_is_short_is_named(
    taken: list[tuple[Requirements, tuple[GpuShare, ...]]], lacking: str
) -> None:
    """Breaks if people are told of the wrong obstacle."""
    assert overcommitted(ONE, taken) == lacking
