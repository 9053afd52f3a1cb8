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
from gamekeeper.core.errors import SettingsError
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

    def __post_init__(self) -> None:
        """Raise `SettingsError` for a lease without length or a margin below nothing."""
        if not 0 < self.lease_s < float("inf") or not 0 <= self.margin_share < float("inf"):
            raise SettingsError(
                f"lease_s {self.lease_s} with a margin of {self.margin_share} of it cannot be kept",
                remedy="set lease_s above 0 and the margin to 0 or more",
            )

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


@dataclass(frozen=True, slots=True)
class _Finding:
    """What is to be said of a lease, and of the attempts under it. `over` when it is proven that it ended."""

    reason: Reason
    sentence: str
    over: bool
    evidence: tuple[Evidence, ...]


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Find the leases that are over: end their attempts, mark their nodes lost, leave everything else alone."""
    verdicts: list[Verdict] = []
    actions: list[Action] = []
    doubt = _doubt(view, limits, now)
    leases = {lease.node_id: lease for lease in view.leases}
    for attempt in sorted(view.attempts, key=lambda attempt: attempt.attempt_id):
        finding = doubt or _of_attempt(attempt, leases.get(attempt.node_id), limits, now)
        if finding.over:
            reason = (
                EndReason.LEASE_EXPIRED
                if finding.reason is Reason.LEASE_EXPIRED
                else EndReason.AGENT_RESTARTED
            )
            actions.append(EndAttempt(attempt.attempt_id, attempt.token, reason, finding.sentence))
        verdicts.append(_verdict(f"job/{attempt.job_id}", finding))
    for lease in sorted(view.leases, key=lambda lease: lease.node_id):
        finding = doubt or _of_node(lease, limits, now)
        if finding.over:
            actions.append(MarkNodeLost(lease.node_id))
        verdicts.append(_verdict(f"node/{lease.node_id}", finding))
    return Decision(POLICY, now, tuple(verdicts), tuple(actions))


def _verdict(subject: str, finding: _Finding) -> Verdict:
    return Verdict(subject, finding.reason, finding.sentence, finding.over, finding.evidence)


def _left_alone(reason: Reason, sentence: str, *evidence: Evidence) -> _Finding:
    return _Finding(reason, f"left alone: {sentence}", False, evidence)


def _doubt(view: View, limits: Limits, now: float) -> _Finding | None:
    """Why nothing can be told from this view at all, if so."""
    leases, attempts = (
        [lease.since for lease in view.leases],
        [attempt.leased_at for attempt in view.attempts],
    )
    latest = max([view.serving_since, *leases, *attempts])
    if now < latest:
        return _left_alone(
            Reason.CLOCK_BEHIND,
            f"the clock stands {latest - now:.1f} s before things that have happened, so no lease can be judged",
            Evidence("now", now, latest, "latest time on record"),
        )
    served, needed = now - view.serving_since, limits.lease_s + limits.margin_s
    if served < needed:
        return _left_alone(
            Reason.OBSERVER_TOO_YOUNG,
            f"agents could renew here for {served:.1f} s only, {needed:.1f} s are needed to judge them",
            Evidence("seconds served", round(served, 3), needed, "lease_s"),
        )
    return None


def _of_node(lease: NodeLease, limits: Limits, now: float) -> _Finding:
    finding = _of_lease(lease, limits, now)
    if finding.over and lease.lost:
        return _left_alone(Reason.ALREADY_LOST, "it is marked lost already", *finding.evidence)
    return finding


def _of_lease(lease: NodeLease, limits: Limits, now: float) -> _Finding:
    evidence = (
        Evidence(
            "seconds since the lease ended", round(now - lease.expires_at, 3), limits.margin_s, "lease_s"
        ),
        Evidence("incarnation", lease.incarnation),
    )
    if now < lease.expires_at:
        left = lease.expires_at - now
        return _left_alone(
            Reason.LEASE_LIVE, f"node {lease.node_id} holds its lease for {left:.1f} s more", *evidence
        )
    over = now - lease.expires_at
    if over < limits.margin_s:
        sentence = f"the lease of node {lease.node_id} ended {over:.1f} s ago, within the margin"
        return _left_alone(Reason.WITHIN_MARGIN, sentence, *evidence)
    sentence = f"the lease of node {lease.node_id} ended {over:.1f} s ago and was not renewed"
    return _Finding(Reason.LEASE_EXPIRED, sentence, True, evidence)


def _of_attempt(attempt: HeldAttempt, lease: NodeLease | None, limits: Limits, now: float) -> _Finding:
    if lease is None:
        known = Evidence("lease of its node", None)
        return _left_alone(Reason.LEASE_UNKNOWN, f"no lease of node {attempt.node_id} is on record", known)
    age = now - attempt.leased_at
    if age < limits.margin_s:
        fresh = Evidence("seconds since the grant", round(age, 3), limits.margin_s, "lease_s")
        return _left_alone(Reason.JUST_GRANTED, f"it was granted {age:.1f} s ago", fresh)
    if attempt.incarnation != lease.incarnation:
        return _of_superseded(lease, limits, now)
    return _of_lease(lease, limits, now)


def _of_superseded(lease: NodeLease, limits: Limits, now: float) -> _Finding:
    """A later incarnation took the node over and did not adopt the attempt.

    The earlier one renewed last before that, so its own lease is over one lease after it at the latest.
    """
    since, needed = now - lease.since, limits.lease_s + limits.margin_s
    evidence = (
        Evidence("seconds since the takeover", round(since, 3), needed, "lease_s"),
        Evidence("incarnation", lease.incarnation),
    )
    if since < needed:
        sentence = f"its agent was restarted {since:.1f} s ago and its earlier lease may still run"
        return _left_alone(Reason.WITHIN_MARGIN, sentence, *evidence)
    sentence = f"its agent was restarted {since:.1f} s ago and did not take it over"
    return _Finding(Reason.SUPERSEDED, sentence, True, evidence)
