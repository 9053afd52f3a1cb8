"""Shares, minimums and reservations: the numbers a pass goes by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from gamekeeper.core.errors import SettingsError


def _default_weights() -> Mapping[str, float]:
    return {"found": 8.0, "train": 4.0, "evaluate": 4.0, "evaluate/rating": 1.0, "selfplay": 1.0}


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares of the slots.

    weights: of lanes, by kind, or by "kind/purpose" where that is more exact; each > 0. Training and evaluation hand
    their result to all later games, so they get ahead of self-play; ratings are for people and wait like self-play.
    default_weight: for kinds not named. line_weights: by line, 1 where not named.
    ageing_s: after how many seconds without a grant a class of jobs that has its lane for itself counts as if its
    weight had doubled; classes that share a lane share its ageing.
    minimums: by line, or by "line/lane": so many slots it gets, while it has work, before others get any.
    minimums_yield_after_s: who had no grant for so long goes before minimums once, so that minimums beyond what the
    fleet holds shut nobody out.
    reserve_after_s: a class whose oldest job went without a grant for so long, and that asks for more than others, has
    a node's room held for it. reservations: on how many nodes at once; 0 turns it off.
    grants_per_pass: bound of one pass; the next one follows at once.
    """

    weights: Mapping[str, float] = field(default_factory=_default_weights)
    default_weight: float = 1.0
    line_weights: Mapping[str, float] = field(default_factory=dict)
    ageing_s: float = 60.0
    minimums: Mapping[str, int] = field(default_factory=dict)
    minimums_yield_after_s: float = 3600.0
    reserve_after_s: float = 300.0
    reservations: int = 4
    grants_per_pass: int = 500

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a number that would shut a lane or the whole pass."""
        shares = {"default_weight": self.default_weight, "ageing_s": self.ageing_s}
        shares |= {f"weights.{name}": weight for name, weight in self.weights.items()}
        shares |= {f"line_weights.{name}": weight for name, weight in self.line_weights.items()}
        for name, number in shares.items():
            if not 0 < number < math.inf:
                raise SettingsError(
                    f"distribution.{name} is {number}: a share must be greater than 0",
                    remedy="give it a small positive number instead; no lane may be shut out",
                )
        for name in ("minimums_yield_after_s", "reserve_after_s"):
            seconds = getattr(self, name)
            if not 0 < seconds < math.inf:
                raise SettingsError(
                    f"distribution.{name} is {seconds}: somebody could wait for ever",
                    remedy="set it to a number of seconds greater than 0",
                )
        for name, slots in {f"minimums.{name}": slots for name, slots in self.minimums.items()}.items() | {
            ("reservations", self.reservations)
        }:
            if slots < 0:
                raise SettingsError(
                    f"distribution.{name} is {slots}: there is no negative number of slots",
                    remedy="set it to 0 or more",
                )
        if self.grants_per_pass < 1:
            raise SettingsError(
                f"distribution.grants_per_pass is {self.grants_per_pass}: nothing could ever be granted",
                remedy="set it to 1 or more",
            )

    def lane(self, kind: str, purpose: str) -> str:
        """The lane a job queues in: "kind/purpose" when that has a weight of its own, else its kind."""
        exact = f"{kind}/{purpose}"
        return exact if exact in self.weights else kind

    def lane_weight(self, lane: str) -> float:
        """The share of a lane within its line."""
        return self.weights.get(lane, self.default_weight)

    def line_weight(self, line: str) -> float:
        """The share of a line."""
        return self.line_weights.get(line, 1.0)

    def origin(self, lane: str) -> str:
        """The setting that a lane's weight comes from."""
        return f"distribution.weights.{lane}" if lane in self.weights else "distribution.default_weight"
