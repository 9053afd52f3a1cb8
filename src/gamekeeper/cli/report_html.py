"""The report as one self-contained page: style and plots inline, no script, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gamekeeper.cli import svg, units
from gamekeeper.cli.report import (
    OPPONENT_NAMES,
    elo_text,
    job_outcomes,
    opponents_of,
    pairs_text,
    sprt_text,
)
from gamekeeper.inspection import EloEstimate, LineReport, Report

PAIR_POINTS = ("0 points", "½ point", "1 point", "1½ points", "2 points")
_SERIES_STYLES = ("s0", "s1", "s2", "s3", "s4")

_STYLE = """
:root{--paper:#fbfaf7;--card:#fff;--ink:#1d2327;--soft:#66707a;--rule:#e3e1da;--good:#1b7f4b;--bad:#b3261e;
--c0:#2563a8;--c1:#c2571a;--c2:#2c8c6b;--c3:#8a4fa3;--c4:#8c6d1f;
--p0:#b2452f;--p1:#e0a48f;--p2:#c9c7bf;--p3:#8fc0b0;--p4:#1f7a60}
@media(prefers-color-scheme:dark){:root{--paper:#14181b;--card:#1c2226;--ink:#e8e6e1;--soft:#98a2ab;--rule:#30383e;
--good:#5fce95;--bad:#ff8a80;--c0:#76aef0;--c1:#f0985c;--c2:#63c9a6;--c3:#cb97e3;--c4:#d9b95b;
--p0:#d0634c;--p1:#a5604d;--p2:#59626a;--p3:#3f8572;--p4:#4dbb9a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px}h2{font-size:20px;margin:44px 0 2px}
h3{font-size:15px;margin:0 0 2px}p{margin:0 0 10px}.soft,figcaption{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin:18px 0}
.card,figure{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:16px 18px;margin:0}
.card b{display:block;font-size:26px;line-height:1.25;font-variant-numeric:tabular-nums}
.good{color:var(--good)}.bad{color:var(--bad)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:12px}
figure.broad{grid-column:1/-1}figure.broad svg{max-width:760px}figcaption{font-size:13px;margin-bottom:8px}
svg{display:block;width:100%;height:auto}
.tick,.axis{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}.grid{stroke:var(--rule)}
.zero{stroke:var(--soft)}.line{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round}
.bar{fill:none;stroke:currentColor;stroke-width:1.5;opacity:.55}.dot{fill:currentColor}
.s0{color:var(--c0)}.s1{color:var(--c1)}.s2{color:var(--c2)}.s3{color:var(--c3)}.s4{color:var(--c4)}
.p0{fill:var(--p0);background:var(--p0)}.p1{fill:var(--p1);background:var(--p1)}
.p2{fill:var(--p2);background:var(--p2)}.p3{fill:var(--p3);background:var(--p3)}.p4{fill:var(--p4);background:var(--p4)}
.inbar{font-size:12px;fill:var(--ink)}.t0,.t4{fill:#fff}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;margin:0 0 6px;padding:0;list-style:none}
.legend i{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
.legend .s0 i,.legend .s1 i,.legend .s2 i,.legend .s3 i,.legend .s4 i{background:currentColor;border-radius:50%}
.legend span{color:var(--ink)}
.wide{overflow-x:auto;margin-top:12px}table{border-collapse:collapse;width:100%;font-size:14px}
caption{text-align:left;font-weight:600;padding:14px 0 4px}
th,td{text-align:left;padding:7px 12px 7px 0;border-bottom:1px solid var(--rule);white-space:nowrap;
font-variant-numeric:tabular-nums}th{color:var(--soft);font-weight:500;font-size:13px}
"""


def report_html(report: Report) -> str:
    """The whole page. All text that came from elsewhere is escaped."""
    promotions = units.promotions(sum(line.promotions for line in report.lines))
    title = f"{promotions} in {units.duration(report.seconds)}"
    body = "".join(_line(line) for line in report.lines)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>Gamekeeper report: {escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body><main><p class="soft">Gamekeeper report</p><h1>{escape(title)}</h1>'
        f"{_run_cards(report)}{body}"
        '<p class="soft" style="margin-top:36px">Strength is measured from games that were not used for'
        " promotion; intervals are at 95 %. A pair is one opening played twice with sides changed.</p>"
        "</main></body></html>\n"
    )


def _run_cards(report: Report) -> str:
    whole = report.lost_artifacts == 0 and report.unverified_visible == 0
    integrity = "whole" if whole else f"{report.lost_artifacts} lost, {report.unverified_visible} unverified"
    jobs = report.jobs
    return _cards(
        [
            (units.percent(report.slot_utilisation), "slots busy", ""),
            (f"{units.count(jobs.get('done', 0))} done", f"jobs: {job_outcomes(jobs)}", ""),
            (units.size(report.bytes_verified), "verified before it became visible", ""),
            (integrity, "data: every visible file was hashed again at the end", "good" if whole else "bad"),
        ]
    )


def _line(line: LineReport) -> str:
    champion = "no champion yet" if line.champion is None else f"champion: model {line.champion}"
    if line.champion_hash:
        champion += f" ({line.champion_hash[:8]})"
    lead = (
        f"{champion} after {units.promotions(line.promotions)} · {units.count(line.verified_games)} verified games"
        f" · {units.count(line.samples)} samples"
    )
    return (
        f'<section><h2>{escape(line.line)}</h2><p class="soft">{escape(lead)}</p>'
        f"{_strength_cards(line)}"
        f'<div class="plots">{_elo_figure(line)}{_loss_figure(line)}{_pairs_figure(line)}</div>'
        f"{_promotions_table(line)}{_ratings_table(line)}</section>"
    )


def _strength_cards(line: LineReport) -> str:
    def card(estimate: EloEstimate | None, against: str) -> tuple[str, str, str]:
        if estimate is None:
            return ("not rated", f"Elo against {against}", "")
        low, high = estimate.ci95
        style = "good" if low > 0 else "bad" if high < 0 else ""
        games = f"{units.interval(low, high)} from {units.count(2 * sum(estimate.pairs))} games"
        return (units.signed(estimate.value), f"Elo against {against} · {games}", style)

    return _cards(
        [
            card(line.elo_vs_random, OPPONENT_NAMES["random"]),
            card(line.elo_vs_alphabeta4, OPPONENT_NAMES["alphabeta:4"]),
            card(line.elo_vs_first, OPPONENT_NAMES["first"]),
        ]
    )


def _elo_figure(line: LineReport) -> str:
    if not line.ratings:
        return ""
    series = []
    for name, style in zip(opponents_of(line.ratings), _SERIES_STYLES, strict=False):
        marks = [
            svg.Mark(row.generation, found.value, *found.ci95)
            for row in line.ratings
            if (found := row.elo.get(name)) is not None
        ]
        series.append(svg.Series(OPPONENT_NAMES.get(name, name), style, marks))
    chart = svg.line_chart(
        series,
        title=f"Elo of every champion of {line.line}",
        x_label="champion (0 is the founding model)",
        y_label="Elo difference",
        x_ticks=[row.generation for row in line.ratings],
        with_zero=True,
    )
    legend = "".join(
        f'<li class="{row.style}"><i></i><span>against {escape(row.name)}</span></li>' for row in series
    )
    return _figure("Strength of every champion", "Elo difference with its 95 % interval", chart, legend)


def _loss_figure(line: LineReport) -> str:
    if not line.losses:
        return ""
    marks = [svg.Mark(i + 1, loss) for i, loss in enumerate(line.losses)]
    chart = svg.line_chart(
        [svg.Series("training loss", "s3", marks)],
        title=f"Training loss of {line.line}",
        x_label="training",
        y_label="loss",
        x_ticks=[mark.x for mark in marks],
        dots=len(marks) <= 40,
    )
    return _figure("Training loss", "At the end of each training job", chart, "")


def _pairs_figure(line: LineReport) -> str:
    rows = [(f"model {row.model}", row.pairs) for row in line.history if sum(row.pairs)]
    if not rows:
        return ""
    chart = svg.share_bars(rows, title=f"Promotion tests of {line.line}", parts=PAIR_POINTS)
    legend = "".join(
        f'<li><i class="p{i}"></i><span>{name}</span></li>' for i, name in enumerate(PAIR_POINTS)
    )
    return _figure(
        "Promotion tests",
        "Game pairs by the points the candidate took from the champion",
        chart,
        legend,
        "broad",
    )


def _promotions_table(line: LineReport) -> str:
    rows = [
        (
            str(row.generation),
            f"model {row.model}",
            "-" if row.score is None else units.percent(row.score),
            pairs_text(row.pairs),
            "-" if row.llr is None else f"{row.llr:+.2f}",
            sprt_text(row),
            "-" if row.elo is None else elo_text(row.elo),
            units.clock_time(row.at),
            str(row.decision),
        )
        for row in line.history
    ]
    head = (
        "Champion",
        "Model",
        "Score",
        "Pairs 0 · ½ · 1 · 1½ · 2",
        "LLR",
        "Test",
        "Elo gain",
        "At",
        "Decision",
    )
    return _table("Moves of the champion", head, rows)


def _ratings_table(line: LineReport) -> str:
    opponents = opponents_of(line.ratings)
    rows = []
    for row in line.ratings:
        cells = [str(row.generation), f"model {row.model}"]
        for name in opponents:
            estimate = row.elo.get(name)
            pairs = "" if estimate is None else f" ({sum(estimate.pairs)} pairs)"
            cells.append(elo_text(estimate) + pairs)
        rows.append(tuple(cells))
    head = ("Champion", "Model", *(f"Against {OPPONENT_NAMES.get(name, name)}" for name in opponents))
    return _table("Ratings, Elo with 95 % interval", head, rows)


def _figure(title: str, caption: str, chart: str, legend: str, style: str = "") -> str:
    key = f'<ul class="legend">{legend}</ul>' if legend else ""
    head = f"<h3>{escape(title)}</h3><figcaption>{escape(caption)}</figcaption>"
    return f'<figure class="{style}">{head}{key}{chart}</figure>'


def _cards(cards: Sequence[tuple[str, str, str]]) -> str:
    shown = "".join(
        f'<div class="card"><b class="{style}">{escape(value)}</b><span class="soft">{escape(label)}</span></div>'
        for value, label, style in cards
    )
    return f'<div class="cards">{shown}</div>'


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
