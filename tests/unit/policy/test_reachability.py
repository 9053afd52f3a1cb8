"""The proof from the empty state that every stage can happen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.lines import Stage
from gamekeeper.policy.continuous_loop import Limits, reachability
from gamekeeper.policy.continuous_loop.reachability import PASSES
from tests.unit.policy.loop_world import a_line, a_world


def test_sound_settings_are_reachable() -> None:
    """A false alarm would refuse a line that works."""
    assert reachability(a_line()) == []
    assert reachability(a_line(), Limits(selfplay_jobs_max=1, evaluate_jobs_max=1, probe_after=1)) == []


@pytest.mark.parametrize("opponents", [(), ("first",), ("random",), ("first", "first", "alphabeta:4")])
@pytest.mark.parametrize("canary_pairs", [0, 1, 40])
def test_stages_that_are_not_asked_for_need_not_be_reached(
    opponents: tuple[str, ...], canary_pairs: int
) -> None:
    """No canaries and no ratings are choices."""
    assert reachability(a_line(rating_opponents=opponents, canary_pairs=canary_pairs)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"selfplay_games": 0}, ["selfplay_games is 0"]),
        ({"min_new_samples": 0}, ["min_new_samples is 0"]),
        ({"window_samples": 999}, ["window of 999", "1000 new ones"]),
        ({"pairs_per_job": 0}, ["pairs_per_job is 0"]),
        ({"max_pairs": 15}, ["max_pairs 15", "16 pairs"]),
        ({"rating_pairs": 0}, ["rating_pairs is 0"]),
        ({"canary_pairs": -1}, ["canary_pairs is -1"]),
        ({"alpha": 0.0}, ["alpha 0.0"]),
        ({"beta": 0.5}, ["beta 0.5"]),
        ({"elo1": 0.0}, ["elo0 0.0 and elo1 0.0"]),
        ({"max_pairs": 20}, ["wins all 20 pairs", "2.94 is needed"]),
        ({"train": Stage(())}, ["train: lines.c4.train has no command"]),
        ({"evaluate": Stage(("x",), {}, 1.0, 0.0)}, ["time limit of 0.0 s"]),
        (
            {"max_pairs": 10**9, "elo1": 1e-4, "pairs_per_job": 1},
            [f"no candidate was decided in {PASSES} passes"],
        ),
    ],
)
def test_what_can_never_happen_is_named(changes: dict[str, Any], words: list[str]) -> None:
    """A gate that cannot open must be found before the first game, not after a month."""
    sentences = reachability(a_line(**changes))
    assert len(sentences) == 1
    for word in words:
        assert word in sentences[0]


def test_all_faults_are_named_at_once() -> None:
    """One fault a start is a slow way to learn."""
    assert len(reachability(a_line(found=Stage(()), selfplay_games=0, window_samples=1))) == 3


def test_no_ratings_need_no_rating_pairs() -> None:
    """A number nobody uses is no fault."""
    assert reachability(a_line(rating_opponents=(), rating_pairs=0)) == []


def test_a_stage_without_a_time_limit_is_fine() -> None:
    """None means no limit."""
    assert reachability(a_line(train=Stage(("x",), {}, 1.0, None))) == []


@settings(deadline=None, max_examples=12)
@given(
    st.fixed_dictionaries(
        {
            "min_new_samples": st.integers(1, 1500),
            "window_samples": st.integers(1, 3000),
            "pairs_per_job": st.integers(1, 40),
            "max_pairs": st.integers(1, 120),
            "elo1": st.floats(5, 200),
            "canary_pairs": st.integers(0, 20),
            "rating_pairs": st.integers(1, 10),
        }
    )
)
def test_what_is_called_reachable_is_reached(changes: dict[str, Any]) -> None:
    """The proof is checked against the simulated loop, in which strong candidates are trained."""
    if reachability(a_line(**changes)):
        return
    world = a_world(3, 4, **changes)
    for _ in range(3000):
        world.turn()
        for trained in world.models[1:]:
            trained.strength = 10.0 * trained.id
        if len(world.moves) > 1:
            break
    assert len(world.moves) > 1
