"""The loop and the promotion rule together, from the empty state, on a world in which jobs fail, vanish and repeat."""

from __future__ import annotations

from hypothesis import Phase as HypothesisPhase
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.actions import MoveChampion, SubmitJob
from gamekeeper.core.jobs import JobState
from gamekeeper.core.models import ModelState
from gamekeeper.policy import promotion
from gamekeeper.policy.continuous_loop import Phase, Reason, evaluation, loop, production, turn
from tests.unit.policy.loop_world import LIVE, Chances, Held, LoopWorld, a_world

USED = (evaluation, loop, production, turn, promotion)

troubles = st.builds(
    Chances,
    fail=st.floats(0, 0.35),
    lose=st.floats(0, 0.2),
    partial=st.floats(0, 1),
    duplicate=st.floats(0, 0.6),
    better=st.floats(0.4, 1),
)
# A failing simulation is small enough as it is; shrinking it would take minutes.
QUICK = (HypothesisPhase.explicit, HypothesisPhase.reuse, HypothesisPhase.generate)
worlds = st.builds(a_world, seed=st.integers(0, 2**32), slots=st.integers(1, 9), chances=troubles)


def pairs_of(job: Held) -> int:
    return int(str(job.spec.wanted["pairs"]))


def check(world: LoopWorld) -> None:
    """What may never be seen, whatever happens."""
    live = list(world.live.values())
    assert sum(model.state is ModelState.CANDIDATE for model in world.models) <= 1
    assert sum(job.spec.kind == "train" for job in live) <= 1
    assert sum(job.spec.kind == "found" for job in live) <= 1
    selfplay = [job for job in live if job.spec.kind == "selfplay" and not job.cancelling]
    assert len(selfplay) <= world.slots + world.limits.selfplay_margin
    line = world.line
    wanted = {"canary": line.canary_pairs, "promotion": line.max_pairs, "rating": line.rating_pairs}
    planned: dict[tuple[int, str, str], int] = {}
    for job in live:
        if job.spec.kind == "evaluate" and not job.cancelling:
            test = world.names(job.spec)
            planned[test] = planned.get(test, 0) + pairs_of(job)
    for (model, opponent, purpose), pairs in planned.items():
        assert world.tally(model, opponent, purpose).played + pairs <= wanted[purpose]
        if purpose == "promotion":
            assert world.tally(model, "random", "canary").played >= line.canary_pairs
            assert world.tally(model, "self", "canary").played >= line.canary_pairs


def check_openings(world: LoopWorld) -> None:
    """No opening may be played twice in one test, nor a key be held twice."""
    kept = [job for job in world.jobs if job.state in LIVE or job.state is JobState.DONE]
    assert len(kept) == len({job.spec.key for job in kept})
    for jobs in world.tests.values():
        seen: set[int] = set()
        for job in jobs:
            if job.state in LIVE or job.state is JobState.DONE:
                first = int(str(job.spec.wanted["first_pair"]))
                numbers = set(range(first, first + pairs_of(job)))
                assert numbers
                assert not numbers & seen
                seen |= numbers


@settings(deadline=None, phases=QUICK, max_examples=25)
@given(worlds)
def test_promotions_come_whatever_jobs_fail(world: LoopWorld) -> None:
    """A lost hand-off, a key that blocks its own retry, or a test without end would stop the loop here."""
    for _ in range(6000):
        world.turn()
        check(world)
        if len(world.moves) >= 3:
            break
    check_openings(world)
    assert len(world.moves) >= 3, world.candidate()
    assert [expected for expected, _ in world.moves] == [None, *(model for _, model in world.moves[:-1])]


@settings(deadline=None, phases=QUICK, max_examples=25)
@given(worlds, st.integers(1, 120), st.sampled_from(Phase))
def test_a_second_pass_over_the_same_state_does_nothing(world: LoopWorld, passes: int, phase: Phase) -> None:
    """A need that is not satisfied by what it asked for would submit more with every pass."""
    for _ in range(passes):
        world.turn()
    world.phase = phase
    world.apply(promotion.decide(world.promotion_view(), world.promotion_limits, world.now))
    assert promotion.decide(world.promotion_view(), world.promotion_limits, world.now).actions == ()
    world.apply(loop.decide(world.view(), world.limits, world.now))
    assert loop.decide(world.view(), world.limits, world.now).actions == ()


@settings(deadline=None, phases=QUICK, max_examples=25)
@given(worlds, st.integers(1, 120))
def test_a_decision_applied_twice_changes_nothing_the_second_time(world: LoopWorld, passes: int) -> None:
    """A crash between applying and noting it would double jobs, promotions or rejections."""
    for _ in range(passes):
        world.turn()
    for decision in (
        promotion.decide(world.promotion_view(), world.promotion_limits, world.now),
        loop.decide(world.view(), world.limits, world.now),
    ):
        applied = world.apply(decision)
        assert applied == len(decision.actions)
        assert world.apply(decision) == 0


@settings(deadline=None, phases=QUICK, max_examples=25)
@given(worlds, st.integers(1, 80), st.data())
def test_every_job_may_die_at_once(world: LoopWorld, passes: int, data: st.DataObject) -> None:
    """All machines lost in one moment must leave needs that are seen again, not a line that waits for ghosts."""
    for _ in range(passes):
        world.turn()
    state = data.draw(st.sampled_from([JobState.FAILED, JobState.DEAD, JobState.CANCELLED]))
    for job in list(world.live.values()):
        world.close(job, state)
    before = len(world.moves)
    for _ in range(6000):
        world.turn()
        if len(world.moves) > before:
            break
    assert len(world.moves) > before


@settings(deadline=None, phases=QUICK, max_examples=25)
@given(worlds, st.integers(1, 100))
def test_measuring_ends_with_every_champion_rated(world: LoopWorld, passes: int) -> None:
    """The end of a run would wait forever for its ratings, or be kept busy with other work."""
    for _ in range(passes):
        world.turn()
    world.phase = Phase.MEASURING
    for _ in range(4000):
        _, decision = world.turn()
        submitted = [action.spec for action in decision.actions if isinstance(action, SubmitJob)]
        assert all(spec.purpose == "rating" for spec in submitted)
        if decision.verdicts[-1].reason in (Reason.COMPLETE, Reason.NO_CHAMPION) and not world.live:
            break
    assert not world.live
    for generation, model in enumerate(world.champions):
        opponents = {"random", "alphabeta:4"} | ({f"model/{world.champions[0].id}"} if generation else set())
        for opponent in opponents:
            assert world.tally(model.id, opponent, "rating").played == world.line.rating_pairs


@settings(deadline=None, phases=QUICK, max_examples=25)
@given(worlds, st.integers(1, 60))
def test_no_slot_finds_the_queue_empty(world: LoopWorld, passes: int) -> None:
    """With a champion and no failures, an idle slot beside an empty queue is the starvation of the old fleet."""
    world.chances = Chances()
    while not world.champions:
        world.turn()
    for _ in range(passes):
        world.apply(loop.decide(world.view(), world.limits, world.now))
        assert len(world.live) > world.slots
        world.run_some()
        world.now += 10.0


@settings(deadline=None, phases=QUICK, max_examples=6)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_a_model_that_never_improves_is_never_promoted(seed: int, slots: int) -> None:
    """A worse candidate that becomes champion shows a test read from the wrong side."""
    world = a_world(seed, slots, Chances(better=0.0))
    for _ in range(250):
        promoted, _ = world.turn()
        moved = [action for action in promoted.actions if isinstance(action, MoveChampion)]
        assert not moved or moved[0].expected is None
    assert sum(model.state is ModelState.REJECTED for model in world.models) >= 1
