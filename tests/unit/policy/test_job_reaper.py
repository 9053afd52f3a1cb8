"""Ending attempts whose lease is over, and leaving all others alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.actions import EndAttempt, MarkNodeLost
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.errors import SettingsError
from gamekeeper.core.jobs import EndReason
from gamekeeper.policy import job_reaper
from gamekeeper.policy.job_reaper import HeldAttempt, Limits, NodeLease, Reason, View, decide

NOW = 10_000.0
LIMITS = Limits(lease_s=40.0, margin_share=0.25)
MARGIN = 10.0
LONG_AGO = NOW - 1000


def lease(
    node: str = "n-1", *, expires: float = NOW + 5, since: float = LONG_AGO, lost: bool = False
) -> NodeLease:
    return NodeLease(node, f"inc-{node}", since, expires, lost)


def attempt(number: int = 1, node: str = "n-1", *, leased: float = LONG_AGO, inc: str = "") -> HeldAttempt:
    return HeldAttempt(number, number + 100, number + 200, node, inc or f"inc-{node}", leased)


def view(*parts: NodeLease | HeldAttempt, serving_since: float = LONG_AGO) -> View:
    leases = tuple(part for part in parts if isinstance(part, NodeLease))
    return View(leases, tuple(part for part in parts if isinstance(part, HeldAttempt)), serving_since)


def verdict(decision: Decision, subject: str) -> Verdict:
    (found,) = [verdict for verdict in decision.verdicts if verdict.subject == subject]
    return found


def ended(decision: Decision) -> list[int]:
    return [action.attempt_id for action in decision.actions if isinstance(action, EndAttempt)]


def lost(decision: Decision) -> list[str]:
    return [action.node_id for action in decision.actions if isinstance(action, MarkNodeLost)]


OVER = NOW - MARGIN

# --- properties ------------------------------------------------------------------------------------------------

moments = st.floats(NOW - 300, NOW + 100)
nodes = st.sampled_from(["n-1", "n-2", "n-3"])
leases = st.builds(
    NodeLease, nodes, st.sampled_from(["i", "j"]), st.floats(NOW - 300, NOW), moments, st.booleans()
)
attempts = st.builds(
    HeldAttempt,
    st.integers(1, 30),
    st.integers(1, 99),
    st.integers(1, 99),
    nodes,
    st.sampled_from(["i", "j"]),
    st.floats(NOW - 300, NOW),
)
views = st.builds(
    View,
    st.lists(leases, unique_by=lambda one: one.node_id, max_size=3).map(tuple),
    st.lists(attempts, unique_by=lambda one: one.attempt_id, max_size=8).map(tuple),
    st.floats(NOW - 300, NOW),
)


@settings(max_examples=50, deadline=None)
@given(views)
def test_an_attempt_under_a_live_lease_is_never_touched(shown: View) -> None:
    """The one rule that may not break: work that somebody still has the right to do is not given out again."""
    decision = decide(shown, LIMITS, NOW)
    live = {one.node_id: one.incarnation for one in shown.leases if one.expires_at > NOW - MARGIN}
    safe = {one.attempt_id for one in shown.attempts if live.get(one.node_id) == one.incarnation}
    assert not safe & set(ended(decision))
    assert not set(live) & set(lost(decision))


@settings(max_examples=50, deadline=None)
@given(views)
def test_nothing_is_done_about_a_node_without_a_lease_on_record(shown: View) -> None:
    """Unknown is not dead."""
    known = {one.node_id for one in shown.leases}
    decision = decide(shown, LIMITS, NOW)
    assert all(one.node_id in known for one in shown.attempts if one.attempt_id in ended(decision))


@settings(max_examples=50, deadline=None)
@given(views, st.floats(0, 49.9))
def test_a_young_observer_leaves_everything_alone(shown: View, served: float) -> None:
    """After a coordinator's restart every lease looks expired; nobody could renew while it was down."""
    decision = decide(replace(shown, serving_since=NOW - served), LIMITS, NOW)
    assert decision.actions == ()
    assert {verdict.reason for verdict in decision.verdicts} <= {Reason.OBSERVER_TOO_YOUNG}


@settings(max_examples=50, deadline=None)
@given(views, st.floats(0.01, 5000))
def test_a_clock_behind_its_own_record_leaves_everything_alone(shown: View, back: float) -> None:
    """A clock set back tells nothing about leases; acting on it would be a guess."""
    latest = max(
        [shown.serving_since, *(o.since for o in shown.leases), *(o.leased_at for o in shown.attempts)]
    )
    decision = decide(shown, LIMITS, latest - back)
    assert decision.actions == ()
    assert {verdict.reason for verdict in decision.verdicts} <= {Reason.CLOCK_BEHIND}


@settings(max_examples=50, deadline=None)
@given(views)
def test_every_subject_gets_a_verdict_that_tells_what_was_done(shown: View) -> None:
    """An attempt ended or spared without a word cannot be explained."""
    decision = decide(shown, LIMITS, NOW)
    assert len(decision.verdicts) == len(shown.attempts) + len(shown.leases)
    assert sum(verdict.acted for verdict in decision.verdicts) == len(decision.actions)
    assert all(verdict.reason in set(Reason) for verdict in decision.verdicts)
    assert all(verdict.acted or verdict.sentence.startswith("left alone: ") for verdict in decision.verdicts)


@settings(max_examples=50, deadline=None)
@given(views)
def test_applying_the_decision_leaves_nothing_to_do(shown: View) -> None:
    """A reaper that acts again on what it has ended would write the same facts with every pass."""
    decision = decide(shown, LIMITS, NOW)
    gone = set(lost(decision))
    after = View(
        tuple(replace(one, lost=one.lost or one.node_id in gone) for one in shown.leases),
        tuple(one for one in shown.attempts if one.attempt_id not in ended(decision)),
        shown.serving_since,
    )
    assert decide(after, LIMITS, NOW).actions == ()


@settings(max_examples=50, deadline=None)
@given(views, st.floats(0, 1000))
def test_time_only_adds_to_what_is_over(shown: View, later: float) -> None:
    """What is over at one moment is over at every later one."""
    first, second = decide(shown, LIMITS, NOW), decide(shown, LIMITS, NOW + later)
    assert set(ended(first)) <= set(ended(second))
    assert set(lost(first)) <= set(lost(second))


@settings(max_examples=50, deadline=None)
@given(views)
def test_everything_known_is_reaped_in_the_end(shown: View) -> None:
    """No attempt may hang forever: long after the last lease, all on nodes with a lease on record are ended."""
    decision = decide(shown, LIMITS, NOW + 10_000)
    known = {one.node_id for one in shown.leases}
    assert set(ended(decision)) == {one.attempt_id for one in shown.attempts if one.node_id in known}
    assert set(lost(decision)) == {one.node_id for one in shown.leases if not one.lost}


@settings(max_examples=50, deadline=None)
@given(views, st.randoms(use_true_random=False))
def test_the_order_of_the_view_does_not_matter(shown: View, chance: object) -> None:
    """Answers that hang on row order cannot be replayed."""
    turned = View(tuple(reversed(shown.leases)), tuple(reversed(shown.attempts)), shown.serving_since)
    assert decide(turned, LIMITS, NOW) == decide(shown, LIMITS, NOW)


# --- an expired lease ------------------------------------------------------------------------------------------


def test_all_attempts_of_an_expired_lease_are_ended() -> None:
    """One attempt forgotten is a job stuck running for good."""
    decision = decide(view(lease(expires=OVER), attempt(1), attempt(2), attempt(3)), LIMITS, NOW)
    assert decision.actions == (
        *(
            EndAttempt(
                number,
                number + 100,
                EndReason.LEASE_EXPIRED,
                "the lease of node n-1 ended 10.0 s ago and was not renewed",
            )
            for number in (1, 2, 3)
        ),
        MarkNodeLost("n-1"),
    )


def test_an_expired_node_without_attempts_is_marked_lost() -> None:
    """An idle node that vanished is lost too."""
    assert lost(decide(view(lease(expires=OVER)), LIMITS, NOW)) == ["n-1"]


def test_other_nodes_are_not_drawn_in() -> None:
    """One node's end says nothing of its neighbour."""
    shown = view(lease("n-1", expires=OVER), lease("n-2"), attempt(1, "n-1"), attempt(2, "n-2"))
    decision = decide(shown, LIMITS, NOW)
    assert (ended(decision), lost(decision)) == ([1], ["n-1"])
    assert verdict(decision, "node/n-2").reason == Reason.LEASE_LIVE
    assert verdict(decision, "job/202").reason == Reason.LEASE_LIVE


@pytest.mark.parametrize(
    ("expires", "reason"),
    [
        (NOW + 0.001, Reason.LEASE_LIVE),
        (NOW, Reason.WITHIN_MARGIN),
        (NOW - MARGIN + 0.001, Reason.WITHIN_MARGIN),
        (NOW - MARGIN, Reason.LEASE_EXPIRED),
        (NOW - MARGIN - 1, Reason.LEASE_EXPIRED),
    ],
)
def test_the_edges_of_the_margin(expires: float, reason: Reason) -> None:
    """An agent that stops its job at the last moment needs the margin, all of it and no more."""
    decision = decide(view(lease(expires=expires), attempt()), LIMITS, NOW)
    assert verdict(decision, "job/201").reason == reason
    assert verdict(decision, "node/n-1").reason == reason
    assert bool(decision.actions) == (reason == Reason.LEASE_EXPIRED)


def test_a_live_lease_says_how_long_it_holds() -> None:
    """`why` must show the number that saved the attempt."""
    found = verdict(decide(view(lease(), attempt()), LIMITS, NOW), "job/201")
    assert found.sentence == "left alone: node n-1 holds its lease for 5.0 s more"
    assert [(item.name, item.value, item.limit, item.origin) for item in found.evidence] == [
        ("seconds since the lease ended", -5.0, MARGIN, "lease_s"),
        ("incarnation", "inc-n-1", None, ""),
    ]


def test_within_the_margin_the_sentence_says_so() -> None:
    """A lease over but not yet acted on is a state of its own."""
    found = verdict(decide(view(lease(expires=NOW - 3)), LIMITS, NOW), "node/n-1")
    assert found.sentence == "left alone: the lease of node n-1 ended 3.0 s ago, within the margin"
    assert found.acted is False
    assert [item.value for item in found.evidence] == [3.0, "inc-n-1"]


@pytest.mark.parametrize(
    ("shown", "subject"),
    [
        (view(lease(expires=NOW - 3.00049)), "node/n-1"),
        (view(lease(), attempt(leased=NOW - 3.00049)), "job/201"),
        (view(lease(since=NOW - 3.00049), attempt(inc="earlier")), "job/201"),
        (view(lease(), serving_since=NOW - 3.00049), "node/n-1"),
    ],
)
def test_evidence_is_shown_to_the_millisecond(shown: View, subject: str) -> None:
    """Whole seconds would hide on which side of a bound a measurement fell; more digits are noise."""
    assert verdict(decide(shown, LIMITS, NOW), subject).evidence[0].value == 3.0
    assert verdict(decide(shown, LIMITS, NOW + 0.25), subject).evidence[0].value == 3.25


def test_a_lost_node_is_not_marked_again() -> None:
    """Marking it with every pass would flood the log."""
    decision = decide(view(lease(expires=OVER, lost=True)), LIMITS, NOW)
    assert decision.actions == ()
    found = verdict(decision, "node/n-1")
    assert (found.reason, found.sentence) == (Reason.ALREADY_LOST, "left alone: it is marked lost already")
    assert found.evidence[0].value == MARGIN


def test_attempts_of_a_lost_node_are_still_ended() -> None:
    """An attempt granted just before the node was marked must not slip through."""
    assert ended(decide(view(lease(expires=OVER, lost=True), attempt()), LIMITS, NOW)) == [1]


def test_a_lost_mark_on_a_live_lease_is_no_verdict_of_its_own() -> None:
    """A node that came back is live, whatever its mark says."""
    found = verdict(decide(view(lease(lost=True)), LIMITS, NOW), "node/n-1")
    assert found.reason == Reason.LEASE_LIVE


# --- doubt -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("served", "acts"), [(0.0, False), (49.999, False), (50.0, True), (500.0, True)])
def test_the_observer_needs_a_lease_and_a_margin(served: float, acts: bool) -> None:
    """Exactly so long an agent could have been on its way to renew."""
    decision = decide(view(lease(expires=OVER - 100), attempt(), serving_since=NOW - served), LIMITS, NOW)
    assert bool(decision.actions) is acts


def test_a_young_observer_names_its_numbers() -> None:
    """The reason for inaction after a restart must be visible."""
    decision = decide(view(lease(expires=OVER), attempt(), serving_since=NOW - 20), LIMITS, NOW)
    found = verdict(decision, "job/201")
    assert found.sentence == (
        "left alone: agents could renew here for 20.0 s only, 50.0 s are needed to judge them"
    )
    assert [(i.name, i.value, i.limit, i.origin) for i in found.evidence] == [
        ("seconds served", 20.0, 50.0, "lease_s")
    ]


@pytest.mark.parametrize("part", ["serving", "lease", "attempt"])
def test_any_time_ahead_of_the_clock_casts_doubt(part: str) -> None:
    """Each recorded time is a witness against the clock; overlooking one kind would act on a wrong one."""
    ahead = NOW + 60
    shown = view(
        lease(expires=OVER, since=ahead if part == "lease" else LONG_AGO),
        attempt(leased=ahead if part == "attempt" else LONG_AGO),
        lease("n-2", expires=OVER),
        serving_since=ahead if part == "serving" else LONG_AGO,
    )
    decision = decide(shown, LIMITS, NOW)
    assert decision.actions == ()
    found = verdict(decision, "node/n-2")
    assert found.reason == Reason.CLOCK_BEHIND
    assert found.sentence == (
        "left alone: the clock stands 60.0 s before things that have happened, so no lease can be judged"
    )
    assert [(i.name, i.value, i.limit, i.origin) for i in found.evidence] == [
        ("now", NOW, ahead, "latest time on record")
    ]


def test_a_time_equal_to_now_is_no_doubt() -> None:
    """A lease taken in this very moment is normal."""
    decision = decide(view(lease(expires=OVER), lease("n-2", since=NOW)), LIMITS, NOW)
    assert lost(decision) == ["n-1"]


def test_an_attempt_without_a_lease_on_record_is_left_alone() -> None:
    """Could not tell is an answer; ending it would be a guess."""
    found = verdict(decide(view(attempt()), LIMITS, NOW), "job/201")
    assert (found.reason, found.acted) == (Reason.LEASE_UNKNOWN, False)
    assert (found.evidence[0].name, found.evidence[0].value) == ("lease of its node", None)
    assert "n-1" in found.sentence


@pytest.mark.parametrize(("age", "acts"), [(0.0, False), (9.999, False), (10.0, True)])
def test_a_fresh_grant_has_its_margin(age: float, acts: bool) -> None:
    """A grant guarded by a live lease cannot be under one long over: the record is not settled yet."""
    decision = decide(view(lease(expires=OVER), attempt(leased=NOW - age)), LIMITS, NOW)
    assert bool(ended(decision)) is acts
    assert verdict(decision, "job/201").reason == (Reason.LEASE_EXPIRED if acts else Reason.JUST_GRANTED)


def test_a_fresh_grant_says_its_age() -> None:
    """The evidence of sparing it."""
    found = verdict(decide(view(lease(), attempt(leased=NOW - 4)), LIMITS, NOW), "job/201")
    assert found.sentence == "left alone: it was granted 4.0 s ago"
    assert [(i.name, i.value, i.limit, i.origin) for i in found.evidence] == [
        ("seconds since the grant", 4.0, MARGIN, "lease_s")
    ]


# --- a later incarnation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("since", "acts"), [(49.999, False), (50.0, True)])
def test_an_attempt_nobody_adopted_is_ended_after_a_lease(since: float, acts: bool) -> None:
    """The earlier incarnation may run on under its own lease; after that nobody does."""
    shown = view(lease(since=NOW - since), attempt(inc="earlier"))
    decision = decide(shown, LIMITS, NOW)
    assert bool(ended(decision)) is acts
    found = verdict(decision, "job/201")
    assert found.reason == (Reason.SUPERSEDED if acts else Reason.WITHIN_MARGIN)
    assert found.evidence[0].limit == 50.0
    assert (found.evidence[1].name, found.evidence[1].value) == ("incarnation", "inc-n-1")


def test_a_superseded_attempt_ends_as_agent_restarted() -> None:
    """The cause is the restart, not the lease; and the node is not lost."""
    decision = decide(view(lease(), attempt(inc="earlier")), LIMITS, NOW)
    (action,) = decision.actions
    assert action == EndAttempt(
        1, 101, EndReason.AGENT_RESTARTED, "its agent was restarted 1000.0 s ago and did not take it over"
    )
    assert verdict(decision, "node/n-1").reason == Reason.LEASE_LIVE


def test_a_superseded_attempt_in_doubt_says_why() -> None:
    """The sentence must not claim that the lease is live."""
    found = verdict(decide(view(lease(since=NOW - 30), attempt(inc="earlier")), LIMITS, NOW), "job/201")
    assert found.sentence == (
        "left alone: its agent was restarted 30.0 s ago and its earlier lease may still run"
    )
    assert found.evidence[0].name == "seconds since the takeover"
    assert (found.evidence[0].value, found.evidence[0].origin) == (30.0, "lease_s")


# --- limits and shape ------------------------------------------------------------------------------------------


def test_the_margin_derives_from_the_lease() -> None:
    """One number steers all timings."""
    assert Limits(lease_s=12.0, margin_share=0.5).margin_s == 6.0
    assert (Limits().lease_s, Limits().margin_s) == (30.0, 7.5)


@pytest.mark.parametrize(
    ("lease_s", "margin_share"),
    [(0.0, 0.1), (-1.0, 0.1), (float("inf"), 0.1), (30.0, -0.01), (30.0, float("nan")), (30.0, float("inf"))],
)
def test_timings_that_cannot_be_kept_are_refused(lease_s: float, margin_share: float) -> None:
    """A lease of no length would end every attempt at once."""
    with pytest.raises(SettingsError, match="lease_s") as caught:
        Limits(lease_s=lease_s, margin_share=margin_share)
    assert caught.value.remedy == "set lease_s above 0 and the margin to 0 or more"


def test_a_short_lease_is_allowed() -> None:
    """Tests and single machines use leases below a second."""
    assert Limits(lease_s=0.5, margin_share=2.0).margin_s == 1.0


def test_no_margin_is_allowed() -> None:
    """A margin of 0 is a choice, not an error."""
    assert lost(decide(view(lease(expires=NOW)), Limits(lease_s=40.0, margin_share=0.0), NOW)) == ["n-1"]


def test_an_empty_fleet_is_an_empty_decision() -> None:
    """No node yet is no error."""
    assert decide(view(), LIMITS, NOW) == Decision(job_reaper.POLICY, NOW, ())


def test_verdicts_come_in_a_fixed_order() -> None:
    """Attempts by id, then nodes by id: a stable record."""
    shown = view(lease("n-2"), lease("n-1"), attempt(2, "n-1"), attempt(1, "n-2"))
    subjects = [verdict.subject for verdict in decide(shown, LIMITS, NOW).verdicts]
    assert subjects == ["job/201", "job/202", "node/n-1", "node/n-2"]
