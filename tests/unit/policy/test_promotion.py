"""Which candidate becomes champion, and which is closed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.actions import MoveChampion, RejectCandidate
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.errors import SettingsError
from gamekeeper.core.matches import PairTally
from gamekeeper.policy import promotion
from gamekeeper.policy.promotion import CandidateView, ChampionView, Limits, LineView, Reason, View, decide
from gamekeeper.stats.sprt import Outcome, PairCounts, Sprt
from tests.unit.policy.loop_world import a_line

LINE = a_line()
LIMITS = Limits({"c4": LINE})
CHAMPION = ChampionView(3, "hash-3")
BEATS_RANDOM = PairTally((0, 0, 1, 1, 4), 0, 6)
BALANCED = PairTally((0, 0, 6, 0, 0), 0, 6)
WON = PairTally((0, 0, 0, 10, 90), 0, 100)
LOST = PairTally((90, 10, 0, 0, 0), 0, 100)
EVEN = PairTally((2, 5, 10, 5, 2), 0, 24)


def candidate(**changes: object) -> CandidateView:
    plain = CandidateView(7, "hash-7", "hash-3", "hash-3", BEATS_RANDOM, BALANCED, EVEN)
    return replace(plain, **changes)  # type: ignore[arg-type]


def judge(
    one: CandidateView | None, champion: ChampionView | None = CHAMPION, limits: Limits = LIMITS
) -> tuple[Verdict, Decision]:
    decision = decide(View((LineView("c4", champion, one),)), limits, 50.0)
    (verdict,) = decision.verdicts
    return verdict, decision


def tally(counts: PairCounts) -> PairTally:
    lost, half, even, ahead, won = counts
    return PairTally((lost, half, even, ahead, won))


def closed(one: CandidateView, champion: ChampionView | None = CHAMPION, limits: Limits = LIMITS) -> Verdict:
    verdict, decision = judge(one, champion, limits)
    assert decision.actions == (RejectCandidate("c4", 7, verdict.reason),)
    assert verdict.acted
    assert verdict.sentence.startswith("closed")
    return verdict


def waits(one: CandidateView, limits: Limits = LIMITS) -> Verdict:
    verdict, decision = judge(one, CHAMPION, limits)
    assert decision.actions == ()
    assert not verdict.acted
    return verdict


# --- properties ------------------------------------------------------------------------------------------------

counts = st.tuples(*[st.integers(0, 60)] * 5)
tallies = st.builds(PairTally, counts, st.integers(0, 30), st.integers(0, 300))
hashes = st.sampled_from([None, "hash-3", "hash-7", "hash-9"])
candidates = st.builds(
    CandidateView,
    st.just(7),
    st.sampled_from(["hash-7", "hash-3"]),
    hashes,
    hashes,
    tallies,
    tallies,
    tallies,
    st.integers(0, 4),
)
champions = st.sampled_from([None, CHAMPION])


@settings(max_examples=60, deadline=None)
@given(candidates, champions)
def test_a_champion_moves_only_on_full_proof(one: CandidateView, champion: ChampionView | None) -> None:
    """Every condition at once: any one of them missing and a model without proof would steer the loop."""
    _, decision = judge(one, champion)
    for action in decision.actions:
        if not isinstance(action, MoveChampion):
            continue
        assert action == MoveChampion("c4", 7, None if champion is None else 3)
        if champion is None:
            assert (one.parent_hash, one.input_hash) == (None, None)
            continue
        assert one.parent_hash is not None
        assert one.parent_hash == one.input_hash
        assert one.mirror.counts[2] == one.mirror.pairs >= 1
        assert min(one.mirror.played, one.random.played) >= LINE.canary_pairs
        assert one.random.points >= 2 * one.random.pairs * LIMITS.canary_min_score
        assert one.evaluation_failures < 3
        test = Sprt(LINE.elo0, LINE.elo1, LINE.alpha, LINE.beta)
        assert test.decide(PairCounts(*one.promotion.counts)) is Outcome.ACCEPT


@settings(max_examples=60, deadline=None)
@given(candidates, champions)
def test_there_is_one_verdict_and_at_most_one_action(
    one: CandidateView, champion: ChampionView | None
) -> None:
    """A candidate promoted and closed in one breath would leave the outcome to the order of writes."""
    verdict, decision = judge(one, champion)
    assert len(decision.actions) == int(verdict.acted)
    assert verdict.subject == "model/7"
    assert verdict.reason in set(Reason)


@settings(max_examples=60, deadline=None)
@given(candidates, st.integers(0, 30), st.integers(0, 100))
def test_only_promotion_games_count_in_the_test(one: CandidateView, more: int, numbers: int) -> None:
    """Canary wins added to the test would promote by games against a random mover."""
    base = replace(one, hash="hash-7", parent_hash="hash-3", input_hash="hash-3", evaluation_failures=0)
    base = replace(base, mirror=BALANCED, random=BEATS_RANDOM)
    stronger = replace(base, random=PairTally((0, 0, 0, 0, 6 + more), 0, numbers))
    assert judge(base)[1].actions == judge(stronger)[1].actions


@settings(max_examples=60, deadline=None)
@given(candidates)
def test_a_candidate_that_has_played_everything_is_decided(one: CandidateView) -> None:
    """No candidate may hold its line for ever."""
    spent = replace(one.promotion, duplicates=200)
    full = replace(one.random, duplicates=6)
    done = replace(one, promotion=spent, random=full, mirror=replace(one.mirror, duplicates=6))
    assert len(judge(done)[1].actions) == 1


@settings(max_examples=60, deadline=None)
@given(counts, counts)
def test_more_wins_never_close_a_promoted_candidate(first: tuple[int, ...], more: tuple[int, ...]) -> None:
    """The test reads the tally from the candidate's side: swapping it must swap the outcome."""
    a = PairCounts(*first)
    test = Sprt(-LINE.elo1 / 2, LINE.elo1 / 2, 0.05, 0.05)
    limits = Limits({"c4": replace(LINE, elo0=test.elo0, elo1=test.elo1, max_pairs=10**6)})
    ahead, _ = judge(candidate(promotion=tally(a)), limits=limits)
    behind, _ = judge(candidate(promotion=tally(a.swapped())), limits=limits)
    mirrored = {
        Reason.STRONGER: Reason.NOT_STRONGER,
        Reason.NOT_STRONGER: Reason.STRONGER,
        Reason.TEST_RUNNING: Reason.TEST_RUNNING,
    }
    assert behind.reason == mirrored[Reason(ahead.reason)]


# --- the first model -------------------------------------------------------------------------------------------


def test_a_founding_model_becomes_the_first_champion() -> None:
    """Nothing can be played before; it is announced as untested."""
    verdict, decision = judge(CandidateView(7, "hash-7", None, None), None)
    assert decision.actions == (MoveChampion("c4", 7, None),)
    assert (verdict.subject, verdict.reason, verdict.acted) == ("model/7", Reason.FOUNDING_MODEL, True)
    assert "untested" in verdict.sentence
    assert decision.policy == "promotion"
    assert decision.decided_at == 50.0


@pytest.mark.parametrize("parents", [("hash-1", "hash-1"), (None, "hash-1"), ("hash-1", None)])
def test_a_descendant_cannot_found_a_line(parents: tuple[str | None, str | None]) -> None:
    """Without its ancestor as champion there is no test; the line is founded anew instead."""
    verdict = closed(candidate(parent_hash=parents[0], input_hash=parents[1]), None)
    assert verdict.reason == Reason.NO_CHAMPION
    assert [item.value for item in verdict.evidence] == list(parents)


def test_a_second_founding_model_is_closed() -> None:
    """Two founding jobs may both finish after a crash."""
    assert closed(candidate(parent_hash=None, input_hash=None)).reason == Reason.SECOND_FOUNDING


# --- descent ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parents", [("hash-2", "hash-3"), (None, "hash-3"), ("hash-3", None)])
def test_a_candidate_of_another_parent_than_announced_is_closed(
    parents: tuple[str | None, str | None],
) -> None:
    """A trainer that fell back to other weights is never believed, however its games went."""
    verdict = closed(candidate(parent_hash=parents[0], input_hash=parents[1], promotion=WON))
    assert verdict.reason == Reason.WRONG_PARENT
    assert [(i.name, i.value, i.limit, i.origin) for i in verdict.evidence] == [
        ("announced parent", *parents, "input of its training job")
    ]


def test_a_candidate_of_an_earlier_champion_is_tested_and_it_is_noted() -> None:
    """After a rollback its parent is not champion; it is honest work all the same."""
    verdict, decision = judge(candidate(parent_hash="hash-2", input_hash="hash-2", promotion=WON))
    assert decision.actions == (MoveChampion("c4", 7, 3),)
    assert verdict.evidence[-1].name == "parent is the champion"
    assert verdict.evidence[-1].value is False


def test_weights_equal_to_the_champions_are_closed_untested() -> None:
    """A training that changed nothing would play the whole test to no end."""
    verdict = closed(candidate(hash="hash-3"))
    assert verdict.reason == Reason.IDENTICAL
    assert (verdict.evidence[0].value, verdict.evidence[0].origin) == ("hash-3", "model/3")


# --- canaries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_one_unbalanced_pair_against_itself_closes(at: int) -> None:
    """A net against itself wins exactly as often as it loses; anything else is a broken evaluation."""
    counts = [0, 0, 3, 0, 0]
    counts[at] += 1
    unbalanced = PairTally((counts[0], counts[1], counts[2], counts[3], counts[4]))
    verdict = closed(candidate(mirror=unbalanced, random=PairTally()))
    assert verdict.reason == Reason.CANARY_UNBALANCED
    assert [(i.name, i.value, i.limit) for i in verdict.evidence] == [
        ("pairs worth 0, 0.5, 1, 1.5, 2 against itself", str(unbalanced.counts), None),
        ("unbalanced pairs", 1, 0),
    ]


@pytest.mark.parametrize(
    ("counts", "passes"),
    [((1, 1, 1, 1, 2), False), ((1, 0, 1, 3, 1), True), ((0, 0, 0, 0, 6), True), ((6, 0, 0, 0, 0), False)],
)
def test_the_score_against_random_has_a_floor(counts: tuple[int, int, int, int, int], passes: bool) -> None:
    """7 of 12 is below 60 %, 7.5 of 12 above: a net that plays like chance is not a net."""
    one = candidate(random=PairTally(counts))
    if passes:
        assert waits(one).reason == Reason.TEST_RUNNING
    else:
        verdict = closed(one)
        assert verdict.reason == Reason.CANARY_WEAK
        assert verdict.evidence[0].limit == 0.6
        assert verdict.evidence[0].origin == "promotion.canary_min_score"


def test_a_score_exactly_at_the_floor_passes() -> None:
    """The floor is what must be reached."""
    one = candidate(random=PairTally((1, 0, 1, 1, 2), 1))
    assert waits(one, replace(LIMITS, canary_min_score=0.65)).reason == Reason.TEST_RUNNING
    verdict = closed(one, limits=replace(LIMITS, canary_min_score=0.66))
    assert verdict.sentence == "closed: it scored 65% against a random mover"
    assert verdict.evidence[0].value == 0.65


@pytest.mark.parametrize(
    "unfinished",
    [{"random": PairTally((0, 0, 0, 0, 5))}, {"mirror": PairTally((0, 0, 5, 0, 0))}, {"random": PairTally()}],
)
def test_nothing_is_judged_before_all_canaries_are_played(unfinished: dict[str, PairTally]) -> None:
    """Promotion games that came early, by whatever way, do not jump the gate."""
    verdict = waits(candidate(promotion=WON, **unfinished))
    assert verdict.reason == Reason.CANARY_RUNNING
    played = min(tally.played for tally in unfinished.values())
    assert verdict.sentence == f"waits: {played} of 6 canary pairs are played"
    assert [(i.value, i.limit, i.origin) for i in verdict.evidence] == [(played, 6, "lines.c4.canary_pairs")]


def test_an_early_bad_score_is_not_judged_before_its_number() -> None:
    """One lost pair of six is no proof."""
    assert waits(candidate(random=PairTally((1, 0, 0, 0, 0)))).reason == Reason.CANARY_RUNNING


@pytest.mark.parametrize("empty", ["random", "mirror"])
def test_canaries_without_a_single_counting_pair_close(empty: str) -> None:
    """No evidence is not a pass: a candidate with nothing but repeated games has proven nothing."""
    verdict = closed(candidate(promotion=WON, **{empty: PairTally(duplicates=6)}))
    assert verdict.reason == Reason.CANARY_EMPTY
    assert verdict.evidence[0].value is None


def test_a_single_canary_pair_is_a_gate_too() -> None:
    """One pair asked for is one pair to wait for."""
    limits = Limits({"c4": a_line(canary_pairs=1)})
    assert waits(candidate(random=PairTally(), promotion=WON), limits).reason == Reason.CANARY_RUNNING


def test_without_canaries_declared_the_test_alone_decides() -> None:
    """Zero canary pairs is a choice of the line; then stray canary results do not close."""
    limits = Limits({"c4": a_line(canary_pairs=0)})
    one = candidate(mirror=PairTally((1, 0, 0, 0, 0)), random=PairTally(), promotion=WON)
    assert judge(one, limits=limits)[0].reason == Reason.STRONGER


# --- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "gone"), [(2, False), (3, True), (4, True)])
def test_a_candidate_that_cannot_be_evaluated_is_closed(failures: int, gone: bool) -> None:
    """A net that does not load fails its jobs; retried for ever it would block its line."""
    one = candidate(evaluation_failures=failures)
    if not gone:
        assert waits(one).reason == Reason.TEST_RUNNING
        return
    verdict = closed(one)
    assert verdict.reason == Reason.EVALUATION_FAILED
    assert [(i.value, i.limit, i.origin) for i in verdict.evidence] == [
        (failures, 3, "promotion.evaluation_failures_allowed")
    ]
    assert verdict.sentence == f"closed: {failures} jobs failed to evaluate it"


# --- the test --------------------------------------------------------------------------------------------------


def test_a_stronger_candidate_is_promoted_with_its_numbers() -> None:
    """The audit: ratio, bounds, counts, and where each limit was set."""
    verdict, decision = judge(candidate(promotion=WON))
    assert decision.actions == (MoveChampion("c4", 7, 3),)
    assert (verdict.reason, verdict.acted) == (Reason.STRONGER, True)
    shown = {item.name: item for item in verdict.evidence}
    test = Sprt(0.0, 40.0, 0.05, 0.05)
    assert shown["log-likelihood ratio"].value == round(test.llr(PairCounts(*WON.counts)), 4)
    assert shown["log-likelihood ratio"].limit == round(math.log(19), 4)
    assert shown["log-likelihood ratio"].origin == "lines.c4.alpha"
    assert (shown["lower bound"].value, shown["lower bound"].origin) == (
        -round(math.log(19), 4),
        "lines.c4.beta",
    )
    assert shown["pairs worth 0, 0.5, 1, 1.5, 2"].value == "(0, 0, 0, 10, 90)"
    assert (shown["pairs played"].value, shown["pairs played"].limit) == (100, 200)
    assert shown["repeated games"].value == 0
    assert shown["parent is the champion"].value is True
    assert verdict.sentence.startswith("promoted against model 3 after 100 pairs: log-likelihood ratio ")


def test_a_weaker_candidate_is_closed() -> None:
    """The lower bound ends the test early."""
    assert closed(candidate(promotion=LOST)).reason == Reason.NOT_STRONGER


def test_between_the_bounds_the_test_goes_on() -> None:
    """The verdict shows where it stands."""
    verdict = waits(candidate())
    assert verdict.reason == Reason.TEST_RUNNING
    assert verdict.sentence.endswith("between -2.94 and 2.94")


def test_before_the_first_pair_the_ratio_is_zero() -> None:
    """No games, no evidence either way."""
    verdict = waits(candidate(promotion=PairTally()))
    assert verdict.evidence[0].value == 0.0


@pytest.mark.parametrize(
    ("tally", "reason"),
    [
        (PairTally((30, 45, 50, 45, 29)), Reason.TEST_RUNNING),
        (PairTally((30, 45, 50, 45, 30)), Reason.UNDECIDED),
        (PairTally((2, 5, 10, 5, 2), 175), Reason.TEST_RUNNING),
        (PairTally((2, 5, 10, 5, 2), 176), Reason.UNDECIDED),
        (PairTally((0, 0, 0, 10, 90), 300), Reason.STRONGER),
        (PairTally((90, 10, 0, 0, 0), 300), Reason.NOT_STRONGER),
    ],
)
def test_max_pairs_ends_an_undecided_test(tally: PairTally, reason: Reason) -> None:
    """Repeated games count as played; a test decided by its bounds is not overruled by max_pairs."""
    limits = Limits({"c4": a_line(elo0=-15.0, elo1=15.0)})
    verdict, decision = judge(candidate(promotion=tally), limits=limits)
    assert verdict.reason == reason
    assert bool(decision.actions) == (reason != Reason.TEST_RUNNING)
    if reason == Reason.UNDECIDED:
        assert decision.actions == (RejectCandidate("c4", 7, "undecided"),)
        assert verdict.sentence.endswith("undecided at max_pairs 200")


def test_the_declared_error_rates_are_used() -> None:
    """Tighter rates ask for more pairs; a fixed bound would ignore what the line states."""
    one = candidate(promotion=PairTally((0, 0, 0, 0, 30)))
    loose, strict = (Limits({"c4": a_line(alpha=rate, beta=rate)}) for rate in (0.05, 0.001))
    assert judge(one, limits=loose)[0].reason == Reason.STRONGER
    assert judge(one, limits=strict)[0].reason == Reason.TEST_RUNNING
    weak = candidate(promotion=PairTally((4, 12, 20, 6, 0)))
    early, late = (Limits({"c4": a_line(beta=rate)}) for rate in (0.2, 0.0001))
    assert judge(weak, limits=early)[0].reason == Reason.NOT_STRONGER
    assert judge(weak, limits=late)[0].reason == Reason.TEST_RUNNING


# --- lines and limits ------------------------------------------------------------------------------------------


def test_a_line_without_a_candidate_is_looked_at_too() -> None:
    """`why line` must say that there was nothing to decide."""
    verdict, decision = judge(None)
    assert (verdict.subject, verdict.reason, verdict.acted) == (
        "line/c4/champion",
        Reason.NO_CANDIDATE,
        False,
    )
    assert decision.actions == ()


def test_an_undeclared_line_is_left_alone() -> None:
    """Without its settings there is no test to hold it to."""
    decision = decide(View((LineView("old", CHAMPION, candidate(promotion=WON)),)), LIMITS, 0.0)
    assert decision.actions == ()
    assert decision.verdicts[0].reason == Reason.UNDECLARED_LINE


def test_lines_are_judged_apart_and_in_order() -> None:
    """One line's champion must not be expected in another."""
    limits = Limits({"a": a_line("a"), "b": a_line("b")})
    lines = (LineView("b", ChampionView(9, "hash-3"), candidate(promotion=WON)), LineView("a", None, None))
    decision = decide(View(lines), limits, 0.0)
    assert decision.actions == (MoveChampion("b", 7, 9),)
    assert [verdict.subject for verdict in decision.verdicts] == ["line/a/champion", "model/7"]


@pytest.mark.parametrize(
    "changes", [{"canary_min_score": -0.01}, {"canary_min_score": 1.01}, {"evaluation_failures_allowed": 0}]
)
def test_limits_that_judge_nothing_or_everything_are_refused(changes: dict[str, float]) -> None:
    """A floor above 1 closes every candidate; no allowance closes each before it played."""
    with pytest.raises(SettingsError, match=r"^promotion.canary_min_score must lie in 0 to 1") as caught:
        Limits(**changes)  # type: ignore[arg-type]
    assert caught.value.remedy == "correct [promotion] in gamekeeper.toml"


def test_the_edges_of_the_limits_are_allowed() -> None:
    """0 and 1 are scores."""
    for floor in (0.0, 1.0):
        assert (
            promotion.Limits(canary_min_score=floor, evaluation_failures_allowed=1).canary_min_score == floor
        )
