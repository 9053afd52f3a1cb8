"""Who works on what: the distributor grants ready jobs to waiting agents, the reaper ends what a lost agent held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gamekeeper.core.actions import EndAttempt, GrantJob
from gamekeeper.core.jobs import JobState
from gamekeeper.daemons import looks
from gamekeeper.daemons.duty import Duty
from gamekeeper.policy import job_reaper, work_distributor
from gamekeeper.runtime.daemon import Daemon
from gamekeeper.runtime.executor import Outcome
from gamekeeper.store import inventory, job_classes, job_queue, leases
from gamekeeper.store.decisions import Outcome as Applied
from gamekeeper.store.session import Reading

JOBS_PER_PASS = 1000
REST_S = 0.01


@dataclass(frozen=True, slots=True)
class Waiting:
    """A parked claim, as the distributor sees it."""

    node_id: str
    incarnation: str
    slots: int


def distribution_view(r: Reading, waiting: Sequence[Waiting]) -> work_distributor.View:
    """Parked claims with their nodes, the other nodes, and all classes of jobs with the oldest of each."""
    standings = {one.node_id: one for one in inventory.standings(r)}
    nodes = {node_id: _node(standing) for node_id, standing in standings.items()}
    agents = tuple(
        work_distributor.WaitingAgent(
            node=nodes[one.node_id],
            incarnation=one.incarnation,
            lease_expires_at=standings[one.node_id].lease_expires_at,
            free_slots=max(
                0, min(one.slots, nodes[one.node_id].capacity.slots - nodes[one.node_id].busy_slots)
            ),
        )
        for one in waiting
        if one.node_id in standings and standings[one.node_id].incarnation == one.incarnation
    )
    free = sum(agent.free_slots for agent in agents)
    most = max(1, min(free, JOBS_PER_PASS))
    classes = tuple(_job_class(r, one, most) for one in job_classes.live(r))
    return work_distributor.View(agents, classes, tuple(nodes.values()), draining=looks.draining(r))


def _node(standing: inventory.Standing) -> work_distributor.Node:
    running = tuple(work_distributor.Occupant(asked, gpus) for asked, gpus in standing.taken)
    return work_distributor.Node(
        node_id=standing.node_id,
        capacity=standing.capacity,
        free=work_distributor.Free.beside(standing.capacity, running),
        busy_slots=len(running),
        target_slots=standing.target_slots,
        reachable=standing.incarnation is not None,
        running=running,
    )


def _job_class(r: Reading, one: job_classes.JobClass, most: int) -> work_distributor.JobClass:
    ready = one.counts.get(JobState.READY, 0)
    later = job_classes.later(r, one.id) if ready else job_classes.Later(0, None)
    heads = job_classes.due(r, one.id, most) if ready > later.n else []
    return work_distributor.JobClass(
        class_id=one.id,
        line=one.line,
        kind=one.kind,
        purpose=one.purpose,
        producer=one.producer,
        share=one.share,
        requirements=one.requirements,
        due=ready - later.n,
        later=later.n,
        held=one.counts.get(JobState.HELD, 0),
        running=one.counts.get(JobState.RUNNING, 0),
        last_granted_at=one.last_granted_at,
        heads=tuple(
            work_distributor.ReadyJob(job.job_id, job.created_at, job.due_since, job.inputs, job.deadline)
            for job in heads
        ),
        next_due_at=later.earliest,
    )


def distributor(
    duty: Duty,
    limits: work_distributor.Limits,
    waiting: Callable[[], Sequence[Waiting]],
    wake: Callable[[str], None],
) -> Daemon[work_distributor.View]:
    """Matches waiting agents and ready jobs in batches; `wake` tells a parked claim to look again."""

    async def gather() -> work_distributor.View:
        offers = list(waiting())
        return await duty.store.aread(lambda r: distribution_view(r, offers))

    def granted(outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.action, GrantJob) and outcome.result is Applied.APPLIED:
                wake(outcome.action.incarnation)

    return Daemon(
        name=work_distributor.POLICY,
        every_s=1.0,
        rest_s=REST_S,
        gather=gather,
        decide=lambda view, now: work_distributor.decide(view, limits, now),
        apply=duty.applying(granted),
    )


def reaper_view(r: Reading, serving_since: float) -> job_reaper.View:
    """All leases and all live attempts."""
    return job_reaper.View(
        leases=tuple(
            job_reaper.NodeLease(
                state.lease.node_id,
                state.lease.incarnation,
                state.since,
                state.lease.expires_at,
                state.reaped,
            )
            for state in leases.agents(r)
        ),
        attempts=tuple(
            job_reaper.HeldAttempt(one.id, one.token, one.job_id, one.node_id, one.incarnation, one.leased_at)
            for one in job_queue.live_attempts(r)
        ),
        serving_since=serving_since,
    )


def reaper(
    duty: Duty,
    *,
    lease_s: float,
    every_s: float,
    serving_since: Callable[[], float],
    ended: Callable[[Sequence[EndAttempt]], Awaitable[None]],
) -> Daemon[job_reaper.View]:
    """Ends attempts whose lease is over; `ended` is told which."""
    limits = job_reaper.Limits(lease_s=lease_s)

    async def gather() -> job_reaper.View:
        return await duty.store.aread(lambda r: reaper_view(r, serving_since()))

    async def after(outcomes: Sequence[Outcome]) -> None:
        over = [
            one.action
            for one in outcomes
            if isinstance(one.action, EndAttempt) and one.result is Applied.APPLIED
        ]
        if over:
            await ended(over)

    return Daemon(
        name=job_reaper.POLICY,
        every_s=every_s,
        gather=gather,
        decide=lambda view, now: job_reaper.decide(view, limits, now),
        apply=duty.applying(after),
    )
