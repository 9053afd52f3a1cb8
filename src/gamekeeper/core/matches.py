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


@dataclass(frozen=True, slots=True)
class PairTally:
    """What is booked of one test: candidate, opponent and purpose.

    `counts` are the pairs worth 0, 0.5, 1, 1.5 and 2 points to the candidate. `duplicates` are pairs that
    repeated a known replay: no evidence, but played. `next_pair` lies above every pair number that was booked,
    found a duplicate, or planned by a live or done job, so that no opening is used twice.
    """

    counts: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    duplicates: int = 0
    next_pair: int = 0

    @property
    def pairs(self) -> int:
        """Pairs that count as evidence."""
        return sum(self.counts)

    @property
    def played(self) -> int:
        """Pairs handed in, whether they count or not."""
        return self.pairs + self.duplicates

    @property
    def points(self) -> float:
        """The candidate's points over all pairs, 0 to 2 for each."""
        return sum(index * count for index, count in enumerate(self.counts)) / 2


NO_GAMES = PairTally()


def pentanomial(pairs: list[PairResult]) -> tuple[int, int, int, int, int]:
    """Counts of pairs worth 0, 0.5, 1, 1.5 and 2 points to the candidate."""
    counts = [0, 0, 0, 0, 0]
    for pair in pairs:
        counts[round(2 * (pair.first + pair.second))] += 1
    return counts[0], counts[1], counts[2], counts[3], counts[4]
