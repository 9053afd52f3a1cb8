"""Who works on what: the distributor grants ready jobs to waiting agents, the reaper ends what a lost agent held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

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
AGENTS_PER_PASS = 1000
AGENTS_PER_JOB = 2
WIDE_EVERY_S = 0.25
EVERY_S = 1.0
REST_S = 0.01


class Waiting(Protocol):
    """A parked claim, as the distributor sees it."""

    @property
    def node_id(self) -> str: ...

    @property
    def incarnation(self) -> str: ...

    @property
    def slots(self) -> int: ...


class Offers(Protocol):
    """The parked claims."""

    def fresh(self, most: int) -> Sequence[Waiting]:
        """Those that no pass has looked at; each is handed out once."""

    def some(self, most: int) -> Sequence[Waiting]:
        """Up to `most` of all, in turn."""


def distribution_view(
    r: Reading, waiting: Sequence[Waiting], jobs_at_most: int = JOBS_PER_PASS
) -> work_distributor.View:
    """Parked claims with their leases, ready jobs, and the load of each lane."""
    states = {one.incarnation: leases.agent_of(r, one.node_id) for one in waiting}
    agents = tuple(
        work_distributor.WaitingAgent(
            node_id=one.node_id,
            incarnation=one.incarnation,
            free_slots=max(0, min(one.slots, state.slots - state.busy)),
            lease_expires_at=state.lease.expires_at,
        )
        for one in waiting
        if (state := states[one.incarnation]) is not None
        and state.lease.incarnation == one.incarnation
        and not state.reaped
    )
    jobs = tuple(
        work_distributor.ReadyJob(
            job.id, job.spec.kind, job.spec.purpose, job.spec.line, job.created_at, job.not_before
        )
        for job in job_queue.waiting(r, jobs_at_most)
    )
    running = tuple(
        work_distributor.LaneLoad(count.line, count.kind, count.purpose, count.n)
        for count in job_queue.counts(r)
        if count.state is JobState.RUNNING
    )
    return work_distributor.View(agents, jobs, running, draining=looks.draining(r))


class Span:
    """How many waiting agents a pass looks at: a few for each due job, more while jobs find no agent among them."""

    def __init__(self) -> None:
        self.wanted = 0
        self._width = 1
        self._wide_at = float("-inf")

    def agents(self, due: int, now: float) -> int:
        """Agents for a pass over `due` jobs. A wide look is dear, so it is taken a few times a second only."""
        width = self._width if now - self._wide_at >= WIDE_EVERY_S else 1
        if width > 1:
            self._wide_at = now
        return min(AGENTS_PER_PASS, AGENTS_PER_JOB * (due + 4) * width)

    def came_out(self, granted: int) -> None:
        """Widen when there were both jobs and agents, and fewer grants than of either."""
        self._width = min(AGENTS_PER_PASS, 4 * self._width) if granted < self.wanted else 1


def distributor(duty: Duty, offers: Offers, wake: Callable[[str], None]) -> Daemon[work_distributor.View]:
    """Matches waiting agents and ready jobs in batches; `wake` tells a parked claim to look again.

    While no job is due, a pass looks only at claims that came since the last one: ten thousand idle agents cost
    nothing. Otherwise it looks at a bounded number of them in turn.
    """
    limits = work_distributor.Limits()
    looked_at, span = float("-inf"), Span()

    async def gather() -> work_distributor.View | None:
        nonlocal looked_at
        due, now = await duty.store.aread(lambda r: (looks.due_jobs(r, JOBS_PER_PASS), r.now))
        whole = due > 0 or now - looked_at >= EVERY_S
        seen = offers.some(span.agents(due, now)) if due else offers.fresh(AGENTS_PER_PASS)
        span.wanted = min(due, len(seen))
        if not seen and not whole:
            return None
        if whole:
            looked_at = now
        return await duty.store.aread(lambda r: distribution_view(r, seen, JOBS_PER_PASS if whole else 1))

    def granted(outcomes: Sequence[Outcome]) -> None:
        applied = 0
        for outcome in outcomes:
            if isinstance(outcome.action, GrantJob) and outcome.result is Applied.APPLIED:
                applied += 1
                wake(outcome.action.incarnation)
        span.came_out(applied)

    return Daemon(
        name=work_distributor.POLICY,
        every_s=EVERY_S,
        rest_s=REST_S,
        gather=gather,
        decide=lambda view, now: work_distributor.decide(view, limits, now),
        apply=duty.applying(granted),
    )


def reaper_view(r: Reading, serving_since: float, again: Collection[str] = ()) -> job_reaper.View:
    """Leases that ran out and attempts that no running lease covers; also the leases of the nodes in `again`.

    What is held in good order is not looked at: the cost follows the trouble, not the number of nodes.
    """
    states = {state.lease.node_id: state for state in leases.expired_leases(r)}
    unheld = leases.unheld_attempts(r)
    for node_id in {*again, *(one.node_id for one in unheld)} - states.keys():
        state = leases.agent_of(r, node_id)
        if state is not None:
            states[node_id] = state
    return job_reaper.View(
        leases=tuple(
            job_reaper.NodeLease(
                state.lease.node_id,
                state.lease.incarnation,
                state.since,
                state.lease.expires_at,
                state.reaped,
            )
            for state in states.values()
        ),
        attempts=tuple(
            job_reaper.HeldAttempt(
                one.attempt_id, one.token, one.job_id, one.node_id, one.incarnation, one.leased_at
            )
            for one in unheld
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

    suspects: frozenset[str] = frozenset()

    async def gather() -> job_reaper.View:
        """A suspect of the last look is looked at once more, so that its recovery is told too."""
        nonlocal suspects
        view, now = await duty.store.aread(lambda r: (reaper_view(r, serving_since(), suspects), r.now))
        suspects = frozenset(lease.node_id for lease in view.leases if lease.expires_at <= now) | {
            one.node_id for one in view.attempts
        }
        return view

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
