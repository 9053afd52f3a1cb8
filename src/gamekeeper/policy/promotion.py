"""Which candidate becomes champion, and which is closed.

A candidate plays canary matches first: against itself (every pair must balance exactly) and against a random mover (which
it must beat). Then a sequential probability ratio test on game pairs against the champion decides, with the line's
declared error rates. Only games played for promotion count. Every candidate is decided in bounded play: after
`max_pairs` the test is given up and the champion stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.actions import Action, MoveChampion, RejectCandidate
from gamekeeper.core.decisions import Decision, Evidence, Verdict
from gamekeeper.core.lines import Line
from gamekeeper.core.matches import PairTally

POLICY = "promotion"


@dataclass(frozen=True, slots=True)
class ChampionView:
    """The model a line points at."""

    model_id: int
    hash: str


@dataclass(frozen=True, slots=True)
class CandidateView:
    """The line's model in state candidate.

    parent_hash: the parent its receipt announced; `None` for a founding model. input_hash: the model its training
    job was given; `None` for a founding model. random, mirror: canary games against the random mover and
    against itself. promotion: games against the current champion. evaluation_failures: evaluation jobs of this
    candidate that failed (their own failure budget used up, losses of machines not counted).
    """

    model_id: int
    hash: str
    parent_hash: str | None
    input_hash: str | None
    random: PairTally = PairTally()
    mirror: PairTally = PairTally()
    promotion: PairTally = PairTally()
    evaluation_failures: int = 0


@dataclass(frozen=True, slots=True)
class LineView:
    """One line: its champion and its candidate, where it has them."""

    line: str
    champion: ChampionView | None
    candidate: CandidateView | None


@dataclass(frozen=True, slots=True)
class View:
    """All lines."""

    lines: tuple[LineView, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """lines: the declared lines by name, with their test (elo0, elo1, alpha, beta, max_pairs, canary_pairs).

    canary_min_score: the mean score, 0 to 1 for each game, a candidate must reach against a random mover.
    evaluation_failures_allowed: how many failed evaluation jobs close a candidate (a net that does not load fails its
    jobs; it is never replaced by another player).
    """

    lines: Mapping[str, Line] = field(default_factory=dict)
    canary_min_score: float = 0.6
    evaluation_failures_allowed: int = 3


class Reason(StrEnum):
    """What became of a candidate, or why it waits."""

    FOUNDING_MODEL = "founding-model"
    STRONGER = "stronger"
    NOT_STRONGER = "not-stronger"
    UNDECIDED = "undecided"
    TEST_RUNNING = "test-running"
    CANARY_RUNNING = "canary-running"
    CANARY_WEAK = "canary-weak"
    CANARY_UNBALANCED = "canary-unbalanced"
    WRONG_PARENT = "wrong-parent"
    SECOND_FOUNDING = "second-founding"
    NO_CHAMPION = "no-champion"
    IDENTICAL = "identical"
    EVALUATION_FAILED = "evaluation-failed"
    NO_CANDIDATE = "no-candidate"
    UNDECLARED_LINE = "undeclared-line"


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Judge every line's candidate."""
    raise NotImplementedError
