"""Which attempts are over because the lease they ran under is.

An agent that loses its lease stops its own jobs. The reaper only notes on the coordinator's side that this has
happened, so that the work can be given out again. It acts on one proof alone: the lease ran out a margin ago, and the
coordinator itself was there, all that time, to be spoken to. Whatever it cannot tell it leaves alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gamekeeper.core.actions import Action, EndAttempt, MarkNodeLost
from gamekeeper.core.decisions import Decision, Evidence, Verdict
from gamekeeper.core.jobs import EndReason

POLICY = "job_reaper"


@dataclass(frozen=True, slots=True)
class NodeLease:
    """The current lease of a node: held by `incarnation` since `since`, until `expires_at`.

    `lost` when the node is marked lost already.
    """

    node_id: str
    incarnation: str
    since: float
    expires_at: float
    lost: bool = False


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """A live attempt and the incarnation that was granted it."""

    attempt_id: int
    token: int
    job_id: int
    node_id: str
    incarnation: str
    leased_at: float


@dataclass(frozen=True, slots=True)
class View:
    """All current leases and all live attempts.

    `serving_since`: since when the coordinator has been answering without a pause; agents could not renew before.
    """

    leases: tuple[NodeLease, ...]
    attempts: tuple[HeldAttempt, ...]
    serving_since: float


@dataclass(frozen=True, slots=True)
class Limits:
    """lease_s: the one number all timings derive from. margin_share: which part of it is waited on top of an
    expired lease, for an agent that stops its job at the last moment.
    """

    lease_s: float = 30.0
    margin_share: float = 0.25

    @property
    def margin_s(self) -> float:
        """Seconds after the end of a lease before anything is done about it."""
        return self.lease_s * self.margin_share


class Reason(StrEnum):
    """Why attempts were ended or left alone."""

    LEASE_EXPIRED = "lease-expired"
    SUPERSEDED = "superseded"
    LEASE_LIVE = "lease-live"
    WITHIN_MARGIN = "within-margin"
    JUST_GRANTED = "just-granted"
    ALREADY_LOST = "already-lost"
    OBSERVER_TOO_YOUNG = "observer-too-young"
    CLOCK_BEHIND = "clock-behind"
    LEASE_UNKNOWN = "lease-unknown"


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Find the leases that are over."""
    raise NotImplementedError
