"""The way in for jobs: groups, keys, needs, quotas, and what is refused at the door."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gamekeeper.core.control_events import JobsSubmitted
from gamekeeper.core.errors import IllegalTransition, NotFound, UsageError
from gamekeeper.core.events import JobSubmitted
from gamekeeper.core.jobs import EndReason, FailureRule, JobSpec, JobState, Need
from gamekeeper.core.receipts import BUILT_IN_KINDS
from gamekeeper.store import event_log, job_control, job_queue, needs, submission
from gamekeeper.store.submission import OverQuota, Quotas, Terms, in_group
from tests.unit.store.rig import START, Rig, spec


def test_a_group_is_stored_as_one_submission(rig: Rig) -> None:
    """Breaks if ids of a group are not in its order, a class is mixed up, or the log loses a job's beginning."""
    group = [spec(), spec(seed=1), spec(kind="train"), spec(seed=2), spec(seed=3)]
    stored = rig.w(submission.submit_many, group)
    first = stored[0][0]
    assert stored == [(first + n, True) for n in range(5)]
    for (job_id, _), wanted in zip(stored, group, strict=True):
        assert rig.get(job_id).spec == wanted
    stories = [rig.r(event_log.story, f"job/{job_id}")[0].event for job_id, _ in stored]
    pair = JobsSubmitted(first, first + 1, 2, "selfplay", "c4", "")
    last = JobsSubmitted(first + 3, first + 4, 2, "selfplay", "c4", "")
    assert stories == [pair, pair, JobSubmitted(first + 2, "train", "c4", ""), last, last]
    assert rig.r(event_log.story, f"job/{first + 5}") == []
    assert [one.event for one in rig.r(event_log.after, 0, 10, f"job/{first + 1}")] == [pair]


def test_a_group_is_stored_whole_or_not_at_all(rig: Rig) -> None:
    """Breaks if one bad job leaves half a group behind."""
    with pytest.raises(UsageError):
        rig.w(submission.submit_many, [spec(), spec(), spec(seed=2**64)])
    assert rig.r(job_queue.counts) == []


def test_keys_of_a_group_are_kept_once(rig: Rig) -> None:
    """Breaks if a repeated key in a group, or one that is taken, makes a second job."""
    known = rig.job(key="a")
    stored = rig.w(
        submission.submit_many, [spec(key="a"), spec(key="b"), spec(), spec(key="b"), spec(key="c")]
    )
    assert stored[0] == (known, False)
    assert stored[3] == (stored[1][0], False)
    assert [created for _, created in stored] == [False, True, True, False, True]


@pytest.mark.parametrize(
    "wrong",
    [
        {"grace_s": -1.0}, {"time_limit_s": 0.0}, {"failures_allowed": 0}, {"losses_allowed": 10**9},
        {"share": 0.0}, {"share": float("nan")}, {"key": "x" * 501}, {"key": "a\nb"}, {"key": ""},
        {"purpose": "a\x00"}, {"producer": "p" * 121}, {"deadline": START - 1}, {"not_before": float("inf")},
        {"deadline": START + 5, "not_before": START + 9}, {"command": ()}, {"line": ""},
        {"needs": (Need(1), Need(1, FailureRule.RUN))}, {"needs": (Need(0),)}, {"needs": (in_group(0),)},
        {"grace_s": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_what_means_nothing_is_refused(rig: Rig, wrong: dict[str, object]) -> None:
    """Breaks if a job is taken that can never run, or never end."""
    with pytest.raises(UsageError):
        rig.w(submission.submit, replace(spec(), **wrong))  # type: ignore[arg-type]


def test_an_unknown_kind_is_refused_with_the_nearest_one(rig: Rig) -> None:
    """Breaks if a slip in a kind becomes a job that no agent's receipt can ever prove."""
    with pytest.raises(UsageError, match="'selfpaly'") as caught:
        rig.w(submission.submit, spec(kind="selfpaly"), Terms(BUILT_IN_KINDS))
    assert "'selfplay'" in caught.value.remedy


def test_a_need_must_exist(rig: Rig) -> None:
    """Breaks if a job can wait for one that never comes."""
    with pytest.raises(NotFound, match="job 99"):
        rig.w(submission.submit, spec(needs=(Need(99),)))


def test_a_job_waits_for_what_it_needs(rig: Rig) -> None:
    """Breaks if a job starts before those it needs are done, or never after."""
    first, second, third = (
        job_id
        for job_id, _ in rig.w(
            submission.submit_many, [spec(), spec(), spec(needs=(in_group(0), in_group(1)))]
        )
    )
    agent = rig.agent()
    for job_id in (first, second):
        assert rig.get(third).state is JobState.WAITING
        rig.finish(rig.w(job_queue.grant, job_id, *agent))
    assert rig.get(third).state is JobState.READY
    assert rig.get(rig.job(needs=(Need(first),))).state is JobState.READY


@pytest.mark.parametrize(
    ("rule", "state", "following"),
    [
        (FailureRule.CANCEL, JobState.CANCELLED, JobState.CANCELLED),
        (FailureRule.SKIP, JobState.SKIPPED, JobState.READY),
        (FailureRule.RUN, JobState.READY, JobState.WAITING),
    ],
)
@pytest.mark.parametrize("late", [False, True], ids=["waits", "comes late"])
def test_each_rule_does_what_it_says(
    rig: Rig, rule: FailureRule, state: JobState, following: JobState, late: bool
) -> None:
    """Breaks if the failure of a needed job is taken otherwise before or after it happened."""
    needed = rig.job(failures_allowed=1)
    group = [spec(needs=(Need(needed, rule),)), spec(needs=(in_group(0),))]
    if not late:
        stored = rig.w(submission.submit_many, group)
    rig.finish(rig.w(job_queue.grant, needed, *rig.agent()), EndReason.OWN_ERROR)
    if late:
        stored = rig.w(submission.submit_many, group)
    assert [rig.get(job_id).state for job_id, _ in stored] == [state, following]
    if state is not JobState.READY:
        assert rig.get(stored[0][0]).reason == f"it needs job {needed}, which ended failed"
        assert rig.names(f"job/{stored[0][0]}")[-1] == "job-ended"


def test_a_long_chain_falls_at_once(rig: Rig) -> None:
    """Breaks if the end of a chain is reached by recursion, or step by step over many transactions."""
    chain = [spec()] + [spec(needs=(in_group(place),)) for place in range(2999)]
    stored = rig.w(submission.submit_many, chain)
    rig.w(job_control.cancel, stored[0][0], "not wanted")
    (count,) = rig.r(job_queue.counts)
    assert (count.state, count.n) == (JobState.CANCELLED, 3000)


def test_a_flood_of_one_producer_is_turned_away_and_holds_nobody_back(rig: Rig) -> None:
    """Breaks if a quota lets too many in, counts others' jobs, or stops the pipeline's own."""
    terms = Terms(quotas=Quotas(max_ready_per_producer=3, max_ready_per_kind=5, max_in_all=10))
    mine = [spec(producer="a", kind="one") for _ in range(3)]
    rig.w(submission.submit_many, mine, terms)
    with pytest.raises(OverQuota, match="max_ready_per_producer") as caught:
        rig.w(submission.submit, mine[0], terms)
    assert caught.value.retry_after_s > 0
    with pytest.raises(OverQuota, match="max_ready_per_kind"):
        rig.w(submission.submit_many, [replace(mine[0], producer="b") for _ in range(3)], terms)
    rig.w(submission.submit_many, [spec(producer="b", kind="two") for _ in range(3)], terms)
    rig.w(submission.submit_many, [spec(producer="c", kind="three") for _ in range(3)], terms)
    with pytest.raises(OverQuota, match="max_in_all"):
        rig.w(submission.submit, spec(producer="d", kind="four"), terms)
    assert rig.w(submission.submit, spec(kind="one"), terms)[1]
    with pytest.raises(OverQuota, match="max_in_all"):
        rig.w(submission.submit, spec(), terms)


def test_a_started_job_makes_room(rig: Rig) -> None:
    """Breaks if running jobs fill the quota of waiting ones."""
    terms = Terms(quotas=Quotas(max_ready_per_producer=1))
    job_id = rig.w(submission.submit, spec(producer="a"), terms)[0]
    rig.w(job_queue.grant, job_id, *rig.agent())
    assert rig.w(submission.submit, spec(producer="a"), terms)[1]


def test_a_retry_keeps_what_can_be_kept(rig: Rig) -> None:
    """Breaks if a retry changes the work, takes a key from another job, or revives a deadline that is over."""
    wanted = spec(key="k", producer="p", share=2.0, deadline=START + 10, parameters={"a": 1})
    first = rig.w(submission.submit, wanted)[0]
    rig.w(job_control.cancel, first, "no")
    second, created = rig.w(job_control.retry, first)
    assert created
    assert rig.get(second).spec == wanted
    assert rig.w(job_control.retry, first) == (second, False)
    rig.w(job_control.cancel, second, "no")
    rig.job(key="k")
    rig.turn(11)
    third, _ = rig.w(job_control.retry, second)
    assert rig.get(third).spec == replace(wanted, key=None, deadline=None)
    assert rig.names(f"job/{second}") == ["job-submitted", "job-retried", "job-ended", "job-retried"]


def test_a_running_or_done_job_is_neither_held_nor_retried(rig: Rig) -> None:
    """Breaks if a guard lets a person change what an agent works on, or do done work again."""
    attempt = rig.running()
    for act in (job_control.retry, job_control.release):
        with pytest.raises(IllegalTransition):
            rig.w(act, attempt.job_id)
    with pytest.raises(IllegalTransition):
        rig.w(job_control.hold, attempt.job_id, "")
    with pytest.raises(IllegalTransition):
        rig.w(job_control.cancel, attempt.job_id, "", if_ready=True)
    rig.finish(attempt)
    with pytest.raises(IllegalTransition, match="done"):
        rig.w(job_control.retry, attempt.job_id)
    assert rig.r(needs.needs_of, attempt.job_id) == []


def test_specifications_are_checked_by_content_not_by_identity() -> None:
    """Breaks if the encoding of one job's parameters is reused for another's."""
    from tests.unit.store.rig import open_rig

    rig = open_rig("inline")
    group = [JobSpec("selfplay", "c4", ("x", str(n)), parameters={"n": n}) for n in range(50)]
    stored = rig.w(submission.submit_many, group)
    assert [rig.get(job_id).spec for job_id, _ in stored] == group


def test_rules_meet_in_a_chain(rig: Rig) -> None:
    """Breaks if what a cancelled job drags along is not itself taken for over by those that skip or run."""
    head, cancelled, skipped, runs, last = (
        job_id
        for job_id, _ in rig.w(
            submission.submit_many,
            [
                spec(),
                spec(needs=(in_group(0),)),
                spec(needs=(in_group(1, FailureRule.SKIP),)),
                spec(needs=(in_group(1, FailureRule.RUN),)),
                spec(needs=(in_group(2),)),
            ],
        )
    )
    rig.w(job_control.cancel, head, "no")
    states = [rig.get(one).state for one in (cancelled, skipped, runs, last)]
    assert states == [JobState.CANCELLED, JobState.SKIPPED, JobState.READY, JobState.READY]


def test_a_held_job_stays_held_when_its_needs_are_met(rig: Rig) -> None:
    """Breaks if the end of another job lets go what a person holds back."""
    needed = rig.job()
    held = rig.job(needs=(Need(needed),))
    rig.w(job_control.hold, held, "wait")
    rig.finish(rig.w(job_queue.grant, needed, *rig.agent()))
    assert rig.get(held).state is JobState.HELD
    assert rig.w(job_control.release, held) is JobState.READY
