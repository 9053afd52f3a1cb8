"""Whose fault failures are: the job's, when it fails wherever it runs; the node's, when different jobs fail on it.

A job that failed on several different nodes is poison: it is parked, dead, for a person to look at. A node on which
several different jobs failed in a row, of kinds that succeed elsewhere or that nobody else has tried, is at fault: it
is granted nothing for a while that grows with every repetition, and those failures are not charged to the jobs. The
same failure is never held against both. Jobs whose deadline is over are cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gamekeeper.core.actions import Action, CancelJob, ExcludeNode, ParkJob
from gamekeeper.core.decisions import Decision, Evidence, Verdict, counted
from gamekeeper.core.errors import SettingsError
from gamekeeper.core.jobs import FINAL_JOBS, JobState

POLICY = "job_parking"
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class EndedTry:
    """An attempt that succeeded, or that failed and is charged to its job."""

    attempt_id: int
    job_id: int
    job_state: JobState
    kind: str
    node_id: str
    succeeded: bool
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class FleetNode:
    """A node. `excluded_until` while it is excluded; `strikes`: how often this policy excluded it lately."""

    node_id: str
    up: bool
    excluded_until: float | None = None
    strikes: int = 0


@dataclass(frozen=True, slots=True)
class OverdueJob:
    """A job that is not over, though its deadline is."""

    job_id: int
    deadline: float


@dataclass(frozen=True, slots=True)
class View:
    """recent: successes and failures of the window, in time order. charged: all failures charged to the jobs that
    failed in it, however old. nodes: those that jobs failed on, and those that are excluded. nodes_up: how many nodes
    of the fleet are up. overdue: jobs past their deadline.
    """

    recent: tuple[EndedTry, ...]
    charged: tuple[EndedTry, ...]
    nodes: tuple[FleetNode, ...]
    nodes_up: int
    overdue: tuple[OverdueJob, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """poison_nodes: on how many nodes a job must have failed to be parked. blame_jobs: how many different jobs must
    have failed on a node within blame_window_s, with no success there since, to blame it. exclusion_first_s: how long
    it is then excluded; twice as long at each repetition, up to exclusion_longest_s. max_excluded_fraction: of the
    nodes that are up, no more are excluded by this policy, though always one may be and one must stay.
    """

    poison_nodes: int = 3
    blame_jobs: int = 3
    blame_window_s: float = 1800.0
    exclusion_first_s: float = 600.0
    exclusion_longest_s: float = 21600.0
    max_excluded_fraction: float = 0.3
    origin: str = "job_parking"

    def __post_init__(self) -> None:
        """Raise `SettingsError` for limits that cross or mean nothing."""
        if self.poison_nodes < 2 or self.blame_jobs < 2:
            raise SettingsError(
                f"poison_nodes {self.poison_nodes} and blame_jobs {self.blame_jobs} must be at least 2",
                remedy="one failure proves nothing about either side",
            )
        if not 0 < self.blame_window_s <= 86400.0:
            raise SettingsError(f"blame_window_s {self.blame_window_s} must lie above 0, up to a day")
        if not 0 < self.exclusion_first_s <= self.exclusion_longest_s <= 30 * 86400.0:
            raise SettingsError(
                f"exclusion_first_s {self.exclusion_first_s} and exclusion_longest_s {self.exclusion_longest_s} cross",
                remedy="set 0 < exclusion_first_s <= exclusion_longest_s, at most 30 days",
            )
        if not 0 <= self.max_excluded_fraction < 1:
            raise SettingsError(
                f"max_excluded_fraction {self.max_excluded_fraction} must be at least 0 and below 1"
            )

    @property
    def strikes_since_s(self) -> float:
        """For how long an exclusion counts as a repetition."""
        return 4 * self.exclusion_longest_s

    def exclusion_s(self, strikes: int) -> float:
        """How long a node is excluded that was excluded `strikes` times lately."""
        return float(min(self.exclusion_longest_s, self.exclusion_first_s * 2.0 ** min(strikes, 60)))

    def most_excluded(self, up: int) -> int:
        """How many of `up` nodes may be excluded at once."""
        if self.max_excluded_fraction == 0:
            return 0
        return max(0, min(up - 1, max(1, int(self.max_excluded_fraction * up))))


class Reason(StrEnum):
    """Why a job or a node was acted on, or left alone."""

    POISON = "poison"
    POISON_RUNS = "poison-runs"
    NODE_AT_FAULT = "node-at-fault"
    FAILURES_FORGIVEN = "failures-forgiven"
    TOO_FEW_NODES = "too-few-nodes"
    OVER_ALREADY = "over-already"
    DEADLINE_PASSED = "deadline-passed"
    TOO_FEW_JOBS = "too-few-jobs"
    FAILS_EVERYWHERE = "fails-everywhere"
    EXCLUDED_ALREADY = "excluded-already"
    TOO_MANY_EXCLUDED = "too-many-excluded"
    NODE_AWAY = "node-away"


@dataclass(frozen=True, slots=True)
class _Charge:
    """What speaks against a node: failures since its last success, of kinds that are not to blame themselves."""

    node: FleetNode
    failures: tuple[EndedTry, ...]
    everywhere: frozenset[str]
    since: float

    def covers(self, one: EndedTry) -> bool:
        """Whether a failure of the window is put down to the node, once it is blamed."""
        return one.node_id == self.node.node_id and one.at > self.since and one.kind not in self.everywhere

    @property
    def jobs(self) -> frozenset[int]:
        return frozenset(one.job_id for one in self.failures)


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Park poison, exclude nodes at fault and forgive what failed on them, cancel what is overdue."""
    poison = {
        job_id
        for job_id, failures in _by_job(view.charged).items()
        if len({one.node_id for one in failures}) >= limits.poison_nodes
    }
    charges = [_charge(node, view, poison) for node in sorted(view.nodes, key=lambda one: one.node_id)]
    blamed, node_verdicts = _judge_nodes(charges, view, limits, now)
    window = {one.attempt_id for one in view.recent}
    excused = {
        one.attempt_id: one.node_id
        for one in view.charged
        if one.attempt_id in window and one.node_id in blamed and blamed[one.node_id].covers(one)
    }
    verdicts: list[Verdict] = []
    actions: list[Action] = []
    late = {one.job_id for one in view.overdue}
    for job_id, failures in sorted(_by_job(view.charged).items()):
        if job_id in late:
            continue
        verdict = _judge_job(job_id, failures, excused, limits)
        verdicts.append(verdict)
        if verdict.acted:
            actions.append(ParkJob(job_id, verdict.sentence))
            # What a parked job is charged with is held against it, and against no node.
            for one in failures:
                excused.pop(one.attempt_id, None)
    for node_id, charge in sorted(blamed.items()):
        until = now + limits.exclusion_s(charge.node.strikes)
        forgiven = tuple(sorted(attempt for attempt, at in excused.items() if at == node_id))
        actions.append(ExcludeNode(node_id, node_verdicts[node_id].sentence, until, forgiven))
    for overdue in sorted(view.overdue, key=lambda one: one.job_id):
        past = Evidence(
            "seconds past the deadline", round(now - overdue.deadline, 3), 0.0, "deadline of the job"
        )
        words = f"its deadline passed {now - overdue.deadline:.0f} s ago"
        verdicts.append(Verdict(f"job/{overdue.job_id}", Reason.DEADLINE_PASSED, words, True, (past,)))
        actions.append(CancelJob(overdue.job_id, words))
    verdicts += [node_verdicts[node_id] for node_id in sorted(node_verdicts)]
    return Decision(POLICY, now, tuple(verdicts), tuple(actions))


def _by_job(tries: Sequence[EndedTry]) -> dict[int, list[EndedTry]]:
    found: dict[int, list[EndedTry]] = {}
    for one in tries:
        if not one.succeeded:
            found.setdefault(one.job_id, []).append(one)
    return found


def _charge(node: FleetNode, view: View, poison: set[int]) -> _Charge:
    """Failures on a node since its last success, without those of poison, which says nothing about the node."""
    here = [one for one in view.recent if one.node_id == node.node_id]
    since = max((one.at for one in here if one.succeeded), default=float("-inf"))
    streak = [one for one in here if not one.succeeded and one.at > since and one.job_id not in poison]
    elsewhere = [one for one in view.recent if one.node_id != node.node_id]
    tried = {one.kind for one in elsewhere}
    succeeded = {one.kind for one in elsewhere if one.succeeded}
    everywhere = frozenset(one.kind for one in streak if one.kind in tried - succeeded)
    return _Charge(node, tuple(one for one in streak if one.kind not in everywhere), everywhere, since)


def _judge_nodes(
    charges: Sequence[_Charge], view: View, limits: Limits, now: float
) -> tuple[dict[str, _Charge], dict[str, Verdict]]:
    """The nodes at fault, each with what speaks against it, and a verdict for every node."""
    excluded = sum(node.up and node.excluded_until is not None for node in view.nodes)
    most = limits.most_excluded(view.nodes_up)
    blamed: dict[str, _Charge] = {}
    verdicts: dict[str, Verdict] = {}
    for charge in sorted(charges, key=lambda one: (-len(one.jobs), one.node.node_id)):
        node = charge.node
        failed = Evidence(
            "different jobs that failed in a row",
            len(charge.jobs),
            limits.blame_jobs,
            f"{limits.origin}.blame_jobs",
        )
        away = Evidence(
            "nodes excluded", excluded + len(blamed), most, f"{limits.origin}.max_excluded_fraction"
        )
        reason, words = _of_node(charge, limits, now, room=most - excluded - len(blamed))
        acted = reason is Reason.NODE_AT_FAULT
        if acted:
            blamed[node.node_id] = charge
        sentence = words if acted else f"left alone: {words}"
        verdicts[node.node_id] = Verdict(f"node/{node.node_id}", reason, sentence, acted, (failed, away))
    return blamed, verdicts


def _of_node(charge: _Charge, limits: Limits, now: float, *, room: int) -> tuple[Reason, str]:
    node, jobs = charge.node, len(charge.jobs)
    if node.excluded_until is not None:
        return (
            Reason.EXCLUDED_ALREADY,
            f"it is excluded for another {max(0.0, node.excluded_until - now):.0f} s",
        )
    if jobs < limits.blame_jobs:
        if charge.everywhere:
            kinds = ", ".join(sorted(charge.everywhere)[:MOST_NAMED])
            return Reason.FAILS_EVERYWHERE, f"what failed on it fails on other nodes too ({kinds})"
        return Reason.TOO_FEW_JOBS, f"{counted(jobs, 'job')} failed on it since its last success"
    if not node.up:
        return Reason.NODE_AWAY, f"{counted(jobs, 'job')} failed on it, and it is not up"
    failed = f"{jobs} different jobs failed on it in a row ({_causes(charge.failures)})"
    if room <= 0:
        return Reason.TOO_MANY_EXCLUDED, f"{failed}, but no more nodes may be excluded"
    return (
        Reason.NODE_AT_FAULT,
        f"{failed}; it is granted nothing for {limits.exclusion_s(node.strikes):.0f} s",
    )


def _judge_job(
    job_id: int, failures: Sequence[EndedTry], excused: Mapping[int, str], limits: Limits
) -> Verdict:
    own = [one for one in failures if one.attempt_id not in excused]
    nodes = sorted({one.node_id for one in own})
    state = failures[-1].job_state
    evidence = (
        Evidence("nodes it failed on", len(nodes), limits.poison_nodes, f"{limits.origin}.poison_nodes"),
        Evidence("failures that are not its own", len(failures) - len(own)),
    )
    subject = f"job/{job_id}"
    where = ", ".join(nodes[:MOST_NAMED]) + (
        f" and {len(nodes) - MOST_NAMED} more" if len(nodes) > MOST_NAMED else ""
    )
    if state in FINAL_JOBS:
        words = f"it is {state} already"
        if not own:
            words += f", by no fault of its own: `gamekeeper jobs retry {job_id}` gives it another try"
        return Verdict(subject, Reason.OVER_ALREADY, f"left alone: {words}", False, evidence)
    if len(nodes) >= limits.poison_nodes:
        words = f"it failed on {len(nodes)} different nodes ({where}): {_causes(own)}"
        if state is JobState.RUNNING:
            return Verdict(subject, Reason.POISON_RUNS, f"left alone while it runs: {words}", False, evidence)
        return Verdict(subject, Reason.POISON, words, True, evidence)
    if not own:
        there = ", ".join(sorted({one.node_id for one in failures})[:MOST_NAMED])
        words = f"left alone: what failed on {there} is not charged to it"
        return Verdict(subject, Reason.FAILURES_FORGIVEN, words, False, evidence)
    words = f"left alone: it failed on {counted(len(nodes), 'node')} ({where})"
    return Verdict(subject, Reason.TOO_FEW_NODES, words, False, evidence)


def _causes(failures: Sequence[EndedTry]) -> str:
    """The causes, the most frequent first."""
    times: dict[str, int] = {}
    for one in failures:
        times[one.reason] = times.get(one.reason, 0) + 1
    ranked = sorted(times.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n} × {reason}" if n > 1 else reason for reason, n in ranked[:MOST_NAMED])
