"""Where things stand: the verdict line, what needs attention, every line. From counters; nothing is scanned."""

from __future__ import annotations

from collections.abc import Sequence

from gamekeeper.core.jobs import JobState
from gamekeeper.core.lines import Line
from gamekeeper.core.matches import Purpose
from gamekeeper.daemons import looks
from gamekeeper.inspection import Attention, LineRow, PromotionTest, Status
from gamekeeper.policy.continuous_loop import Phase, Stage
from gamekeeper.server.rows import verdict_row
from gamekeeper.settings import Settings
from gamekeeper.stats.ratings import elo_estimate
from gamekeeper.stats.sprt import PairCounts, Sprt
from gamekeeper.store import decisions, inventory, job_queue, matches, registry, summary
from gamekeeper.store.artifacts import LineCounts
from gamekeeper.store.decisions import StoredVerdict
from gamekeeper.store.session import Reading
from gamekeeper.store.summary import LineSummary, Totals

OTHERS_COUNTED = 1000
MAX_ATTENTION = 20
FAILURES_TOLD = 2


def status(r: Reading, settings: Settings, lost_artifacts: int) -> Status:
    """The one-screen answer."""
    totals = summary.totals(r)
    rows = line_rows(r, settings)
    attention = _attention(r, settings, totals, lost_artifacts)
    phase = looks.phase(r)
    last = summary.last_verdict(r)
    return Status(
        at=r.now,
        verdict=_verdict(phase, totals, rows, attention),
        healthy=None if not totals.nodes else not attention,
        draining=phase is Phase.DRAINING,
        attention=attention,
        lines=rows,
        slots=totals.slots_up,
        slots_busy=totals.busy,
        slot_utilisation=slot_utilisation(r),
        jobs=totals.jobs,
        nodes=totals.nodes,
        last_decision=None if last is None else verdict_row(last),
    )


def line_rows(r: Reading, settings: Settings) -> list[LineRow]:
    """Every declared line, and every other that has jobs or data."""
    found = {one.line: one for one in summary.lines(r)}
    rows = []
    for name in sorted(found.keys() | settings.lines.keys()):
        known = found.get(name) or LineSummary(name, None, 0, LineCounts(), None, None, {}, {}, None)
        rows.append(_line_row(r, known, settings.lines.get(name)))
    return rows


def stage_verdicts(r: Reading, line: str) -> list[StoredVerdict]:
    """The last words on every stage of a line and on its candidate, the newest first."""
    subjects = [f"line/{line}", f"line/{line}/champion", *(f"line/{line}/{stage}" for stage in Stage)]
    candidate = registry.candidate(r, line)
    if candidate is not None:
        subjects.append(f"model/{candidate.id}")
    words = [word for subject in subjects for word in decisions.current(r, subject)]
    return sorted(words, key=lambda word: (word.decision_id, word.at), reverse=True)


def slot_utilisation(r: Reading) -> float | None:
    """Seconds of running job processes over seconds of slots since each node's first lease; `None` before any.

    While the loop drains, the time after the wish to stop does not count.
    """
    end = looks.draining_since(r) or r.now
    offered = running = 0.0
    for one in summary.slot_times(r):
        offered += one.slots * max(0.0, end - one.since)
        running += one.process_s
    return min(1.0, running / offered) if offered > 0 else None


def promotion_test(r: Reading, line: Line, candidate_id: int, champion_id: int) -> PromotionTest:
    """Where the promotion test of a candidate stands."""
    tally = matches.pair_counts(r, candidate_id, f"model/{champion_id}", Purpose.PROMOTION)
    counts = PairCounts(*tally.counts)
    sprt = Sprt(line.elo0, line.elo1, line.alpha, line.beta)
    lower, upper = sprt.bounds
    estimate = elo_estimate(counts)
    return PromotionTest(
        model=candidate_id,
        opponent=champion_id,
        pairs=list(tally.counts),
        llr=sprt.llr(counts),
        lower=lower,
        upper=upper,
        elo=estimate.value if estimate else None,
        low=estimate.low if estimate else None,
        high=estimate.high if estimate else None,
    )


def _line_row(r: Reading, known: LineSummary, line: Line | None) -> LineRow:
    champion, candidate = known.champion, known.candidate
    trained = job_queue.last_done(r, known.line, "train")
    used = trained.spec.wanted.get("verified_samples", 0) if trained is not None else 0
    test = None
    if line is not None and champion is not None and candidate is not None:
        test = promotion_test(r, line, candidate.id, champion.model_id)
    words = stage_verdicts(r, known.line)
    acted = [word for word in words if word.verdict.acted] or words
    return LineRow(
        line=known.line,
        champion=champion.model_id if champion else None,
        champion_hash=champion.hash if champion else None,
        generation=champion.generation if champion else None,
        promotions=known.promotions,
        verified_games=known.counts.games,
        samples=known.counts.samples,
        samples_since_training=max(0, known.counts.samples - (used if isinstance(used, int) else 0)),
        loss=known.newest.loss if known.newest else None,
        test=test,
        stages=known.live,
        last_verdict=verdict_row(acted[0]) if acted else None,
    )


def _attention(r: Reading, settings: Settings, totals: Totals, lost_artifacts: int) -> list[Attention]:
    items: list[Attention] = []
    if lost_artifacts:
        items.append(
            Attention(
                subject="artifacts",
                sentence=f"{lost_artifacts} files of the catalogue are missing or cut on disk",
                hint="restore the artifacts folder of the data directory from a copy",
            )
        )
    items += [
        Attention(
            subject=f"node/{node.id}",
            sentence=f"{node.host_name} lost its lease" + _ago(r, node.last_seen_at),
            hint=f"gamekeeper why node {node.id}",
        )
        for node in inventory.lost_nodes(r, MAX_ATTENTION)
    ]
    items += _other_settings(r, settings)
    for name in settings.lines:
        items += _failing_stages(r, name)
    if totals.jobs.get("dead"):
        items.append(
            Attention(
                subject="jobs",
                sentence=f"{totals.jobs['dead']} jobs lost their machine too often and were given up",
                hint="gamekeeper jobs --state dead",
            )
        )
    return items[:MAX_ATTENTION]


def _other_settings(r: Reading, settings: Settings) -> list[Attention]:
    """Live machines whose agents run under other settings than the coordinator."""
    other = inventory.other_settings(r, settings.hash, OTHERS_COUNTED)
    if not other:
        return []
    who = other[0] if len(other) == 1 else f"{other[0]} and {len(other) - 1} more"
    return [
        Attention(
            subject="nodes",
            sentence=f"{who} last reported other settings than those in force",
            hint="agents take them over with their beats; `gamekeeper nodes --json` shows who did not",
        )
    ]


def _failing_stages(r: Reading, line: str) -> list[Attention]:
    """The kinds of work of a line whose last jobs all failed."""
    items = []
    for kind in ("found", "selfplay", "train", "evaluate"):
        last = job_queue.ended(r, line, kind, limit=FAILURES_TOLD)
        if len(last) == FAILURES_TOLD and all(job.state in (JobState.FAILED, JobState.DEAD) for job in last):
            items.append(
                Attention(
                    subject=f"line/{line}/{kind}",
                    sentence=f"the last {FAILURES_TOLD} {kind} jobs failed, at last with {last[0].reason}",
                    hint=f"gamekeeper why job {last[0].id}",
                )
            )
    return items


def _ago(r: Reading, at: float | None) -> str:
    return "" if at is None else f"; last heard {max(0.0, r.now - at):.0f} s ago"


def _verdict(phase: Phase, totals: Totals, rows: Sequence[LineRow], attention: Sequence[Attention]) -> str:
    running = totals.jobs.get("running", 0)
    promotions = sum(row.promotions for row in rows)
    if not rows:
        return "nothing to do: no line is declared"
    if phase is Phase.DRAINING:
        return (
            f"draining: {running} jobs still run"
            if running
            else "stopped: nothing runs, nothing is given out"
        )
    if not totals.nodes:
        return "waiting for a first node to connect"
    if not totals.slots_up:
        return "standing still: no node is up"
    turning = "measuring" if phase is Phase.MEASURING else "turning"
    words = f"{turning}: {totals.busy} of {totals.slots_up} slots busy, {promotions} promotions"
    return f"{words}; {len(attention)} things need attention" if attention else words
