"""Which waiting agent is granted which ready job.

One pass matches all waiting agents with all ready jobs. Jobs queue in lanes, one for each line and kind of work. Free
slots go, one after the other, to the lane with the least cost

    (running + 1) / weight / (1 + waited / ageing_s)

where `running` counts the lane's live jobs, the ones granted in this pass included, and `waited` is how long the lane
has gone without a grant while a job of it was due. The first part is weighted fair sharing: where slots abound, each
busy lane holds them in proportion to its weight. The second makes every lane's cost fall while it waits, so that
nothing starves, whatever the weights and however few the slots. There are no priorities. Within a lane the oldest job
goes first. Ties fall by line, lane and id, so the same view always gives the same answer.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.decisions import Decision, Evidence, Verdict, counted
from gamekeeper.core.errors import SettingsError

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
    """How many jobs of one line, kind and purpose run (hold a live attempt).

    `last_granted_at`: when the latest of them was granted, `None` where that is not known.
    """

    line: str
    kind: str
    purpose: str
    running: int
    last_granted_at: float | None = None


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
    ageing_s: after how many seconds without a grant a lane counts as if its weight had doubled.
    grants_per_pass: bound of one pass; the next one follows at once.
    """

    weights: Mapping[str, float] = field(default_factory=_default_weights)
    default_weight: float = 1.0
    line_weights: Mapping[str, float] = field(default_factory=dict)
    ageing_s: float = 60.0
    grants_per_pass: int = 500

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a number that would shut a lane or the whole pass."""
        shares = {"default_weight": self.default_weight, "ageing_s": self.ageing_s}
        shares |= {f"weights.{name}": weight for name, weight in self.weights.items()}
        shares |= {f"line_weights.{name}": weight for name, weight in self.line_weights.items()}
        for name, number in shares.items():
            if not 0 < number < float("inf"):
                raise SettingsError(
                    f"distribution.{name} is {number}: a share must be greater than 0",
                    remedy="give it a small positive number instead; no lane may be shut out",
                )
        if self.grants_per_pass < 1:
            raise SettingsError(
                f"distribution.grants_per_pass is {self.grants_per_pass}: nothing could ever be granted",
                remedy="set it to 1 or more",
            )

    def lane(self, kind: str, purpose: str) -> str:
        """The lane a job queues in: "kind/purpose" when that has a weight of its own, else its kind."""
        exact = f"{kind}/{purpose}"
        return exact if exact in self.weights else kind

    def weight(self, line: str, lane: str) -> float:
        """The share of a lane within a line."""
        return self.weights.get(lane, self.default_weight) * self.line_weights.get(line, 1.0)

    def origin(self, lane: str) -> str:
        """The setting that a lane's weight comes from."""
        return f"distribution.weights.{lane}" if lane in self.weights else "distribution.default_weight"


class Reason(StrEnum):
    """Why a job was granted or waits, and why a node got work or none."""

    GRANTED = "granted"
    NO_FREE_SLOT = "no-free-slot"
    NO_AGENT = "no-agent"
    NOT_BEFORE = "not-before"
    BATCH_FULL = "batch-full"
    DRAINING = "draining"
    FILLED = "filled"
    NO_WORK = "no-work"
    NOTHING_DUE = "nothing-due"
    NO_SLOT_OFFERED = "no-slot-offered"
    LEASE_OVER = "lease-over"


@dataclass(slots=True)
class _Lane:
    """The due jobs of one line and lane, oldest first, while a pass hands them out."""

    line: str
    name: str
    running: int
    weight: float
    last_granted_at: float
    jobs: list[ReadyJob]
    given: int = 0

    def waited(self, now: float) -> float:
        """Seconds without a grant; a lane's backlog of old jobs is one wait, not many."""
        return 0.0 if self.given else max(0.0, now - max(self.last_granted_at, _due_at(self.jobs[0])))

    def cost(self, ageing_s: float, now: float) -> float:
        return (self.running + self.given + 1) / self.weight / (1 + self.waited(now) / ageing_s)


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass after matching: what the verdicts speak about."""

    view: View
    limits: Limits
    now: float
    due: int
    free: int
    grants: list[GrantJob]


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Match agents and jobs: grants in the order they were chosen, a verdict for each job and each node."""
    due = [job for job in view.jobs if job.not_before <= now]
    takers = [agent for agent in view.agents if _takes(agent, now)]
    lanes = _lanes(due, view.running, limits)
    grants = [] if view.draining else _match(lanes, takers, limits, now)
    done = _Pass(view, limits, now, len(due), sum(agent.free_slots for agent in takers), grants)
    granted = {grant.job_id: grant for grant in grants}
    lane_of = {job.job_id: lane for lane in lanes for job in lane.jobs}
    given = Counter((grant.node_id, grant.incarnation) for grant in grants)
    verdicts = [
        _job_verdict(job, lane_of.get(job.job_id), granted.get(job.job_id), done)
        for job in sorted(view.jobs, key=lambda job: job.job_id)
    ]
    verdicts += [
        _node_verdict(agent, given[agent.node_id, agent.incarnation], done)
        for agent in sorted(view.agents, key=lambda agent: (agent.node_id, agent.incarnation))
    ]
    return Decision(POLICY, now, tuple(verdicts), tuple(grants))


def _takes(agent: WaitingAgent, now: float) -> bool:
    return agent.free_slots > 0 and agent.lease_expires_at > now


def _due_at(job: ReadyJob) -> float:
    return max(job.created_at, job.not_before)


def _lanes(due: list[ReadyJob], running: tuple[LaneLoad, ...], limits: Limits) -> list[_Lane]:
    loads: Counter[tuple[str, str]] = Counter()
    granted: dict[tuple[str, str], float] = {}
    for load in running:
        key = load.line, limits.lane(load.kind, load.purpose)
        loads[key] += load.running
        granted[key] = max(granted.get(key, float("-inf")), load.last_granted_at or float("-inf"))
    lanes: dict[tuple[str, str], _Lane] = {}
    for job in sorted(due, key=lambda job: (job.created_at, job.job_id)):
        key = job.line, limits.lane(job.kind, job.purpose)
        if key not in lanes:
            served = granted.get(key, float("-inf"))
            lanes[key] = _Lane(*key, loads[key], limits.weight(*key), served, [])
        lanes[key].jobs.append(job)
    return [lanes[key] for key in sorted(lanes)]


def _match(lanes: list[_Lane], takers: list[WaitingAgent], limits: Limits, now: float) -> list[GrantJob]:
    """Give each free slot to the cheapest lane, on the node with the most free slots left."""
    agents = [(-agent.free_slots, agent.node_id, agent.incarnation) for agent in takers]
    queue = [(lane.cost(limits.ageing_s, now), index) for index, lane in enumerate(lanes)]
    heapq.heapify(agents)
    heapq.heapify(queue)
    grants: list[GrantJob] = []
    while agents and queue and len(grants) < limits.grants_per_pass:
        _, index = heapq.heappop(queue)
        lane = lanes[index]
        left, node_id, incarnation = heapq.heappop(agents)
        grants.append(GrantJob(lane.jobs[lane.given].job_id, node_id, incarnation))
        lane.given += 1
        if lane.given < len(lane.jobs):
            heapq.heappush(queue, (lane.cost(limits.ageing_s, now), index))
        if left + 1 < 0:
            heapq.heappush(agents, (left + 1, node_id, incarnation))
    return grants


def _job_verdict(job: ReadyJob, lane: _Lane | None, grant: GrantJob | None, done: _Pass) -> Verdict:
    subject = f"job/{job.job_id}"
    if done.view.draining:
        return Verdict(subject, Reason.DRAINING, "left alone: the coordinator is draining", acted=False)
    if lane is None:
        wait = Evidence("now", done.now, job.not_before, "retry delay")
        sentence = f"left alone: it may not start for another {job.not_before - done.now:.1f} s"
        return Verdict(subject, Reason.NOT_BEFORE, sentence, acted=False, evidence=(wait,))
    bound = done.limits.grants_per_pass
    waited = round(max(0.0, done.now - _due_at(job)), 1)
    evidence = (
        Evidence("slots of its lane", lane.running + lane.given),
        Evidence("weight of its lane", lane.weight, None, done.limits.origin(lane.name)),
        Evidence("seconds waited", waited, done.limits.ageing_s, "distribution.ageing_s"),
        Evidence("free slots", done.free, bound, "distribution.grants_per_pass"),
    )
    place = f"lane {lane.line}/{lane.name}"
    if grant is not None:
        return Verdict(
            subject, Reason.GRANTED, f"granted to node {grant.node_id} for {place}", True, evidence
        )
    if done.free == 0:
        return Verdict(subject, Reason.NO_AGENT, "waits: no agent offers a slot", False, evidence)
    if done.free > bound:
        return Verdict(
            subject, Reason.BATCH_FULL, f"waits: one pass grants {counted(bound, 'job')}", False, evidence
        )
    sentence = f"waits: jobs before it, in {place} or a cheaper lane, took {counted(done.free, 'free slot')}"
    return Verdict(subject, Reason.NO_FREE_SLOT, sentence, False, evidence)


def _node_verdict(agent: WaitingAgent, given: int, done: _Pass) -> Verdict:
    subject = f"node/{agent.node_id}"
    offered = Evidence("slots offered", agent.free_slots)
    if agent.lease_expires_at <= done.now:
        over = Evidence("now", done.now, agent.lease_expires_at, "lease_s")
        return Verdict(subject, Reason.LEASE_OVER, "given nothing: its lease is over", False, (over,))
    if agent.free_slots < 1:
        return Verdict(subject, Reason.NO_SLOT_OFFERED, "given nothing: it offers no slot", False, (offered,))
    if done.view.draining:
        return Verdict(
            subject, Reason.DRAINING, "given nothing: the coordinator is draining", False, (offered,)
        )
    evidence = (offered, Evidence("jobs granted", given), Evidence("jobs due", done.due))
    idle = agent.free_slots - given
    if idle == 0:
        return Verdict(
            subject, Reason.FILLED, f"{counted(given, 'slot')} offered, all filled", True, evidence
        )
    if done.due > len(done.grants):
        sentence = f"{counted(idle, 'slot')} left for the next pass"
        return Verdict(subject, Reason.BATCH_FULL, sentence, given > 0, evidence)
    later = len(done.view.jobs) - done.due
    if later > 0:
        sentence = f"{counted(idle, 'slot')} idle: nothing is due yet, {counted(later, 'job')} later"
        return Verdict(subject, Reason.NOTHING_DUE, sentence, given > 0, evidence)
    return Verdict(
        subject, Reason.NO_WORK, f"{counted(idle, 'slot')} idle: no further job is ready", given > 0, evidence
    )
