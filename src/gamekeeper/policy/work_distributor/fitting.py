"""Whether a machine has what a job asks for, for ever or now, and which of its devices the job would get.

A pass compares many jobs with many machines. What decides a fit is only how a machine's quantities rank among the
quantities that are asked for at all, so machines are told apart by ranks: thousands of them make a few kinds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.requirements import Capacity, GpuShare, Requirements
from gamekeeper.policy.work_distributor.view import Free, Node

UNKNOWN = -2
NOT_ASKED = -1
GRAIN = 6
SLACK = 10.0**-GRAIN
MIB = 1 << 20


class Obstacle(StrEnum):
    """The requirement that a machine does not meet; the words stand in sentences."""

    SLOTS = "no slot"
    LABELS = "other labels"
    ARCHITECTURE = "another architecture"
    LASTING = "not lasting"
    GPUS = "too few GPUs"
    GPU_MEMORY = "too little GPU memory"
    CPUS = "too few CPUs"
    MEMORY = "too little memory"
    DISK = "too little disk"
    UNKNOWN_ARCHITECTURE = "unknown architecture"
    UNKNOWN_GPUS = "unknown GPUs"
    UNKNOWN_GPU_MEMORY = "unknown GPU memory"
    UNKNOWN_CPUS = "unknown CPUs"
    UNKNOWN_MEMORY = "unknown memory"
    UNKNOWN_DISK = "unknown disk"


UNKNOWNS = frozenset(one for one in Obstacle if one.name.startswith("UNKNOWN"))


def device_share(asked: Requirements, memory_bytes: int | None) -> float | None:
    """The part of a device with that much memory that a job takes, or `None` where it does not fit or is not known.

    On a shared device, asking for more of its memory than of the device itself takes the larger part: so the free
    shares stand for free memory too.
    """
    if asked.gpu_memory_bytes:
        if memory_bytes is None or asked.gpu_memory_bytes > memory_bytes:
            return None
        return min(1.0, max(asked.gpus, asked.gpu_memory_bytes / memory_bytes))
    return min(1.0, asked.gpus)


def place(
    asked: Requirements, memories: Sequence[int | None], free: Sequence[float]
) -> tuple[GpuShare, ...] | None:
    """The devices a job gets, by best fit, or `None` where there are not enough.

    Whole devices come from those nobody uses; a part comes first from a device already shared. Where several do, it is
    the one with least left over, then the least memory, then the lowest index.
    """
    if not asked.gpus:
        return ()
    found: list[tuple[bool, float, int, int, float]] = []
    for index, (memory, left) in enumerate(zip(memories, free, strict=True)):
        share = device_share(asked, memory)
        if share is None or left < share - SLACK:
            continue
        found.append((left > 1 - SLACK, round(left - share, GRAIN), memory or 0, index, share))
    number = max(1, int(asked.gpus))
    if len(found) < number:
        return None
    return tuple(GpuShare(index, share) for *_, index, share in sorted(found)[:number])


def obstacle(asked: Requirements, capacity: Capacity) -> Obstacle | None:
    """What keeps a job off a machine even when it is empty: the first requirement not met, `None` where all are."""
    if capacity.slots < 1:
        return Obstacle.SLOTS
    if any(capacity.labels.get(name) != value for name, value in asked.labels):
        return Obstacle.LABELS
    unknown: Obstacle | None = None
    if asked.architectures and capacity.architecture not in asked.architectures:
        if capacity.architecture is not None:
            return Obstacle.ARCHITECTURE
        unknown = Obstacle.UNKNOWN_ARCHITECTURE
    if asked.lasting and capacity.ephemeral:
        return Obstacle.LASTING
    return _of_quantities(asked, capacity) or unknown


def _of_quantities(asked: Requirements, capacity: Capacity) -> Obstacle | None:
    unknown: Obstacle | None = None
    if asked.gpus:
        found = _of_gpus(asked, capacity)
        if found in UNKNOWNS:
            unknown = found
        elif found is not None:
            return found
    for wanted, there, short, unmeasured in (
        (asked.cpus, capacity.cpus, Obstacle.CPUS, Obstacle.UNKNOWN_CPUS),
        (asked.memory_bytes, capacity.memory_bytes, Obstacle.MEMORY, Obstacle.UNKNOWN_MEMORY),
        (asked.disk_bytes, capacity.disk_free_bytes, Obstacle.DISK, Obstacle.UNKNOWN_DISK),
    ):
        if wanted and there is None:
            unknown = unknown or unmeasured
        elif wanted and there is not None and there < wanted - SLACK:
            return short
    return unknown


def _of_gpus(asked: Requirements, capacity: Capacity) -> Obstacle | None:
    if capacity.gpus is None:
        return Obstacle.UNKNOWN_GPUS
    number = max(1, int(asked.gpus))
    if len(capacity.gpus) < number:
        return Obstacle.GPUS
    unmeasured = sum(gpu.memory_bytes is None for gpu in capacity.gpus)
    fitting = sum(device_share(asked, gpu.memory_bytes) is not None for gpu in capacity.gpus)
    if fitting >= number:
        return None
    return Obstacle.UNKNOWN_GPU_MEMORY if fitting + unmeasured >= number else Obstacle.GPU_MEMORY


Ranks = tuple[int, int, int]
State = tuple[int, int, Ranks, tuple[tuple[int, float], ...] | None]
"""What tells rooms apart: kind of machine, free slots, ranks of CPUs, memory and disk, devices (memory, free share)."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The distinct quantities that any job asks for, in order; a machine's quantity is replaced by its rank."""

    cpus: tuple[float, ...]
    memory: tuple[int, ...]
    disk: tuple[int, ...]

    @classmethod
    def of(cls, asked: Iterable[Requirements]) -> Scale:
        """The scale of all requirements of a pass."""
        known = list(asked)
        return cls(
            tuple(sorted({one.cpus for one in known if one.cpus})),
            tuple(sorted({one.memory_bytes for one in known if one.memory_bytes})),
            tuple(sorted({one.disk_bytes for one in known if one.disk_bytes})),
        )

    def ranks(self, cpus: float | None, memory: int | None, disk: int | None) -> Ranks:
        """How many of the asked quantities each is enough for, less one; `UNKNOWN` where it is not known."""
        return _rank(self.cpus, cpus), _rank(self.memory, memory), _rank(self.disk, disk)

    def needed(self, asked: Requirements) -> Ranks:
        """The ranks a machine must reach; `NOT_ASKED` where any will do."""
        return (
            self.cpus.index(asked.cpus) if asked.cpus else NOT_ASKED,
            self.memory.index(asked.memory_bytes) if asked.memory_bytes else NOT_ASKED,
            self.disk.index(asked.disk_bytes) if asked.disk_bytes else NOT_ASKED,
        )


def _rank(scale: tuple[float, ...] | tuple[int, ...], quantity: float | None) -> int:
    if not scale:
        return NOT_ASKED
    return UNKNOWN if quantity is None else bisect_right(scale, quantity + SLACK) - 1


def enough(needed: Ranks, ranks: Ranks) -> bool:
    """Whether ranks reach those needed; where nothing is asked, unknown is enough."""
    return (
        (needed[0] == NOT_ASKED or ranks[0] >= needed[0])
        and (needed[1] == NOT_ASKED or ranks[1] >= needed[1])
        and (needed[2] == NOT_ASKED or ranks[2] >= needed[2])
    )


@dataclass(slots=True)
class Room:
    """What is free on one node, as it shrinks while a pass hands it out."""

    node: Node
    slots: int
    cpus: float | None
    memory: int | None
    disk: int | None
    gpus: list[float] | None
    given: int = 0
    state: State | None = None
    order: int = 0
    memories: tuple[int | None, ...] = field(default=())

    @classmethod
    def of(cls, node: Node, slots: int) -> Room:
        """The room that `slots` free slots of a node offer. Devices whose free share is not known count as taken."""
        free: Free = node.free
        devices = node.capacity.gpus
        gpus = None if devices is None or free.gpus is None else list(free.gpus[: len(devices)])
        if gpus is not None and devices is not None:
            gpus += [0.0] * (len(devices) - len(gpus))
        memories = () if gpus is None or devices is None else tuple(gpu.memory_bytes for gpu in devices)
        return cls(node, slots, free.cpus, free.memory_bytes, free.disk_bytes, gpus, memories=memories)

    def has(self, asked: Requirements) -> bool:
        """Whether what is free now is enough; says nothing of labels and the like."""
        return (
            self.slots > 0
            and (not asked.cpus or (self.cpus is not None and self.cpus >= asked.cpus - SLACK))
            and (not asked.memory_bytes or (self.memory is not None and self.memory >= asked.memory_bytes))
            and (not asked.disk_bytes or (self.disk is not None and self.disk >= asked.disk_bytes))
            and self.placed(asked) is not None
        )

    def placed(self, asked: Requirements) -> tuple[GpuShare, ...] | None:
        """The devices a job would get now."""
        if not asked.gpus:
            return ()
        return None if self.gpus is None else place(asked, self.memories, self.gpus)

    def take(self, asked: Requirements, gpus: Iterable[GpuShare]) -> None:
        """Hand out a slot with what a job asks for."""
        self.slots -= 1
        self.change(asked, gpus, -1)

    def change(self, asked: Requirements, gpus: Iterable[GpuShare], sign: int) -> None:
        """Add (sign 1) or take away (sign -1) what a job holds besides its slot."""
        if self.cpus is not None:
            self.cpus += sign * asked.cpus
        if self.memory is not None:
            self.memory += sign * asked.memory_bytes
        if self.disk is not None:
            self.disk += sign * asked.disk_bytes
        if self.gpus is not None:
            for part in gpus:
                if part.index < len(self.gpus):
                    self.gpus[part.index] = round(self.gpus[part.index] + sign * part.share, GRAIN)

    def copy(self) -> Room:
        """A room to try things on."""
        gpus = None if self.gpus is None else list(self.gpus)
        return Room(self.node, self.slots, self.cpus, self.memory, self.disk, gpus, memories=self.memories)


def lacking(room: Room, asked: Requirements) -> Obstacle | None:
    """What a machine that would fit when empty has too little of now; a slot comes first."""
    if room.slots < 1:
        return Obstacle.SLOTS
    if asked.gpus and room.placed(asked) is None:
        return Obstacle.GPUS
    for wanted, there, short in (
        (asked.cpus, room.cpus, Obstacle.CPUS),
        (asked.memory_bytes, room.memory, Obstacle.MEMORY),
        (asked.disk_bytes, room.disk, Obstacle.DISK),
    ):
        if wanted and (there is None or there < wanted - SLACK):
            return short
    return None
