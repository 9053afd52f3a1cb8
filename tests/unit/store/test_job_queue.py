"""The queue: what may be submitted, who is granted what, and what lists and counters show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import IllegalTransition, NotFound, StaleToken, UsageError
from gamekeeper.core.events import AttemptLeased, AttemptStarted, JobSubmitted
from gamekeeper.core.jobs import (
    AttemptState,
    EndReason,
    JobSpec,
    JobState,
    ProcessIdentity,
)
from gamekeeper.store import event_log, inventory, job_queue
from tests.unit.store.rig import LEASE_S, PROCESS, START, Rig, open_rig, spec


def test_a_job_comes_back_as_it_was_submitted(rig: Rig) -> None:
    """Breaks if any field of a specification is lost, changed or mixed up on its way through the store."""
    given_spec = JobSpec(
        kind="evaluate", line="c4", command=("{python}", "-m", "play", ""),
        parameters={"a": [1, 2.5], "b": {"c": None}},
        wanted={"pairs": 8, "first_pair": 0}, inputs={"candidate": ("a" * 64,), "shards": ("b" * 64, "c" * 64)},
        purpose="promotion", seed=-(2**63), key="a key", grace_s=1.5, time_limit_s=60.25, failures_allowed=1,
        losses_allowed=2,
    )  # fmt: skip
    job_id, created = rig.w(job_queue.submit, given_spec)
    job = rig.get(job_id)
    assert created
    assert job.spec == given_spec
    assert (job.state, job.failures, job.losses, job.ended_at, job.reason) == (JobState.READY, 0, 0, None, "")
    assert (job.created_at, job.not_before) == (START, START)
    assert [e.event for e in rig.r(event_log.story, f"job/{job_id}")] == [
        JobSubmitted(job_id, "evaluate", "c4", "promotion")
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        JobSpec("", "c4", ("x",)),
        JobSpec("selfplay", "", ("x",)),
        JobSpec("selfplay", "c4", ()),
        JobSpec("selfplay", "c4", ("x",), seed=2**63),
        JobSpec("selfplay", "c4", ("x",), parameters={"a": float("nan")}),
        JobSpec("selfplay", "c4", ("x",), wanted={"a": object()}),
    ],
)
def test_a_job_that_cannot_be_stored_is_refused(rig: Rig, wrong: JobSpec) -> None:
    """Breaks if a specification that would come back changed is accepted."""
    with pytest.raises(UsageError):
        rig.w(job_queue.submit, wrong)
    assert rig.r(job_queue.live) == []


def test_a_key_is_taken_while_its_job_is_live_or_done(rig: Rig) -> None:
    """Breaks if a repeated submission makes a second job, or a finished one is made again."""
    node_id, incarnation = rig.agent()
    first, created = rig.w(job_queue.submit, spec(key="k"))
    assert created
    assert rig.w(job_queue.submit, spec(key="k")) == (first, False)
    attempt = rig.w(job_queue.grant, first, node_id, incarnation)
    assert rig.w(job_queue.submit, spec(key="k")) == (first, False)
    rig.finish(attempt)
    assert rig.w(job_queue.submit, spec(key="k")) == (first, False)


def test_a_key_is_free_again_when_its_job_came_to_nothing(rig: Rig) -> None:
    """Breaks if work whose job failed or was cancelled can never be submitted again."""
    first = rig.job(key="k")
    rig.w(job_queue.cancel, first, "")
    second, created = rig.w(job_queue.submit, spec(key="k", failures_allowed=1))
    assert created
    node_id, incarnation = rig.agent()
    rig.finish(rig.w(job_queue.grant, second, node_id, incarnation), EndReason.OWN_ERROR)
    assert rig.get(second).state is JobState.FAILED
    assert rig.w(job_queue.submit, spec(key="k"))[1]


def test_jobs_without_key_are_all_different(rig: Rig) -> None:
    """Breaks if two jobs without key are taken for one."""
    assert rig.job() != rig.job()


def test_ready_jobs_come_longest_due_first_and_bounded(rig: Rig) -> None:
    """Breaks if the queue is not fair in time, or one look reads the whole backlog."""
    jobs = []
    for _ in range(4):
        jobs.append(rig.job())
        rig.turn(1)
    assert [job.id for job in rig.r(job_queue.ready, 3)] == jobs[:3]
    assert [job.id for job in rig.r(job_queue.waiting, 9)] == jobs


def test_a_backed_off_job_is_not_ready_before_its_time(rig: Rig) -> None:
    """Breaks if a failed job is tried again at once."""
    attempt = rig.attempt()
    rig.finish(attempt, EndReason.OWN_ERROR)
    job = rig.get(attempt.job_id)
    assert job.not_before > rig.clock.now()
    assert rig.r(job_queue.ready, 9) == []
    assert [each.id for each in rig.r(job_queue.waiting, 9)] == [job.id]
    with pytest.raises(StaleToken, match="not to be granted now"):
        rig.w(job_queue.grant, job.id, attempt.node_id, attempt.incarnation)
    rig.clock.seconds = job.not_before
    assert [each.id for each in rig.r(job_queue.ready, 9)] == [job.id]


def test_a_grant_is_an_attempt_under_a_greater_token(rig: Rig) -> None:
    """Breaks if a grant leaves the job ready, the attempt unknown, or reuses a token."""
    node_id, incarnation = rig.agent()
    first, second = (rig.w(job_queue.grant, rig.job(), node_id, incarnation) for _ in range(2))
    assert first.token < second.token
    assert (first.state, first.leased_at, first.started_at) == (AttemptState.LEASED, START, None)
    assert rig.r(job_queue.attempt, first.id) == first
    assert rig.r(job_queue.attempts_of, first.job_id) == [first]
    assert rig.r(job_queue.live_attempts) == [first, second]
    assert rig.get(first.job_id).state is JobState.RUNNING
    assert rig.r(event_log.story, f"job/{first.job_id}")[-1].event == AttemptLeased(
        first.id, first.job_id, node_id, first.token
    )


def test_a_job_is_granted_once(rig: Rig) -> None:
    """Breaks if a job can have two live attempts."""
    attempt = rig.attempt()
    with pytest.raises(StaleToken, match="running"):
        rig.w(job_queue.grant, attempt.job_id, attempt.node_id, attempt.incarnation)
    other = rig.agent()
    with pytest.raises(StaleToken):
        rig.w(job_queue.grant, attempt.job_id, *other)


def test_no_more_grants_than_slots(rig: Rig) -> None:
    """Breaks if a node is given more than it has room for."""
    node_id, incarnation = rig.agent(slots=2)
    attempt, _ = (rig.w(job_queue.grant, rig.job(), node_id, incarnation) for _ in range(2))
    third = rig.job()
    with pytest.raises(StaleToken, match="no free slot: 2 of 2"):
        rig.w(job_queue.grant, third, node_id, incarnation)
    rig.finish(attempt)
    rig.w(job_queue.grant, third, node_id, incarnation)


def test_no_grant_under_a_lease_that_is_over(rig: Rig) -> None:
    """Breaks if work is given to an agent that has just lost its lease or was reaped."""
    node_id, incarnation = rig.agent()
    job_id = rig.job()
    rig.turn(LEASE_S)
    with pytest.raises(StaleToken, match="not held by a live agent"):
        rig.w(job_queue.grant, job_id, node_id, incarnation)
    rig.w(inventory.mark_lost, node_id)
    with pytest.raises(StaleToken):
        rig.w(job_queue.grant, job_id, node_id, incarnation)
    assert rig.get(job_id).state is JobState.READY


def test_unknown_things_are_not_found(rig: Rig) -> None:
    """Breaks if a wrong id is taken for stale, or creates something."""
    node_id, incarnation = rig.agent()
    for call in (
        lambda: rig.get(99),
        lambda: rig.r(job_queue.attempt, 99),
        lambda: rig.w(job_queue.grant, 99, node_id, incarnation),
        lambda: rig.w(job_queue.started, 99, 1, PROCESS),
        lambda: rig.w(job_queue.finish, 99, 1, AttemptState.SUCCEEDED, EndReason.FINISHED),
        lambda: rig.w(job_queue.end_from_here, 99, 1, EndReason.LEASE_EXPIRED, ""),
        lambda: rig.w(job_queue.cancel, 99, ""),
    ):
        with pytest.raises(NotFound):
            call()


def test_starting_names_the_process(rig: Rig) -> None:
    """Breaks if the process identity or the time of the start is lost."""
    attempt = rig.attempt()
    rig.turn(2)
    after = rig.w(job_queue.started, attempt.id, attempt.token, PROCESS)
    assert (after.state, after.started_at) == (AttemptState.RUNNING, START + 2)
    assert rig.r(event_log.story, f"job/{attempt.job_id}")[-1].event == AttemptStarted(
        attempt.id, attempt.job_id, attempt.node_id, "boot", 100, 7
    )


def test_starting_twice_is_harmless_for_the_same_process_only(rig: Rig) -> None:
    """Breaks if a repeated start is an error or an event, or a second process passes for the first."""
    attempt = rig.running()
    rig.turn(2)
    assert rig.w(job_queue.started, attempt.id, attempt.token, PROCESS) == attempt
    assert rig.names(f"job/{attempt.job_id}").count("attempt-started") == 1
    with pytest.raises(StaleToken, match="runs as process 100, not 101"):
        rig.w(job_queue.started, attempt.id, attempt.token, ProcessIdentity("boot", 101, 7))


def test_final_jobs_are_found_newest_first(rig: Rig) -> None:
    """Breaks if the history of a stage is out of order or mixes lines, kinds or purposes."""
    ended = []
    for n in range(4):
        attempt = rig.attempt(
            kind="evaluate", purpose="canary" if n == 1 else "promotion", failures_allowed=1
        )
        rig.turn(1)
        rig.finish(attempt, EndReason.OWN_ERROR if n == 3 else EndReason.FINISHED)
        ended.append(attempt.job_id)
    rig.attempt(kind="evaluate", purpose="promotion")
    rig.finish(rig.attempt(kind="evaluate", line="other"))
    assert [job.id for job in rig.r(job_queue.ended, "c4", "evaluate")] == ended[::-1]
    assert [job.id for job in rig.r(job_queue.ended, "c4", "evaluate", limit=2)] == ended[:1:-1]
    assert [job.id for job in rig.r(job_queue.ended, "c4", "evaluate", "promotion")] == [
        ended[3],
        ended[2],
        ended[0],
    ]
    last = rig.r(job_queue.last_done, "c4", "evaluate")
    assert last is not None
    assert last.id == ended[2]
    assert rig.r(job_queue.last_done, "c4", "train") is None


def test_lists_filter_and_show_the_newest_attempt(rig: Rig) -> None:
    """Breaks if `jobs` shows the wrong jobs or an old attempt."""
    attempt = rig.attempt()
    rig.finish(attempt, EndReason.OWN_ERROR)
    later = rig.regrant(attempt)
    train = rig.job(kind="train")
    other = rig.job(line="other")
    assert [line.job.id for line in rig.r(job_queue.listing)] == [other, train, attempt.job_id]
    assert [line.job.id for line in rig.r(job_queue.listing, limit=1)] == [other]
    assert [line.job.id for line in rig.r(job_queue.listing, line="c4", kind="train")] == [train]
    (busy,) = rig.r(job_queue.listing, states=[JobState.RUNNING, JobState.DONE])
    assert busy.attempt == later
    assert rig.r(job_queue.listing, states=[JobState.READY], line="other")[0].attempt is None
    assert [job.id for job in rig.r(job_queue.live)] == [attempt.job_id, train, other]
    assert [job.id for job in rig.r(job_queue.live, "other")] == [other]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["submit", "grant", "finish", "lose", "cancel"]),
            st.integers(0, 30),
            st.sampled_from(["a", "b"]),
            st.sampled_from(sorted(EndReason)),
        ),
        max_size=40,
    )
)
def test_counters_equal_a_recount(steps: list[tuple[str, int, str, EndReason]]) -> None:
    """Breaks if any path through the queue miscounts jobs, attempts or slot time."""
    rig = open_rig("inline")
    with rig.store:
        node_id, incarnation = rig.agent(slots=3)
        for step, pick, line, reason in steps:
            live = rig.r(job_queue.live_attempts)
            jobs = rig.r(job_queue.listing)
            rig.turn(1)
            try:
                if step == "submit":
                    rig.job(line=line, purpose=line, failures_allowed=2, losses_allowed=2)
                elif step == "grant" and jobs:
                    rig.beat(incarnation, *live)
                    rig.w(job_queue.grant, jobs[pick % len(jobs)].job.id, node_id, incarnation)
                elif step == "cancel" and jobs:
                    rig.w(job_queue.cancel, jobs[pick % len(jobs)].job.id, "")
                elif step == "finish" and live:
                    rig.finish(live[pick % len(live)], reason, process_s=0.5)
                elif step == "lose" and live:
                    lost = live[pick % len(live)]
                    rig.w(job_queue.end_from_here, lost.id, lost.token, reason, "")
            except (StaleToken, IllegalTransition):
                pass
        rig.check()
        found: dict[tuple[str, str, str, str], int] = {}
        for each in rig.r(job_queue.listing, limit=1000):
            key = (each.job.spec.line, each.job.spec.kind, each.job.spec.purpose, str(each.job.state))
            found[key] = found.get(key, 0) + 1
        assert {(c.line, c.kind, c.purpose, str(c.state)): c.n for c in rig.r(job_queue.counts)} == found
