"""Matching waiting agents with ready jobs."""

from __future__ import annotations

import pytest

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.decisions import Decision
from gamekeeper.core.errors import SettingsError
from gamekeeper.policy import work_distributor
from gamekeeper.policy.work_distributor import LaneLoad, Limits, ReadyJob, Reason, View, WaitingAgent, decide
from tests.unit.policy.work_cases import NOW, agent, evidence, granted_ids, grants, job, reason, verdict

# --- shares ----------------------------------------------------------------------------------------------------


def test_training_and_evaluation_get_ahead_of_selfplay() -> None:
    """Their results steer all later games; waiting behind self-play would slow the whole loop."""
    view = View((agent(free=2),), (job(1), job(2), job(3, "train"), job(4, "evaluate", purpose="promotion")))
    assert granted_ids(decide(view, Limits(), NOW)) == [4, 3]


def test_selfplay_gets_its_share_beside_evaluation() -> None:
    """Weight 4 against 1 means four slots of five, not all of them."""
    jobs = tuple(job(n, "evaluate") for n in range(1, 11)) + tuple(job(n) for n in range(11, 21))
    ids = granted_ids(decide(View((agent(free=10),), jobs), Limits(), NOW))
    assert sum(number <= 10 for number in ids) == 8


def test_ratings_wait_like_selfplay() -> None:
    """Ratings are for people: they may not hold up the test that decides a candidate."""
    jobs = (job(1, "evaluate", purpose="rating"), job(2, "evaluate", purpose="promotion"))
    assert granted_ids(decide(View((agent(),), jobs), Limits(), NOW)) == [2]


def test_running_jobs_count_against_their_lane() -> None:
    """Without them a lane that holds all slots would be served again."""
    loads = (LaneLoad("a", "selfplay", "", 3),)
    view = View((agent(),), (job(1, line="a"), job(2, line="b")), loads)
    assert granted_ids(decide(view, Limits(), NOW)) == [2]


def test_running_ratings_count_in_their_own_lane() -> None:
    """Counted as evaluation, they would hold back the test of a candidate."""
    loads = (LaneLoad("c4", "evaluate", "rating", 4),)
    decision = decide(
        View((), (job(1, "evaluate"), job(2, "evaluate", purpose="rating")), loads), Limits(), NOW
    )
    assert evidence(decision, "job/1")["slots of its lane"] == 0
    assert evidence(decision, "job/2")["slots of its lane"] == 4


def test_running_jobs_of_all_purposes_add_up_in_a_lane() -> None:
    """Canary and promotion games share the lane evaluate; counting only one of them doubles its share."""
    loads = (LaneLoad("a", "evaluate", "canary", 2), LaneLoad("a", "evaluate", "promotion", 2))
    view = View((agent(),), (job(1, "evaluate", "a"), job(2, "train", "a")), loads)
    assert evidence(decide(view, Limits(), NOW), "job/1")["slots of its lane"] == 4
    assert granted_ids(decide(view, Limits(), NOW)) == [2]


def test_line_weights_shift_slots_between_lines() -> None:
    """The one means to prefer a line must work, in its proportion."""
    jobs = tuple(job(n, line="a") for n in range(1, 9)) + tuple(job(n, line="b") for n in range(11, 19))
    ids = granted_ids(decide(View((agent(free=8),), jobs), Limits(line_weights={"b": 3.0}), NOW))
    assert sum(number > 10 for number in ids) == 6


def test_lines_of_equal_weight_share_equally() -> None:
    """The first line by name may not take more than its half."""
    jobs = tuple(job(n, line="a") for n in range(1, 9)) + tuple(job(n, line="b") for n in range(11, 19))
    ids = granted_ids(decide(View((agent(free=6),), jobs), Limits(), NOW))
    assert sum(number > 10 for number in ids) == 3


@pytest.mark.parametrize(("waited", "first"), [(0, 2), (170, 2), (190, 1), (2000, 1)])
def test_waiting_outweighs_any_weight_in_the_end(waited: float, first: int) -> None:
    """Ageing at 60 s makes self-play (weight 1) overtake fresh training (weight 4) after three minutes."""
    view = View((agent(),), (job(1, created=NOW - waited), job(2, "train")))
    assert granted_ids(decide(view, Limits(), NOW)) == [first]


def test_a_backlog_of_old_jobs_is_one_wait() -> None:
    """A lane that was starved and is served again must not take every slot until its old jobs are gone."""
    old = tuple(job(number, created=NOW - 3600) for number in range(1, 9))
    fresh = tuple(job(number, "train") for number in range(11, 19))
    assert granted_ids(decide(View((agent(free=3),), old + fresh), Limits(), NOW)) == [1, 11, 12]


def test_a_lane_served_a_moment_ago_has_not_waited() -> None:
    """What counts is the time without a grant; counted from creation, a deep queue would look starved for ever."""
    loads = (LaneLoad("c4", "selfplay", "", 0, NOW - 10), LaneLoad("c4", "train", "", 0))
    view = View((agent(),), (job(1, created=NOW - 3600), job(2, "train")), loads)
    assert granted_ids(decide(view, Limits(), NOW)) == [2]


def test_the_latest_grant_of_a_lane_counts() -> None:
    """A lane of several purposes was served when any of them was."""
    loads = (
        LaneLoad("c4", "evaluate", "canary", 0, NOW - 1),
        LaneLoad("c4", "evaluate", "promotion", 0, NOW - 900),
    )
    limits = Limits(weights={"train": 3.0, "evaluate": 1.0})
    jobs = (job(1, "evaluate", created=NOW - 3600), job(2, "train"))
    assert granted_ids(decide(View((agent(),), jobs, loads), limits, NOW)) == [2]
    assert granted_ids(decide(View((agent(),), jobs, loads[1:]), limits, NOW)) == [1]


def test_waiting_starts_when_a_job_becomes_due() -> None:
    """A retry delay is not queueing; counting it would let a failing job age its way to the front."""
    late = ReadyJob(1, "selfplay", "", "c4", NOW - 5000, NOW - 1)
    decision = decide(View((agent(),), (late, job(2, "train"))), Limits(), NOW)
    assert granted_ids(decision) == [2]
    assert evidence(decision, "job/1")["seconds waited"] == 1.0


def test_a_job_from_the_future_has_not_waited() -> None:
    """A clock that ran backwards must not make a negative wait, which would turn costs negative."""
    decision = decide(View((), (job(1, created=NOW + 500),)), Limits(), NOW)
    assert evidence(decision, "job/1")["seconds waited"] == 0.0


# --- ties and spreading ----------------------------------------------------------------------------------------


def test_equal_lanes_are_served_by_line_and_kind() -> None:
    """A tie that falls by chance cannot be replayed."""
    jobs = (job(3, line="b"), job(2, "command", "a"), job(1, line="a"))
    ids = granted_ids(decide(View((agent(free=3),), jobs), Limits(weights={}), NOW))
    assert ids == [2, 1, 3]


def test_equal_ages_go_by_job_id() -> None:
    """Jobs submitted in one transaction share their time; their order must still be the submission's."""
    jobs = tuple(job(number) for number in (5, 3, 9))
    assert granted_ids(decide(View((agent(free=2),), jobs), Limits(), NOW)) == [3, 5]


def test_work_spreads_over_the_nodes_with_most_free_slots() -> None:
    """Filling one node while another idles wastes memory bandwidth and risks more on one machine."""
    agents = (agent("n-1", 1), agent("n-2", 3), agent("n-3", 2))
    nodes = [
        grant.node_id for grant in grants(decide(View(agents, tuple(map(job, range(1, 5)))), Limits(), NOW))
    ]
    assert nodes == ["n-2", "n-2", "n-3", "n-1"]


def test_a_grant_names_the_incarnation_that_asked() -> None:
    """A grant to another incarnation would be fenced off and its slot wasted."""
    assert grants(decide(View((agent("n-7"),), (job(1),)), Limits(), NOW)) == [GrantJob(1, "n-7", "inc-n-7")]


def test_incarnations_are_counted_apart() -> None:
    """The verdict of one incarnation must not count the grants of another."""
    old, fresh = WaitingAgent("n", "a", 1, NOW - 1), WaitingAgent("n", "b", 1, NOW + 9)
    decision = decide(View((old, fresh), (job(1),)), Limits(), NOW)
    assert grants(decision) == [GrantJob(1, "n", "b")]
    assert [verdict.reason for verdict in decision.verdicts] == [
        Reason.GRANTED,
        Reason.LEASE_OVER,
        Reason.FILLED,
    ]


# --- reasons ---------------------------------------------------------------------------------------------------


def test_the_lane_is_named_in_the_grant() -> None:
    """`why job` must show the numbers the choice was made by, and where the weight was set."""
    decision = decide(View((agent(free=3),), (job(1, "train", created=NOW - 7.25),)), Limits(), NOW)
    found = verdict(decision, "job/1")
    assert (found.reason, found.acted) == (Reason.GRANTED, True)
    assert found.sentence == "granted to node n-1 for lane c4/train"
    assert [(item.name, item.value, item.limit, item.origin) for item in found.evidence] == [
        ("slots of its lane", 1, None, ""),
        ("weight of its lane", 4.0, None, "distribution.weights.train"),
        ("seconds waited", 7.2, 60.0, "distribution.ageing_s"),
        ("free slots", 3, 500, "distribution.grants_per_pass"),
    ]


def test_the_default_weight_is_named_as_origin() -> None:
    """A kind without a weight of its own must not point to a setting that does not exist."""
    decision = decide(View((), (job(1, "command"),)), Limits(default_weight=2.5), NOW)
    weight = verdict(decision, "job/1").evidence[1]
    assert (weight.value, weight.origin) == (2.5, "distribution.default_weight")


def test_a_job_before_its_time_says_how_long() -> None:
    """A retry delay is a reason of its own, with the seconds left."""
    early = ReadyJob(1, "selfplay", "", "c4", NOW, NOW + 12.5)
    decision = decide(View((agent(),), (early,)), Limits(), NOW)
    assert reason(decision, "job/1") == Reason.NOT_BEFORE
    assert "12.5 s" in verdict(decision, "job/1").sentence
    assert reason(decision, "node/n-1") == Reason.NOTHING_DUE
    assert verdict(decision, "node/n-1").acted is False
    assert decision.actions == ()


def test_a_job_is_due_at_the_very_moment() -> None:
    """Off by an equality, a job with not_before = now would wait for one pass more."""
    assert granted_ids(
        decide(View((agent(),), (ReadyJob(1, "train", "", "c4", NOW, NOW),)), Limits(), NOW)
    ) == [1]


def test_no_agent_is_told_apart_from_no_free_slot() -> None:
    """An empty fleet and a busy one need different remedies."""
    nobody = decide(View((), (job(1),)), Limits(), NOW)
    busy = decide(View((agent(free=1),), (job(1), job(2))), Limits(), NOW)
    assert reason(nobody, "job/1") == Reason.NO_AGENT
    assert reason(busy, "job/2") == Reason.NO_FREE_SLOT
    assert "took 1 free slot" in verdict(busy, "job/2").sentence


def test_an_agent_without_slots_is_no_capacity() -> None:
    """A full node that polls must not make a job look outcompeted."""
    decision = decide(View((agent(free=0),), (job(1),)), Limits(), NOW)
    assert reason(decision, "job/1") == Reason.NO_AGENT
    assert reason(decision, "node/n-1") == Reason.NO_SLOT_OFFERED


def test_negative_slots_count_as_none() -> None:
    """A miscounting agent must not shrink the capacity of others."""
    decision = decide(View((agent("n-1", -3), agent("n-2", 1)), (job(1),)), Limits(), NOW)
    assert grants(decision) == [GrantJob(1, "n-2", "inc-n-2")]


@pytest.mark.parametrize(("expires_in", "given_out"), [(-1.0, 0), (0.0, 0), (0.001, 1)])
def test_an_agent_needs_a_live_lease(expires_in: float, given_out: int) -> None:
    """A grant to an agent whose lease is over would be dead at once."""
    decision = decide(View((agent(expires_at=NOW + expires_in),), (job(1),)), Limits(), NOW)
    assert len(decision.actions) == given_out
    assert reason(decision, "node/n-1") == (Reason.FILLED if given_out else Reason.LEASE_OVER)


def test_an_idle_node_says_that_there_is_no_work() -> None:
    """Idle by want of work is not idle by rule."""
    decision = decide(View((agent(free=3),), (job(1),)), Limits(), NOW)
    found = verdict(decision, "node/n-1")
    assert (found.reason, found.acted) == (Reason.NO_WORK, True)
    assert found.sentence == "2 slots idle: no further job is ready"
    assert evidence(decision, "node/n-1") == {"slots offered": 3, "jobs granted": 1, "jobs due": 1}


def test_a_node_with_nothing_at_all_did_not_act() -> None:
    """`acted` is for nodes that were given something."""
    found = verdict(decide(View((agent(),), ()), Limits(), NOW), "node/n-1")
    assert (found.reason, found.acted) == (Reason.NO_WORK, False)


def test_a_pass_is_bounded() -> None:
    """One transaction with thousands of grants would hold the writer."""
    view = View((agent("n-1", 2), agent("n-2", 2)), (job(1), job(2), job(3)))
    decision = decide(view, Limits(grants_per_pass=2), NOW)
    assert granted_ids(decision) == [1, 2]
    assert reason(decision, "job/3") == Reason.BATCH_FULL
    assert [reason(decision, "node/n-1"), reason(decision, "node/n-2")] == [
        Reason.BATCH_FULL,
        Reason.BATCH_FULL,
    ]
    assert "one pass grants 2 jobs" in verdict(decision, "job/3").sentence


def test_free_slots_equal_to_the_bound_are_no_full_batch() -> None:
    """With as many slots as the pass may grant, it is the slots that ran out."""
    decision = decide(View((agent(free=2),), (job(1), job(2), job(3))), Limits(grants_per_pass=2), NOW)
    assert reason(decision, "job/3") == Reason.NO_FREE_SLOT


def test_draining_grants_nothing_and_says_so() -> None:
    """A stop request must be seen as the reason, not as a lack of slots."""
    early = ReadyJob(2, "selfplay", "", "c4", NOW, NOW + 12.5)
    decision = decide(View((agent(),), (job(1), early), draining=True), Limits(), NOW)
    assert decision.actions == ()
    assert {verdict.reason for verdict in decision.verdicts} == {Reason.DRAINING}
    assert not any(verdict.acted for verdict in decision.verdicts)


def test_an_empty_view_is_an_empty_decision() -> None:
    """Nothing waiting and nobody asking is the normal night, not an error."""
    assert decide(View((), ()), Limits(), NOW) == Decision(work_distributor.POLICY, NOW, ())


# --- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights": {"train": 0.0}}, "weights.train"),
        ({"weights": {"train": float("nan")}}, "weights.train"),
        ({"line_weights": {"c4": -1.0}}, "line_weights.c4"),
        ({"default_weight": float("inf")}, "default_weight"),
        ({"ageing_s": 0.0}, "ageing_s"),
        ({"grants_per_pass": 0}, "grants_per_pass"),
    ],
)
def test_limits_that_would_shut_a_lane_are_refused(changes: dict[str, object], named: str) -> None:
    """A weight of nothing is a starved lane in disguise."""
    with pytest.raises(SettingsError) as caught:
        Limits(**changes)  # type: ignore[arg-type]
    assert f"distribution.{named} is" in caught.value.message
    assert caught.value.remedy


def test_default_weights_name_the_kinds_of_the_loop() -> None:
    """The shares are a documented choice; changing them is a decision, not a slip."""
    assert Limits().weights == {
        "found": 8.0,
        "train": 4.0,
        "evaluate": 4.0,
        "evaluate/rating": 1.0,
        "selfplay": 1.0,
    }
    assert Limits().lane("evaluate", "rating") == "evaluate/rating"
    assert Limits().lane("evaluate", "canary") == "evaluate"
    assert Limits(line_weights={"c4": 2.0}).weight("c4", "train") == 8.0
    assert Limits().weight("c4", "command") == 1.0
