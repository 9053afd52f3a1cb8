"""Which candidate becomes champion: the only daemon whose policy may move that pointer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gamekeeper.core.jobs import JobState
from gamekeeper.core.lines import Line
from gamekeeper.core.matches import NO_GAMES, Purpose
from gamekeeper.core.models import Champion, Model
from gamekeeper.daemons.duty import Duty
from gamekeeper.daemons.pipeline import HISTORY, plays
from gamekeeper.policy import promotion
from gamekeeper.runtime.daemon import Daemon
from gamekeeper.runtime.executor import Outcome
from gamekeeper.store import job_queue, matches, registry
from gamekeeper.store.session import Reading


def view(r: Reading, lines: Mapping[str, Line]) -> promotion.View:
    """Champion and candidate of every declared line."""
    return promotion.View(tuple(_line(r, name) for name in lines))


def _line(r: Reading, name: str) -> promotion.LineView:
    champion, candidate = registry.champion(r, name), registry.candidate(r, name)
    return promotion.LineView(
        line=name,
        champion=None if champion is None else promotion.ChampionView(champion.model_id, champion.hash),
        candidate=None if candidate is None else _candidate(r, candidate, champion),
    )


def _candidate(r: Reading, model: Model, champion: Champion | None) -> promotion.CandidateView:
    tallies = matches.tallies(r, model.id)
    against = f"model/{champion.model_id}" if champion is not None else ""
    given = job_queue.get(r, model.job_id).spec.inputs.get("model", ())
    ended = job_queue.ended(r, model.line, "evaluate", limit=4 * HISTORY)
    return promotion.CandidateView(
        model_id=model.id,
        hash=model.hash,
        parent_hash=None if model.parent_id is None else registry.get(r, model.parent_id).hash,
        input_hash=given[0] if given else None,
        random=tallies.get(("random", Purpose.CANARY), NO_GAMES),
        mirror=tallies.get(("self", Purpose.CANARY), NO_GAMES),
        promotion=tallies.get((against, Purpose.PROMOTION), NO_GAMES),
        evaluation_failures=sum(job.state is JobState.FAILED and plays(job, model.hash) for job in ended),
    )


def promoter(duty: Duty, lines: Mapping[str, Line], decided: Callable[[], None]) -> Daemon[promotion.View]:
    """Judges every candidate; `decided` is called when one was promoted or closed."""
    limits = promotion.Limits(lines=lines)

    async def gather() -> promotion.View:
        return await duty.store.aread(lambda r: view(r, lines))

    def after(outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            decided()

    return Daemon(
        name=promotion.POLICY,
        every_s=2.0,
        rest_s=0.05,
        gather=gather,
        decide=lambda seen, now: promotion.decide(seen, limits, now),
        apply=duty.applying(after),
    )
