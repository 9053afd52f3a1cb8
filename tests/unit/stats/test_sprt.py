from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gamekeeper.stats import sprt
from gamekeeper.stats.sprt import (
    MAX_ELO,
    PAIR_SCORES,
    Outcome,
    PairCounts,
    Sprt,
    bounds,
    elo_from_score,
    expected_score,
    llr,
    mean_deficit,
)
from tests.thoroughness import examples

COUNTS = st.lists(st.integers(0, 60), min_size=5, max_size=5).map(lambda found: PairCounts(*found))
ELO = st.floats(-600, 600)


def best_log_likelihood(counts: Sequence[float], mean: float) -> float:
    """The highest sum n_i log p_i under the mean, by random search among distributions.

    Shares nothing with the implementation: three probabilities are free, the other two follow from the two
    conditions.
    """

    def value(point: Sequence[float]) -> float:
        p4 = mean - 0.25 * point[0] - 0.5 * point[1] - 0.75 * point[2]
        p0 = 1 - sum(point) - p4
        total = 0.0
        for count, p in zip(counts, (p0, *point, p4), strict=True):
            if p < 0 or (count and p <= 0):
                return -math.inf
            if count:
                total += count * math.log(p)
        return total

    source = random.Random(1)
    share = 0.1 * min(mean, 1 - mean)
    best, width, misses = [share, share, share], 0.3, 0
    found = value(best)
    while width > 1e-6:
        point = [max(0.0, p + source.gauss(0, width)) if source.random() < 0.7 else p for p in best]
        if (reached := value(point)) > found:
            best, found, misses = point, reached, 0
        else:
            misses += 1
            if misses > 100:
                width, misses = width / 2, 0
    return found


@given(counts=st.lists(st.integers(0, 20), min_size=5, max_size=5).filter(any), mean=st.floats(0.1, 0.9))
@pytest.mark.unmeasured
@examples(20)
def test_agrees_with_brute_force(counts: list[int], mean: float) -> None:
    """The ratio is not that of the best likelihoods, for instance when some result was never seen."""
    total = sum(counts)
    free = sum(n * math.log(n / total) for n in counts if n)
    found = free - mean_deficit(counts, mean)
    brute = best_log_likelihood(counts, mean)
    assert brute <= found + 1e-6, "a better distribution exists than the one found"
    if all(counts):
        assert found == pytest.approx(brute, abs=0.05)
    else:
        # The search is poor where probabilities must vanish; there the result must follow from its neighbourhood.
        nearly = [max(count, 1e-9) for count in counts]
        assert mean_deficit(counts, mean) == pytest.approx(mean_deficit(nearly, mean), abs=1e-5)


@given(counts=COUNTS, mean=st.floats(0.01, 0.99))
@examples(60)
def test_deficit_is_a_deficit(counts: PairCounts, mean: float) -> None:
    """A condition makes the data more likely, or the observed mean costs likelihood."""
    assert mean_deficit(counts, mean) >= 0
    score = counts.score
    if score is not None and 0 < score < 1:
        assert mean_deficit(counts, score) == pytest.approx(0, abs=1e-9)
        between = (score + mean) / 2
        assert mean_deficit(counts, between) <= mean_deficit(counts, mean) + 1e-9


def test_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search cut short claims more evidence than there is."""
    counts = (3, 7, 20, 8, 1)
    full = mean_deficit(counts, 0.9)
    for steps in range(5):
        monkeypatch.setattr(sprt, "_MAX_STEPS", steps)
        assert 0 <= mean_deficit(counts, 0.9) <= full


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.75, 0.99])
def test_deficit_in_closed_form(mean: float) -> None:
    """Where the answer is known on paper, another comes out."""
    assert mean_deficit((0, 0, 0, 0, 7), mean) == pytest.approx(7 * -math.log(mean))
    assert mean_deficit((7, 0, 0, 0, 0), mean) == pytest.approx(7 * -math.log(1 - mean))
    n, k = 20, 13
    divergence = k * math.log(k / n / mean) + (n - k) * math.log((n - k) / n / (1 - mean))
    assert mean_deficit((n - k, 0, 0, 0, k), mean) == pytest.approx(divergence)
    draws = 5 * math.log(0.5 / min(mean, 1 - mean))
    assert mean_deficit((0, 0, 5, 0, 0), mean) == pytest.approx(draws)
    assert mean_deficit((0, 0, 0, 0, 0), mean) == 0


@given(counts=COUNTS, elo0=ELO, elo1=ELO)
@examples(60)
def test_swapping_sides(counts: PairCounts, elo0: float, elo1: float) -> None:
    """The test favours one side."""
    assert llr(counts, elo0, elo1) == pytest.approx(llr(counts.swapped(), -elo0, -elo1), abs=1e-6)
    assert llr(counts, elo0, elo1) == pytest.approx(-llr(counts, elo1, elo0), abs=1e-9)
    assert llr(counts, elo0, elo0) == 0


@given(
    counts=COUNTS,
    elo0=st.floats(-300, 300),
    step=st.floats(1, 300),
    low=st.integers(0, 3),
    high=st.integers(1, 4),
)
@examples(60)
def test_better_results_count_for_the_candidate(
    counts: PairCounts, elo0: float, step: float, low: int, high: int
) -> None:
    """Turning a pair into a better one lowers the ratio."""
    low = min(low, high - 1)
    before, after = list(counts), list(counts)
    before[low] += 1
    after[high] += 1
    assert llr(PairCounts(*after), elo0, elo0 + step) >= llr(PairCounts(*before), elo0, elo0 + step) - 1e-9


@given(counts=COUNTS, factor=st.integers(2, 9), elo0=ELO, elo1=ELO)
@examples(60)
def test_evidence_adds_up(counts: PairCounts, factor: int, elo0: float, elo1: float) -> None:
    """Twice the same results are not twice the evidence."""
    many = PairCounts(*(count * factor for count in counts))
    assert llr(many, elo0, elo1) == pytest.approx(factor * llr(counts, elo0, elo1), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("counts", [(10, 20, 40, 25, 15), (100, 400, 1000, 420, 130), (3, 1, 50, 2, 9)])
def test_agrees_with_the_normal_approximation(counts: tuple[int, ...]) -> None:
    """The ratio is off by a factor: near the mean it is n (s1 - s0) (2 mean - s0 - s1) / (2 variance).

    Equation in section 4 of "A practical introduction to the GSPRT".
    """
    found = PairCounts(*counts)
    mean = found.score
    assert mean is not None
    variance = sum(n * (s - mean) ** 2 for n, s in zip(found, PAIR_SCORES, strict=True)) / found.pairs
    low, high = expected_score(0), expected_score(5)
    approximate = found.pairs * (high - low) * (2 * mean - low - high) / (2 * variance)
    assert llr(found, 0, 5) == pytest.approx(approximate, rel=0.1)


@given(elo=st.floats(-1500, 1500))
@examples(60)
def test_elo_and_back(elo: float) -> None:
    """Elo and score are not each other's inverse."""
    assert elo_from_score(expected_score(elo)) == pytest.approx(elo, abs=1e-3)
    assert expected_score(elo) + expected_score(-elo) == pytest.approx(1)


def test_elo_of_known_scores() -> None:
    """Another scale than Elo's is used, or the ends of it are not held."""
    assert expected_score(0) == 0.5
    assert expected_score(400) == pytest.approx(10 / 11)
    assert elo_from_score(0.75) == pytest.approx(190.85, abs=0.01)
    assert [elo_from_score(score) for score in (-1.0, 0.0, 1e-9, 1 - 1e-9, 1.0, 2.0)] == [
        -MAX_ELO, -MAX_ELO, -MAX_ELO, MAX_ELO, MAX_ELO, MAX_ELO,
    ]  # fmt: skip


def test_pair_counts() -> None:
    """Pairs are scored or added up wrongly."""
    counts = PairCounts(1, 2, 3, 4, 5)
    assert (counts.pairs, counts.swapped()) == (15, PairCounts(5, 4, 3, 2, 1))
    assert counts.score == pytest.approx(40 / 60)
    assert counts.plus(PairCounts(0, 1, 0, 0, 2)) == PairCounts(1, 3, 3, 4, 7)
    assert PairCounts(0, 0, 0, 0, 0).score is None


def test_bounds_are_walds() -> None:
    """The error rates are swapped or not what was asked for."""
    assert bounds(0.05, 0.05) == pytest.approx((-2.9444, 2.9444), abs=1e-4)
    assert bounds(0.05, 0.1) == pytest.approx((math.log(0.1 / 0.95), math.log(0.9 / 0.05)))
    test = Sprt(0, 10, alpha=0.01, beta=0.2)
    assert test.bounds == bounds(0.01, 0.2)


@pytest.mark.parametrize(
    ("elo0", "elo1", "alpha", "beta"),
    [(10, 10, 0.05, 0.05), (10, 0, 0.05, 0.05), (-2001, 0, 0.05, 0.05), (0, 2001, 0.05, 0.05), (0, 10, 0, 0.05),
     (0, 10, 0.05, 0), (0, 10, 0.5, 0.05), (0, 10, 0.05, 0.5), (math.nan, 10, 0.05, 0.05), (0, 10, math.nan, 0.05)],
)  # fmt: skip
def test_what_is_no_test_is_refused(elo0: float, elo1: float, alpha: float, beta: float) -> None:
    """A test without power or without meaning is run."""
    with pytest.raises(ValueError, match="must"):
        Sprt(elo0, elo1, alpha, beta)


def test_decisions_lie_at_the_bounds() -> None:
    """A decision comes too early, too late, or the wrong way round."""
    test = Sprt(0, 60)
    lower, upper = test.bounds
    seen = set()
    for wins in range(200):
        for counts in (PairCounts(0, 2, 6, 2, wins), PairCounts(wins, 2, 6, 2, 0)):
            ratio, outcome = test.llr(counts), test.decide(counts)
            expected = (
                Outcome.ACCEPT if ratio >= upper else Outcome.REJECT if ratio <= lower else Outcome.CONTINUE
            )
            assert outcome is expected
            seen.add(outcome)
    assert seen == set(Outcome)
    assert test.decide(PairCounts(0, 0, 0, 0, 0)) is Outcome.CONTINUE
    assert test.decide(PairCounts(0, 0, 0, 0, 60)) is Outcome.ACCEPT


def tilted(shape: Sequence[float], mean: float) -> list[float]:
    """The distribution of that shape, tilted exponentially until it has the mean."""
    low, high = -80.0, 80.0
    for _ in range(200):
        tilt = (low + high) / 2
        weights = [weight * math.exp(tilt * score) for weight, score in zip(shape, PAIR_SCORES, strict=True)]
        total = sum(weights)
        if sum(w * s for w, s in zip(weights, PAIR_SCORES, strict=True)) / total < mean:
            low = tilt
        else:
            high = tilt
    return [weight / total for weight in weights]


def share_accepted(test: Sprt, elo: float, shape: Sequence[float], trials: int, seed: int) -> float:
    """The share of simulated candidates of that strength which the test accepts, looking every 4 pairs."""
    source = random.Random(seed)
    cumulative = list(tilted(shape, expected_score(elo)))
    accepted = 0
    for _ in range(trials):
        counts = [0] * 5
        while (outcome := test.decide(PairCounts(*counts))) is Outcome.CONTINUE:
            for result in source.choices(range(5), cumulative, k=4):
                counts[result] += 1
        accepted += outcome is Outcome.ACCEPT
    return accepted / trials


EVEN, WILD, TAME = (1, 2, 4, 2, 1), (4, 1, 6, 1, 4), (1, 0.1, 9, 0.1, 1)


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("elo0", "elo1", "shape"),
    [(0, 100, EVEN), (0, 100, WILD), (0, 100, TAME), (30, 150, WILD)],
    ids=["even", "wild", "tame", "wild, above zero"],
)
def test_error_rates(elo0: float, elo1: float, shape: Sequence[float]) -> None:
    """More candidates slip through, or good ones fail, than the stated error rates say.

    300 trials: three standard errors of 5 % are 3.8 percentage points.
    """
    test = Sprt(elo0, elo1, alpha=0.05, beta=0.05)
    assert share_accepted(test, elo0, shape, 300, seed=1) <= 0.05 + 0.038
    assert share_accepted(test, elo1, shape, 300, seed=2) >= 0.95 - 0.038
    far = [share_accepted(test, elo, shape, 100, seed=3) for elo in (elo0 - 60, (elo0 + elo1) / 2, elo1 + 60)]
    assert all(less <= more for less, more in pairwise(far))
    assert far[0] <= 0.02
    assert far[2] >= 0.98
