"""The loop of every line: what each stage needs is computed from the state, and submitted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gamekeeper.core.actions import SubmitJob
from gamekeeper.core.jobs import Job, JobState
from gamekeeper.core.lines import Line
from gamekeeper.core.matches import NO_GAMES, Purpose
from gamekeeper.core.models import Champion
from gamekeeper.daemons import looks
from gamekeeper.daemons.duty import Duty
from gamekeeper.policy import continuous_loop as loop
from gamekeeper.runtime.daemon import Daemon
from gamekeeper.runtime.executor import Outcome
from gamekeeper.store import artifacts, job_queue, matches, registry, summary
from gamekeeper.store.job_queue import JobCount
from gamekeeper.store.session import Reading

HISTORY = 64
TESTS = frozenset({Purpose.CANARY, Purpose.PROMOTION})


def view(r: Reading, lines: Mapping[str, Line]) -> loop.View:
    """All declared lines, the slots that are up, and the phase."""
    totals = summary.totals(r)
    counts = job_queue.counts(r)
    stopping = looks.cancelling(r)
    return loop.View(
        lines=tuple(_line(r, line, counts, stopping) for line in lines.values()),
        slots=totals.slots_up if totals.nodes else None,
        phase=looks.phase(r),
    )


def _line(r: Reading, line: Line, counts: Sequence[JobCount], stopping: frozenset[int]) -> loop.LineView:
    name = line.name
    champion = registry.champion(r, name)
    trained = job_queue.last_done(r, name, "train")
    at_training = trained.spec.wanted.get("verified_samples", 0) if trained is not None else 0
    shards = artifacts.newest_shards(r, name, line.window_samples)
    candidate = _candidate(r, name, champion)
    evaluations = job_queue.ended(r, name, "evaluate", limit=4 * HISTORY)
    return loop.LineView(
        line=name,
        champion=None if champion is None else _champion(r, champion.model_id, champion.generation),
        champions=_champions(r, name),
        candidate=candidate,
        live=tuple(loop.LiveJob.of(job, cancelling=job.id in stopping) for job in job_queue.live(r, name)),
        founded=_count(counts, name, "found", done=True),
        trained=_count(counts, name, "train", done=True),
        selfplay_submitted=_count(counts, name, "selfplay", done=False),
        verified_samples=artifacts.line_counts(r, name).samples,
        samples_at_training=at_training if isinstance(at_training, int) else 0,
        window=loop.Window(tuple(shard.hash for shard in shards), sum(shard.samples for shard in shards)),
        found_history=_history(job_queue.ended(r, name, "found", limit=HISTORY)),
        selfplay_history=_history(job_queue.ended(r, name, "selfplay", limit=HISTORY)),
        train_history=_history(job_queue.ended(r, name, "train", limit=HISTORY)),
        evaluate_history=_history(
            job for job in evaluations if candidate is not None and plays(job, candidate.hash)
        ),
        rating_history=_history(job for job in evaluations if job.spec.purpose == Purpose.RATING),
    )


def plays(job: Job, candidate: str) -> bool:
    """Whether an evaluation job played a canary or promotion test of the candidate of this hash."""
    return job.spec.purpose in TESTS and job.spec.inputs.get("candidate") == (candidate,)


def _champions(r: Reading, line: str) -> tuple[loop.ChampionView, ...]:
    first_generation: dict[int, int] = {}
    for move in registry.promotions(r, line):
        first_generation.setdefault(move.model_id, move.generation)
    return tuple(_champion(r, model_id, generation) for model_id, generation in first_generation.items())


def _champion(r: Reading, model_id: int, generation: int) -> loop.ChampionView:
    ratings = {
        opponent: tally
        for (opponent, purpose), tally in matches.tallies(r, model_id).items()
        if purpose is Purpose.RATING
    }
    return loop.ChampionView(model_id, registry.get(r, model_id).hash, generation, ratings)


def _candidate(r: Reading, line: str, champion: Champion | None) -> loop.CandidateView | None:
    model = registry.candidate(r, line)
    if model is None:
        return None
    tallies = matches.tallies(r, model.id)
    against = f"model/{champion.model_id}" if champion is not None else ""
    return loop.CandidateView(
        model_id=model.id,
        hash=model.hash,
        random=tallies.get(("random", Purpose.CANARY), NO_GAMES),
        mirror=tallies.get(("self", Purpose.CANARY), NO_GAMES),
        promotion=tallies.get((against, Purpose.PROMOTION), NO_GAMES),
    )


def _count(counts: Sequence[JobCount], line: str, kind: str, *, done: bool) -> int:
    return sum(
        one.n
        for one in counts
        if (one.line, one.kind) == (line, kind) and (one.state is JobState.DONE or not done)
    )


def _history(newest_first: Iterable[Job]) -> loop.StageHistory:
    return loop.StageHistory.of((job.state, job.ended_at) for job in newest_first)


def pipeline(
    duty: Duty, lines: Mapping[str, Line], seed: int, submitted: Callable[[], None]
) -> Daemon[loop.View]:
    """Keeps every line supplied with the jobs it needs; `submitted` is called when jobs came or went."""
    limits = loop.Limits(lines=lines, seed=seed)

    async def gather() -> loop.View:
        return await duty.store.aread(lambda r: view(r, lines))

    def after(outcomes: Sequence[Outcome]) -> None:
        if any(isinstance(outcome.action, SubmitJob) for outcome in outcomes):
            submitted()

    return Daemon(
        name=loop.POLICY,
        every_s=2.0,
        rest_s=0.05,
        gather=gather,
        decide=lambda seen, now: loop.decide(seen, limits, now),
        apply=duty.applying(after),
    )
