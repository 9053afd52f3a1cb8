"""The text of a run's report."""

from __future__ import annotations

from collections.abc import Sequence

from gamekeeper.cli import tables, units
from gamekeeper.cli.render import Cell, Page
from gamekeeper.inspection import ChampionRatings, EloEstimate, LineReport, PromotionRow, Report

OPPONENT_NAMES = {"random": "random play", "alphabeta:4": "alpha-beta, depth 4", "first": "champion 0"}


def report_page(page: Page, report: Report) -> Page:
    """What every line achieved, then what it took, then whether the data is whole."""
    promotions = sum(line.promotions for line in report.lines)
    page.line(f"report: {units.promotions(promotions)} in {units.duration(report.seconds)}", "bold")
    for line in report.lines:
        page.line()
        _line(page, line)
    page.line()
    page.line(f"jobs              {job_outcomes(report.jobs)}")
    page.line(
        f"slot utilisation  {units.percent(report.slot_utilisation)} of the slot time since the first claim"
        " had a running process"
    )
    page.line(f"wall time         {units.duration(report.seconds)}")
    page.line(f"bytes verified    {units.size(report.bytes_verified)}")
    whole = report.lost_artifacts == 0 and report.unverified_visible == 0
    page.line(
        f"data              {report.lost_artifacts} artifacts lost, {report.unverified_visible} visible unverified"
        " (every visible file was hashed again)",
        "" if whole else "bad",
    )
    return page


def job_outcomes(jobs: dict[str, int]) -> str:
    """ "120 done, 0 failed, …": the four that the report promises first, the others when there are any."""
    first = ("done", "failed", "hollow", "lost")
    shown = [f"{units.count(jobs.get(name, 0))} {name}" for name in first]
    shown += [f"{units.count(value)} {name}" for name, value in jobs.items() if name not in first and value]
    return ", ".join(shown)


def _line(page: Page, line: LineReport) -> None:
    who = "no champion" if line.champion is None else f"champion model {line.champion}"
    if line.champion_hash:
        who += f" ({line.champion_hash[:8]})"
    page.parts((f"line {line.line}", "bold"), (f"  {who} after {units.promotions(line.promotions)}", ""))
    loss = (
        ", training loss " + " → ".join(f"{loss:.3f}" for loss in ends_of(line.losses)) if line.losses else ""
    )
    page.line(
        f"  {units.count(line.verified_games)} verified games, {units.count(line.samples)} samples{loss}"
    )
    page.line("  strength of the champion, from games not used for promotion")
    page.table(
        ("AGAINST", "ELO", "95 % INTERVAL", "SCORE", "PAIRS 0 · ½ · 1 · 1½ · 2"),
        [
            _strength(OPPONENT_NAMES["random"], line.elo_vs_random),
            _strength(OPPONENT_NAMES["alphabeta:4"], line.elo_vs_alphabeta4),
            _strength(OPPONENT_NAMES["first"], line.elo_vs_first),
        ],
        indent=4,
    )
    if line.history:
        page.line("  moves of the champion")
        page.table(
            (
                "GEN",
                "MODEL",
                "SCORE",
                "PAIRS 0 · ½ · 1 · 1½ · 2",
                "LLR",
                "TEST",
                "ELO OVER THE ONE BEFORE",
                "DECISION",
            ),
            [_promotion(row) for row in line.history],
            indent=4,
        )
    if line.ratings:
        opponents = opponents_of(line.ratings)
        page.line("  every champion, Elo with 95 % interval, from games not used for promotion")
        page.table(
            ("GEN", "MODEL", *(f"VS {OPPONENT_NAMES.get(name, name)}".upper() for name in opponents)),
            [
                (
                    tables.right(str(row.generation)),
                    tables.right(str(row.model)),
                    *(elo_text(row.elo.get(name)) for name in opponents),
                )
                for row in line.ratings
            ],
            indent=4,
        )


def ends_of(values: Sequence[float]) -> Sequence[float]:
    """The first and the last of several values; a single one stands alone."""
    return values if len(values) < 2 else (values[0], values[-1])


def opponents_of(ratings: Sequence[ChampionRatings]) -> list[str]:
    """The opponents that any champion was rated against: the three known ones first."""
    present = {name for row in ratings for name in row.elo}
    known = [name for name in OPPONENT_NAMES if name in present]
    return known + sorted(present - set(known))


def elo_text(estimate: EloEstimate | None) -> str:
    """An Elo difference with its interval; "not rated" without one."""
    if estimate is None:
        return "not rated"
    return f"{units.signed(estimate.value)} {units.interval(*estimate.ci95)}"


def pairs_text(pairs: Sequence[int]) -> str:
    """Pentanomial counts: "1 · 0 · 12 · 9 · 78"."""
    return " · ".join(map(str, pairs)) if pairs else "-"


def sprt_text(row: PromotionRow) -> str:
    """The hypotheses and error rates of the test that allowed a promotion; "founding" without one."""
    if row.elo0 is None or row.elo1 is None or row.alpha is None or row.beta is None:
        return "founding model" if row.previous is None else "-"
    return f"Elo {row.elo0:g} against {row.elo1:g}, α {row.alpha:g}, β {row.beta:g}"


def _strength(name: str, estimate: EloEstimate | None) -> tuple[Cell | str, ...]:
    if estimate is None:
        return (name, "not rated", "", "", "")
    return (
        name,
        tables.right(units.signed(estimate.value), "bold"),
        units.interval(*estimate.ci95),
        units.percent(tables.score_of(estimate.pairs)),
        pairs_text(estimate.pairs),
    )


def _promotion(row: PromotionRow) -> tuple[Cell | str, ...]:
    return (
        tables.right(str(row.generation)),
        tables.right(str(row.model)),
        tables.right("-" if row.score is None else units.percent(row.score)),
        pairs_text(row.pairs),
        tables.right("-" if row.llr is None else f"{row.llr:+.2f}"),
        sprt_text(row),
        "-" if row.elo is None else elo_text(row.elo),
        tables.right(str(row.decision)),
    )
