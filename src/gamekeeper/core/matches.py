"""Matches: immutable results of game pairs between two players."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Purpose(StrEnum):
    """What an evaluation is played for. Only `promotion` games may move a champion."""

    CANARY = "canary"
    PROMOTION = "promotion"
    RATING = "rating"


@dataclass(frozen=True, slots=True)
class PairResult:
    """One opening played twice, from the candidate's side.

    `first` is its score (0, 0.5 or 1) when it moves first, `second` when it moves second. `number` is the pair's
    number within (candidate, opponent, purpose) and fixes the opening; `replay` is the BLAKE3 hash of
    both move lists.
    """

    number: int
    first: float
    second: float
    replay: str


def pentanomial(pairs: list[PairResult]) -> tuple[int, int, int, int, int]:
    """Counts of pairs worth 0, 0.5, 1, 1.5 and 2 points to the candidate."""
    counts = [0, 0, 0, 0, 0]
    for pair in pairs:
        counts[round(2 * (pair.first + pair.second))] += 1
    return counts[0], counts[1], counts[2], counts[3], counts[4]
