"""The page of `why`: what holds, the numbers that were compared, every try, and the story."""

from __future__ import annotations

from gamekeeper.cli import tables, units
from gamekeeper.cli.render import Cell, Page
from gamekeeper.inspection import EvidenceRow, VerdictRow, Why

EVENTS_SHOWN = 12
VERDICTS_SHOWN = 8


def why_page(page: Page, why: Why, now: float) -> Page:
    """Headline, known facts, newest verdict with its evidence, the other verdicts, attempts and events."""
    page.line(why.headline, "bold")
    wide = max([10, *(len(name) for name in why.facts)])
    for name, value in why.facts.items():
        if value is not None:
            page.line(f"  {name.replace('_', ' '):<{wide}} {tables.fact(value)}")
    if why.verdicts:
        newest, others = why.verdicts[0], why.verdicts[1:VERDICTS_SHOWN]
        _newest_verdict(page, newest, now)
        if others:
            page.line("other verdicts", "bold")
            page.table(
                ("DECISION", "WHEN", "POLICY", "ACTED", "WHY"),
                [_verdict_row(verdict, now) for verdict in others],
                indent=2,
            )
    else:
        page.line("  decision   none was recorded about it")
    if why.attempts:
        page.line("attempts", "bold")
        tables.attempts_table(page, why.attempts, now, indent=2)
    if why.events:
        page.line("events", "bold")
        for event in why.events[-EVENTS_SHOWN:]:
            tables.event_line(page, event)
    return page


def _newest_verdict(page: Page, verdict: VerdictRow, now: float) -> None:
    page.parts(("  cause      ", ""), (verdict.sentence, "accent"), (f"  [{verdict.reason}]", "dim"))
    wide = max((len(row.name) for row in verdict.evidence), default=0)
    for i, row in enumerate(verdict.evidence):
        page.line(f"  {'compared' if i == 0 else '':<10} {row.name:<{wide}}  {_comparison(row)}")
    done = "acted on" if verdict.acted else "left alone"
    page.line(f"  decision   {verdict.decision} · {verdict.policy} · {units.ago(verdict.at, now)} · {done}")


def _comparison(row: EvidenceRow) -> str:
    text = units.number(row.value) if row.value is not None else "not measured"
    if row.limit is not None:
        text += f"   limit {units.number(row.limit)}"
    return text + (f"   (set by {row.origin})" if row.origin else "")


def _verdict_row(verdict: VerdictRow, now: float) -> tuple[Cell | str, ...]:
    return (
        tables.right(str(verdict.decision)),
        units.ago(verdict.at, now),
        verdict.policy,
        "yes" if verdict.acted else "no",
        f"{verdict.sentence} [{verdict.reason}]",
    )
