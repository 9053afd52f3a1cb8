"""The tables of a line: its stages, what their data must look like, and when a candidate counts as stronger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from gamekeeper.core.lines import Line, Stage
from gamekeeper.settings.section import Json, OneLine, Section, Word


class StageSection(Section):
    """A stage of the loop: a program in any language that keeps the job contract."""

    command: list[Word] = Field(
        min_length=1,
        max_length=256,
        description=(
            'Argument list; "{python}" stands for the interpreter the agent runs under, "{folder}" for the folder of '
            "this file. No shell is used."
        ),
    )
    parameters: dict[str, Json] = Field(
        default_factory=dict, description="Handed to the program as they stand."
    )
    grace_s: float = Field(
        10.0, ge=0.0, le=3600.0, description="Seconds between asking the program to stop and ending it."
    )
    time_limit_s: float = Field(
        3600.0, ge=0.0, description="Longest an attempt may run, in seconds; 0 sets no limit."
    )

    def to_stage(self, folder: Path) -> Stage:
        """The stage as the policies see it; `folder` is that of the settings file."""
        command = tuple(word.replace("{folder}", str(folder)) for word in self.command)
        return Stage(command, dict(self.parameters), self.grace_s, self.time_limit_s or None)


class WantedGames(Section):
    """How much one self-play job is asked for."""

    games: int = Field(ge=1, le=1_000_000, description="Games of one self-play job.")


class SelfplaySection(StageSection):
    """The stage that plays games with the champion."""

    wanted: WantedGames


class TrainingSection(Section):
    """When to train, and on what."""

    min_new_samples: int = Field(
        ge=1, description="Verified samples since the last training that make the next one due."
    )
    window_samples: int = Field(ge=1, description="How many of the newest samples a training sees.")


class EvaluationSection(Section):
    """How a candidate is measured."""

    pairs_per_job: int = Field(ge=1, le=10_000, description="Game pairs of one evaluation job.")


class PromotionSection(Section):
    """The sequential test that decides about a candidate (logistic Elo, pentanomial pairs)."""

    elo0: float = Field(ge=-1000, le=1000, description="Gain in Elo that is not worth promoting.")
    elo1: float = Field(ge=-1000, le=1000, description="Gain in Elo that is.")
    alpha: float = Field(gt=0.0, lt=0.5, description="Allowed rate of promoting a candidate of elo0.")
    beta: float = Field(gt=0.0, lt=0.5, description="Allowed rate of rejecting a candidate of elo1.")
    max_pairs: int = Field(ge=1, le=1_000_000, description="Game pairs after which the test is given up.")
    canary_pairs: int = Field(
        8, ge=0, le=10_000, description="Pairs against itself and against random before the test; 0: none."
    )


class RatingSection(Section):
    """Measurements outside promotion: each champion against fixed opponents."""

    opponents: list[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9:._-]{0,62}$")]] = Field(
        default_factory=list,
        max_length=16,
        description='Players the evaluate program knows ("random", "alphabeta:4"); "first" is champion 0.',
    )
    pairs: int = Field(100, ge=1, le=100_000, description="Game pairs against each.")


class LineSection(Section):
    """One game configuration whose champion is being improved."""

    description: OneLine = Field("", max_length=500, description="For people.")
    found: StageSection
    selfplay: SelfplaySection
    train: StageSection
    evaluate: StageSection
    contract: dict[str, Json]
    training: TrainingSection
    evaluation: EvaluationSection
    promotion: PromotionSection
    rating: RatingSection = Field(default_factory=lambda: RatingSection.model_validate({}))

    def to_line(self, name: str, folder: Path) -> Line:
        """The line as the policies see it."""
        return Line(
            name=name,
            found=self.found.to_stage(folder),
            selfplay=self.selfplay.to_stage(folder),
            train=self.train.to_stage(folder),
            evaluate=self.evaluate.to_stage(folder),
            contract=dict(self.contract),
            selfplay_games=self.selfplay.wanted.games,
            min_new_samples=self.training.min_new_samples,
            window_samples=self.training.window_samples,
            pairs_per_job=self.evaluation.pairs_per_job,
            max_pairs=self.promotion.max_pairs,
            elo0=self.promotion.elo0,
            elo1=self.promotion.elo1,
            alpha=self.promotion.alpha,
            beta=self.promotion.beta,
            canary_pairs=self.promotion.canary_pairs,
            rating_opponents=tuple(self.rating.opponents),
            rating_pairs=self.rating.pairs,
        )
