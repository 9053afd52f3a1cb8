"""Sequential probability ratio test on game pairs (pentanomial GSPRT). Standard library only.

Two games from one opening, with sides swapped, are one observation: their results are not independent of each other,
but pairs are independent of pairs. A pair is worth 0, 0.5, 1, 1.5 or 2 points to the candidate; its score is that
over 2. Hypotheses are about the mean score of a pair, stated in Elo (logistic): H0, the candidate is `elo0`
stronger, against H1, it is `elo1` stronger.

The distribution over the five results is otherwise unknown, so the test uses the generalised log-likelihood ratio: the
likelihood of the counts at its best under H1 over that at its best under H0.

Sources: M. Van den Bergh, "A practical introduction to the GSPRT" and "Comments on normalized Elo" (the notes behind
fishtest's mathematics page); A. Wald, "Sequential Analysis" (1947), for the bounds; A. Owen, "Empirical Likelihood"
(2001), chapter 2, for the one-dimensional dual that finds the best likelihood under a given mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

# Beyond this no number of games that anybody plays tells differences apart.
MAX_ELO = 2000.0
_TINY = 1e-13
_MAX_STEPS = 200
PAIR_SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)


class PairCounts(NamedTuple):
    """How many game pairs were worth 0, 0.5, 1, 1.5 and 2 points to the candidate."""

    points_0: int
    points_half: int
    points_1: int
    points_1_half: int
    points_2: int

    @property
    def pairs(self) -> int:
        """Number of pairs; each is two games."""
        return sum(self)

    @property
    def score(self) -> float | None:
        """Mean score of a pair, from 0 to 1; None when no pair was played."""
        total = math.fsum(count * score for count, score in zip(self, PAIR_SCORES, strict=True))
        return total / self.pairs if self.pairs else None

    def swapped(self) -> PairCounts:
        """The same pairs from the opponent's side."""
        return PairCounts(*reversed(self))

    def plus(self, other: PairCounts) -> PairCounts:
        """The pairs of both."""
        return PairCounts(*(mine + yours for mine, yours in zip(self, other, strict=True)))


def expected_score(elo: float) -> float:
    """Expected score, from 0 to 1, of a player `elo` stronger than its opponent: 1 / (1 + 10^(-elo/400))."""
    return 1.0 / (1.0 + math.pow(10.0, -elo / 400.0))


def elo_from_score(score: float) -> float:
    """The inverse of `expected_score`, held within ±`MAX_ELO`; scores 0 and 1 give the ends."""
    if score <= 0.0 or score >= 1.0:
        return math.copysign(MAX_ELO, score - 0.5)
    return max(-MAX_ELO, min(MAX_ELO, 400.0 * math.log10(score / (1.0 - score))))


def mean_deficit(counts: Sequence[float], mean: float) -> float:
    """How much log-likelihood the counts lose at best if the true mean score is `mean`, as against no condition.

    `counts` are five numbers from 0 up, `mean` lies strictly between 0 and 1. The result is 0 when `mean` is the
    observed mean and grows to both sides of it.

    The best distribution under the condition is p_i = n_i / (n (1 + t (a_i - mean))) with the t that maximises
    sum n_i log(1 + t (a_i - mean)), and that maximum is the result. t runs over the closed interval on which no
    factor is negative: at an end of it, an extreme result that was never seen takes the probability that remains.
    """
    terms = [(count, score - mean) for count, score in zip(counts, PAIR_SCORES, strict=True) if count > 0]
    t = _best_tilt(terms, -1.0 / (1.0 - mean), 1.0 / mean)
    return max(0.0, math.fsum(count * math.log1p(t * distance) for count, distance in terms))


def _best_tilt(terms: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """The t in [low, high] that maximises sum n log(1 + t d) over the terms (n, d): Newton's method, bracketed."""
    # An end can be best only if no factor is zero there, that is, if the extreme result was not seen.
    for end, sign in ((low, -1.0), (high, 1.0)):
        factors = [1.0 + end * distance for _, distance in terms]
        if min(factors, default=1.0) > _TINY and sign * _slope(terms, factors) >= 0.0:
            return end
    t = 0.0
    for _ in range(_MAX_STEPS):
        factors = [1.0 + t * distance for _, distance in terms]
        slope = _slope(terms, factors)
        low, high = (t, high) if slope > 0.0 else (low, t)
        curvature = math.fsum(n * (d / f) ** 2 for (n, d), f in zip(terms, factors, strict=True))
        step = slope / curvature
        if abs(step) <= _TINY * (1.0 + abs(t)):
            break
        t = t + step if low < t + step < high else 0.5 * (low + high)
    return t


def _slope(terms: Sequence[tuple[float, float]], factors: Sequence[float]) -> float:
    return math.fsum(n * d / factor for (n, d), factor in zip(terms, factors, strict=True))


def llr(counts: PairCounts, elo0: float, elo1: float) -> float:
    """Generalised log-likelihood ratio of "the candidate is elo1 stronger" against "it is elo0 stronger"."""
    return mean_deficit(counts, expected_score(elo0)) - mean_deficit(counts, expected_score(elo1))


def bounds(alpha: float, beta: float) -> tuple[float, float]:
    """Wald's (lower, upper) bounds of the log-likelihood ratio, natural logarithm.

    `alpha` is the probability of accepting a candidate that is only `elo0` stronger, `beta` that of rejecting one
    that is `elo1` stronger; both lie strictly between 0 and 0.5.
    """
    return math.log(beta / (1.0 - alpha)), math.log((1.0 - beta) / alpha)


class Outcome(StrEnum):
    """What the test says so far."""

    ACCEPT = "accept"
    REJECT = "reject"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Sprt:
    """A test with its error rates. Raises `ValueError` when the hypotheses or rates make no test.

    `elo0` and `elo1` are strength differences, `alpha` and `beta` as in `bounds`.
    """

    elo0: float
    elo1: float
    alpha: float = 0.05
    beta: float = 0.05

    def __post_init__(self) -> None:
        if not -MAX_ELO <= self.elo0 < self.elo1 <= MAX_ELO:
            raise ValueError(f"elo0 {self.elo0} and elo1 {self.elo1} must rise and lie within ±{MAX_ELO:.0f}")
        if not (0.0 < self.alpha < 0.5 and 0.0 < self.beta < 0.5):
            raise ValueError(f"alpha {self.alpha} and beta {self.beta} must lie between 0 and 0.5")

    @property
    def bounds(self) -> tuple[float, float]:
        """(reject at or below, accept at or above), in units of `llr`."""
        return bounds(self.alpha, self.beta)

    def llr(self, counts: PairCounts) -> float:
        """The log-likelihood ratio of this test's hypotheses."""
        return llr(counts, self.elo0, self.elo1)

    def decide(self, counts: PairCounts) -> Outcome:
        """Whether the pairs played so far decide the test."""
        lower, upper = self.bounds
        ratio = self.llr(counts)
        if ratio >= upper:
            return Outcome.ACCEPT
        return Outcome.REJECT if ratio <= lower else Outcome.CONTINUE
