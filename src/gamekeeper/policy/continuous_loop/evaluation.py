"""Which game pairs are wanted: canaries and the promotion test of a candidate, ratings of champions."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.actions import SubmitJob
from gamekeeper.core.decisions import Evidence, counted
from gamekeeper.core.matches import NO_GAMES, PairTally, Purpose
from gamekeeper.policy.continuous_loop.turn import Answer, Turn
from gamekeeper.policy.continuous_loop.view import LiveJob, Reason


@dataclass(frozen=True, slots=True)
class _Test:
    """One test: who plays whom and what for, what is booked, and how many pairs are wanted in all.

    `opponent` is the name the pairs are booked under: a built-in player, or "model/ID" with its hash.
    """

    model_id: int
    hash: str
    opponent: str
    opponent_hash: str
    purpose: Purpose
    tally: PairTally
    pairs: int

    @property
    def asked(self) -> str:
        """The opponent as the job is told it."""
        return "model" if self.opponent_hash else self.opponent

    def has(self, job: LiveJob) -> bool:
        """Whether a live job plays pairs of this test."""
        return (
            (job.kind, job.purpose) == ("evaluate", self.purpose)
            and job.candidate_hash == self.hash
            and (job.opponent, job.opponent_hash) == (self.asked, self.opponent_hash)
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where a test stands: pairs in flight, pairs still to hand out, and the number of the first of them."""

    test: _Test
    in_flight: int
    missing: int
    first_pair: int


def canary(turn: Turn) -> Answer:
    """The candidate's games against a random mover and against itself, before anything else is believed."""
    tests = _canaries(turn)
    if isinstance(tests, Answer):
        return tests
    plans = [_plan(turn, test) for test in tests]
    played = min(plan.test.tally.played for plan in plans)
    wanted = turn.declared.canary_pairs
    evidence = (Evidence("canary pairs played", played, wanted, turn.setting("canary_pairs")),)
    if not any(plan.missing or plan.in_flight for plan in plans):
        return Answer(Reason.COMPLETE, "all canary pairs are played", evidence)
    return _submit(turn, plans, turn.limits.evaluate_jobs_max, evidence)


def promotion(turn: Turn) -> Answer:
    """The candidate's games against the champion: as many jobs as there are slots, until the test is decided."""
    tests = _canaries(turn)
    if isinstance(tests, Answer) and tests.reason is not Reason.NOT_NEEDED:
        return tests
    candidate, champion = turn.view.candidate, turn.view.champion
    if candidate is None or champion is None:
        return Answer(Reason.NOT_NEEDED, "a founding model is not tested")
    waiting = [] if isinstance(tests, Answer) else [test for test in tests if test.tally.played < test.pairs]
    if waiting:
        opponents = " and ".join(test.opponent for test in waiting)
        return Answer(Reason.CANARY_FIRST, f"canary games against {opponents} come first")
    opponent = f"model/{champion.model_id}"
    plan = _plan(
        turn,
        _Test(
            candidate.model_id, candidate.hash, opponent, champion.hash,
            Purpose.PROMOTION, candidate.promotion, turn.declared.max_pairs,
        ),
    )  # fmt: skip
    evidence = (
        Evidence("pairs played", plan.test.tally.played, turn.declared.max_pairs, turn.setting("max_pairs")),
        Evidence("pairs in flight", plan.in_flight),
    )
    if not plan.missing and not plan.in_flight:
        return Answer(Reason.AT_MAX_PAIRS, "all pairs of the test are played", evidence)
    return _submit(turn, [plan], min(turn.slots + 1, turn.limits.evaluate_jobs_max), evidence)


def rating(turn: Turn) -> Answer:
    """Every champion against every declared opponent, the earliest first; none of these games moves a champion."""
    view = turn.view
    if view.champion is None:
        return Answer(Reason.NO_CHAMPION, "there is no champion to rate")
    plans = [_plan(turn, test) for test in _ratings(turn)]
    wanted = sum(plan.test.pairs for plan in plans)
    played = sum(min(plan.test.tally.played, plan.test.pairs) for plan in plans)
    evidence = (Evidence("rating pairs played", played, wanted, turn.setting("rating_pairs")),)
    if not any(plan.missing or plan.in_flight for plan in plans):
        return Answer(Reason.COMPLETE, f"{counted(len(view.champions), 'champion')} rated", evidence)
    allowed = turn.slots + 1 if turn.measuring else turn.limits.rating_jobs_max
    return _submit(turn, plans, allowed, evidence)


def _canaries(turn: Turn) -> list[_Test] | Answer:
    candidate = turn.view.candidate
    if candidate is None:
        return Answer(Reason.NO_CANDIDATE, "no candidate awaits a decision")
    if turn.view.champion is None:
        return Answer(Reason.NOT_NEEDED, "a founding model is not tested")
    pairs = turn.declared.canary_pairs
    if pairs < 1:
        return Answer(Reason.NOT_NEEDED, "the line asks for no canary games")
    return [
        _Test(candidate.model_id, candidate.hash, "random", "", Purpose.CANARY, candidate.random, pairs),
        _Test(candidate.model_id, candidate.hash, "self", "", Purpose.CANARY, candidate.mirror, pairs),
    ]


def _ratings(turn: Turn) -> list[_Test]:
    champions = sorted(turn.view.champions, key=lambda champion: champion.generation)
    first = next((champion for champion in champions if champion.generation == 0), None)
    tests: list[_Test] = []
    for champion in champions:
        for name in dict.fromkeys(turn.declared.rating_opponents):
            opponent, opponent_hash = name, ""
            if name == "first":
                if first is None or first.model_id == champion.model_id:
                    continue
                opponent, opponent_hash = f"model/{first.model_id}", first.hash
            tally = champion.ratings.get(opponent, NO_GAMES)
            pairs = turn.declared.rating_pairs
            tests.append(
                _Test(champion.model_id, champion.hash, opponent, opponent_hash, Purpose.RATING, tally, pairs)
            )
    return tests


def _plan(turn: Turn, test: _Test) -> _Plan:
    mine = [job for job in turn.live if test.has(job)]
    planned = sum(job.pairs for job in mine)
    missing = max(0, test.pairs - test.tally.played - planned)
    first = max(
        [test.tally.next_pair, *(job.first_pair + job.pairs for job in turn.view.live if test.has(job))]
    )
    return _Plan(test, planned, missing, first)


def _submit(turn: Turn, plans: list[_Plan], allowed: int, evidence: tuple[Evidence, ...]) -> Answer:
    """Hand out missing pairs in jobs of `pairs_per_job`, up to `allowed` live jobs for all `plans` together."""
    purpose = plans[0].test.purpose
    rated = purpose is Purpose.RATING
    history = turn.view.rating_history if rated else turn.view.evaluate_history
    allowance = turn.allowance(history)
    live = sum(job.kind == "evaluate" and (job.purpose == Purpose.RATING) == rated for job in turn.live)
    room = min(allowed, allowance.jobs) - live
    jobs: list[SubmitJob] = []
    for plan in plans:
        first, missing = plan.first_pair, plan.missing
        while missing and len(jobs) < room:
            pairs = min(missing, max(1, turn.declared.pairs_per_job))
            jobs.append(_job(turn, plan.test, first, pairs, history.failures))
            first, missing = first + pairs, missing - pairs
    flying = sum(plan.in_flight for plan in plans)
    if jobs:
        sentence = f"{counted(len(jobs), 'job')} added to {counted(flying, 'pair')} in flight"
        return Answer(Reason.SUBMITTED, sentence, evidence, tuple(jobs))
    if allowance.wait is not None and not flying:
        return allowance.wait
    return Answer(
        Reason.ENOUGH_IN_FLIGHT, f"{counted(flying, 'pair')} in flight in {counted(live, 'job')}", evidence
    )


def _job(turn: Turn, test: _Test, first: int, pairs: int, failures: int) -> SubmitJob:
    inputs = {"candidate": (test.hash,)}
    if test.opponent_hash:
        inputs["opponent"] = (test.opponent_hash,)
    return turn.job(
        turn.declared.evaluate,
        "evaluate",
        f"evaluate/{test.model_id}/{test.opponent}/{test.purpose}/{first}",
        purpose=test.purpose,
        wanted={"opponent": test.asked, "pairs": pairs, "first_pair": first},
        inputs=inputs,
        failures=failures,
    )
