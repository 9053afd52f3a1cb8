"""Liveness: can every stage of a line be reached from the empty state with its settings?

The proof is a walk. The very decisions of the loop are applied to a world in which every job succeeds and every
candidate wins all its games. A stage that never gets work even there can never get any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gamekeeper.core.actions import SubmitJob
from gamekeeper.core.jobs import JobSpec
from gamekeeper.core.lines import Line
from gamekeeper.core.lines import Stage as Program
from gamekeeper.core.matches import NO_GAMES, PairTally, Purpose
from gamekeeper.policy.continuous_loop.loop import decide
from gamekeeper.policy.continuous_loop.view import (
    CandidateView,
    ChampionView,
    Limits,
    LineView,
    Reason,
    Stage,
    View,
    Window,
)
from gamekeeper.stats.sprt import Outcome, PairCounts, Sprt

PASSES = 300
SLOTS = 64


def reachability(line: Line, limits: Limits | None = None) -> list[str]:
    """Sentences for all that can never happen with these settings; empty when every stage is reachable.

    `limits` bounds the loop; its own `lines` are not looked at.
    """
    problems = _impossible_numbers(line)
    if problems:
        return problems
    sprt = Sprt(line.elo0, line.elo1, line.alpha, line.beta)
    if sprt.decide(PairCounts(0, 0, 0, 0, line.max_pairs)) is not Outcome.ACCEPT:
        return [
            f"promotion: a candidate that wins all {line.max_pairs} pairs (lines.{line.name}.max_pairs) reaches a "
            f"log-likelihood ratio of {sprt.llr(PairCounts(0, 0, 0, 0, line.max_pairs)):.2f}, but "
            f"{sprt.bounds[1]:.2f} is needed; raise max_pairs, alpha, or the distance of elo0 and elo1"
        ]
    return _walk(line, sprt, replace(limits or Limits(), lines={line.name: line}))


def _impossible_numbers(line: Line) -> list[str]:
    problems: list[str] = []
    programs: Mapping[str, Program] = {
        "found": line.found,
        "selfplay": line.selfplay,
        "train": line.train,
        "evaluate": line.evaluate,
    }
    for name, program in programs.items():
        if not program.command:
            problems.append(f"{name}: lines.{line.name}.{name} has no command")
        if program.time_limit_s is not None and program.time_limit_s <= 0:
            problems.append(f"{name}: a time limit of {program.time_limit_s} s ends every job at once")
    counts = {
        "selfplay_games": line.selfplay_games,
        "min_new_samples": line.min_new_samples,
        "window_samples": line.window_samples,
        "pairs_per_job": line.pairs_per_job,
        "max_pairs": line.max_pairs,
        **({"rating_pairs": line.rating_pairs} if line.rating_opponents else {}),
    }
    problems += [
        f"lines.{line.name}.{name} is {count}: it must be 1 or more"
        for name, count in counts.items()
        if count < 1
    ]
    if line.canary_pairs < 0:
        problems.append(
            f"canary: lines.{line.name}.canary_pairs is {line.canary_pairs}: it must be 0 or more"
        )
    if line.window_samples < line.min_new_samples:
        problems.append(
            f"train: a window of {line.window_samples} samples cannot hold the {line.min_new_samples} new ones that "
            f"make a training due; raise lines.{line.name}.window_samples or lower min_new_samples"
        )
    if line.max_pairs < line.pairs_per_job:
        problems.append(
            f"promotion: lines.{line.name}.max_pairs {line.max_pairs} is less than one job of {line.pairs_per_job} "
            "pairs (pairs_per_job)"
        )
    try:
        Sprt(line.elo0, line.elo1, line.alpha, line.beta)
    except ValueError as error:
        problems.append(f"promotion: the test of lines.{line.name} is none: {error}")
    return problems


def _walk(line: Line, sprt: Sprt, limits: Limits) -> list[str]:
    """Follow the loop through the ideal world until every stage had its turn, or nothing leads on."""
    world = _World(LineView(line.name))
    missing: dict[Stage, str] = dict.fromkeys(Stage, "")
    for step in range(PASSES):
        decision = decide(View((world.view,), SLOTS), limits, float(step))
        for stage, verdict in zip(Stage, decision.verdicts[-len(Stage) :], strict=True):
            if stage in missing and verdict.reason not in (Reason.SUBMITTED, Reason.COMPLETE):
                missing[stage] = verdict.sentence
            else:
                missing.pop(stage, None)
        if line.canary_pairs < 1:
            missing.pop(Stage.CANARY, None)
        if not missing and world.view.champions[-1].generation > 0:
            return []
        for spec in [action.spec for action in decision.actions if isinstance(action, SubmitJob)]:
            world.finish(spec, line)
        world.promote(sprt)
    stuck = [f"{stage}: never reached; last said: {sentence}" for stage, sentence in missing.items()]
    return stuck or [f"promotion: no candidate was decided in {PASSES} passes over an ideal world"]


@dataclass(slots=True)
class _World:
    """A line in which every job is done the moment it is submitted."""

    view: LineView
    models: int = 0

    def finish(self, spec: JobSpec, line: Line) -> None:
        view = self.view
        if spec.kind == "found":
            founder = ChampionView(0, "model-0", 0)
            self.view = replace(view, founded=view.founded + 1, champion=founder, champions=(founder,))
        elif spec.kind == "selfplay":
            samples = view.verified_samples + line.min_new_samples
            window = Window(("shard",), line.window_samples)
            submitted = view.selfplay_submitted + 1
            self.view = replace(view, selfplay_submitted=submitted, verified_samples=samples, window=window)
        elif spec.kind == "train":
            self.models += 1
            candidate = CandidateView(self.models, f"model-{self.models}")
            samples = view.verified_samples
            self.view = replace(
                view, trained=view.trained + 1, samples_at_training=samples, candidate=candidate
            )
        else:
            self._book(spec)

    def _book(self, spec: JobSpec) -> None:
        pairs, opponent = int(str(spec.wanted["pairs"])), str(spec.wanted["opponent"])
        if spec.purpose == Purpose.RATING:
            rated = tuple(
                _rated(champion, "model/0" if opponent == "model" else opponent, pairs)
                if spec.inputs["candidate"] == (champion.hash,)
                else champion
                for champion in self.view.champions
            )
            self.view = replace(self.view, champions=rated)
            return
        candidate = self.view.candidate or CandidateView(0, "")
        if spec.purpose == Purpose.PROMOTION:
            candidate = replace(candidate, promotion=_won(candidate.promotion, pairs))
        elif opponent == "random":
            candidate = replace(candidate, random=_won(candidate.random, pairs))
        else:
            candidate = replace(candidate, mirror=_won(candidate.mirror, pairs))
        self.view = replace(self.view, candidate=candidate)

    def promote(self, sprt: Sprt) -> None:
        candidate = self.view.candidate
        if candidate is None or sprt.decide(PairCounts(*candidate.promotion.counts)) is not Outcome.ACCEPT:
            return
        champion = ChampionView(candidate.model_id, candidate.hash, len(self.view.champions))
        champions = (*self.view.champions, champion)
        self.view = replace(self.view, champion=champion, champions=champions, candidate=None)


def _won(tally: PairTally, pairs: int) -> PairTally:
    won = tally.counts[4] + pairs
    return PairTally((0, 0, 0, 0, won), 0, tally.next_pair + pairs)


def _rated(champion: ChampionView, opponent: str, pairs: int) -> ChampionView:
    tally = _won(champion.ratings.get(opponent, NO_GAMES), pairs)
    return replace(champion, ratings={**champion.ratings, opponent: tally})
