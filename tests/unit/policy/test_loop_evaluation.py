"""What each line needs of evaluation: canaries, promotion, ratings; and how its state is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import SettingsError
from gamekeeper.core.jobs import Job, JobSpec, JobState
from gamekeeper.core.matches import PairTally
from gamekeeper.policy.continuous_loop import evaluation, loop, production, turn, view
from gamekeeper.policy.continuous_loop.view import (
    Limits,
    LineView,
    LiveJob,
    Phase,
    Reason,
    Stage,
    StageHistory,
)
from tests.unit.policy.line_cases import (
    CANDIDATE,
    CHAMPION,
    LIMITS,
    PASSED,
    RATED,
    SECOND,
    cancelled,
    line,
    played,
    run,
    specs,
    verdict,
)
from tests.unit.policy.loop_world import a_line

USED = (evaluation, loop, production, turn, view)


# --- canary and promotion --------------------------------------------------------------------------------------


def test_a_candidate_plays_its_canaries_first() -> None:
    """Promotion games of a net that cannot be trusted are no evidence."""
    decision = run(line(candidate=CANDIDATE))
    for spec, name in zip(specs(decision), ("random", "self"), strict=True):
        assert (spec.key, spec.purpose) == (f"evaluate/2/{name}/canary/0", "canary")
        assert spec.wanted == {"opponent": name, "pairs": 6, "first_pair": 0}
        assert spec.inputs == {"candidate": ("hash-2",)}
    found = verdict(decision, "promotion")
    assert (found.reason, found.acted) == (Reason.CANARY_FIRST, False)
    assert found.sentence == "promotion: canary games against random and self come first"


def test_canaries_in_flight_are_not_doubled() -> None:
    """One job each."""
    flying = (
        played(8, "canary", opponent="random", opponent_hash="", pairs=6),
        played(9, "canary", opponent="self", opponent_hash="", pairs=6),
    )
    decision = run(line(candidate=CANDIDATE, live=(*line().live, *flying)))
    assert decision.actions == ()
    assert verdict(decision, "canary").reason == Reason.ENOUGH_IN_FLIGHT
    assert verdict(decision, "canary").sentence == "canary: 12 pairs in flight in 2 jobs"


def test_a_canary_handed_in_short_is_filled_up() -> None:
    """A job stopped early leaves a rest that must be asked for, from fresh openings."""
    short = replace(PASSED, mirror=PairTally((0, 0, 4, 0, 0), 0, 6))
    (spec,) = specs(run(line(candidate=short)))
    assert spec.wanted == {"opponent": "self", "pairs": 2, "first_pair": 6}
    assert verdict(run(line(candidate=short)), "promotion").sentence.endswith("against self come first")


def test_without_canaries_declared_the_test_begins_at_once() -> None:
    """Zero canary pairs is a choice of the line."""
    limits = Limits({"c4": a_line(canary_pairs=0)})
    decision = run(line(candidate=CANDIDATE), limits=limits)
    assert verdict(decision, "canary").reason == Reason.NOT_NEEDED
    assert {spec.purpose for spec in specs(decision)} == {"promotion"}


def test_a_single_canary_pair_is_played_too() -> None:
    """One is not none."""
    limits = Limits({"c4": a_line(canary_pairs=1)})
    assert [spec.purpose for spec in specs(run(line(candidate=CANDIDATE), limits=limits))] == [
        "canary",
        "canary",
    ]


def test_promotion_pairs_fill_the_slots_and_one_more() -> None:
    """As many jobs as can be of use; openings in a row, none twice."""
    decision = run(line(candidate=PASSED))
    assert [(spec.key, spec.wanted["first_pair"], spec.wanted["pairs"]) for spec in specs(decision)] == [
        (f"evaluate/2/model/1/promotion/{first}", first, 16) for first in (0, 16, 32)
    ]
    first = specs(decision)[0]
    assert first.inputs == {"candidate": ("hash-2",), "opponent": ("hash-1",)}
    assert (first.wanted["opponent"], first.command, first.grace_s) == ("model", ("evaluate",), 4.0)
    assert verdict(decision, "canary").reason == Reason.COMPLETE
    assert verdict(decision, "promotion").sentence == "promotion: 3 jobs added to 0 pairs in flight"


def test_promotion_jobs_are_bounded() -> None:
    """A large fleet must not hand out the whole test at once."""
    limits = replace(LIMITS, evaluate_jobs_max=5)
    jobs = specs(run(line(candidate=PASSED), limits=limits, slots=100))
    assert sum(spec.purpose == "promotion" for spec in jobs) == 5


def test_the_last_job_asks_only_for_what_is_missing() -> None:
    """Pairs beyond max_pairs would be played for nothing."""
    near = replace(PASSED, promotion=PairTally((30, 40, 50, 40, 22), 3, 190))
    (spec,) = specs(run(line(candidate=near)))
    assert (spec.wanted["first_pair"], spec.wanted["pairs"]) == (190, 15)


def test_pairs_in_flight_count_towards_the_end() -> None:
    """Otherwise each pass would add up to max_pairs anew."""
    near = replace(PASSED, promotion=PairTally((30, 40, 50, 40, 20), 4, 216))
    flying = played(9, "promotion", first_pair=184, pairs=16)
    decision = run(line(candidate=near, live=(*line().live, flying)))
    assert decision.actions == ()
    assert verdict(decision, "promotion").reason == Reason.ENOUGH_IN_FLIGHT
    assert [(i.name, i.value, i.limit) for i in verdict(decision, "promotion").evidence] == [
        ("pairs played", 184, 200),
        ("pairs in flight", 16, None),
    ]


def test_at_max_pairs_nothing_more_is_played() -> None:
    """Repeated games count as played, or a game with few openings would be tested for ever."""
    full = replace(PASSED, promotion=PairTally((20, 20, 20, 20, 20), 100, 200))
    decision = run(line(candidate=full))
    assert decision.actions == ()
    assert verdict(decision, "promotion").reason == Reason.AT_MAX_PAIRS


def test_new_pairs_start_above_all_known_numbers() -> None:
    """Neither booked, nor planned, nor being cancelled: an opening is used once in a test."""
    some = replace(PASSED, promotion=PairTally((0, 0, 16, 0, 0), 0, 16))
    flying = (
        played(8, "promotion", first_pair=48, pairs=16),
        played(9, "promotion", first_pair=64, pairs=16, cancelling=True),
        played(10, "promotion", first_pair=900, candidate_hash="hash-9", cancelling=True),
        played(11, "rating", first_pair=900),
    )
    decision = run(line(candidate=some, live=(*line().live, *flying)))
    assert [spec.wanted["first_pair"] for spec in specs(decision)] == [80, 96]


def test_games_for_a_decided_candidate_are_cancelled() -> None:
    """Nobody wants their result; the slots do."""
    flying = (
        played(8, "promotion", candidate_hash="hash-0"),
        played(9, "canary", candidate_hash="hash-0", opponent="random", opponent_hash="", running=False),
        played(10, "rating", candidate_hash="hash-0"),
    )
    for candidate in (None, PASSED):
        decision = run(line(candidate=candidate, live=(*line().live, *flying)))
        assert cancelled(decision) == {8: "its candidate is decided", 9: "its candidate is decided"}


def test_games_against_a_former_champion_are_cancelled() -> None:
    """The test is against the champion; canaries have no such opponent."""
    flying = (
        played(8, "promotion", opponent_hash="hash-0"),
        played(9, "canary", opponent="self", opponent_hash="", pairs=6),
    )
    decision = run(line(candidate=CANDIDATE, live=(*line().live, *flying)))
    assert cancelled(decision) == {8: "its opponent is not champion any more"}
    nobody = run(LineView("c4", candidate=CANDIDATE, live=flying[:1]))
    assert cancelled(nobody) == {8: "its opponent is not champion any more"}


def test_other_kinds_of_jobs_are_nobodys_business_here() -> None:
    """A person's command job must not be cancelled by the loop."""
    command = LiveJob(9, "command", "", False)
    for phase in Phase:
        assert 9 not in cancelled(run(line(live=(*line().live, command)), phase=phase))


# --- rating ----------------------------------------------------------------------------------------------------


def test_ratings_start_with_the_earliest_champion_one_job_at_a_time() -> None:
    """Slots belong to the loop; ratings trickle, and none is forgotten."""
    decision = run(line(champion=SECOND, champions=(SECOND, CHAMPION), live=()), slots=0)
    (spec,) = [spec for spec in specs(decision) if spec.purpose == "rating"]
    assert spec.key == "evaluate/1/random/rating/0"
    assert spec.wanted == {"opponent": "random", "pairs": 16, "first_pair": 0}
    assert spec.inputs == {"candidate": ("hash-1",)}
    assert verdict(decision, "rating").evidence[0].limit == 100


def test_the_first_champion_is_not_rated_against_itself() -> None:
    """Such games say nothing, and their Elo of 0 would look like a measurement."""
    rest = replace(SECOND, ratings=RATED)
    decision = run(
        line(champion=SECOND, champions=(replace(CHAMPION, ratings=RATED), rest), live=()), slots=0
    )
    (spec,) = [spec for spec in specs(decision) if spec.purpose == "rating"]
    assert spec.key == "evaluate/4/model/1/rating/0"
    assert (spec.wanted["opponent"], spec.inputs["opponent"]) == ("model", ("hash-1",))


def test_a_rating_is_completed_by_what_is_missing() -> None:
    """A rating of 16 of 20 pairs gets 4 more, from the next opening on."""
    some = {"random": PairTally((0, 0, 0, 0, 15), 1, 32), "alphabeta:4": PairTally((20, 0, 0, 0, 0))}
    (spec,) = specs(run(line(champions=(replace(CHAMPION, ratings=some),))))
    assert spec.wanted == {"opponent": "random", "pairs": 4, "first_pair": 32}
    assert verdict(run(line(champions=(replace(CHAMPION, ratings=some),))), "rating").evidence[0].value == 36


def test_opponents_named_twice_are_played_once() -> None:
    """A slip in the settings must not double the games."""
    limits = replace(LIMITS, lines={"c4": a_line(rating_opponents=("random", "random"))}, rating_jobs_max=9)
    bare = run(line(champions=(CHAMPION,)), limits=limits)
    assert [spec.wanted["pairs"] for spec in specs(bare)] == [16, 4]


def test_without_a_first_champion_on_record_that_rating_is_left_out() -> None:
    """A record that begins later names no first one; guessing another would rate against the wrong net."""
    limits = replace(LIMITS, lines={"c4": a_line(rating_opponents=("first",))})
    decision = run(line(champion=SECOND, champions=(SECOND,), live=()), limits=limits, slots=0)
    assert verdict(decision, "rating").reason == Reason.COMPLETE


def test_measuring_rates_on_all_slots_and_stops_the_rest() -> None:
    """At the end of a run only the ratings are waited for."""
    flying = (
        *line().live,
        LiveJob(8, "train", "", True, "hash-1"),
        LiveJob(9, "found", "", True),
        played(10, "promotion"),
        played(11, "rating", candidate_hash="hash-1", opponent="random", opponent_hash=""),
    )
    decision = run(line(champions=(CHAMPION,), candidate=PASSED, live=flying), phase=Phase.MEASURING)
    assert sorted(cancelled(decision)) == [1, 2, 3, 4, 8, 9, 10]
    assert set(cancelled(decision).values()) == {"only ratings are wanted now"}
    assert [spec.key for spec in specs(decision)] == [
        "evaluate/1/random/rating/16",
        "evaluate/1/alphabeta:4/rating/0",
    ]
    assert [verdict(decision, stage).reason for stage in Stage][:5] == [Reason.MEASURING] * 5


# --- reading state ---------------------------------------------------------------------------------------------


def test_a_submitted_job_is_read_back_as_what_it_plays() -> None:
    """If the loop cannot read its own jobs, it plans the same pairs again."""
    (spec, *_) = specs(run(line(candidate=PASSED)))
    job = Job(9, spec, JobState.READY, 0, 0, 0.0, 0.0, None, "")
    assert LiveJob.of(job, cancelling=False) == played(9, "promotion", running=False)
    later = specs(run(line(candidate=PASSED)))[2]
    assert LiveJob.of(replace(job, spec=later), cancelling=False).first_pair == 32
    (play, *_) = specs(run(line(live=())))
    assert LiveJob.of(replace(job, spec=play), cancelling=False) == LiveJob(
        9, "selfplay", "", False, "hash-1"
    )
    running = replace(job, state=JobState.RUNNING)
    assert LiveJob.of(running, cancelling=True) == played(9, "promotion", cancelling=True)


def test_a_foreign_job_is_read_with_defaults() -> None:
    """Jobs by hand lack the loop's fields; reading them must not fail."""
    spec = JobSpec("evaluate", "c4", ("x",), wanted={"pairs": "many", "first_pair": None})
    assert LiveJob.of(Job(9, spec, JobState.WAITING, 0, 0, 0.0, 0.0, None, ""), cancelling=False) == LiveJob(
        9, "evaluate", "", False
    )


@given(st.lists(st.tuples(st.sampled_from(JobState), st.floats(0, 100)), max_size=12))
def test_history_counts_back_to_the_last_success(ended: list[tuple[JobState, float]]) -> None:
    """Failures before a success are forgiven; cancelled jobs say nothing."""
    history = StageHistory.of(iter(ended))
    until = next((i for i, (state, _) in enumerate(ended) if state is JobState.DONE), len(ended))
    bad = [at for state, at in ended[:until] if state in (JobState.FAILED, JobState.DEAD)]
    assert history == StageHistory(len(bad), bad[0] if bad else None)


@pytest.mark.parametrize(
    "changes",
    [
        {"selfplay_margin": 0},
        {"selfplay_jobs_max": 0},
        {"evaluate_jobs_max": 0},
        {"rating_jobs_max": 0},
        {"probe_after": 0},
        {"retry_first_s": 0.0},
        {"retry_first_s": 700.0},
        {"retry_longest_s": float("inf")},
    ],
)
def test_bounds_that_would_stop_the_loop_are_refused(changes: dict[str, float]) -> None:
    """A stage bounded to nothing is a deadlock by settings."""
    with pytest.raises(SettingsError) as caught:
        Limits(**changes)  # type: ignore[arg-type]
    assert caught.value.message.startswith("the bounds of the loop must be 1 or more")
    assert caught.value.remedy == "correct [loop] in gamekeeper.toml"


def test_the_smallest_bounds_are_allowed() -> None:
    """One of everything still turns."""
    assert Limits({}, 0, 1, 1, 1, 1, 600.0, 600.0, 1).retry_longest_s == 600.0
    assert Limits(retry_first_s=0.1).retry_first_s == 0.1


def test_a_job_without_pairs_is_never_made() -> None:
    """pairs_per_job of 0 is refused by the settings; if it came this far it must not spin."""
    limits = replace(LIMITS, lines={"c4": a_line(pairs_per_job=0)})
    assert all(spec.wanted["pairs"] == 1 for spec in specs(run(line(candidate=PASSED), limits=limits)))
