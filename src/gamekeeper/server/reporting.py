"""The record of a run: promotions with their evidence, ratings of all champions, and what the machines did."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.lines import Line
from gamekeeper.core.matches import PairTally, Purpose
from gamekeeper.inspection import ChampionRatings, EloEstimate, LineReport, PromotionRow, Report
from gamekeeper.server.rows import elo_of
from gamekeeper.server.status import slot_utilisation
from gamekeeper.settings import Settings
from gamekeeper.store import artifacts, event_log, matches, registry, summary
from gamekeeper.store.registry import Promotion
from gamekeeper.store.session import Reading

MODELS_SHOWN = 10_000
LLR = "log-likelihood ratio"


@dataclass(frozen=True, slots=True)
class FileAudit:
    """What a look at all files of the catalogue found: how many are gone, and how many are not what they should be."""

    lost: int = 0
    unverified: int = 0


def report(r: Reading, settings: Settings, audit: FileAudit) -> Report:
    """The record so far."""
    totals = summary.totals(r)
    counts = artifacts.all_line_counts(r)
    first = event_log.after(r, 0, 1)
    names = sorted(settings.lines.keys() | {one.line for one in summary.lines(r)})
    return Report(
        lines=[_line(r, name, settings.lines.get(name)) for name in names],
        jobs={
            **{state: totals.jobs.get(state, 0) for state in ("done", "failed", "dead", "cancelled")},
            **{state: totals.attempts.get(state, 0) for state in ("hollow", "lost", "stopped", "refused")},
            "attempts_failed": totals.attempts.get("failed", 0),
        },
        slot_utilisation=slot_utilisation(r),
        seconds=max(0.0, r.now - first[0].at) if first else 0.0,
        bytes_verified=sum(one.bytes for one in counts.values()),
        lost_artifacts=audit.lost,
        unverified_visible=audit.unverified,
    )


def _line(r: Reading, name: str, line: Line | None) -> LineReport:
    champion = registry.champion(r, name)
    counts = artifacts.line_counts(r, name)
    moves = registry.promotions(r, name)
    ratings = _ratings(r, moves)
    of_champion: dict[str, EloEstimate] = {}
    if champion is not None:
        of_champion = next((one.elo for one in ratings if one.model == champion.model_id), {})
    losses = [
        model.loss for model in reversed(registry.models(r, name, MODELS_SHOWN)) if model.loss is not None
    ]
    return LineReport(
        line=name,
        promotions=champion.generation if champion else 0,
        verified_games=counts.games,
        samples=counts.samples,
        champion=champion.model_id if champion else None,
        champion_hash=champion.hash if champion else None,
        elo_vs_random=of_champion.get("random"),
        elo_vs_first=of_champion.get("first"),
        elo_vs_alphabeta4=of_champion.get("alphabeta:4"),
        history=[_promotion(move, line) for move in moves],
        ratings=ratings,
        losses=losses,
    )


def _promotion(move: Promotion, line: Line | None) -> PromotionRow:
    tally = PairTally(move.pairs)
    llr = next((one.value for one in move.evidence if one.name == LLR), None)
    tested = line is not None and tally.pairs > 0
    return PromotionRow(
        generation=move.generation,
        model=move.model_id,
        previous=move.previous_id,
        at=move.at,
        decision=move.decision_id,
        pairs=list(move.pairs),
        score=tally.points / (2 * tally.pairs) if tally.pairs else None,
        llr=float(llr) if isinstance(llr, int | float) else None,
        elo0=line.elo0 if line is not None and tested else None,
        elo1=line.elo1 if line is not None and tested else None,
        alpha=line.alpha if line is not None and tested else None,
        beta=line.beta if line is not None and tested else None,
        elo=elo_of(tally),
    )


def _ratings(r: Reading, moves: list[Promotion]) -> list[ChampionRatings]:
    """Each model that was champion, once, under its first generation; opponents by name, champion 0 as "first"."""
    generations: dict[int, int] = {}
    for move in moves:
        generations.setdefault(move.model_id, move.generation)
    first = f"model/{moves[0].model_id}" if moves else ""
    rows = []
    for model_id, generation in generations.items():
        elo: dict[str, EloEstimate] = {}
        for (opponent, purpose), tally in matches.tallies(r, model_id).items():
            estimate = elo_of(tally)
            if purpose is Purpose.RATING and estimate is not None:
                elo["first" if opponent == first else opponent] = estimate
        rows.append(ChampionRatings(generation=generation, model=model_id, elo=elo))
    return rows
