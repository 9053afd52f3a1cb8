"""Which candidate becomes champion, and which is closed.

A candidate plays canary matches first: against itself (every pair must balance exactly) and against a random mover
(which it must beat). Then a sequential probability ratio test on game pairs against the champion decides, with the
error rates its line declares. Only games played for promotion count. Every candidate is decided in bounded play: after
`max_pairs` the test is given up and the champion stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.actions import Action, MoveChampion, RejectCandidate
from gamekeeper.core.decisions import Decision, Evidence, Verdict, counted
from gamekeeper.core.errors import SettingsError
from gamekeeper.core.lines import Line
from gamekeeper.core.matches import NO_GAMES, PairTally
from gamekeeper.stats.sprt import Outcome, PairCounts, Sprt

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
    random: PairTally = NO_GAMES
    mirror: PairTally = NO_GAMES
    promotion: PairTally = NO_GAMES
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

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a canary that says nothing, or a candidate closed before it played."""
        if not 0 <= self.canary_min_score <= 1 or self.evaluation_failures_allowed < 1:
            raise SettingsError(
                "promotion.canary_min_score must lie in 0 to 1, promotion.evaluation_failures_allowed be 1 or more",
                remedy="correct [promotion] in gamekeeper.toml",
            )


class Reason(StrEnum):
    """What became of a candidate, or why it waits."""

    FOUNDING_MODEL = "founding-model"
    STRONGER = "stronger"
    NOT_STRONGER = "not-stronger"
    UNDECIDED = "undecided"
    TEST_RUNNING = "test-running"
    CANARY_RUNNING = "canary-running"
    CANARY_WEAK = "canary-weak"
    CANARY_EMPTY = "canary-empty"
    CANARY_UNBALANCED = "canary-unbalanced"
    WRONG_PARENT = "wrong-parent"
    SECOND_FOUNDING = "second-founding"
    NO_CHAMPION = "no-champion"
    IDENTICAL = "identical"
    EVALUATION_FAILED = "evaluation-failed"
    NO_CANDIDATE = "no-candidate"
    UNDECLARED_LINE = "undeclared-line"


@dataclass(frozen=True, slots=True)
class _Judgement:
    """What is said of a candidate. `closes`: it is rejected; `moves`: it becomes champion."""

    reason: Reason
    sentence: str
    evidence: tuple[Evidence, ...] = ()
    closes: bool = False
    moves: bool = False


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Judge every line's candidate: one verdict for each line, at most one action for each."""
    verdicts: list[Verdict] = []
    actions: list[Action] = []
    for line in sorted(view.lines, key=lambda line: line.line):
        candidate = line.candidate
        subject = f"line/{line.line}/champion" if candidate is None else f"model/{candidate.model_id}"
        judgement = _judge(line, limits)
        if candidate is not None and judgement.moves:
            expected = None if line.champion is None else line.champion.model_id
            actions.append(MoveChampion(line.line, candidate.model_id, expected))
        if candidate is not None and judgement.closes:
            actions.append(RejectCandidate(line.line, candidate.model_id, judgement.reason))
        acted = judgement.moves or judgement.closes
        verdicts.append(Verdict(subject, judgement.reason, judgement.sentence, acted, judgement.evidence))
    return Decision(POLICY, now, tuple(verdicts), tuple(actions))


def _judge(view: LineView, limits: Limits) -> _Judgement:
    declared, candidate, champion = limits.lines.get(view.line), view.candidate, view.champion
    if declared is None:
        return _Judgement(Reason.UNDECLARED_LINE, "left alone: gamekeeper.toml declares no such line")
    if candidate is None:
        return _Judgement(Reason.NO_CANDIDATE, "no candidate awaits a decision")
    if champion is None:
        return _founding(candidate)
    return (
        _descent(candidate, champion)
        or _failures(candidate, limits)
        or _canary(candidate, declared, limits)
        or _test(candidate, champion, declared)
    )


def _founding(candidate: CandidateView) -> _Judgement:
    evidence = (
        Evidence("parent", candidate.parent_hash, None),
        Evidence("input model", candidate.input_hash, None),
    )
    if candidate.parent_hash is None and candidate.input_hash is None:
        sentence = "the line's founding model becomes its first champion, untested"
        return _Judgement(Reason.FOUNDING_MODEL, sentence, evidence, moves=True)
    sentence = "closed: it descends from another model, but the line has no champion to test it against"
    return _Judgement(Reason.NO_CHAMPION, sentence, evidence, closes=True)


def _descent(candidate: CandidateView, champion: ChampionView) -> _Judgement | None:
    evidence = (
        Evidence(
            "announced parent", candidate.parent_hash, candidate.input_hash, "input of its training job"
        ),
    )
    if candidate.hash == champion.hash:
        same = Evidence("weights", candidate.hash, champion.hash, f"model/{champion.model_id}")
        return _Judgement(
            Reason.IDENTICAL, "closed: its weights are the champion's own", (same,), closes=True
        )
    if candidate.parent_hash is None and candidate.input_hash is None:
        sentence = "closed: a founding model, but the line has a champion"
        return _Judgement(Reason.SECOND_FOUNDING, sentence, evidence, closes=True)
    if candidate.parent_hash != candidate.input_hash:
        sentence = "closed: it was not trained from the model its job was given"
        return _Judgement(Reason.WRONG_PARENT, sentence, evidence, closes=True)
    return None


def _failures(candidate: CandidateView, limits: Limits) -> _Judgement | None:
    failed, allowed = candidate.evaluation_failures, limits.evaluation_failures_allowed
    if failed < allowed:
        return None
    evidence = (Evidence("failed evaluation jobs", failed, allowed, "promotion.evaluation_failures_allowed"),)
    sentence = f"closed: {counted(failed, 'job')} failed to evaluate it"
    return _Judgement(Reason.EVALUATION_FAILED, sentence, evidence, closes=True)


def _canary(candidate: CandidateView, declared: Line, limits: Limits) -> _Judgement | None:
    """What the canary games say, if they do not simply let the test begin."""
    wanted = declared.canary_pairs
    if wanted < 1:
        return None
    unbalanced = candidate.mirror.pairs - candidate.mirror.counts[2]
    if unbalanced:
        evidence = (
            Evidence("pairs worth 0, 0.5, 1, 1.5, 2 against itself", str(candidate.mirror.counts)),
            Evidence("unbalanced pairs", unbalanced, 0, "canary"),
        )
        pairs = counted(unbalanced, "pair")
        sentence = f"closed: {pairs} against itself did not balance, so its games cannot be trusted"
        return _Judgement(Reason.CANARY_UNBALANCED, sentence, evidence, closes=True)
    played = min(candidate.random.played, candidate.mirror.played)
    if played < wanted:
        waiting = (Evidence("canary pairs played", played, wanted, f"lines.{declared.name}.canary_pairs"),)
        return _Judgement(
            Reason.CANARY_RUNNING, f"waits: {played} of {wanted} canary pairs are played", waiting
        )
    return _strength(candidate, limits)


def _strength(candidate: CandidateView, limits: Limits) -> _Judgement | None:
    tally = candidate.random
    if tally.pairs == 0 or candidate.mirror.pairs == 0:
        nothing = (
            Evidence("score against random", None, limits.canary_min_score, "promotion.canary_min_score"),
        )
        sentence = "closed: all its canary games repeated known ones, so they prove nothing"
        return _Judgement(Reason.CANARY_EMPTY, sentence, nothing, closes=True)
    score = tally.points / (2 * tally.pairs)
    if score >= limits.canary_min_score:
        return None
    evidence = (
        Evidence(
            "score against random", round(score, 4), limits.canary_min_score, "promotion.canary_min_score"
        ),
        Evidence("pairs worth 0, 0.5, 1, 1.5, 2 against random", str(tally.counts)),
    )
    sentence = f"closed: it scored {score:.0%} against a random mover"
    return _Judgement(Reason.CANARY_WEAK, sentence, evidence, closes=True)


def _test(candidate: CandidateView, champion: ChampionView, declared: Line) -> _Judgement:
    """The sequential test. A pair that repeats a known replay is played, but no evidence."""
    tally = candidate.promotion
    sprt = Sprt(declared.elo0, declared.elo1, declared.alpha, declared.beta)
    counts = PairCounts(*tally.counts)
    ratio, (lower, upper) = sprt.llr(counts), sprt.bounds
    setting = f"lines.{declared.name}"
    evidence = (
        Evidence("log-likelihood ratio", round(ratio, 4), round(upper, 4), f"{setting}.alpha"),
        Evidence("lower bound", round(lower, 4), None, f"{setting}.beta"),
        Evidence("pairs worth 0, 0.5, 1, 1.5, 2", str(tally.counts), None, f"{setting}.elo0, {setting}.elo1"),
        Evidence("pairs played", tally.played, declared.max_pairs, f"{setting}.max_pairs"),
        Evidence("repeated games", tally.duplicates),
        Evidence("parent is the champion", candidate.parent_hash == champion.hash),
    )
    pairs = counted(tally.pairs, "pair")
    against = f"against model {champion.model_id} after {pairs}: log-likelihood ratio {ratio:.2f}"
    outcome = sprt.decide(counts)
    if outcome is Outcome.ACCEPT:
        sentence = f"promoted {against}, at or above {upper:.2f}"
        return _Judgement(Reason.STRONGER, sentence, evidence, moves=True)
    if outcome is Outcome.REJECT:
        sentence = f"closed {against}, at or below {lower:.2f}"
        return _Judgement(Reason.NOT_STRONGER, sentence, evidence, closes=True)
    if tally.played >= declared.max_pairs:
        sentence = f"closed {against}, undecided at max_pairs {declared.max_pairs}"
        return _Judgement(Reason.UNDECIDED, sentence, evidence, closes=True)
    sentence = f"waits {against}, between {lower:.2f} and {upper:.2f}"
    return _Judgement(Reason.TEST_RUNNING, sentence, evidence)
