"""What the making of games and models needs: found, selfplay, train."""

from __future__ import annotations

from gamekeeper.core.decisions import Evidence, counted
from gamekeeper.policy.continuous_loop.turn import Answer, Turn
from gamekeeper.policy.continuous_loop.view import Reason


def found(turn: Turn) -> Answer:
    """One founding job while the line has no model at all."""
    view = turn.view
    if view.champion is not None:
        return Answer(Reason.NOT_NEEDED, f"model {view.champion.model_id} is champion")
    if view.candidate is not None:
        return Answer(Reason.CANDIDATE_PENDING, f"model {view.candidate.model_id} awaits its decision")
    if any(job.kind == "found" for job in turn.live):
        return Answer(Reason.ENOUGH_IN_FLIGHT, "a founding job is in flight")
    history = view.found_history
    allowance = turn.allowance(history)
    if allowance.wait is not None:
        return allowance.wait
    key = f"found/{view.line}/{view.founded}"
    job = turn.job(turn.declared.found, "found", key, failures=history.failures)
    return Answer(Reason.SUBMITTED, "the line has no model: one is founded", actions=(job,))


def selfplay(turn: Turn) -> Answer:
    """Enough self-play jobs for every slot and a margin, so that no slot finds the queue empty."""
    view = turn.view
    if view.champion is None:
        return Answer(Reason.NO_CHAMPION, "there is no champion to play with")
    allowance = turn.allowance(view.selfplay_history)
    in_flight = sum(job.kind == "selfplay" for job in turn.live)
    target = min(turn.slots + turn.limits.selfplay_margin, turn.limits.selfplay_jobs_max)
    evidence = (
        Evidence("self-play jobs in flight", in_flight, target, "loop.selfplay_margin"),
        Evidence("slots", turn.slots),
        Evidence(
            "failures in a row", view.selfplay_history.failures, turn.limits.probe_after, "loop.probe_after"
        ),
    )
    need = min(target, allowance.jobs) - in_flight
    if need < 1:
        if allowance.wait is not None:
            return allowance.wait
        return Answer(
            Reason.ENOUGH_IN_FLIGHT,
            f"{counted(in_flight, 'job')} in flight for {counted(turn.slots, 'slot')}",
            evidence,
        )
    jobs = tuple(
        turn.job(
            turn.declared.selfplay,
            "selfplay",
            f"selfplay/{view.line}/{view.selfplay_submitted + index}",
            wanted={"games": turn.declared.selfplay_games},
            inputs={"model": (view.champion.hash,)},
        )
        for index in range(need)
    )
    return Answer(Reason.SUBMITTED, f"{counted(need, 'job')} added to {in_flight} in flight", evidence, jobs)


def train(turn: Turn) -> Answer:
    """One training once enough samples are new, while no candidate awaits its decision."""
    view, declared = turn.view, turn.declared
    if view.champion is None:
        return Answer(Reason.NO_CHAMPION, "there is no champion to train from")
    if view.candidate is not None:
        return Answer(Reason.CANDIDATE_PENDING, f"model {view.candidate.model_id} awaits its decision")
    if any(job.kind == "train" for job in turn.view.live):
        return Answer(Reason.ENOUGH_IN_FLIGHT, "a training is in flight")
    fresh = max(0, view.verified_samples - view.samples_at_training)
    evidence = (Evidence("new samples", fresh, declared.min_new_samples, turn.setting("min_new_samples")),)
    if fresh < declared.min_new_samples:
        sentence = f"{fresh:,} of {declared.min_new_samples:,} new samples"
        return Answer(Reason.TOO_FEW_SAMPLES, sentence, evidence)
    if not view.window.hashes:
        empty = Evidence("shards in the window", 0, 1)
        return Answer(Reason.NO_WINDOW, "no verified shard is at hand", (*evidence, empty))
    history = view.train_history
    allowance = turn.allowance(history)
    if allowance.wait is not None:
        return allowance.wait
    samples = min(view.window.samples, declared.window_samples)
    job = turn.job(
        declared.train,
        "train",
        f"train/{view.line}/{view.trained}",
        wanted={"samples": samples, "verified_samples": view.verified_samples},
        inputs={"model": (view.champion.hash,), "shards": view.window.hashes},
        failures=history.failures,
    )
    sentence = f"{fresh:,} new samples: training on the newest {samples:,}"
    window = Evidence(
        "samples in the window", samples, declared.window_samples, turn.setting("window_samples")
    )
    return Answer(Reason.SUBMITTED, sentence, (*evidence, window), (job,))
