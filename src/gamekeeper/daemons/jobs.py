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
from gamekeeper.store import job_queue, leases
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
    """Parked claims with their leases, ready jobs, and the load of each lane."""
    states = {state.lease.incarnation: state for state in leases.agents(r)} if waiting else {}
    agents = tuple(
        work_distributor.WaitingAgent(
            node_id=one.node_id,
            incarnation=one.incarnation,
            free_slots=max(0, min(one.slots, states[one.incarnation].slots - states[one.incarnation].busy)),
            lease_expires_at=states[one.incarnation].lease.expires_at,
        )
        for one in waiting
        if one.incarnation in states and not states[one.incarnation].reaped
    )
    jobs = tuple(
        work_distributor.ReadyJob(
            job.id, job.spec.kind, job.spec.purpose, job.spec.line, job.created_at, job.not_before
        )
        for job in job_queue.waiting(r, JOBS_PER_PASS)
    )
    running = tuple(
        work_distributor.LaneLoad(count.line, count.kind, count.purpose, count.n)
        for count in job_queue.counts(r)
        if count.state is JobState.RUNNING
    )
    return work_distributor.View(agents, jobs, running, draining=looks.draining(r))


def distributor(
    duty: Duty, waiting: Callable[[], Sequence[Waiting]], wake: Callable[[str], None]
) -> Daemon[work_distributor.View]:
    """Matches waiting agents and ready jobs in batches; `wake` tells a parked claim to look again."""
    limits = work_distributor.Limits()

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
