"""What each line needs, stage by stage."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gamekeeper.policy.continuous_loop import evaluation, loop, production, turn, view
from gamekeeper.policy.continuous_loop.loop import decide
from gamekeeper.policy.continuous_loop.view import (
    Limits,
    LineView,
    LiveJob,
    Phase,
    Reason,
    Stage,
    StageHistory,
    View,
    Window,
)
from tests.unit.policy.line_cases import (
    CANDIDATE,
    CHAMPION,
    LIMITS,
    LINE,
    NOW,
    PASSED,
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


# --- the whole pass --------------------------------------------------------------------------------------------


def test_a_quiet_line_needs_nothing() -> None:
    """A loop that always wants something would flood the queue."""
    decision = run(line())
    assert decision.actions == ()
    assert [(v.subject, v.reason) for v in decision.verdicts] == [
        ("line/c4/found", Reason.NOT_NEEDED),
        ("line/c4/selfplay", Reason.ENOUGH_IN_FLIGHT),
        ("line/c4/train", Reason.TOO_FEW_SAMPLES),
        ("line/c4/canary", Reason.NO_CANDIDATE),
        ("line/c4/promotion", Reason.NO_CANDIDATE),
        ("line/c4/rating", Reason.COMPLETE),
    ]
    assert all(v.sentence.startswith(f"{v.subject.rsplit('/', 1)[1]}: ") for v in decision.verdicts)


def test_lines_are_answered_one_by_one_in_order() -> None:
    """One line's state may not leak into another's needs."""
    two = Limits({"c4": LINE, "hex": a_line("hex")})
    decision = decide(View((LineView("hex"), line()), 2), two, NOW)
    assert [spec.key for spec in specs(decision)] == ["found/hex/0"]
    assert [v.subject.split("/")[1] for v in decision.verdicts] == ["c4"] * 6 + ["hex"] * 6
    assert decision.policy == "continuous_loop"
    assert decision.decided_at == NOW


def test_an_undeclared_line_is_left_alone() -> None:
    """A line taken out of the settings keeps its data, and gets no work."""
    decision = decide(View((LineView("old"),), 2), LIMITS, NOW)
    assert decision.actions == ()
    assert [(v.subject, v.reason, v.acted) for v in decision.verdicts] == [
        ("line/old", Reason.UNDECLARED_LINE, False)
    ]


def test_draining_submits_and_cancels_nothing() -> None:
    """What runs may finish; what waits stays for the next start."""
    needy = LineView("c4", live=(played(9, "promotion"),))
    decision = run(needy, phase=Phase.DRAINING)
    assert decision.actions == ()
    assert [v.reason for v in decision.verdicts] == [Reason.DRAINING] * len(Stage)


def test_jobs_carry_the_stage_as_declared() -> None:
    """A command, parameter or limit lost on the way would run something else than the line says."""
    (spec,) = specs(run(LineView("c4")))
    assert (spec.kind, spec.line, spec.command, spec.parameters) == ("found", "c4", ("found",), {"width": 7})
    assert (spec.grace_s, spec.time_limit_s, spec.purpose, spec.wanted, spec.inputs) == (
        1.0,
        60.0,
        "",
        {},
        {},
    )


def test_seeds_differ_by_key_and_by_the_loops_seed() -> None:
    """Equal seeds would play the same games twice; unequal ones on the same key could not be replayed."""
    jobs = specs(run(line(live=())))
    assert len({spec.seed for spec in jobs}) == len(jobs) == 4
    assert [spec.seed for spec in specs(run(line(live=())))] == [spec.seed for spec in jobs]
    other = specs(run(line(live=()), limits=replace(LIMITS, seed=4)))
    assert not {spec.seed for spec in jobs} & {spec.seed for spec in other}
    assert all(0 <= spec.seed < 2**48 for spec in jobs)


@pytest.mark.parametrize("stage", ["found", "promotion", "rating"])
def test_retried_jobs_keep_their_key_and_change_their_seed(stage: str) -> None:
    """The key makes it the same need; the seed keeps it from the same accident."""
    fresh = LineView("c4") if stage == "found" else line(candidate=PASSED, champions=(CHAMPION,))
    history = {"promotion": "evaluate_history"}.get(stage, f"{stage}_history")
    failed = replace(fresh, **{history: StageHistory(1, NOW - 100)})  # type: ignore[arg-type]
    before, after = (
        [spec for spec in specs(run(one)) if stage in (spec.kind, spec.purpose)] for one in (fresh, failed)
    )
    assert [spec.key for spec in before] == [spec.key for spec in after]
    assert before
    assert not {spec.seed for spec in before} & {spec.seed for spec in after}


def test_a_retried_training_gets_another_seed() -> None:
    """The same seed would run into the same numeric failure."""
    ready = line(verified_samples=1000, window=Window(("s",), 1000))
    failed = replace(ready, train_history=StageHistory(1, NOW - 100))
    (first,), (second,) = specs(run(ready)), specs(run(failed))
    assert first.key == second.key
    assert first.seed != second.seed


# --- found -----------------------------------------------------------------------------------------------------


def test_an_empty_line_is_founded_once() -> None:
    """Without a first model nothing else can start."""
    decision = run(LineView("c4"))
    assert [spec.key for spec in specs(decision)] == ["found/c4/0"]
    assert verdict(decision, "found").acted
    again = run(LineView("c4", live=(LiveJob(1, "found", "", False),)))
    assert again.actions == ()
    assert verdict(again, "found").reason == Reason.ENOUGH_IN_FLIGHT


def test_a_founding_model_awaiting_its_decision_is_enough() -> None:
    """A second founding model would be trained for nothing."""
    decision = run(LineView("c4", candidate=CANDIDATE, founded=1))
    assert decision.actions == ()
    assert verdict(decision, "found").reason == Reason.CANDIDATE_PENDING
    assert verdict(decision, "found").sentence == "found: model 2 awaits its decision"
    assert verdict(decision, "canary").reason == Reason.NOT_NEEDED
    assert verdict(decision, "promotion").reason == Reason.NOT_NEEDED


def test_a_founding_model_that_was_closed_can_be_founded_again() -> None:
    """The key of a done job blocks itself; the next need must have another one."""
    assert [spec.key for spec in specs(run(LineView("c4", founded=1)))] == ["found/c4/1"]


def test_without_a_champion_the_later_stages_wait() -> None:
    """Self-play, training and rating have nothing to work with."""
    decision = run(LineView("c4", verified_samples=10**6, window=Window(("s",), 10**6)))
    for stage in ("selfplay", "train", "rating"):
        assert verdict(decision, stage).reason == Reason.NO_CHAMPION


def test_a_waiting_found_job_is_cancelled_when_there_is_a_model() -> None:
    """Two founding models cannot both be first."""
    waits = LiveJob(9, "found", "", False)
    assert cancelled(run(line(live=(*line().live, waits)))) == {9: "the line has a model"}
    assert cancelled(run(LineView("c4", candidate=CANDIDATE, live=(waits,)))) == {9: "the line has a model"}


# --- selfplay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "jobs"), [(None, 2), (0, 2), (1, 3), (7, 9), (5000, 1000)])
def test_selfplay_fills_every_slot_and_a_margin(slots: int | None, jobs: int) -> None:
    """Fewer would leave slots idle; more than the bound would flood. Even an unknown fleet gets the margin."""
    decision = run(line(live=()), slots=slots)
    assert len(specs(decision)) == jobs
    assert {spec.kind for spec in specs(decision)} == {"selfplay"}


def test_selfplay_counts_what_is_in_flight() -> None:
    """Each job is wanted once."""
    decision = run(line(live=line().live[:1]))
    assert [spec.key for spec in specs(decision)] == ["selfplay/c4/4", "selfplay/c4/5", "selfplay/c4/6"]
    assert verdict(decision, "selfplay").sentence == "selfplay: 3 jobs added to 1 in flight"
    assert [(i.name, i.value, i.limit, i.origin) for i in verdict(decision, "selfplay").evidence] == [
        ("self-play jobs in flight", 1, 4, "loop.selfplay_margin"),
        ("slots", 2, None, ""),
        ("failures in a row", 0, 3, "loop.probe_after"),
    ]


def test_selfplay_plays_the_champion_for_the_declared_games() -> None:
    """An older net or another number of games would be a different product."""
    spec = specs(run(line(live=(), champion=SECOND)))[0]
    assert (spec.wanted, spec.inputs) == ({"games": 24}, {"model": ("hash-4",)})
    assert (spec.command, spec.parameters, spec.grace_s) == (("selfplay",), {"simulations": 32}, 2.0)


def test_selfplay_that_waits_for_an_older_champion_is_made_anew() -> None:
    """Games of a beaten net are worth less; those that run already are let finish."""
    decision = run(line(champion=SECOND))
    assert cancelled(decision) == {3: "the champion is model 4 now", 4: "the champion is model 4 now"}
    assert [spec.inputs["model"] for spec in specs(decision) if spec.kind == "selfplay"] == [("hash-4",)] * 2
    reasons = {v.subject: (v.reason, v.acted) for v in decision.verdicts}
    assert reasons["job/3"] == reasons["job/4"] == (Reason.CANCELLED, True)


def test_a_job_asked_to_stop_is_neither_counted_nor_asked_again() -> None:
    """It will not deliver; asking once is enough."""
    stopping = tuple(replace(job, cancelling=True) for job in line().live)
    decision = run(line(live=stopping, champion=SECOND))
    assert cancelled(decision) == {}
    assert len([spec for spec in specs(decision) if spec.kind == "selfplay"]) == 4


# --- train -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fresh", "reason"), [(999, Reason.TOO_FEW_SAMPLES), (1000, Reason.SUBMITTED)])
def test_training_is_due_at_the_declared_number_of_new_samples(fresh: int, reason: Reason) -> None:
    """Counted since the last training, not in all."""
    decision = run(line(verified_samples=7000 + fresh, samples_at_training=7000, window=Window(("s",), 900)))
    assert verdict(decision, "train").reason == reason
    assert verdict(decision, "train").evidence[0].value == fresh


def test_too_few_samples_are_told_with_both_numbers() -> None:
    """The sentence people look for when nothing trains."""
    found = verdict(run(line(verified_samples=123)), "train")
    assert found.sentence == "train: 123 of 1,000 new samples"
    assert [(i.name, i.value, i.limit, i.origin) for i in found.evidence] == [
        ("new samples", 123, 1000, "lines.c4.min_new_samples")
    ]


def test_training_gets_the_champion_and_the_window_in_order() -> None:
    """Another parent breaks the lineage; another order or window trains on other data."""
    ready = line(verified_samples=9000, samples_at_training=1000, trained=3, window=Window(("a", "b"), 6000))
    (spec,) = specs(run(ready))
    assert (spec.kind, spec.key) == ("train", "train/c4/3")
    assert spec.inputs == {"model": ("hash-1",), "shards": ("a", "b")}
    assert spec.wanted == {"samples": 5000, "verified_samples": 9000}
    assert (spec.command, spec.parameters, spec.time_limit_s) == (("train",), {"rate": 0.1}, 180.0)
    assert verdict(run(ready), "train").sentence == "train: 8,000 new samples: training on the newest 5,000"


def test_a_window_smaller_than_declared_is_used_whole() -> None:
    """Early on there is less than a window; waiting for it to fill could mean forever."""
    (spec,) = specs(run(line(verified_samples=1200, window=Window(("a",), 1200))))
    assert spec.wanted["samples"] == 1200


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"candidate": PASSED}, Reason.CANDIDATE_PENDING),
        ({"live": (*line().live, LiveJob(9, "train", "", True, "hash-1"))}, Reason.ENOUGH_IN_FLIGHT),
        (
            {"live": (*line().live, LiveJob(9, "train", "", True, "hash-1", cancelling=True))},
            Reason.ENOUGH_IN_FLIGHT,
        ),
        ({"window": Window()}, Reason.NO_WINDOW),
        ({"samples_at_training": 10**9}, Reason.TOO_FEW_SAMPLES),
    ],
)
def test_training_waits(changes: dict[str, object], reason: Reason) -> None:
    """One training, one candidate at a time, and never on nothing."""
    ready = line(verified_samples=9000, window=Window(("a",), 5000))
    decision = run(replace(ready, **changes))  # type: ignore[arg-type]
    assert verdict(decision, "train").reason == reason
    assert not [spec for spec in specs(decision) if spec.kind == "train"]


def test_a_training_that_waits_on_an_older_champion_is_cancelled_first() -> None:
    """Its candidate would descend from a beaten net; the next pass submits the right one."""
    waits = LiveJob(9, "train", "", False, "hash-1")
    ready = line(champion=SECOND, live=(waits,), verified_samples=9000, window=Window(("a",), 5000))
    decision = run(ready)
    assert cancelled(decision) == {9: "the champion is model 4 now"}
    assert verdict(decision, "train").reason == Reason.ENOUGH_IN_FLIGHT


# --- retries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("failures", "delay"), [(1, 2), (2, 4), (3, 8), (9, 512), (10, 600), (200, 600)])
def test_the_delay_doubles_up_to_the_longest(failures: int, delay: float) -> None:
    """Failure must reduce load, and never shut a stage for good."""
    ready = line(verified_samples=9000, window=Window(("a",), 5000))
    early = run(replace(ready, train_history=StageHistory(failures, NOW - delay + 0.01)))
    due = run(replace(ready, train_history=StageHistory(failures, NOW - delay)))
    assert verdict(early, "train").reason == Reason.BACKING_OFF
    assert [spec.kind for spec in specs(due)] == ["train"]


@pytest.mark.parametrize("since", [0.0, 0.04, 0.5])
def test_a_failure_of_this_moment_counts(since: float) -> None:
    """A job that dies at once is the one that would be retried in a hot loop."""
    found = verdict(run(LineView("c4", found_history=StageHistory(1, NOW - since))), "found")
    assert found.reason == Reason.BACKING_OFF
    assert found.evidence[1].value == round(since, 1)


def test_backing_off_tells_failures_and_time() -> None:
    """A stage that waits must say for what and how long."""
    found = verdict(run(LineView("c4", found_history=StageHistory(4, NOW - 6))), "found")
    assert found.sentence == "found: 4 failures in a row: next try in 10 s"
    assert [(i.name, i.value, i.limit, i.origin) for i in found.evidence] == [
        ("failures in a row", 4, 3, "loop.probe_after"),
        ("seconds since the last failure", 6.0, 16.0, "loop.retry_first_s"),
    ]


@pytest.mark.parametrize("last", [None, NOW + 1000])
def test_an_unknown_or_future_failure_delays_nothing(last: float | None) -> None:
    """A clock set back could otherwise stop a stage for as long as it was wrong."""
    assert [spec.kind for spec in specs(run(LineView("c4", found_history=StageHistory(9, last))))] == [
        "found"
    ]


@pytest.mark.parametrize(("failures", "jobs"), [(0, 4), (2, 4), (3, 1), (8, 1)])
def test_selfplay_that_keeps_failing_is_probed_one_at_a_time(failures: int, jobs: int) -> None:
    """A broken program must not burn through jobs on every slot."""
    broken = line(live=(), selfplay_history=StageHistory(failures, NOW - 1000))
    assert len(specs(run(broken))) == jobs
    probing = replace(broken, live=line().live[:1])
    assert len(specs(run(probing))) == jobs - 1


def test_selfplay_in_its_delay_waits_unless_enough_runs() -> None:
    """The verdict names the failures, not a full queue."""
    broken = line(live=(), selfplay_history=StageHistory(5, NOW - 1))
    assert verdict(run(broken), "selfplay").reason == Reason.BACKING_OFF
    assert run(broken).actions == ()


def test_evaluation_that_keeps_failing_is_probed_one_at_a_time() -> None:
    """Likewise for game pairs."""
    broken = line(candidate=PASSED, evaluate_history=StageHistory(3, NOW - 1000))
    assert len(specs(run(broken))) == 1
    waiting = replace(broken, evaluate_history=StageHistory(3, NOW - 1))
    assert verdict(run(waiting), "promotion").reason == Reason.BACKING_OFF
    flying = replace(waiting, live=(*waiting.live, played(9, "promotion")))
    assert verdict(run(flying), "promotion").reason == Reason.ENOUGH_IN_FLIGHT


def test_ratings_fail_for_themselves() -> None:
    """A rating opponent that cannot play must not hold up the candidate's test, nor the reverse."""
    bare = line(champions=(CHAMPION,), candidate=PASSED)
    rating_broken = run(replace(bare, rating_history=StageHistory(5, NOW - 1)))
    assert verdict(rating_broken, "rating").reason == Reason.BACKING_OFF
    assert verdict(rating_broken, "promotion").reason == Reason.SUBMITTED
    test_broken = run(replace(bare, evaluate_history=StageHistory(5, NOW - 1)))
    assert verdict(test_broken, "rating").reason == Reason.SUBMITTED
