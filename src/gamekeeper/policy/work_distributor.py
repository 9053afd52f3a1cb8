"""Which waiting agent is granted which ready job.

One pass matches all waiting agents with all ready jobs. Jobs queue in lanes, one for each line and kind of work. Free
slots go, one after the other, to the lane with the least cost

    (running + 1) / weight / (1 + waited / ageing_s)

where `running` counts the lane's live jobs, the ones granted in this pass included, and `waited` is how long its oldest
due job has been ready. The first factor is weighted fair queueing: over time each busy lane holds slots in
proportion to its weight. The second makes every lane's cost fall while it waits, so that nothing starves, whatever
the weights. There are no priorities. Within a lane the oldest job goes first. Ties fall by line, lane and id, so
the same view always gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.decisions import Decision, Evidence, Verdict

POLICY = "work_distributor"


@dataclass(frozen=True, slots=True)
class WaitingAgent:
    """An agent that asks for work: one for each node, its current incarnation.

    `free_slots` is how many jobs it can start now; `lease_expires_at` ends its lease (seconds since the epoch).
    """

    node_id: str
    incarnation: str
    free_slots: int
    lease_expires_at: float


@dataclass(frozen=True, slots=True)
class ReadyJob:
    """A job in state ready. It may not be granted before `not_before`."""

    job_id: int
    kind: str
    purpose: str
    line: str
    created_at: float
    not_before: float = 0.0


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """How many jobs of one line, kind and purpose run (hold a live attempt)."""

    line: str
    kind: str
    purpose: str
    running: int


@dataclass(frozen=True, slots=True)
class View:
    """Waiting agents, ready jobs, running counts; `draining` when nothing shall be granted any more."""

    agents: tuple[WaitingAgent, ...]
    jobs: tuple[ReadyJob, ...]
    running: tuple[LaneLoad, ...] = ()
    draining: bool = False


def _default_weights() -> Mapping[str, float]:
    return {"found": 8.0, "train": 4.0, "evaluate": 4.0, "evaluate/rating": 1.0, "selfplay": 1.0}


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares of the slots.

    weights: by kind, or by "kind/purpose" where that is more exact; each > 0. Training and evaluation hand their
    result to all later games, so they get ahead of self-play; ratings are for people and wait like self-play.
    default_weight: for kinds not named. line_weights: by line, 1 where not named.
    ageing_s: after how many seconds of waiting a lane counts as if its weight had doubled.
    grants_per_pass: bound of one pass; the next one follows at once.
    """

    weights: Mapping[str, float] = field(default_factory=_default_weights)
    default_weight: float = 1.0
    line_weights: Mapping[str, float] = field(default_factory=dict)
    ageing_s: float = 60.0
    grants_per_pass: int = 500


class Reason(StrEnum):
    """Why a job was granted or waits, and why a node got work or none."""

    GRANTED = "granted"
    NO_FREE_SLOT = "no-free-slot"
    NO_AGENT = "no-agent"
    NOT_BEFORE = "not-before"
    PASS_FULL = "pass-full"
    DRAINING = "draining"
    FILLED = "filled"
    NO_WORK = "no-work"
    NOTHING_DUE = "nothing-due"
    NO_SLOT_OFFERED = "no-slot-offered"
    LEASE_OVER = "lease-over"


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Match agents and jobs."""
    raise NotImplementedError
