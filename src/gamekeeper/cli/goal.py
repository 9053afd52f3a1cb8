"""When a demo has turned long enough, and whether it got what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.cli import units

DEFAULT_PROMOTIONS = 3
DEFAULT_SECONDS = 600.0
SECONDS_A_PROMOTION = 300.0


@dataclass(frozen=True, slots=True)
class Goal:
    """Turn until `promotions` (of the data directory, earlier runs included) or for `seconds`, whichever is first.

    enough: the number of promotions with which the run counts as a success.
    """

    promotions: int | None
    seconds: float
    enough: int

    @classmethod
    def of(cls, *, minutes: float | None, promotions: int | None) -> Goal:
        """The goal that the options stand for.

        Without options 3 promotions or 10 minutes, a success from the first promotion on. `promotions` alone gets
        five minutes for each, and at least ten. `minutes` alone turns for that long and is a success in any case.
        """
        if minutes is None and promotions is None:
            return cls(DEFAULT_PROMOTIONS, DEFAULT_SECONDS, enough=1)
        if promotions is None:
            return cls(None, 60 * (minutes or 0.0), enough=0)
        seconds = max(DEFAULT_SECONDS, SECONDS_A_PROMOTION * promotions) if minutes is None else 60 * minutes
        return cls(promotions, seconds, enough=promotions)

    def reached(self, promotions: int, elapsed_s: float) -> bool:
        """Whether to stop turning."""
        return elapsed_s >= self.seconds or (self.promotions is not None and promotions >= self.promotions)

    def met(self, promotions: int) -> bool:
        """Whether the run is a success."""
        return promotions >= self.enough

    def words(self) -> str:
        """The goal for a person."""
        minutes = f"{self.seconds / 60:g} minutes"
        if self.promotions is None:
            return f"for {minutes}"
        return f"until {units.promotions(self.promotions)} or {minutes}, whichever is first"
