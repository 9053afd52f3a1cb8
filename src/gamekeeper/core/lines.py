"""Lines: the declared shape of one loop, as `gamekeeper.toml` states it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stage:
    """How a stage is run: its command (argument list; "{python}" is the agent's interpreter) and parameters."""

    command: tuple[str, ...]
    parameters: Mapping[str, object] = field(default_factory=dict)
    grace_s: float = 10.0
    time_limit_s: float | None = 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """One game configuration: its stages, its data contract and what its loop aims for.

    selfplay_games: games of one self-play job. min_new_samples: verified samples since the last training that make
    the next one due. window_samples: how many of the newest samples a training sees. pairs_per_job: game
    pairs of one evaluation job. max_pairs: when the promotion test is given up as undecided. elo0, elo1 (logistic
    Elo), alpha and beta state the promotion test. rating_opponents are players each champion is measured against,
    outside promotion; rating_pairs how many game pairs each.
    """

    name: str
    found: Stage
    selfplay: Stage
    train: Stage
    evaluate: Stage
    contract: Mapping[str, object]
    selfplay_games: int
    min_new_samples: int
    window_samples: int
    pairs_per_job: int
    max_pairs: int
    elo0: float
    elo1: float
    alpha: float
    beta: float
    canary_pairs: int = 8
    rating_opponents: tuple[str, ...] = ()
    rating_pairs: int = 100
