"""Growing, jittered delays between tries, and the timings that derive from the lease."""

from __future__ import annotations

import random
from dataclasses import dataclass

BEATS_PER_LEASE = 4
GONE_SHARE = 0.05
STOP_SHARE = 0.15
RETURN_SHARE = 1 / 16
LEAST_SHARE = 0.05


class Delays:
    """The waits between repeated failures: a bound that doubles from `first_s` to `most_s`, and a draw below it.

    Doubling lessens the load while the other side is in trouble; the draw, over the whole width (full jitter), keeps
    a fleet that lost it at one moment from returning at one moment.
    """

    def __init__(self, rng: random.Random, first_s: float, most_s: float) -> None:
        self._rng = rng
        self._first_s = first_s
        self._most_s = most_s
        self._failures = 0

    @property
    def troubled(self) -> bool:
        """Whether the last try failed."""
        return self._failures > 0

    def failed(self) -> float:
        """Note a failure; the seconds to wait."""
        ceiling = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return ceiling * self._rng.uniform(LEAST_SHARE, 1.0)

    def worked(self) -> None:
        """Note a success: the next failure starts from the first delay."""
        self._failures = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """The agent's own view of its lease, in boot seconds.

    `expires_at` counts from before the request was sent, so it is never later than the coordinator's. Jobs are asked
    to stop at `lost_at` at the latest and are gone by `gone_by`, both before the coordinator may give their work
    to others.
    """

    incarnation: str
    lease_s: float
    expires_at: float

    @property
    def lost_at(self) -> float:
        """From here on the agent no longer relies on the lease."""
        return self.expires_at - (GONE_SHARE + STOP_SHARE) * self.lease_s

    @property
    def gone_by(self) -> float:
        """By then no process of an unrenewed lease may live."""
        return self.expires_at - GONE_SHARE * self.lease_s

    def stop_at(self, grace_s: float) -> float:
        """When a job that declared `grace_s` must be asked to stop."""
        return self.gone_by - min(grace_s, STOP_SHARE * self.lease_s)

    @property
    def return_within_s(self) -> float:
        """Over how many seconds agents that lost the coordinator together spread their return, try by try.

        A larger fleet is given a longer lease, so the rate at which it returns stays about the same.
        """
        return self.lease_s * RETURN_SHARE

    @property
    def beat_every_s(self) -> float:
        """Seconds between two beats."""
        return self.lease_s / BEATS_PER_LEASE
