"""Who works on what: the distributor grants ready jobs to waiting agents, the reaper ends what a lost agent held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from gamekeeper.core.actions import EndAttempt, GrantJob
from gamekeeper.core.decisions import Decision
from gamekeeper.core.jobs import JobState
from gamekeeper.daemons import looks
from gamekeeper.daemons.duty import Duty
from gamekeeper.policy import job_reaper, work_distributor
from gamekeeper.runtime.daemon import Daemon
from gamekeeper.runtime.executor import Outcome
from gamekeeper.store import exclusions, inventory, job_classes, job_queue, leases
from gamekeeper.store.decisions import Outcome as Applied
from gamekeeper.store.session import Reading

JOBS_PER_PASS = 1000
HEADS_LEAST = 16
AGENTS_PER_PASS = 20_000
WIDE_NODES = 1000
WIDE_REST_S = 0.25
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

    @property
    def cached(self) -> frozenset[str]: ...


class Offers(Protocol):
    """The parked claims."""

    def fresh(self, most: int) -> Sequence[Waiting]:
        """Those that no pass has looked at; each is handed out once."""

    def some(self, most: int) -> Sequence[Waiting]:
        """Up to `most` of all, in turn."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim that asks for `slots` jobs, having `cached` inputs at hand."""

    node_id: str
    incarnation: str
    slots: int
    cached: frozenset[str] = frozenset()


def distribution_view(r: Reading, waiting: Sequence[Waiting], *, whole: bool = True) -> work_distributor.View:
    """Parked claims with their nodes, the other nodes, and all classes of jobs with the oldest of each.

    Not `whole`: without the nodes that do not wait, for a look at claims that will be told only why they stay idle.
    """
    only = None if whole else sorted({one.node_id for one in waiting})
    standings = {one.node_id: one for one in inventory.standings(r, only)}
    cached = {one.node_id: one.cached for one in waiting}
    live = job_classes.live(r)
    free = sum(one.slots for one in waiting)
    most = max(1, min(free, max(HEADS_LEAST, JOBS_PER_PASS // max(1, len(live)))))
    classes = tuple(_job_class(r, one, most) for one in live)
    excluded = exclusions.current(r)
    failed = job_queue.failed_on(r, [head.job_id for each in classes for head in each.heads])
    nodes = {
        node_id: _node(
            one,
            cached.get(node_id, frozenset()),
            excluded.get(node_id),
            failed.get(node_id, frozenset()),
        )
        for node_id, one in standings.items()
    }
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
    return work_distributor.View(agents, classes, tuple(nodes.values()), draining=looks.draining(r))


def _node(
    standing: inventory.Standing,
    cached: frozenset[str],
    exclusion: exclusions.Exclusion | None,
    failed: frozenset[int],
) -> work_distributor.Node:
    running = tuple(work_distributor.Occupant(asked, gpus) for asked, gpus in standing.taken)
    return work_distributor.Node(
        node_id=standing.node_id,
        capacity=standing.capacity,
        free=work_distributor.Free.beside(standing.capacity, running),
        busy_slots=len(running),
        target_slots=standing.target_slots,
        reachable=standing.incarnation is not None,
        excluded_until=None if exclusion is None else exclusion.until,
        exclusion_cause="" if exclusion is None else exclusion.cause,
        cached=cached,
        failed_jobs=failed,
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
    duty: Duty, limits: work_distributor.Limits, offers: Offers, wake: Callable[[str], None]
) -> Daemon[work_distributor.View]:
    """Matches waiting agents and ready jobs in batches; `wake` tells a parked claim to look again.

    While no job is due, a pass looks only at claims that came since the last one: ten thousand idle agents cost
    nothing. With jobs due it looks at all of them, and less often the more there are.
    """
    looked_at = float("-inf")
    decided: dict[int, Decision] = {}

    def look(r: Reading, seen: Sequence[Waiting], *, whole: bool) -> work_distributor.View:
        # In the reader's thread, and not on the event loop: with thousands of nodes a pass takes long, and beats go on.
        view = distribution_view(r, seen, whole=whole)
        decided.clear()
        decided[id(view)] = work_distributor.decide(view, limits, r.now)
        return view

    async def gather() -> work_distributor.View | None:
        nonlocal looked_at
        due, now = await duty.store.aread(lambda r: (looks.due_jobs(r, 1), r.now))
        whole = due > 0 or now - looked_at >= EVERY_S
        seen = offers.some(AGENTS_PER_PASS) if due else offers.fresh(AGENTS_PER_PASS)
        if not seen and not whole:
            return None
        if whole:
            looked_at = now
        view = await duty.store.aread(lambda r: look(r, seen, whole=due > 0))
        nodes = len(view.nodes)
        daemon.rest_s = REST_S if nodes <= WIDE_NODES else WIDE_REST_S * nodes / WIDE_NODES
        return view

    def granted(outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome.action, GrantJob) and outcome.result is Applied.APPLIED:
                wake(outcome.action.incarnation)

    daemon = Daemon(
        name=work_distributor.POLICY,
        every_s=EVERY_S,
        rest_s=REST_S,
        gather=gather,
        decide=lambda view, _now: decided[id(view)],
        apply=duty.applying(granted),
    )
    return daemon


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
