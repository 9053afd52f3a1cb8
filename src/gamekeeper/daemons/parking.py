"""Whose fault failures are: the view of failures and nodes for the policy that parks jobs and excludes nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gamekeeper.core.nodes import NodeStatus
from gamekeeper.daemons.duty import Duty
from gamekeeper.policy import job_parking
from gamekeeper.runtime.daemon import Daemon
from gamekeeper.runtime.executor import Outcome
from gamekeeper.settings.schema import JobParkingSection
from gamekeeper.store import exclusions, failures, inventory
from gamekeeper.store.session import Reading

EVERY_S = 10.0
REST_S = 0.5
OVERDUE_AT_ONCE = 500


def limits_of(section: JobParkingSection) -> job_parking.Limits:
    """The limits that the settings state."""
    return job_parking.Limits(
        poison_nodes=section.poison_nodes,
        blame_jobs=section.blame_jobs,
        blame_window_s=section.blame_window_s,
        exclusion_first_s=section.exclusion_first_s,
        exclusion_longest_s=section.exclusion_longest_s,
        max_excluded_fraction=section.max_excluded_fraction,
    )


def parking_view(r: Reading, limits: job_parking.Limits) -> job_parking.View:
    """The failures of the window with what succeeded besides, the nodes they are about, and overdue jobs."""
    recent = failures.recent(r, r.now - limits.blame_window_s)
    failed_jobs = sorted({one.job_id for one in recent if not one.succeeded})
    charged = failures.failures_of(r, failed_jobs)
    excluded = exclusions.current(r)
    strikes = exclusions.strikes(r, job_parking.POLICY, r.now - limits.strikes_since_s)
    up = {node.id for node in inventory.nodes(r) if node.status is NodeStatus.UP}
    named = {one.node_id for one in charged} | set(excluded)
    return job_parking.View(
        recent=tuple(map(_ended, recent)),
        charged=tuple(map(_ended, charged)),
        nodes=tuple(
            job_parking.FleetNode(
                node_id,
                node_id in up,
                excluded[node_id].until if node_id in excluded else None,
                strikes.get(node_id, 0),
            )
            for node_id in sorted(named)
        ),
        nodes_up=len(up),
        overdue=tuple(
            job_parking.OverdueJob(one.job_id, one.deadline) for one in failures.overdue(r, OVERDUE_AT_ONCE)
        ),
    )


def parker(duty: Duty, limits: job_parking.Limits, changed: Callable[[], None]) -> Daemon[job_parking.View]:
    """Parks poison, excludes nodes at fault, cancels what is overdue; `changed` is called when it did."""

    async def gather() -> job_parking.View:
        return await duty.store.aread(lambda r: parking_view(r, limits))

    def after(outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            changed()

    return Daemon(
        name=job_parking.POLICY,
        every_s=EVERY_S,
        rest_s=REST_S,
        gather=gather,
        decide=lambda view, now: job_parking.decide(view, limits, now),
        apply=duty.applying(after),
    )


def _ended(one: failures.EndedTry) -> job_parking.EndedTry:
    return job_parking.EndedTry(
        one.attempt_id, one.job_id, one.job_state, one.kind, one.node_id, one.succeeded, one.reason, one.at
    )
