from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gamekeeper.stats import ratings as ratings_module
from gamekeeper.stats.ratings import Estimate, elo_estimate, ratings
from gamekeeper.stats.sprt import MAX_ELO, PAIR_SCORES, PairCounts, elo_from_score, expected_score
from tests.thoroughness import examples

COUNTS = st.lists(st.integers(0, 60), min_size=5, max_size=5).map(lambda found: PairCounts(*found))
SOME = COUNTS.filter(any)


def estimated(counts: PairCounts) -> Estimate:
    found = elo_estimate(counts)
    assert found is not None
    return found


@given(counts=SOME)
@examples(60)
def test_value_lies_in_its_interval(counts: PairCounts) -> None:
    """An interval excludes its own value, is not finite, or leaves the scale."""
    found = estimated(counts)
    assert -MAX_ELO <= found.low <= found.value <= found.high <= MAX_ELO
    assert found.low < found.high
    score = counts.score
    assert score is not None
    assert abs(expected_score(found.value) - score) <= 0.5 / (counts.pairs + 1) + 1e-9


@given(counts=SOME)
@examples(60)
def test_swapping_sides(counts: PairCounts) -> None:
    """The candidate's estimate is not the opponent's turned round."""
    mine, theirs = estimated(counts), estimated(counts.swapped())
    assert (mine.value, mine.low, mine.high) == pytest.approx(
        (-theirs.value, -theirs.high, -theirs.low), abs=1e-2
    )


@given(counts=SOME)
@examples(60)
def test_more_of_the_same_narrows(counts: PairCounts) -> None:
    """More games make the estimate vaguer."""
    few, many = estimated(counts), estimated(PairCounts(*(9 * count for count in counts)))
    assert many.high - many.low < few.high - few.low or few.high - few.low >= MAX_ELO


def test_nothing_played_is_unknown() -> None:
    """No games are reported as equal strength."""
    assert elo_estimate(PairCounts(0, 0, 0, 0, 0)) is None


def test_all_won() -> None:
    """Only wins give a bounded claim from above, an infinite value, or a lower end that does not rise with games."""
    previous = -MAX_ELO
    for wins in (1, 5, 20, 100, 1000):
        found = estimated(PairCounts(0, 0, 0, 0, wins))
        assert found.high == MAX_ELO
        assert math.isfinite(found.value)
        assert previous < found.low < found.value < MAX_ELO
        previous = found.low
        lost = estimated(PairCounts(wins, 0, 0, 0, 0))
        assert lost.low == -MAX_ELO
        assert lost.value == pytest.approx(-found.value)
    assert estimated(PairCounts(0, 0, 0, 1, 99)).high < MAX_ELO


def test_known_interval() -> None:
    """The interval is not about two standard errors wide where the normal approximation holds."""
    counts = PairCounts(100, 400, 1000, 420, 130)
    score = counts.score
    assert score is not None
    variance = sum(n * (s - score) ** 2 for n, s in zip(counts, PAIR_SCORES, strict=True)) / counts.pairs
    half = 1.96 * math.sqrt(variance / counts.pairs)
    found = estimated(counts)
    assert found.value == pytest.approx(elo_from_score(score), abs=0.1)
    assert found.low == pytest.approx(elo_from_score(score - half), abs=0.3)
    assert found.high == pytest.approx(elo_from_score(score + half), abs=0.3)


TRUTHS = {
    "even": (0.1, 0.2, 0.4, 0.2, 0.1), "tame": (0.05, 0.02, 0.86, 0.02, 0.05), "wild": (0.5, 0, 0, 0, 0.5),
    "0.7": (0.02, 0.1, 0.25, 0.3, 0.33), "0.3": (0.33, 0.3, 0.25, 0.1, 0.02), "0.9": (0, 0.01, 0.12, 0.1, 0.77),
    "0.97": (0, 0, 0.05, 0.02, 0.93), "0.99": (0, 0, 0.02, 0, 0.98), "0.995": (0, 0, 0.01, 0, 0.99),
    "0.005": (0.99, 0, 0.01, 0, 0), "rare disaster": (0.03, 0, 0, 0, 0.97), "0.9995": (0, 0, 0.001, 0, 0.999),
    "always": (0, 0, 0, 0, 1),
}  # fmt: skip


# In the middle of the scale the interval changes slowly with the number of pairs.
MIDDLE = {"even", "tame", "wild", "0.7", "0.3"}


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("truth", "pairs"),
    [(truth, pairs) for truth in TRUTHS for pairs in ((10, 100) if truth in MIDDLE else (10, 50, 200))],
)
def test_coverage(truth: str, pairs: int) -> None:
    """The 95 % interval holds the truth in fewer than 92 % of the cases, close to the ends of the scale for example."""
    weights = TRUTHS[truth]
    score = math.fsum(w * s for w, s in zip(weights, PAIR_SCORES, strict=True))
    elo = elo_from_score(score)
    source = random.Random(f"{truth} {pairs}")
    trials = 250
    drawn: Counter[PairCounts] = Counter()
    for _ in range(trials):
        results = Counter(source.choices(range(5), weights, k=pairs))
        drawn[PairCounts(*(results[i] for i in range(5)))] += 1
    covered = sum(
        times
        for counts, times in drawn.items()
        if (found := estimated(counts)).low - 1e-6 <= elo <= found.high + 1e-6
    )
    assert covered / trials >= 0.92


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(2, 4.303), (3, 3.182), (5, 2.571), (9, 2.262), (30, 2.042)]
)
def test_student(freedom: int, quantile: float) -> None:
    """The threshold for small samples is not Student's (values from the usual tables)."""
    assert ratings_module._student_quantile(freedom) == pytest.approx(quantile, rel=0.01)


@given(counts=SOME)
@examples(60)
def test_two_players_agree_with_one_match(counts: PairCounts) -> None:
    """The joint rating of two players is another number than their match gives."""
    found = ratings([("a", "b", counts)], "b")
    assert found["b"] == Estimate(0.0, 0.0, 0.0)
    assert found["a"] is not None
    assert found["a"].value == pytest.approx(estimated(counts).value, abs=0.01)
    turned = ratings([("b", "a", counts.swapped())], "b")["a"]
    assert turned is not None
    assert (turned.value, turned.low) == pytest.approx((found["a"].value, found["a"].low), abs=0.01)


@given(
    results=st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde"), COUNTS).filter(lambda r: r[0] != r[1]),
        max_size=8,
    ),
    anchor=st.sampled_from("abcde"),
)
@examples(60)
def test_ratings_are_most_likely(results: list[tuple[str, str, PairCounts]], anchor: str) -> None:
    """Ratings do not balance expected with actual scores, or a player beyond reach of the anchor gets a number."""
    found = ratings(results, anchor)
    assert set(found) == {name for a, b, _ in results for name in (a, b)} | {anchor}
    reached, grown = {anchor}, True
    while grown:
        more = {name for a, b, counts in results for name in (a, b) if any(counts) and {a, b} & reached}
        grown = not more <= reached
        reached |= more
    assert {name for name, estimate in found.items() if estimate is not None} == reached
    met = {frozenset((a, b)) for a, b, counts in results if any(counts)}
    for player in reached - {anchor}:
        mine = found[player]
        assert mine is not None
        assert mine.low <= mine.value <= mine.high
        balance = 0.0
        for a, b, counts in results:
            other = b if a == player else a
            theirs = found[other]
            if player in (a, b) and any(counts) and theirs is not None:
                score = counts.score if a == player else counts.swapped().score
                assert score is not None
                balance += counts.pairs * (score - expected_score(mine.value - theirs.value))
        for pair in met:
            if player in pair:
                (other,) = pair - {player}
                theirs = found[other]
                assert theirs is not None
                balance += 0.5 - expected_score(mine.value - theirs.value)
        if all(estimate is None or abs(estimate.value) < MAX_ELO for estimate in found.values()):
            assert balance == pytest.approx(0, abs=1e-4)


def test_a_chain_of_champions_is_rated() -> None:
    """Strength does not add up along a chain, or far ends are as certain as near ones."""
    champions = [f"m{i}" for i in range(20)]
    result = PairCounts(2, 10, 40, 30, 18)
    found = ratings([(b, a, result) for a, b in pairwise(champions)], "m0")
    step = found["m1"]
    last = found["m19"]
    assert step is not None
    assert last is not None
    assert last.value == pytest.approx(19 * step.value, rel=1e-6)
    assert (last.high - last.low) == pytest.approx(math.sqrt(19) * (step.high - step.low), rel=1e-6)


def test_joint_coverage() -> None:
    """Intervals of the joint rating hold the truth in fewer than 92 % of the cases."""
    truth = {"a": 0.0, "b": 80.0, "c": 200.0}
    source = random.Random(5)
    meetings: Sequence[tuple[str, str]] = (("b", "a"), ("c", "b"), ("c", "a"))
    held = total = 0
    for _ in range(250):
        results = []
        for one, other in meetings:
            chance = expected_score(truth[one] - truth[other])
            counts = [0] * 5
            for _ in range(60):
                counts[2 * sum(source.random() < chance for _ in range(2))] += 1
            results.append((one, other, PairCounts(*counts)))
        found = ratings(results, "a")
        for player in ("b", "c"):
            estimate = found[player]
            assert estimate is not None
            held += estimate.low <= truth[player] <= estimate.high
            total += 1
    assert held / total >= 0.92


def test_rated_against_itself() -> None:
    """A match of a player with itself distorts the table silently."""
    with pytest.raises(ValueError, match="against itself"):
        ratings([("a", "a", PairCounts(1, 0, 0, 0, 1))], "a")


def test_nobody_played() -> None:
    """An empty table crashes."""
    assert ratings([], "a") == {"a": Estimate(0.0, 0.0, 0.0)}


def test_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that does not settle runs for ever; cut short it is only less exact."""
    counts = PairCounts(3, 7, 20, 18, 9)
    monkeypatch.setattr(ratings_module, "_STEPS", 2)
    found = ratings([("a", "b", counts)], "b")["a"]
    assert found is not None
    assert found.value == pytest.approx(estimated(counts).value, abs=1)
