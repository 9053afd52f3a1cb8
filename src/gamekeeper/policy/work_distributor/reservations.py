"""Room held for jobs that ask for much, so that a stream of smaller ones does not keep them out for ever.

A class that had no grant for long, and asks for more of something than others, has one node's room held for it: the
node where it fits now, else the one where its start can be told and is soonest, else the one that lacks least. Nobody
remembers a reservation: every pass finds it again, since what is held there only grows. Smaller jobs run beside it when
they leave what it needs, or are expected to be over before it can start; larger ones, and those more urgent, compete
for the room as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from gamekeeper.core.requirements import Requirements
from gamekeeper.policy.work_distributor.fitting import GRAIN, Room
from gamekeeper.policy.work_distributor.shares import Entry


@dataclass(slots=True)
class Hold:
    """A node's room held for a class that may start there at `starts_at`; `None` where nobody can say when."""

    entry: Entry
    room: Room
    starts_at: float | None

    def admits(self, other: Entry, now: float) -> bool:
        """Whether a job of another class may take of the held room, provided it fits."""
        asked, held = other.ask.requirements, self.entry.ask.requirements
        if other is self.entry or not smaller(asked, held):
            return True
        if other.stuck and other.urgency > self.entry.urgency:
            return True
        expected = other.job_class.expected_s
        if self.starts_at is not None and expected is not None and now + expected <= self.starts_at:
            return True
        return _leaves(self.room, asked, held)


def _sizes(asked: Requirements) -> tuple[float, ...]:
    return asked.gpus, asked.gpu_memory_bytes, asked.cpus, asked.memory_bytes, asked.disk_bytes


def smaller(asked: Requirements, than: Requirements) -> bool:
    """Whether one asks for less of anything that the other asks for."""
    return any(mine < other for mine, other in zip(_sizes(asked), _sizes(than), strict=True))


def _leaves(room: Room, asked: Requirements, held: Requirements) -> bool:
    gpus = room.placed(asked)
    if gpus is None:
        return False
    rest = room.copy()
    rest.take(asked, gpus)
    # Only what both ask for is contested; what the job does not touch cannot be missed because of it.
    contested = Requirements(
        gpus=held.gpus if asked.gpus else 0.0,
        gpu_memory_bytes=held.gpu_memory_bytes if asked.gpus else 0,
        cpus=held.cpus if asked.cpus else 0.0,
        memory_bytes=held.memory_bytes if asked.memory_bytes else 0,
        disk_bytes=held.disk_bytes if asked.disk_bytes else 0,
    )
    return rest.has(contested)


def candidates(entries: Iterable[Entry]) -> list[Entry]:
    """Classes that room may be held for, most urgent first."""
    known = list(entries)
    if not any(entry.stuck for entry in known):
        return []
    sizes = [_sizes(entry.ask.requirements) for entry in known]
    least = [min(column) for column in zip(*sizes, strict=True)]
    large = [
        entry
        for entry, size in zip(known, sizes, strict=True)
        if entry.stuck and any(mine > other for mine, other in zip(size, least, strict=True))
    ]
    return sorted(large, key=lambda entry: (-entry.urgency, entry.job_class.class_id))


def missing(room: Room, asked: Requirements) -> float:
    """How much must become free before a job fits: the part of the machine lacking, of all it asks for."""
    capacity = room.node.capacity
    lack = 0.0 if room.slots > 0 else 1 / max(1, capacity.slots)
    for wanted, free, total in (
        (asked.cpus, room.cpus, capacity.cpus),
        (asked.memory_bytes, room.memory, capacity.memory_bytes),
        (asked.disk_bytes, room.disk, capacity.disk_free_bytes),
    ):
        if wanted:
            lack += max(0.0, wanted - (free or 0)) / max(total or 0, wanted)
    if asked.gpus and room.placed(asked) is None:
        free_shares = sorted(room.gpus or (), reverse=True)[: max(1, int(asked.gpus))]
        lack += max(0.0, asked.gpus - math.fsum(free_shares)) / max(1, len(room.gpus or ()))
    return round(lack, GRAIN)


def start(room: Room, asked: Requirements) -> float | None:
    """When a job could start there by what is known of the jobs that run, `None` where that is not known."""
    rest = room.copy()
    for one in sorted(
        (one for one in room.node.running if one.ends_at is not None), key=lambda one: one.ends_at or 0.0
    ):
        rest.slots += 1
        rest.change(one.requirements, one.gpus, 1)
        if rest.has(asked):
            return one.ends_at
    return None


def soonest(rooms: Iterable[Room], asked: Requirements) -> tuple[Room, float | None] | None:
    """The node to hold, of those that would fit when empty, and when the job could start there."""
    best: tuple[tuple[float, float, str], Room, float | None] | None = None
    for room in rooms:
        at = start(room, asked) if room.node.running else None
        key = (math.inf if at is None else at, missing(room, asked), room.node.node_id)
        if best is None or key < best[0]:
            best = key, room, at
    return None if best is None else best[1:]
