"""When a demo stops, and whether it succeeded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.cli.goal import Goal


def test_by_default_three_promotions_or_ten_minutes_and_one_is_enough() -> None:
    """`gamekeeper demo` would not do what its help says."""
    goal = Goal.of(minutes=None, promotions=None)
    assert not goal.reached(2, 599.9)
    assert goal.reached(3, 1.0)
    assert goal.reached(0, 600.0)
    assert goal.met(1)
    assert not goal.met(0)


def test_asked_promotions_must_be_reached_to_succeed() -> None:
    """CI asking for two promotions would pass with one."""
    goal = Goal.of(minutes=None, promotions=2)
    assert not goal.met(1)
    assert goal.met(2)
    assert goal.reached(2, 0.0)
    assert goal.reached(0, 600.0)


def test_minutes_alone_turn_that_long_whatever_happens() -> None:
    """A timed run would end at three promotions, or fail for having none."""
    goal = Goal.of(minutes=2.0, promotions=None)
    assert not goal.reached(50, 119.0)
    assert goal.reached(0, 120.0)
    assert goal.met(0)


@given(
    st.one_of(st.none(), st.floats(0.01, 1000)),
    st.one_of(st.none(), st.integers(1, 1000)),
    st.integers(0, 2000),
)
def test_every_goal_is_reached_in_bounded_time(
    minutes: float | None, promotions: int | None, have: int
) -> None:
    """A demo could run for ever."""
    goal = Goal.of(minutes=minutes, promotions=promotions)
    assert goal.reached(have, goal.seconds)
    assert goal.seconds <= max(600.0, 300.0 * (promotions or 0), 60.0 * (minutes or 0))
    assert goal.words()
