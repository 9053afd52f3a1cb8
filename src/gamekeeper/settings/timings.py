"""The durations of the lease protocol, all from one number."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Timings:
    """All durations of the lease protocol, in seconds, derived from `lease_s` alone.

    An agent beats every `beat_s`; three beats may fail before its lease ends. It stops its own jobs `margin_s` before
    the lease ends on its clock, so that a job is dead before the coordinator may grant it again.
    """

    lease_s: float
    beat_s: float
    margin_s: float
    reap_every_s: float

    @staticmethod
    def of(lease_s: float) -> Timings:
        """The timings for one `lease_s`."""
        return Timings(lease_s, lease_s / 4, lease_s / 5, min(1.0, lease_s / 10))

    @property
    def self_stop_s(self) -> float:
        """Seconds without an answer after which an agent stops its own jobs."""
        return self.lease_s - self.margin_s

    def check(self) -> None:
        """Raise `SettingsError` unless every step leaves time for the one that depends on it."""
        if not 0 < self.reap_every_s <= self.beat_s < 3 * self.beat_s < self.self_stop_s < self.lease_s:
            raise SettingsError(
                f"coordinator.lease_s = {self.lease_s} leaves no room for three beats before the lease ends",
                remedy="use a lease_s of at least 2 seconds",
            )
