"""What the distributor looks at: machines with what is free on them, and classes of jobs with their oldest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.requirements import Capacity, GpuShare, Requirements

POLICY = "work_distributor"


@dataclass(frozen=True, slots=True)
class Free:
    """What no job holds of a node now; `None` where it is not known.

    `gpus` is the free share of each device, in [0, 1], in the order of the node's `Capacity.gpus`.
    """

    cpus: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    gpus: tuple[float, ...] | None = None

    @classmethod
    def beside(cls, capacity: Capacity, occupants: Iterable[Occupant]) -> Free:
        """What is left of a machine beside the jobs that run on it; never less than nothing."""
        cpus, memory, disk = capacity.cpus, capacity.memory_bytes, capacity.disk_free_bytes
        gpus = None if capacity.gpus is None else [1.0] * len(capacity.gpus)
        for one in occupants:
            cpus = None if cpus is None else cpus - one.requirements.cpus
            memory = None if memory is None else memory - one.requirements.memory_bytes
            disk = None if disk is None else disk - one.requirements.disk_bytes
            for part in one.gpus if gpus is not None else ():
                if gpus is not None and part.index < len(gpus):
                    gpus[part.index] -= part.share
        return cls(
            None if cpus is None else max(0.0, cpus),
            None if memory is None else max(0, memory),
            None if disk is None else max(0, disk),
            None if gpus is None else tuple(round(max(0.0, share), 6) for share in gpus),
        )


@dataclass(frozen=True, slots=True)
class Occupant:
    """A job that runs on a node, what it takes, and when it is expected to end (`None`: nobody can say)."""

    requirements: Requirements
    gpus: tuple[GpuShare, ...] = ()
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A known machine.

    `target_slots`: never more than that many jobs on it; `busy_slots` run now. Until `excluded_until` it gets nothing,
    for `exclusion_cause`. `reachable` is `False` where no live lease of it is left. `cached` holds the hashes of
    artifacts it has, `failed_jobs` the jobs that failed on it, `running` what runs on it (needed only for estimates of
    when room becomes free).
    """

    node_id: str
    capacity: Capacity
    free: Free = Free()
    busy_slots: int = 0
    target_slots: int | None = None
    reachable: bool = True
    excluded_until: float | None = None
    exclusion_cause: str = ""
    cached: frozenset[str] = frozenset()
    failed_jobs: frozenset[int] = frozenset()
    running: tuple[Occupant, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitingAgent:
    """An agent that asks for work: a parked claim of one incarnation, on its node.

    `free_slots` is how many jobs it can start now; `lease_expires_at` ends its lease (seconds since the epoch).
    """

    node: Node
    incarnation: str
    lease_expires_at: float
    free_slots: int


@dataclass(frozen=True, slots=True)
class ReadyJob:
    """A job that may start now, and could since `due_at`. `inputs` are hashes; at `deadline` it is given up."""

    job_id: int
    created_at: float
    due_at: float
    inputs: frozenset[str] = frozenset()
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class JobClass:
    """Jobs alike in all that decides where they may run and whose turn it is.

    due, later, held: how many may start now, only after a time, only after a person lets them. running: how many hold a
    live attempt. last_granted_at: when the latest of them was granted, `None` where that is not known. heads: its
    oldest due jobs, as many as there are free slots. next_due_at: when the first of `later` becomes due. expected_s:
    how long one of them takes, `None` where nobody can say.
    """

    class_id: int
    line: str
    kind: str
    purpose: str = ""
    producer: str = ""
    share: float = 1.0
    requirements: Requirements = field(default_factory=Requirements)
    due: int = 0
    later: int = 0
    held: int = 0
    running: int = 0
    last_granted_at: float | None = None
    heads: tuple[ReadyJob, ...] = ()
    next_due_at: float | None = None
    expected_s: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Parked claims, job classes, and the other known nodes; `draining` when nothing shall be granted any more.

    `nodes` may leave out those that wait: they are known from their claims.
    """

    agents: tuple[WaitingAgent, ...]
    classes: tuple[JobClass, ...]
    nodes: tuple[Node, ...] = ()
    draining: bool = False


class Reason(StrEnum):
    """Why a job was granted, why the jobs of a class wait, and why a node got work or none."""

    GRANTED = "granted"
    # of a class
    NO_AGENT = "no-agent"
    BEHIND_OTHERS = "behind-others"
    BATCH_FULL = "batch-full"
    NO_ROOM = "no-room"
    RESERVED_FOR = "reserved-for"
    AVOIDS_FAILURE = "avoids-failure"
    UNSATISFIABLE = "unsatisfiable"
    UNKNOWN = "unknown"
    NOT_YET_DUE = "not-yet-due"
    DEADLINE_OVER = "deadline-over"
    HELD = "held"
    DRAINING = "draining"
    # of a node
    FILLED = "filled"
    NO_WORK = "no-work"
    NOTHING_DUE = "nothing-due"
    NOTHING_FITS = "nothing-fits"
    RESERVED = "reserved"
    NO_SLOT_OFFERED = "no-slot-offered"
    TARGET_REACHED = "target-reached"
    EXCLUDED = "excluded"
    LEASE_OVER = "lease-over"
    SECOND_CLAIM = "second-claim"
