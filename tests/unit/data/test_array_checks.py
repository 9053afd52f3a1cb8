from __future__ import annotations

import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from gamekeeper.data.array_checks import GameCounter, PieceChecker
from gamekeeper.data.array_rules import read_rule
from gamekeeper.data.verdicts import Defect, Refusal
from tests.thoroughness import examples

DTYPES = ["<f2", "<f4", "<f8", ">f4", ">f8", "<i4", "|i1", "|u1", ">u2", "<i8", "<u8", "|b1"]
LEVELS = [0.0, 1.0, -1.0, 0.5, 0.25, 1.0000001, -1e-45, 1e-45, 0.3, 65504.0, 3e38, 5.0, 2.0, -0.0]


def pieces(dtype: str) -> st.SearchStrategy[np.ndarray]:
    """Arrays of a few rows whose values lie at, near and beyond the bounds that the rules use."""
    levels = st.sampled_from([*LEVELS, math.nan, math.inf, -math.inf])
    whole = st.sampled_from([0, 1, 2, 3, 100])

    def array(values: list[list[float]]) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.array(values, dtype=dtype)

    values = levels if dtype[1] == "f" else whole
    rows = st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(values, min_size=width, max_size=width), min_size=1, max_size=4)
    )
    return rows.map(array)


Numbers = dict[str, float]


def expected(piece: np.ndarray, rule: Numbers, mask: np.ndarray | None) -> set[Defect]:
    """The defects, by exact arithmetic on Python numbers. Element rules hide the row rules behind them."""
    rows = [[value.item() for value in row] for row in piece]
    elements = [value for row in rows for value in row]
    finite = rule.get("finite", True)
    if finite and not all(math.isfinite(value) for value in elements):
        return {Defect.NOT_FINITE}
    numbers = [value for value in elements if not math.isnan(value)]
    low, high = rule.get("min"), rule.get("max")
    if any((low is not None and value < low) or (high is not None and value > high) for value in numbers):
        return {Defect.RANGE}
    found = set()
    if (wanted := rule.get("row_sum")) is not None:
        for row in rows:
            exact = float(sum(map(Fraction, row))) if all(map(math.isfinite, row)) else math.nan
            if not abs(exact - wanted) <= rule["row_sum_tolerance"]:
                found.add(Defect.ROW_SUM)
    if rule.get("one_hot") and any(sorted(row, key=abs) != [0] * (len(row) - 1) + [1] for row in rows):
        found.add(Defect.ONE_HOT)
    if mask is not None and ((piece != 0) & (mask == 0)).any():
        found.add(Defect.ILLEGAL_WEIGHT)
    return found


@given(data=st.data(), dtype=st.sampled_from(DTYPES))
@pytest.mark.unmeasured
@examples(200)
def test_agrees_with_exact_arithmetic(data: st.DataObject, dtype: str) -> None:
    """A fast path accepts what the rule forbids, or a bound is off by one rounding."""
    piece = data.draw(pieces(dtype))
    bounds = st.none() | st.sampled_from([*LEVELS, 0, 1, -1, 10**30, -(10**30), 70000.0])
    rule: Numbers = {"finite": data.draw(st.booleans()), "one_hot": data.draw(st.booleans())}
    rule |= {key: value for key in ("min", "max") if (value := data.draw(bounds)) is not None}
    if "min" in rule and "max" in rule and rule["min"] > rule["max"]:
        rule["min"], rule["max"] = rule["max"], rule["min"]
    if data.draw(st.booleans()):
        rule |= {"row_sum": data.draw(st.sampled_from([0, 1, 1.5])), "row_sum_tolerance": 0.01}
    mask = data.draw(pieces("|u1")) if data.draw(st.booleans()) else None
    if mask is not None and mask.shape != piece.shape:
        mask = np.resize(mask, piece.shape)
    read = read_rule("a", {"dtype": dtype, "shape": ["N", "W"], **rule})
    found = PieceChecker(read, dtype).check(piece, mask)
    assert {finding.defect for finding in found} == expected(piece, rule, mask)
    for finding in found:
        alone = slice(finding.row, finding.row + 1)
        masked = None if mask is None else mask[alone]
        assert finding.defect in expected(piece[alone], rule, masked), "the row named is not a bad one"


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("bound", [0.0, -0.0, 0.1, 1.0, 1.00001, 1 / 3, 1e-9, 60000.0])
def test_bounds_are_exact(dtype: str, bound: float) -> None:
    """A bound that the type cannot hold is rounded up, so the next number above it passes."""
    rule = read_rule("a", {"dtype": dtype, "shape": ["N"], "min": 0, "max": bound})
    checker = PieceChecker(rule, dtype)
    value = np.array(bound, dtype)
    for steps in range(-2, 3):
        near = value
        for _ in range(abs(steps)):
            near = np.nextafter(near, np.array(math.copysign(math.inf, steps), dtype))
        fine = 0 <= float(near) <= bound
        assert (checker.check(near.reshape(1, 1), None) == []) is fine, (steps, near)


def test_long_row_sums_are_exact() -> None:
    """The quick sum's rounding lets a row pass, or fails one, that lies close to the tolerance."""
    rule = read_rule(
        "a", {"dtype": "<f4", "shape": ["N", "P"], "min": 0, "row_sum": 1.0, "row_sum_tolerance": 1e-3}
    )
    checker = PieceChecker(rule, "<f4")
    random = np.random.default_rng(3)
    wrong_verdicts = 0
    for width in (7, 64, 1858):
        for off in (0.0, 0.5, 0.9, 0.999, 0.9999, 1.0001, 1.001, 1.1, -0.9999, -1.0001):
            rows = random.random((8, width))
            piece = (rows / rows.sum(axis=1, keepdims=True) * (1 + off * 1e-3)).astype(np.float32)
            sums = [float(sum(Fraction(value.item()) for value in row)) for row in piece]
            fine = all(abs(total - 1) <= 1e-3 for total in sums)
            wrong_verdicts += (checker.check(piece, None) == []) is not fine
    assert wrong_verdicts == 0


def test_negative_bounds() -> None:
    """A range that lies wholly below zero, or above it, is judged by the size of the bits."""
    for low, high, fine, bad in ((-2, -1, -1.5, -0.5), (1, 2, 1.5, 0.5), (-2, -1, -1, 0), (0.5, 9, 9, 0.25)):
        checker = PieceChecker(
            read_rule("a", {"dtype": "<f4", "shape": ["N"], "min": low, "max": high}), "<f4"
        )
        assert checker.check(np.array([[fine]], np.float32), None) == []
        assert [finding.defect for finding in checker.check(np.array([[bad]], np.float32), None)] == [
            Defect.RANGE
        ]


def test_integers_compare_exactly() -> None:
    """Large whole numbers are rounded to floating point before they are compared."""
    top = 2**63 - 1
    rule = read_rule("a", {"dtype": "<i8", "shape": ["N"], "max": top - 1, "min": -(2**63)})
    checker = PieceChecker(rule, "<i8")
    assert checker.check(np.array([[top - 1, -(2**63)]]), None) == []
    assert [finding.defect for finding in checker.check(np.array([[top]]), None)] == [Defect.RANGE]


@given(
    pieces=st.lists(st.lists(st.integers(-3, 90_000), max_size=40), max_size=20),
    most=st.integers(1, 400),
)
@examples(60)
def test_games_are_counted(pieces: list[list[int]], most: int) -> None:
    """A game that spans pieces is counted twice, or the bound is off by one."""
    truth = len({value for piece in pieces for value in piece})
    counter = GameCounter(most, "game.npy")
    for piece in pieces:
        counter.add(np.array(piece, dtype="<i4"))
    if truth > most:
        with pytest.raises(Refusal) as caught:
            counter.count()
        assert (caught.value.reason.defect, caught.value.reason.member) == (Defect.LIMIT, "game.npy")
    else:
        assert counter.count() == truth
        assert counter.count() == truth


def test_counting_is_bounded_and_merges() -> None:
    """Counting keeps every value it ever saw, or stops at the bound only at the very end."""
    counter = GameCounter(200_000, "game.npy")
    values = np.random.default_rng(0).permutation(150_000).astype("<i8")
    for _ in range(3):
        for start in range(0, 150_000, 10_000):
            counter.add(values[start : start + 10_000])
    assert counter.count() == 150_000
    stopped_at = None
    for start in range(0, 10**7, 10_000):
        try:
            counter.add(np.arange(start, start + 10_000))
        except Refusal:
            stopped_at = start
            break
    assert stopped_at is not None
    assert stopped_at < 500_000
    assert GameCounter(1, "game.npy").count() == 0
