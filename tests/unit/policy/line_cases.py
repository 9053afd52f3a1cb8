"""Lines to ask about, and short ways to read the answer."""

from __future__ import annotations

from dataclasses import replace

from gamekeeper.core.actions import CancelJob, SubmitJob
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.jobs import JobSpec
from gamekeeper.core.matches import PairTally
from gamekeeper.policy.continuous_loop.loop import decide
from gamekeeper.policy.continuous_loop.view import (
    CandidateView,
    ChampionView,
    Limits,
    LineView,
    LiveJob,
    Phase,
    View,
)
from tests.unit.policy.loop_world import a_line

NOW = 5000.0
LINE = a_line()
LIMITS = Limits({"c4": LINE}, seed=3)
CHAMPION = ChampionView(1, "hash-1", 0)
SECOND = ChampionView(4, "hash-4", 1)
CANARIED = PairTally((0, 0, 0, 0, 6), 0, 6)
MIRRORED = PairTally((0, 0, 6, 0, 0), 0, 6)
CANDIDATE = CandidateView(2, "hash-2")
PASSED = CandidateView(2, "hash-2", CANARIED, MIRRORED)
RATED = {"random": PairTally((0, 0, 0, 0, 20)), "alphabeta:4": PairTally((20, 0, 0, 0, 0))}


def line(**changes: object) -> LineView:
    """A line with a rated champion and enough self-play in flight: nothing is needed but what `changes` bring."""
    plain = LineView(
        "c4",
        champion=CHAMPION,
        champions=(replace(CHAMPION, ratings=RATED),),
        live=tuple(LiveJob(n, "selfplay", "", n < 3, model_hash="hash-1") for n in range(1, 5)),
        founded=1,
        selfplay_submitted=4,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def run(
    one: LineView, *, limits: Limits = LIMITS, slots: int | None = 2, phase: Phase = Phase.TURNING
) -> Decision:
    return decide(View((one,), slots, phase), limits, NOW)


def verdict(decision: Decision, stage: str) -> Verdict:
    (found,) = [verdict for verdict in decision.verdicts if verdict.subject == f"line/c4/{stage}"]
    return found


def specs(decision: Decision) -> list[JobSpec]:
    return [action.spec for action in decision.actions if isinstance(action, SubmitJob)]


def cancelled(decision: Decision) -> dict[int, str]:
    return {action.job_id: action.reason for action in decision.actions if isinstance(action, CancelJob)}


def played(number: int, purpose: str, **changes: object) -> LiveJob:
    plain = LiveJob(number, "evaluate", purpose, True, "", "hash-2", "model", "hash-1", 0, 16)
    return replace(plain, **changes)  # type: ignore[arg-type]
