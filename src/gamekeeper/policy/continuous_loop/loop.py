"""One pass over all lines.

Every stage's need is computed from state: what exists, what is in flight, and what the line asks for. Nothing is
remembered between passes, so a lost hand-off shows up as a need again, and a second pass over the same state finds
nothing further to do. Each job has a key that its need determines: submitting a need twice makes one job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gamekeeper.core.actions import Action, CancelJob
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.matches import Purpose
from gamekeeper.policy.continuous_loop import evaluation, production
from gamekeeper.policy.continuous_loop.turn import Answer, Turn
from gamekeeper.policy.continuous_loop.view import (
    POLICY,
    Limits,
    LineView,
    LiveJob,
    Phase,
    Reason,
    Stage,
    View,
)

STAGES: Mapping[Stage, Callable[[Turn], Answer]] = {
    Stage.FOUND: production.found,
    Stage.SELFPLAY: production.selfplay,
    Stage.TRAIN: production.train,
    Stage.CANARY: evaluation.canary,
    Stage.PROMOTION: evaluation.promotion,
    Stage.RATING: evaluation.rating,
}


def decide(view: View, limits: Limits, now: float) -> Decision:
    """What each line needs now: one verdict for every line and stage, and one for every job that lost its purpose."""
    verdicts: list[Verdict] = []
    actions: list[Action] = []
    for line in sorted(view.lines, key=lambda line: line.line):
        line_verdicts, line_actions = _line(line, view, limits, now)
        verdicts += line_verdicts
        actions += line_actions
    return Decision(POLICY, now, tuple(verdicts), tuple(actions))


def _line(view: LineView, world: View, limits: Limits, now: float) -> tuple[list[Verdict], list[Action]]:
    declared = limits.lines.get(view.line)
    if declared is None:
        sentence = "left alone: gamekeeper.toml declares no such line"
        return [Verdict(f"line/{view.line}", Reason.UNDECLARED_LINE, sentence, acted=False)], []
    if world.phase is Phase.DRAINING:
        draining = Answer(Reason.DRAINING, "nothing is submitted while the coordinator drains")
        return [_verdict(view.line, stage, draining) for stage in STAGES], []
    measuring = world.phase is Phase.MEASURING
    pointless = {job.job_id: why for job in view.live if (why := _pointless(job, view, measuring))}
    cancels: list[Action] = [CancelJob(job_id, why) for job_id, why in sorted(pointless.items())]
    verdicts = [
        Verdict(f"job/{job_id}", Reason.CANCELLED, f"cancelled: {why}", acted=True)
        for job_id, why in sorted(pointless.items())
    ]
    wanted = tuple(job for job in view.live if job.job_id not in pointless and not job.cancelling)
    turn = Turn(declared, view, wanted, world.slots or 0, measuring, limits, now)
    actions = list(cancels)
    for stage, ask in STAGES.items():
        if measuring and stage is not Stage.RATING:
            answer = Answer(Reason.MEASURING, "only ratings are wanted now")
        else:
            answer = ask(turn)
        verdicts.append(_verdict(view.line, stage, answer))
        actions += answer.actions
    return verdicts, actions


def _verdict(line: str, stage: Stage, answer: Answer) -> Verdict:
    subject = f"line/{line}/{stage}"
    return Verdict(
        subject, answer.reason, f"{stage}: {answer.sentence}", bool(answer.actions), answer.evidence
    )


def _pointless(job: LiveJob, view: LineView, measuring: bool) -> str:
    """Why nobody wants the result of a live job any more; "" when it is wanted, or asked to stop already."""
    if job.cancelling:
        return ""
    if job.kind == "evaluate":
        return _pointless_evaluation(job, view, measuring)
    if job.kind not in ("found", "selfplay", "train"):
        return ""
    if measuring:
        return "only ratings are wanted now"
    if job.kind == "found":
        return "the line has a model" if view.champion is not None or view.candidate is not None else ""
    # What runs is let run: its games are legal data and its work is half done. What only waits is made anew.
    if job.running or view.champion is None or job.model_hash == view.champion.hash:
        return ""
    return f"the champion is model {view.champion.model_id} now"


def _pointless_evaluation(job: LiveJob, view: LineView, measuring: bool) -> str:
    if job.purpose == Purpose.RATING:
        return ""
    if measuring:
        return "only ratings are wanted now"
    if view.candidate is None or job.candidate_hash != view.candidate.hash:
        return "its candidate is decided"
    other = view.champion is None or job.opponent_hash != view.champion.hash
    if job.purpose == Purpose.PROMOTION and other:
        return "its opponent is not champion any more"
    return ""
