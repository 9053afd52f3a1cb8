"""Strength in Elo with honest intervals, from game pairs. Standard library only.

One match-up (`elo_estimate`). The interval inverts the empirical-likelihood ratio test of the mean pair score (A. Owen,
"Empirical Likelihood", 2001, chapter 2). That is the likelihood the promotion test uses; it needs no normal
approximation and respects the ends of the scale. Its threshold is half the square of Student's t instead of half a
chi-squared quantile, as Owen advises for small samples. Half a pair is added to the counts, as in Jeffreys' prior for
a proportion: lost for the lower end, won for the upper end, one of each for the value. Without it ten wins of ten would
claim that a loss is impossible; with both halves at both ends the interval covers too little near the ends of
the scale. Where nothing but wins (or losses) was seen, the data set no bound on that side and the interval ends at
±`MAX_ELO`.

Many players (`ratings`). Bradley-Terry maximum likelihood on pair scores, with half a pair lost and half a pair won
added between any two that met. Intervals are Wald's with the sandwich covariance, so that the spread of pairs is
the observed one, which differs from that of independent games (H. White, "Maximum likelihood estimation of misspecified
models", 1982).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from gamekeeper.stats.sprt import (
    MAX_ELO,
    PAIR_SCORES,
    PairCounts,
    elo_from_score,
    expected_score,
    mean_deficit,
)

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_LOST = (0.5, 0.0, 0.0, 0.0, 0.0)
_WON = (0.0, 0.0, 0.0, 0.0, 0.5)
_BOTH = (0.5, 0.0, 0.0, 0.0, 0.5)
_ELO_PER_LOGIT = 400.0 / math.log(10.0)
_RESOLUTION = 0.001  # Elo
_STEPS = 200
_LONGEST_STEP = 1.0  # logits; keeps Newton's method from overshooting where results are one-sided
_CONVERGED = 1e-10


@dataclass(frozen=True, slots=True)
class Estimate:
    """A strength difference in Elo with the ends of its 95 % interval, all within ±`MAX_ELO`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Meeting:
    """Pairs between two players, given by index (-1: the anchor), with the prior added; counted from `a`'s side."""

    a: int
    b: int
    weights: tuple[float, ...]

    def difference(self, strengths: Sequence[float]) -> float:
        """`a`'s strength minus `b`'s; the anchor's is 0."""
        return (strengths[self.a] if self.a >= 0 else 0.0) - (strengths[self.b] if self.b >= 0 else 0.0)


def elo_estimate(counts: PairCounts) -> Estimate | None:
    """How much stronger the candidate is than its opponent; None when no pair was played."""
    if counts.pairs == 0:
        return None
    return Estimate(
        value=elo_from_score(_mean(_added(counts, _BOTH))),
        low=-MAX_ELO if counts.points_0 == counts.pairs else _interval_end(counts, _LOST, -MAX_ELO),
        high=MAX_ELO if counts.points_2 == counts.pairs else _interval_end(counts, _WON, MAX_ELO),
    )


def ratings(results: Iterable[tuple[str, str, PairCounts]], anchor: str) -> dict[str, Estimate | None]:
    """Elo of every player relative to `anchor`, which is 0.

    A result is (a, b, pairs counted from a's side); the same two may appear many times and either way round.
    None for a player that no chain of played pairs joins to the anchor. Raises `ValueError` for a player
    against itself.
    """
    merged = _merged(results)
    played = {pair: counts for pair, counts in merged.items() if counts.pairs}
    joined = _joined(anchor, list(played))
    free = sorted(joined - {anchor})
    index = {player: i for i, player in enumerate(free)} | {anchor: -1}
    meetings = [
        _Meeting(index[a], index[b], _added(counts, _BOTH))
        for (a, b), counts in played.items()
        if a in joined
    ]
    strengths, variances = _most_likely(meetings, len(free))
    found: dict[str, Estimate | None] = dict.fromkeys(player for pair in merged for player in pair)
    found[anchor] = Estimate(0.0, 0.0, 0.0)
    for player, strength, variance in zip(free, strengths, variances, strict=True):
        half = _Z * math.sqrt(variance)
        found[player] = Estimate(_elo(strength), _elo(strength - half), _elo(strength + half))
    return found


def _added(counts: PairCounts, prior: Sequence[float]) -> tuple[float, ...]:
    return tuple(count + extra for count, extra in zip(counts, prior, strict=True))


def _mean(weights: Sequence[float]) -> float:
    return math.fsum(w * score for w, score in zip(weights, PAIR_SCORES, strict=True)) / math.fsum(weights)


def _elo(logit: float) -> float:
    return max(-MAX_ELO, min(MAX_ELO, logit * _ELO_PER_LOGIT))


def _interval_end(counts: PairCounts, prior: Sequence[float], limit: float) -> float:
    """The Elo, on the way from the observed one to `limit`, up to which the test does not reject; to 0.001."""
    weights = _added(counts, prior)
    threshold = _student_quantile(counts.pairs) ** 2 / 2.0
    inside, outside = elo_from_score(_mean(weights)), limit
    while abs(outside - inside) > _RESOLUTION:
        middle = 0.5 * (inside + outside)
        if mean_deficit(weights, expected_score(middle)) <= threshold:
            inside = middle
        else:
            outside = middle
    return 0.5 * (inside + outside)


def _student_quantile(freedom: int) -> float:
    """The quantile of Student's t for a two-sided interval of `CONFIDENCE`.

    Abramowitz and Stegun, "Handbook of Mathematical Functions", 26.7.5; 11 % low for one degree of freedom, below 1 %
    off for more.
    """
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / math.pow(freedom, power) for power, term in enumerate(terms))


def _merged(results: Iterable[tuple[str, str, PairCounts]]) -> dict[tuple[str, str], PairCounts]:
    merged: dict[tuple[str, str], PairCounts] = {}
    for a, b, counts in results:
        if a == b:
            raise ValueError(f"{a!r} is rated against itself")
        pair, seen = ((a, b), counts) if a < b else ((b, a), counts.swapped())
        merged[pair] = merged[pair].plus(seen) if pair in merged else seen
    return merged


def _joined(anchor: str, pairs: Sequence[tuple[str, str]]) -> set[str]:
    """The players that a chain of pairs joins to the anchor, and the anchor."""
    opponents: dict[str, list[str]] = {}
    for a, b in pairs:
        opponents.setdefault(a, []).append(b)
        opponents.setdefault(b, []).append(a)
    reached, border = {anchor}, [anchor]
    while border:
        fresh = set(opponents.get(border.pop(), ())) - reached
        reached |= fresh
        border.extend(fresh)
    return reached


def _most_likely(meetings: Sequence[_Meeting], players: int) -> tuple[list[float], list[float]]:
    """(strengths, their variances), in logits, by Newton's method; the likelihood is concave."""
    strengths = [0.0] * players
    for _ in range(_STEPS):
        slope = [0.0] * players
        for meeting in meetings:
            fitted = _logistic(meeting.difference(strengths))
            excess = math.fsum(meeting.weights) * (_mean(meeting.weights) - fitted)
            for player, sign in ((meeting.a, 1.0), (meeting.b, -1.0)):
                if player >= 0:
                    slope[player] += sign * excess
        inverse = _inverse(_information(meetings, strengths))
        step = [math.fsum(x * y for x, y in zip(row, slope, strict=True)) for row in inverse]
        longest = max(map(abs, step), default=0.0)
        scale = min(1.0, _LONGEST_STEP / longest) if longest else 0.0
        strengths = [strength + scale * change for strength, change in zip(strengths, step, strict=True)]
        if longest < _CONVERGED:
            break
    return strengths, _variances(meetings, strengths)


def _logistic(x: float) -> float:
    return expected_score(x * _ELO_PER_LOGIT)


def _information(meetings: Sequence[_Meeting], strengths: Sequence[float]) -> list[list[float]]:
    """Minus the second derivative of the log-likelihood by the strengths."""

    def weight(meeting: _Meeting) -> float:
        fitted = _logistic(meeting.difference(strengths))
        return math.fsum(meeting.weights) * fitted * (1.0 - fitted)

    return _squares(meetings, len(strengths), weight)


def _squares(
    meetings: Sequence[_Meeting], players: int, weight: Callable[[_Meeting], float]
) -> list[list[float]]:
    """Sum over the meetings of weight times x xᵀ, where x is +1 at `a` and -1 at `b`."""
    matrix = [[0.0] * players for _ in range(players)]
    for meeting in meetings:
        value = weight(meeting)
        for i, sign_i in ((meeting.a, 1.0), (meeting.b, -1.0)):
            for j, sign_j in ((meeting.a, 1.0), (meeting.b, -1.0)):
                if i >= 0 and j >= 0:
                    matrix[i][j] += sign_i * sign_j * value
    return matrix


def _variances(meetings: Sequence[_Meeting], strengths: Sequence[float]) -> list[float]:
    """Diagonal of the sandwich covariance: inverse information, observed spread of the pairs, inverse information."""
    inverse = _inverse(_information(meetings, strengths))
    variances = [0.0] * len(strengths)
    for meeting in meetings:
        fitted = _logistic(meeting.difference(strengths))
        spread = math.fsum(
            w * (score - fitted) ** 2 for w, score in zip(meeting.weights, PAIR_SCORES, strict=True)
        )
        for i, row in enumerate(inverse):
            variances[i] += spread * meeting.difference(row) ** 2
    return variances


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Inverse of a symmetric positive definite matrix, by Gauss-Jordan elimination."""
    size = len(matrix)
    rows = [[*row, *(1.0 if i == j else 0.0 for j in range(size))] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = rows[i][i]
        rows[i] = [value / pivot for value in rows[i]]
        for j in range(size):
            if j != i and rows[j][i]:
                factor = rows[j][i]
                rows[j] = [value - factor * base for value, base in zip(rows[j], rows[i], strict=True)]
    return [row[size:] for row in rows]
