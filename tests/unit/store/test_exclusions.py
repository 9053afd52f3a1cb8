"""Exclusions of nodes, and the pardon of failures that a node was to blame for."""

from __future__ import annotations

import pytest

from gamekeeper.core.errors import NotFound, UsageError
from gamekeeper.core.jobs import EndReason, JobState
from gamekeeper.store import exclusions, failures, job_queue
from tests.unit.store.rig import Rig


def test_an_exclusion_ends_by_itself(rig: Rig) -> None:
    """Breaks if a node is lost for ever, or the longer of two exclusions is forgotten."""
    node_id = rig.node()
    now = rig.clock.now()
    rig.w(exclusions.exclude, node_id, "fan", "admin", now + 100)
    rig.w(exclusions.exclude, node_id, "disk", "job_parking", now + 50)
    assert rig.r(exclusions.current)[node_id].cause == "fan"
    rig.turn(99)
    assert set(rig.r(exclusions.current)) == {node_id}
    rig.turn(2)
    assert rig.r(exclusions.current) == {}
    assert [one.cause for one in rig.r(exclusions.of, node_id)] == ["disk", "fan"]
    assert rig.r(exclusions.strikes, "job_parking", now - 1) == {node_id: 1}


def test_an_exclusion_can_be_lifted_once(rig: Rig) -> None:
    """Breaks if a person cannot take a mistake back."""
    node_id = rig.node()
    rig.w(exclusions.exclude, node_id, "x", "admin", rig.clock.now() + 100)
    assert rig.w(exclusions.lift, node_id, "admin")
    assert not rig.w(exclusions.lift, node_id, "admin")
    assert rig.r(exclusions.current) == {}
    assert rig.names(f"node/{node_id}") == ["node-enrolled", "node-excluded", "node-allowed"]


def test_an_exclusion_without_end_or_node_is_refused(rig: Rig) -> None:
    """Breaks if an exclusion could last for ever, be over at once, or name nobody."""
    node_id, now = rig.node(), rig.clock.now()
    for until in (now, float("inf"), float("nan"), now + 400 * 86400):
        with pytest.raises(UsageError):
            rig.w(exclusions.exclude, node_id, "x", "admin", until)
    with pytest.raises(NotFound):
        rig.w(exclusions.exclude, "n-none", "x", "admin", now + 1)
    with pytest.raises(NotFound):
        rig.w(exclusions.lift, "n-none", "admin")


def test_a_forgiven_failure_costs_its_job_nothing(rig: Rig) -> None:
    """Breaks if a job pays for its node, an attempt is forgiven twice or on another node, or a final job moves."""
    attempt = rig.running(failures_allowed=2)
    rig.finish(attempt, EndReason.OWN_ERROR)
    last = rig.running(failures_allowed=1)
    rig.finish(last, EndReason.NO_EVIDENCE)
    lost = rig.running()
    rig.finish(lost, EndReason.KILLED)
    ids = [attempt.id, last.id, lost.id]
    assert rig.w(failures.forgive, last.node_id, ids) == 1
    assert rig.w(failures.forgive, attempt.node_id, ids) == 1
    assert rig.w(failures.forgive, attempt.node_id, ids) == 0
    assert (rig.get(attempt.job_id).failures, rig.get(last.job_id).failures) == (0, 0)
    assert rig.get(last.job_id).state is JobState.FAILED
    again = rig.regrant(attempt)
    rig.finish(again, EndReason.OWN_ERROR)
    assert rig.get(attempt.job_id).state is JobState.READY
    assert [one.attempt_id for one in rig.r(failures.failures_of, [attempt.job_id])] == [again.id]


def test_recent_ends_show_successes_only_beside_failures(rig: Rig) -> None:
    """Breaks if a node's success is overlooked where its failures are counted, or an idle fleet is scanned."""
    done = rig.running()
    rig.finish(done)
    since = rig.clock.now() - 100
    assert rig.r(failures.recent, since) == []
    failed = rig.running()
    rig.finish(failed, EndReason.OWN_ERROR)
    found = rig.r(failures.recent, since)
    assert [(one.attempt_id, one.succeeded) for one in found] == [(done.id, True), (failed.id, False)]
    rig.turn(200)
    assert rig.r(failures.recent, rig.clock.now() - 100) == []


def test_overdue_jobs_are_found_until_they_are_told_to_stop(rig: Rig) -> None:
    """Breaks if a deadline is not kept, or a job is cancelled over and over."""
    now = rig.clock.now()
    waiting, running = rig.job(deadline=now + 10), rig.attempt(deadline=now + 5)
    assert rig.r(failures.overdue, 10) == []
    rig.turn(10)
    assert [one.job_id for one in rig.r(failures.overdue, 10)] == [running.job_id, waiting]
    rig.w(job_queue.cancel, running.job_id, "late")
    rig.w(job_queue.cancel, waiting, "late")
    assert rig.r(failures.overdue, 10) == []
