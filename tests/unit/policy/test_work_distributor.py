"""Whose turn it is, and what is said of it: shares, minimums, ageing, bounds and reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.decisions import Decision
from gamekeeper.core.errors import SettingsError
from gamekeeper.policy import work_distributor
from gamekeeper.policy.work_distributor import Limits, Reason, WaitingAgent, decide, matching, shares
from gamekeeper.policy.work_distributor import limits as limits_of_it
from tests.unit.policy.work_cases import (
    NOW,
    agent,
    evidence,
    granted_ids,
    grants,
    jobs,
    machine,
    node,
    reason,
    verdict,
    view,
)

# The parts whose behaviour these tests pin.
PINNED = (matching, shares, limits_of_it)

# --- shares ----------------------------------------------------------------------------------------------------


def ids_of(decision: Decision, class_id: int) -> int:
    """How many jobs of a class were granted, by their numbers."""
    return sum(number // 100 == class_id for number in granted_ids(decision))


def many(
    class_id: int, kind: str = "selfplay", line: str = "c4", **facts: object
) -> work_distributor.JobClass:
    return jobs(class_id, kind, line, **{"n": 20, "first": class_id * 100, **facts})  # type: ignore[arg-type]


def test_training_and_evaluation_get_ahead_of_selfplay() -> None:
    """Their results steer all later games; waiting behind self-play would slow the whole loop."""
    classes = (jobs(1, n=2), jobs(2, "train"), jobs(3, "evaluate", purpose="promotion"))
    assert granted_ids(decide(view([agent(free=2)], classes), Limits(), NOW)) == [30, 20]


def test_selfplay_gets_its_share_beside_evaluation() -> None:
    """Weight 4 against 1 means four slots of five, not all of them."""
    decision = decide(view([agent(free=10)], (many(1, "evaluate"), many(2))), Limits(), NOW)
    assert (ids_of(decision, 1), ids_of(decision, 2)) == (8, 2)


def test_ratings_wait_like_selfplay() -> None:
    """Ratings are for people: they may not hold up the test that decides a candidate."""
    classes = (jobs(1, "evaluate", purpose="rating"), jobs(2, "evaluate", purpose="promotion"))
    assert granted_ids(decide(view([agent()], classes), Limits(), NOW)) == [20]


def test_running_jobs_count_against_their_lane() -> None:
    """Without them a lane that holds all slots would be served again."""
    classes = (jobs(1, "selfplay", running=3), jobs(2, "train", running=11))
    assert granted_ids(decide(view([agent(free=2)], classes), Limits(), NOW)) == [20, 10]
    classes = (jobs(1, "selfplay", running=2), jobs(2, "train", running=12))
    assert granted_ids(decide(view([agent(free=2)], classes), Limits(), NOW)) == [10, 20]


def test_classes_that_only_run_count_in_their_lane_and_line() -> None:
    """Canary and promotion games share the lane evaluate, also when none of them waits."""
    idle = jobs(3, "evaluate", "a", n=0, running=4, purpose="canary")
    classes = (jobs(1, "evaluate", "a", running=2), jobs(2, "train", "b", running=5), idle)
    decision = decide(view([agent()], classes), Limits(), NOW)
    assert granted_ids(decision) == [20]
    assert evidence(decision, "class/1")["slots of its lane"] == 6
    assert evidence(decision, "class/1")["slots of its line"] == 6


def test_running_ratings_count_in_their_own_lane() -> None:
    """Counted as evaluation, they would hold back the test of a candidate."""
    classes = (jobs(1, "evaluate"), jobs(2, "evaluate", purpose="rating", running=4))
    decision = decide(view([], classes), Limits(), NOW)
    assert evidence(decision, "class/1")["slots of its lane"] == 0
    assert evidence(decision, "class/2")["slots of its lane"] == 4


def test_a_line_with_many_kinds_of_work_gets_no_more_than_one_with_few() -> None:
    """Lines are the unit of fairness: opening more lanes may not buy slots."""
    classes = (
        many(1, "train", "a"),
        many(2, "evaluate", "a"),
        many(3, "selfplay", "a"),
        many(4, "selfplay", "b"),
    )
    decision = decide(view([agent(free=12)], classes), Limits(), NOW)
    assert ids_of(decision, 4) == 6


def test_a_producer_cannot_buy_slots_of_its_lane_with_a_flood() -> None:
    """Classes of one lane share it, however many jobs wait in each."""
    classes = (many(1, producer="flood"), jobs(2, n=3, producer="small"))
    assert {20, 21} <= set(granted_ids(decide(view([agent(free=4)], classes), Limits(), NOW)))


def test_the_share_of_a_class_divides_its_lane() -> None:
    """A job's own share must work, in its proportion, among the jobs of its lane and no further."""
    classes = (many(1, share=3.0), many(2, producer="x"), many(3, line="other"))
    decision = decide(view([agent(free=16)], classes), Limits(), NOW)
    assert [ids_of(decision, n) for n in (1, 2, 3)] == [6, 2, 8]


def test_line_weights_shift_slots_between_lines() -> None:
    """The one means to prefer a line must work, in its proportion."""
    decision = decide(
        view([agent(free=8)], (many(1, line="a"), many(2, line="b"))), Limits(line_weights={"b": 3.0}), NOW
    )
    assert (ids_of(decision, 1), ids_of(decision, 2)) == (2, 6)


@pytest.mark.parametrize(("waited", "first"), [(0, 20), (179, 20), (181, 10), (2000, 10)])
def test_waiting_outweighs_any_weight_in_the_end(waited: float, first: int) -> None:
    """Ageing at 60 s makes self-play (weight 1) overtake fresh training (weight 4) after three minutes."""
    decision = decide(view([agent()], (jobs(1, waited=waited), jobs(2, "train"))), Limits(), NOW)
    assert granted_ids(decision) == [first]


def test_a_backlog_of_old_jobs_is_one_wait() -> None:
    """A lane that was starved and is served again must not take every slot until its old jobs are gone."""
    classes = (jobs(1, n=8, waited=250), jobs(2, "train", n=8))
    assert granted_ids(decide(view([agent(free=3)], classes), Limits(), NOW)) == [10, 20, 21]


def test_a_class_served_a_moment_ago_has_not_waited() -> None:
    """What counts is the time without a grant; counted from creation, a deep queue would look starved for ever."""
    classes = (jobs(1, waited=3600, last_granted_at=NOW - 10), jobs(2, "train"))
    assert granted_ids(decide(view([agent()], classes), Limits(), NOW)) == [20]


def test_many_classes_in_a_lane_age_no_faster_than_one() -> None:
    """A line that splits its work into fifty classes, each of which waits for its turn, may not win by that."""
    crowd = tuple(jobs(n, line="a", waited=3000, producer=f"p{n}") for n in range(1, 51))
    alone = jobs(99, line="b", waited=70)
    assert granted_ids(decide(view([agent()], (*crowd, alone)), Limits(), NOW)) == [990]
    fewer = decide(view([agent()], (*crowd[:30], alone)), Limits(), NOW)
    assert granted_ids(fewer) == [10]


def test_a_job_from_the_future_has_not_waited() -> None:
    """A clock that ran backwards must not make a negative wait, which would turn costs negative."""
    decision = decide(view([], (jobs(1, waited=-500),)), Limits(), NOW)
    assert evidence(decision, "class/1")["seconds without a grant"] == 0.0


# --- minimums --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a/selfplay"])
def test_a_minimum_goes_first_until_it_is_reached(name: str) -> None:
    """A guarantee that gives way to weights is none; one that goes on beyond its number is a priority."""
    classes = (many(1, "selfplay", "a", running=1), many(2, "found", "b"))
    decision = decide(
        view([agent(free=8)], classes), Limits(minimums={name: 4}, line_weights={"b": 50.0}), NOW
    )
    assert (ids_of(decision, 1), ids_of(decision, 2)) == (3, 5)
    assert granted_ids(decision)[:3] == [100, 101, 102]
    last = verdict(decision, "class/1").evidence
    assert ("slots of its minimum", 4, 4, f"distribution.minimums.{name}") in [
        (one.name, one.value, one.limit, one.origin) for one in last
    ]


def test_a_minimum_of_a_line_helps_no_other_line_and_holds_nothing_without_work() -> None:
    """Slots kept for a line that has no work would idle."""
    decision = decide(
        view([agent(free=3)], (many(1, line="b"),)), Limits(minimums={"a": 9, "b/train": 9}), NOW
    )
    assert len(granted_ids(decision)) == 3


def test_minimums_beyond_the_fleet_shut_nobody_out() -> None:
    """Guarantees are given away too easily; the others must still be served now and then."""
    limits = Limits(minimums={"a": 1000}, minimums_yield_after_s=900)
    greedy = many(1, line="a", running=50)
    assert granted_ids(decide(view([agent()], (greedy, jobs(2, line="b", waited=899))), limits, NOW)) == [100]
    assert granted_ids(decide(view([agent()], (greedy, jobs(2, line="b", waited=901))), limits, NOW)) == [20]


# --- ties and spreading ----------------------------------------------------------------------------------------


def test_equal_turns_go_by_line_lane_and_class() -> None:
    """A tie that falls by chance cannot be replayed."""
    classes = (jobs(3, line="b"), jobs(2, "selfplay", "a"), jobs(1, "command", "a"))
    assert granted_ids(decide(view([agent(free=3)], classes), Limits(weights={}), NOW)) == [10, 30, 20]
    twins = (jobs(5, producer="x"), jobs(4, producer="y"))
    assert granted_ids(decide(view([agent()], twins), Limits(), NOW)) == [40]


def test_equal_ages_go_by_job_id() -> None:
    """Jobs submitted in one transaction share their time; their order must still be the submission's."""
    one = jobs(1, n=3)
    mixed = replace(one, heads=(one.heads[2], one.heads[0], one.heads[1]))
    assert granted_ids(decide(view([agent(free=2)], (mixed,)), Limits(), NOW)) == [10, 11]


def test_work_spreads_over_the_nodes_with_most_free_slots() -> None:
    """Filling one node while another idles wastes memory bandwidth and risks more on one machine."""
    agents = (agent("n-1", 1), agent("n-2", 3), agent("n-3", 2))
    nodes = [grant.node_id for grant in grants(decide(view(agents, (jobs(1, n=4),)), Limits(), NOW))]
    assert nodes == ["n-2", "n-2", "n-3", "n-1"]


def test_a_grant_names_the_incarnation_that_asked() -> None:
    """A grant to another incarnation would be fenced off and its slot wasted."""
    assert grants(decide(view([agent("n-7")], (jobs(1),)), Limits(), NOW)) == [GrantJob(10, "n-7", "inc-n-7")]


def test_of_two_claims_of_a_node_only_one_is_served() -> None:
    """Both served, the room of the node would be given away twice."""
    on = node()
    claims = (
        WaitingAgent(on, "a", NOW + 9, 4),
        WaitingAgent(on, "b", NOW + 30, 4),
        WaitingAgent(on, "c", NOW, 4),
    )
    decision = decide(view(claims, (jobs(1, n=6),)), Limits(), NOW)
    assert {grant.incarnation for grant in grants(decision)} == {"b"}
    assert len(grants(decision)) == 4
    assert [one.reason for one in decision.verdicts if one.subject == "node/n-1"] == [
        Reason.SECOND_CLAIM,
        Reason.FILLED,
        Reason.LEASE_OVER,
    ]


# --- reasons ---------------------------------------------------------------------------------------------------


def test_a_grant_shows_the_numbers_it_was_made_by() -> None:
    """`why job` must show the numbers the choice was made by, and where the weight was set."""
    decision = decide(view([agent(free=3)], (jobs(1, "train", waited=7.25),)), Limits(), NOW)
    found = verdict(decision, "job/10")
    assert (found.reason, found.acted) == (Reason.GRANTED, True)
    assert found.sentence == "granted to node n-1 for lane c4/train"
    assert [(item.name, item.value, item.limit, item.origin) for item in found.evidence] == [
        ("slots of its line", 1, None, "distribution.line_weights"),
        ("slots of its lane", 1, None, ""),
        ("weight of its lane", 4.0, None, "distribution.weights.train"),
        ("seconds waited", 7.2, None, ""),
    ]
    of_class = verdict(decision, "class/1")
    assert (of_class.reason, of_class.acted) == (Reason.GRANTED, True)
    assert of_class.sentence == "nothing of it waits: 1 job granted"


def test_the_default_weight_is_named_as_origin() -> None:
    """A kind without a weight of its own must not point to a setting that does not exist."""
    decision = decide(view([], (jobs(1, "command"),)), Limits(default_weight=2.5), NOW)
    (weight,) = [one for one in verdict(decision, "class/1").evidence if one.name == "weight of its lane"]
    assert (weight.value, weight.origin) == (2.5, "distribution.default_weight")


def test_what_is_not_due_says_how_long() -> None:
    """A retry delay is a reason of its own, with the seconds left."""
    later = jobs(1, n=0, later=2, next_due_at=NOW + 12.5)
    decision = decide(view([agent()], (later,)), Limits(), NOW)
    assert reason(decision, "class/1") == Reason.NOT_YET_DUE
    assert verdict(decision, "class/1").sentence == "none of it may start before 12.5 s from now"
    assert evidence(decision, "class/1")["jobs not yet due"] == 2
    assert reason(decision, "node/n-1") == Reason.NOTHING_DUE
    assert verdict(decision, "node/n-1").sentence == "1 slot idle: nothing is due yet, 2 jobs later"
    assert verdict(decision, "node/n-1").acted is False
    unsaid = decide(view([], (replace(later, next_due_at=None),)), Limits(), NOW)
    assert verdict(unsaid, "class/1").sentence == "none of it may start"


def test_held_jobs_say_who_can_let_them_go() -> None:
    """A job a person forgot looks like a broken queue."""
    decision = decide(view([agent()], (jobs(1, n=0, held=2),)), Limits(), NOW)
    assert reason(decision, "class/1") == Reason.HELD
    assert "gamekeeper jobs release" in verdict(decision, "class/1").sentence
    assert evidence(decision, "class/1")["jobs held"] == 2


def test_a_job_over_its_deadline_is_not_granted() -> None:
    """It would be stopped at once, and its slot is wanted by others."""
    late, last = jobs(1), jobs(2)
    late = replace(late, heads=tuple(replace(job, deadline=NOW) for job in late.heads))
    last = replace(last, heads=tuple(replace(job, deadline=NOW + 0.1) for job in last.heads))
    decision = decide(view([agent(free=2)], (late, last)), Limits(), NOW)
    assert granted_ids(decision) == [20]
    assert reason(decision, "class/1") == Reason.DEADLINE_OVER


def test_a_class_without_waiting_jobs_is_no_subject() -> None:
    """Every kind of work ever seen would fill the record."""
    decision = decide(view([agent()], (jobs(1, n=0, running=3),)), Limits(), NOW)
    assert [one.subject for one in decision.verdicts] == ["node/n-1"]


def test_no_agent_is_told_apart_from_being_behind_others() -> None:
    """An empty fleet and a busy one need different remedies."""
    nobody = decide(view([], (jobs(1),)), Limits(), NOW)
    busy = decide(view([agent(free=1)], (jobs(1, n=2),)), Limits(), NOW)
    assert reason(nobody, "class/1") == Reason.NO_AGENT
    assert verdict(nobody, "class/1").sentence == "waits: no agent offers a slot"
    assert reason(busy, "class/1") == Reason.BEHIND_OTHERS
    assert "in lane c4/selfplay or a cheaper lane" in verdict(busy, "class/1").sentence
    assert evidence(busy, "class/1")["jobs granted"] == 1


@pytest.mark.parametrize("free", [0, -3])
def test_an_agent_without_slots_is_no_capacity(free: int) -> None:
    """A full node that polls, or one that miscounts, must not make a job look outcompeted."""
    decision = decide(view([agent(free=free)], (jobs(1),)), Limits(), NOW)
    assert reason(decision, "class/1") == Reason.NO_AGENT
    assert reason(decision, "node/n-1") == Reason.NO_SLOT_OFFERED


@pytest.mark.parametrize(("expires_in", "given_out"), [(-1.0, 0), (0.0, 0), (0.001, 1)])
def test_an_agent_needs_a_live_lease(expires_in: float, given_out: int) -> None:
    """A grant to an agent whose lease is over would be dead at once."""
    decision = decide(view([agent(expires_at=NOW + expires_in)], (jobs(1),)), Limits(), NOW)
    assert len(decision.actions) == given_out
    assert reason(decision, "node/n-1") == (Reason.FILLED if given_out else Reason.LEASE_OVER)


def test_an_idle_node_says_that_there_is_no_work() -> None:
    """Idle by want of work is not idle by rule."""
    decision = decide(view([agent(free=3)], (jobs(1),)), Limits(), NOW)
    found = verdict(decision, "node/n-1")
    assert (found.reason, found.acted) == (Reason.NO_WORK, True)
    assert found.sentence == "2 slots idle: no further job is ready"
    assert evidence(decision, "node/n-1") == {"slots offered": 3, "jobs granted": 1, "jobs due": 1}
    nothing = verdict(decide(view([agent()]), Limits(), NOW), "node/n-1")
    assert (nothing.reason, nothing.acted) == (Reason.NO_WORK, False)


def test_a_pass_is_bounded() -> None:
    """One transaction with thousands of grants would hold the writer."""
    agents = (agent("n-1", 2), agent("n-2", 2))
    decision = decide(view(agents, (jobs(1, n=3),)), Limits(grants_per_pass=2), NOW)
    assert granted_ids(decision) == [10, 11]
    assert reason(decision, "class/1") == Reason.BATCH_FULL
    assert {reason(decision, "node/n-1"), reason(decision, "node/n-2")} == {Reason.BATCH_FULL}
    assert verdict(decision, "class/1").sentence == "waits for the next pass: this one granted 2 jobs"
    assert verdict(decision, "node/n-1").sentence == "1 slot left for the next pass"


def test_jobs_the_view_leaves_out_wait_for_the_next_pass() -> None:
    """A view of the oldest ten of a million may not make nodes say that there is no work."""
    decision = decide(view([agent(free=3)], (jobs(1, n=1, due=1000),)), Limits(), NOW)
    assert reason(decision, "class/1") == Reason.BATCH_FULL
    assert reason(decision, "node/n-1") == Reason.BATCH_FULL
    assert evidence(decision, "class/1")["jobs due"] == 1000


def test_draining_grants_nothing_and_says_so() -> None:
    """A stop request must be seen as the reason, not as a lack of slots."""
    classes = (jobs(1), jobs(2, n=0, later=1))
    decision = decide(view([agent()], classes, draining=True), Limits(), NOW)
    assert decision.actions == ()
    assert {verdict.reason for verdict in decision.verdicts} == {Reason.DRAINING}
    assert not any(verdict.acted for verdict in decision.verdicts)


def test_an_empty_view_is_an_empty_decision() -> None:
    """Nothing waiting and nobody asking is the normal night, not an error."""
    assert decide(view(), Limits(), NOW) == Decision(work_distributor.POLICY, NOW, ())


# --- limits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"weights": {"train": 0.0}}, "weights.train"),
        ({"weights": {"train": float("nan")}}, "weights.train"),
        ({"line_weights": {"c4": -1.0}}, "line_weights.c4"),
        ({"default_weight": float("inf")}, "default_weight"),
        ({"ageing_s": 0.0}, "ageing_s"),
        ({"reserve_after_s": 0.0}, "reserve_after_s"),
        ({"minimums_yield_after_s": float("inf")}, "minimums_yield_after_s"),
        ({"minimums": {"c4/train": -1}}, "minimums.c4/train"),
        ({"reservations": -1}, "reservations"),
        ({"grants_per_pass": 0}, "grants_per_pass"),
    ],
)
def test_numbers_that_shut_somebody_out_are_refused(limits: dict[str, object], name: str) -> None:
    """A lane of weight 0 starves without a word."""
    with pytest.raises(SettingsError, match=rf"distribution\.{name} is ") as refused:
        Limits(**limits)  # type: ignore[arg-type]
    assert refused.value.remedy


def test_the_smallest_numbers_that_mean_something_are_accepted() -> None:
    """Refusing a bound that works would send people to larger ones."""
    limits = Limits(reservations=0, minimums={"a": 0}, grants_per_pass=1, reserve_after_s=0.001)
    assert len(decide(view([agent(free=2)], (jobs(1, n=2),)), limits, NOW).actions) == 1
    assert machine().slots == 4
