"""How attempts end, whose word counts, what an end costs its job, and how jobs are cancelled."""

from __future__ import annotations

import pytest

from gamekeeper.core.errors import IllegalTransition, Refused, StaleToken, UsageError
from gamekeeper.core.events import AttemptEnded
from gamekeeper.core.jobs import (
    END_BUDGETS,
    END_STATES,
    AttemptState,
    Budget,
    EndReason,
    JobState,
)
from gamekeeper.store import attempts, event_log, job_queue, leases, summary
from gamekeeper.store.session import Writing
from gamekeeper.store.statements import sql
from tests.unit.store.rig import LEASE_S, PROCESS, START, Rig, open_rig

FAILURES = [reason for reason, state in END_STATES.items() if END_BUDGETS[state] is Budget.FAILURE]
LOSSES = [reason for reason, state in END_STATES.items() if END_BUDGETS[state] is Budget.LOSS]
STOPS = [reason for reason, state in END_STATES.items() if state is AttemptState.STOPPED]


_DAMAGE = sql("UPDATE jobs SET state = 'done', ended_at = 1.0 WHERE id = :id")
_REPAIR = sql("UPDATE jobs SET state = 'running', ended_at = NULL WHERE id = :id")


def test_success_makes_the_job_done(rig: Rig) -> None:
    """Breaks if a finished attempt leaves its job open, or loses its units, receipt or cause."""
    attempt = rig.running()
    rig.turn(3)
    result = rig.finish(attempt, detail="fine", receipt={"games": 4}, units=4, process_s=2.0)
    assert (result.result, result.job_state) == ("applied", JobState.DONE)
    ended = result.attempt
    assert (ended.state, ended.reason, ended.detail, ended.units, ended.ended_at) == (
        AttemptState.SUCCEEDED, EndReason.FINISHED, "fine", 4, START + 3,
    )  # fmt: skip
    job = rig.get(attempt.job_id)
    assert (job.state, job.ended_at, job.reason) == (JobState.DONE, START + 3, "finished")
    assert job.not_before == START
    assert rig.r(job_queue.live) == []
    expected = AttemptEnded(
        attempt.id, attempt.job_id, attempt.node_id, "c4", "succeeded", "finished", "fine", "done"
    )
    for subject in (f"job/{attempt.job_id}", f"node/{attempt.node_id}", "line/c4"):
        assert rig.r(event_log.story, subject)[-1].event == expected
    assert rig.names(f"job/{attempt.job_id}").count("attempt-ended") == 1


def test_an_attempt_that_never_started_can_finish(rig: Rig) -> None:
    """Breaks if a job too quick for its start to be reported cannot end."""
    assert rig.finish(rig.attempt()).job_state is JobState.DONE


@pytest.mark.parametrize("reason", FAILURES)
def test_failures_exhaust_the_failure_budget(rig: Rig, reason: EndReason) -> None:
    """Breaks if a job that always fails is tried for ever, or too seldom, or ends as something else."""
    attempt = rig.attempt(failures_allowed=3)
    for failures in (1, 2):
        assert rig.finish(attempt, reason).job_state is JobState.READY
        job = rig.get(attempt.job_id)
        assert (job.failures, job.losses, job.reason) == (failures, 0, reason)
        attempt = rig.regrant(attempt)
    assert rig.finish(attempt, reason).job_state is JobState.FAILED
    job = rig.get(attempt.job_id)
    assert (job.state, job.failures, job.reason) == (JobState.FAILED, 3, reason)
    assert rig.names(f"job/{job.id}").count("attempt-ended") == 3
    assert rig.names("line/c4").count("attempt-ended") == 1


@pytest.mark.parametrize("reason", LOSSES)
def test_losses_exhaust_the_loss_budget_alone(rig: Rig, reason: EndReason) -> None:
    """Breaks if lost machines use up the failure budget, or a job that kills machines is given out for ever."""
    attempt = rig.attempt(failures_allowed=1, losses_allowed=2)
    assert rig.w(job_queue.end_from_here, attempt.id, attempt.token, reason, "x").job_state is JobState.READY
    attempt = rig.regrant(attempt)
    assert rig.finish(attempt, reason).job_state is JobState.DEAD
    job = rig.get(attempt.job_id)
    assert (job.state, job.failures, job.losses) == (JobState.DEAD, 0, 2)


@pytest.mark.parametrize("reason", STOPS)
def test_a_stopped_attempt_costs_nothing(rig: Rig, reason: EndReason) -> None:
    """Breaks if a drained node uses up a job's budgets, or its job waits."""
    attempt = rig.attempt(failures_allowed=1, losses_allowed=1)
    for _ in range(3):
        assert rig.finish(attempt, reason).job_state is JobState.READY
        job = rig.get(attempt.job_id)
        assert (job.failures, job.losses, job.not_before) == (0, 0, rig.clock.now())
        attempt = rig.regrant(attempt)


def test_backoff_grows_and_is_jittered_over_its_whole_range() -> None:
    """Breaks if many failed jobs come back in step, the delay does not grow, or it grows without end."""
    rig = open_rig("inline")
    with rig.store:
        for times, limit in ((1, 2.0), (3, 8.0), (6, 60.0), (10_000, 60.0)):
            delays = rig.w(lambda w, n=times: [attempts.backoff(w, n) for _ in range(400)])
            assert max(delays) <= limit
            assert max(delays) > 0.9 * limit
            assert min(delays) < 0.1 * limit


def test_finishing_again_answers_as_before(rig: Rig) -> None:
    """Breaks if a repeated finish (its answer was lost) is applied twice, or refused."""
    attempt = rig.running()
    first = rig.finish(attempt, EndReason.OWN_ERROR, detail="one")
    again = rig.finish(attempt, EndReason.FINISHED, detail="two", units=99)
    assert again.result == "already"
    assert (again.attempt, again.job_state) == (first.attempt, first.job_state)
    assert rig.get(attempt.job_id).failures == 1
    assert rig.names(f"job/{attempt.job_id}").count("attempt-ended") == 1


def test_finishing_again_after_the_job_went_on_changes_nothing(rig: Rig) -> None:
    """Breaks if a late repetition of an old finish touches the job's next attempt."""
    attempt = rig.running()
    rig.finish(attempt, EndReason.OWN_ERROR)
    later = rig.regrant(attempt)
    assert rig.finish(attempt, EndReason.OWN_ERROR).job_state is JobState.RUNNING
    assert rig.r(job_queue.attempt, later.id).state is AttemptState.LEASED


def test_what_the_coordinator_ended_its_agent_cannot_finish(rig: Rig) -> None:
    """Breaks if the result of an attempt that was given up is taken after its job went to another node."""
    attempt = rig.running()
    rig.w(job_queue.end_from_here, attempt.id, attempt.token, EndReason.LEASE_EXPIRED, "gone")
    with pytest.raises(StaleToken, match=r"is over: lost \(lease-expired\)"):
        rig.finish(attempt)
    rig.regrant(attempt)
    with pytest.raises(StaleToken):
        rig.finish(attempt)
    with pytest.raises(StaleToken):
        rig.w(job_queue.started, attempt.id, attempt.token, PROCESS)
    with pytest.raises(StaleToken):
        rig.w(job_queue.end_from_here, attempt.id, attempt.token, EndReason.LEASE_EXPIRED, "")


def test_a_wrong_token_is_named(rig: Rig) -> None:
    """Breaks if a refusal does not tell a wrong token from an attempt that is over."""
    attempt = rig.running()
    with pytest.raises(StaleToken, match=f"not held under token {attempt.token + 1}"):
        rig.w(job_queue.started, attempt.id, attempt.token + 1, PROCESS)


def test_state_and_reason_must_agree(rig: Rig) -> None:
    """Breaks if an attempt can end with a state that its reason does not have."""
    attempt = rig.running()
    with pytest.raises(UsageError, match="is hollow, not succeeded"):
        rig.w(job_queue.finish, attempt.id, attempt.token, AttemptState.SUCCEEDED, EndReason.NO_RECEIPT)


def test_a_waiting_job_is_cancelled_at_once(rig: Rig) -> None:
    """Breaks if a cancelled job is still given out, or cancelling again is an error."""
    job_id = rig.job()
    assert rig.w(job_queue.cancel, job_id, "not wanted") is JobState.CANCELLED
    assert rig.w(job_queue.cancel, job_id, "again") is JobState.CANCELLED
    job = rig.get(job_id)
    assert (job.state, job.reason, job.ended_at) == (JobState.CANCELLED, "not wanted", START)
    assert rig.names(f"job/{job_id}") == ["job-submitted", "job-ended"]
    with pytest.raises(StaleToken):
        rig.w(job_queue.grant, job_id, *rig.agent())


@pytest.mark.parametrize("reason", [EndReason.STOP_REQUESTED, EndReason.OWN_ERROR, EndReason.LEASE_EXPIRED])
def test_a_running_job_ends_cancelled(rig: Rig, reason: EndReason) -> None:
    """Breaks if a cancelled job is retried because its attempt failed or was lost on the way."""
    attempt = rig.running()
    assert rig.w(job_queue.cancel, attempt.job_id, "not wanted") is JobState.RUNNING
    assert rig.w(job_queue.cancel, attempt.job_id, "again") is JobState.RUNNING
    assert [line.cancel_requested for line in rig.r(job_queue.listing)] == [True]
    rig.beat(attempt.incarnation, attempt)
    assert rig.finish(attempt, reason).job_state is JobState.CANCELLED
    job = rig.get(attempt.job_id)
    assert (job.state, job.reason) == (JobState.CANCELLED, "not wanted")
    assert [line.cancel_requested for line in rig.r(job_queue.listing)] == [False]


def test_work_done_before_the_stop_arrives_counts(rig: Rig) -> None:
    """Breaks if proven work is thrown away because a cancellation crossed it."""
    attempt = rig.running()
    rig.w(job_queue.cancel, attempt.job_id, "")
    assert rig.finish(attempt).job_state is JobState.DONE


def test_a_job_that_ended_cannot_be_cancelled(rig: Rig) -> None:
    """Breaks if a final state can be left."""
    attempt = rig.running()
    rig.finish(attempt)
    with pytest.raises(IllegalTransition, match="from done to cancelled"):
        rig.w(job_queue.cancel, attempt.job_id, "")


def test_slot_time_adds_up(rig: Rig) -> None:
    """Breaks if leased or process time is lost, doubled, or exceeds what is possible."""
    attempt = rig.running()
    rig.turn(4)
    progress = [leases.Progress(attempt.id, attempt.token, 1, process_s=3.0)]
    rig.w(leases.beat, attempt.incarnation, LEASE_S, progress)
    (live,) = rig.r(summary.slot_times)
    assert (live.since, live.leased_s, live.process_s, live.attempts, live.busy) == (START, 4.0, 3.0, 1, 1)
    rig.turn(6)
    rig.finish(attempt, EndReason.OWN_ERROR, process_s=50.0)
    (ended,) = rig.r(summary.slot_times)
    assert (ended.leased_s, ended.process_s, ended.attempts, ended.busy) == (10.0, 10.0, 1, 0)
    later = rig.regrant(attempt)
    rig.turn(5)
    rig.w(job_queue.end_from_here, later.id, later.token, EndReason.LEASE_EXPIRED, "")
    (ended,) = rig.r(summary.slot_times)
    assert (ended.leased_s, ended.process_s, ended.attempts) == (15.0, 10.0, 2)


def test_lost_attempts_keep_the_process_time_that_was_reported(rig: Rig) -> None:
    """Breaks if utilisation forgets the work of machines that vanished."""
    attempt = rig.running()
    rig.turn(9)
    rig.w(
        leases.beat,
        attempt.incarnation,
        LEASE_S,
        [leases.Progress(attempt.id, attempt.token, 5, process_s=8.0)],
    )
    rig.turn(50)
    rig.w(job_queue.end_from_here, attempt.id, attempt.token, EndReason.LEASE_EXPIRED, "")
    assert rig.r(summary.slot_times)[0].process_s == 8.0
    assert rig.r(job_queue.attempt, attempt.id).units == 5


def test_texts_from_outside_are_bounded_and_storable(rig: Rig) -> None:
    """Breaks if a huge or odd detail fills the store or cannot be written."""
    attempt = rig.running()
    result = rig.finish(attempt, EndReason.OWN_ERROR, detail="\ud800\x00" + "x" * 10_000)
    assert len(result.attempt.detail) == 2000
    assert rig.r(job_queue.attempt, attempt.id).detail == result.attempt.detail


def test_an_attempt_of_a_job_that_is_not_running_cannot_end(rig: Rig) -> None:
    """Breaks if a job leaves a final state because of an attempt that should not exist."""
    attempt = rig.running()
    rig.store.write(lambda w: w.run(_DAMAGE, id=attempt.job_id))
    with pytest.raises(IllegalTransition, match="is not running, though"):
        rig.finish(attempt)
    rig.store.write(lambda w: w.run(_REPAIR, id=attempt.job_id))


def test_one_transaction_may_finish_and_go_wrong(rig: Rig) -> None:
    """Breaks if a finish whose booking fails is applied in part."""
    attempt = rig.running()

    def both(w: Writing) -> None:
        job_queue.finish(w, attempt.id, attempt.token, AttemptState.SUCCEEDED, EndReason.FINISHED)
        raise Refused("the booking went wrong")

    with pytest.raises(Refused, match="booking"):
        rig.store.write(both)
    assert rig.r(job_queue.attempt, attempt.id).state is AttemptState.RUNNING
    assert rig.names(f"job/{attempt.job_id}")[-1] == "attempt-started"
    assert rig.finish(attempt).result == "applied"
