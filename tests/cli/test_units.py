"""Numbers and times as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.cli import units
from gamekeeper.core.errors import UsageError


@given(st.integers(0, 10_000), st.sampled_from(["s", "m", "h", "d", "w"]))
def test_a_single_unit_is_read_exactly(amount: int, unit: str) -> None:
    """`--since 2h` would look at another span of time than asked for."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}[unit]
    assert units.parse_duration(f"{amount}{unit}") == amount * seconds


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_units_in_a_row_add_up(hours: int, minutes: int, seconds: int) -> None:
    """`1h30m` would be taken for one of its parts."""
    assert units.parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "2x", "2h!", "1e9s", "٣s٤", "2h30"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    """A mistyped duration would silently mean something."""
    with pytest.raises(UsageError) as caught:
        units.parse_duration(text)
    assert "2h" in caught.value.remedy


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "?"), (-1, "0 s"), (0.01, "0 s"), (0.4, "0.4 s"), (9.94, "9.9 s"), (12, "12 s"), (59.6, "1 min"),
        (75, "1 min 15 s"), (600, "10 min"), (3600, "1 h 00 min"), (7500, "2 h 05 min"), (172_800, "2 d 0 h"),
    ],
)  # fmt: skip
def test_durations_show_two_units(seconds: float | None, text: str) -> None:
    """An age in a list would mislead."""
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (34_211_004, "34.2 MB"), (25 * 10**9, "25.0 GB"),
     (123_456_789, "123 MB"), (999_999, "1.0 MB"), (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_sizes_are_powers_of_thousand(amount: int | None, text: str) -> None:
    """Free disk would be off by a factor."""
    assert units.size(amount) == text


def test_a_signed_number_keeps_its_sign_and_zero_is_plus() -> None:
    """An Elo of -0 would look like a loss."""
    assert [units.signed(value) for value in (12.4, -12.6, -0.2, None)] == ["+12", "-13", "+0", "?"]


def test_unknown_is_not_zero() -> None:
    """An unmeasured value would be shown as measured."""
    assert units.number(None) == units.percent(None) == units.count(None) == "?"
    assert units.ago(None, 5.0) == "never"
