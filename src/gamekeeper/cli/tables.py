"""The pages of the reading commands: each is a pure function of the coordinator's answer and the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gamekeeper.cli import units
from gamekeeper.cli.render import Cell, Page, state_style
from gamekeeper.inspection import (
    AttemptRow,
    EventRow,
    JobRow,
    LineRow,
    ModelRow,
    NodeRow,
    PromotionTest,
    Status,
)

STAGE_ORDER = ("found", "selfplay", "train", "evaluate", "command")


def right(text: str, style: str = "") -> Cell:
    """A cell that stands to the right, as numbers do."""
    return Cell(text, style, right=True)


def state(text: str) -> Cell:
    """A cell with a state, in the state's colour."""
    return Cell(text, state_style(text))


def counts(amounts: Mapping[str, int], *, none: str = "none") -> str:
    """ "2 running, 1 ready", without the zeros."""
    return ", ".join(f"{units.count(value)} {name}" for name, value in amounts.items() if value) or none


def stages(row: LineRow) -> str:
    """Which stages have live jobs: "selfplay 2, train 1 ready"."""
    order = [*STAGE_ORDER, *sorted(set(row.stages) - set(STAGE_ORDER))]
    shown = []
    for kind in order:
        live = {name: amount for name, amount in row.stages.get(kind, {}).items() if amount}
        if set(live) == {"running"}:
            shown.append(f"{kind} {live['running']}")
        elif live:
            shown.append(f"{kind} {counts(live)}")
    return " · ".join(shown) or "idle"


def test_summary(test: PromotionTest | None) -> str:
    """The running promotion test: the candidate's score with its interval, and how far the test is."""
    if test is None:
        return "no candidate"
    pairs = sum(test.pairs)
    score = score_of(test.pairs)
    elo = (
        f" Elo {units.signed(test.elo)} {units.interval(test.low, test.high)}" if test.elo is not None else ""
    )
    shown = "no pairs yet" if score is None else f"{units.percent(score)} of {pairs} pairs{elo}"
    return f"model {test.model}: {shown} · LLR {test.llr:+.2f} in [{test.lower:+.2f}, {test.upper:+.2f}]"


def test_in_short(test: PromotionTest | None) -> str:
    """ "model 7: 71.1 % of 32 pairs", for a table."""
    score = None if test is None else score_of(test.pairs)
    if test is None:
        return "none"
    return f"model {test.model}: " + (
        "no pairs yet" if score is None else f"{units.percent(score)} of {sum(test.pairs)} pairs"
    )


def score_of(pairs: Sequence[int]) -> float | None:
    """The share of points that pentanomial counts (pairs worth 0, ½, 1, 1½, 2) amount to; `None` without pairs."""
    total = sum(pairs)
    return sum(i * amount for i, amount in enumerate(pairs)) / (4 * total) if total else None


def line_facts(row: LineRow, now: float) -> list[tuple[str, str]]:
    """Where one line's loop stands, as (name, text): stage, data, candidate, last decision with its reason."""
    loss = "none yet" if row.loss is None else f"{row.loss:.3f}"
    since = units.count(row.samples_since_training)
    facts = [
        ("stage", stages(row)),
        ("data", f"{units.count(row.verified_games)} verified games, {units.count(row.samples)} samples ({since} since"
                 f" the last training), training loss {loss}"),
        ("candidate", test_summary(row.test)),
    ]  # fmt: skip
    verdict = row.last_verdict
    if verdict is not None:
        facts.append(("last decision", f"{verdict.sentence} [{verdict.reason}] {units.ago(verdict.at, now)}"))
    return facts


def status_page(page: Page, status: Status) -> Page:
    """The verdict first, then what needs attention, then supply and demand."""
    style = {True: "good", False: "bad", None: "warn"}[status.healthy]
    page.line(status.verdict + (" (draining)" if status.draining else ""), style)
    for item in status.attention:
        page.parts(("  ! ", "warn"), (f"{item.subject}: ", "bold"), (item.sentence, ""))
        if item.hint:
            page.line(f"    hint: {item.hint}", "dim")
    for row in status.lines:
        page.line()
        page.parts(
            (f"line {row.line}  ", "bold"), (f"{champion(row)}, {units.promotions(row.promotions)}", "")
        )
        for name, text in line_facts(row, status.at):
            page.parts((f"  {name:<14} ", "dim"), (text, ""))
    page.line()
    use = f"{status.slots_busy} of {status.slots} busy"
    if status.slot_utilisation is not None:
        use += f" ({units.percent(status.slot_utilisation)} since the first claim)"
    page.line(f"slots  {use}")
    page.line(f"nodes  {counts(status.nodes)}")
    page.line(f"jobs   {counts(status.jobs)}")
    return page


def lines_table(page: Page, rows: Sequence[LineRow]) -> Page:
    """Lines with their champions, data, live stages and last verdict."""
    head = ("LINE", "CHAMPION", "GEN", "GAMES", "SAMPLES", "LOSS", "STAGES", "CANDIDATE", "WHY")
    page.table(
        head,
        [
            (
                Cell(row.line, "bold"),
                champion(row),
                right(units.count(row.generation)),
                right(units.count(row.verified_games)),
                right(units.count(row.samples)),
                right(units.UNKNOWN if row.loss is None else f"{row.loss:.3f}"),
                stages(row),
                test_in_short(row.test),
                "" if row.last_verdict is None else row.last_verdict.reason,
            )
            for row in rows
        ],
    )
    return page


def champion(row: LineRow) -> str:
    """The champion of a line: its model and the start of its hash."""
    if row.champion is None:
        return "none yet"
    return f"model {row.champion} ({(row.champion_hash or '')[:8]})"


def jobs_table(page: Page, rows: Sequence[JobRow], now: float) -> Page:
    """Jobs with their latest attempt; the last column says why they are in their state."""
    head = ("JOB", "KIND", "LINE", "STATE", "NODE", "PROGRESS", "FAILURES", "LOSSES", "AGE", "WHY")
    page.table(
        head,
        [
            (
                right(str(row.id)),
                f"{row.kind} ({row.purpose})" if row.purpose else row.kind,
                row.line,
                state(row.state),
                row.node or "-",
                f"{units.count(row.units)} {row.unit}",
                right(str(row.failures), "bad" if row.failures else ""),
                right(str(row.losses), "warn" if row.losses else ""),
                right(units.duration((row.ended_at or now) - row.created_at)),
                row.why,
            )
            for row in rows
        ],
    )
    return page


def nodes_table(page: Page, rows: Sequence[NodeRow], now: float) -> Page:
    """Nodes with what they have and do."""
    head = ("NODE", "HOST", "STATUS", "SLOTS", "BUSY", "CPUS", "MEMORY", "DISK FREE", "LOAD", "LAST SEEN")
    page.table(
        head,
        [
            (
                Cell(row.id, "bold"),
                row.host_name,
                state(row.status if row.excluded_until is None else "excluded"),
                right(str(row.slots)),
                right(str(row.busy)),
                right(units.count(row.cpu_count)),
                right(units.size(row.memory_bytes)),
                right(units.size(row.disk_free_bytes)),
                right(units.UNKNOWN if row.load is None else f"{row.load:.1f}"),
                units.ago(row.last_seen_at, now),
            )
            for row in rows
        ],
    )
    return page


def models_table(page: Page, rows: Sequence[ModelRow], now: float) -> Page:
    """Models with their parents and how they fared."""
    head = ("MODEL", "LINE", "HASH", "STATE", "PARENT", "STEPS", "SAMPLES", "LOSS", "AGE", "WHY")
    page.table(
        head,
        [
            (
                right(str(row.id)),
                row.line,
                row.hash[:8],
                state("champion" if row.champion else row.state),
                right("-" if row.parent is None else str(row.parent)),
                right(units.count(row.steps)),
                right(units.count(row.samples)),
                right(units.UNKNOWN if row.loss is None else f"{row.loss:.3f}"),
                right(units.duration(now - row.created_at)),
                row.why,
            )
            for row in rows
        ],
    )
    return page


def attempts_table(page: Page, rows: Sequence[AttemptRow], now: float, *, indent: int = 0) -> Page:
    """Attempts with how they ended."""
    head = ("ATTEMPT", "NODE", "STATE", "UNITS", "LEASED", "TOOK", "WHY")
    page.table(
        head,
        [
            (
                right(str(row.id)),
                row.node,
                state(row.state),
                right(units.count(row.units)),
                units.ago(row.leased_at, now),
                right(units.duration((row.ended_at or now) - row.leased_at)),
                (row.reason or "-") + (f": {row.detail}" if row.detail else ""),
            )
            for row in rows
        ],
        indent=indent,
    )
    return page


def event_line(page: Page, row: EventRow) -> Page:
    """One event in a line: position, time, name, then its fields."""
    fields = " ".join(
        f"{name}={_field(value)}" for name, value in row.fields.items() if value not in (None, "")
    )
    page.parts(
        (f"{row.position:>7}  {units.clock_time(row.at)}  ", "dim"),
        (f"{row.name:<20}", "bold"),
        (f"  {fields}", ""),
    )
    return page


def fact(value: object) -> str:
    """A JSON value for a person: hashes cut to their start, nested objects as "evaluate 1 ready, train 1 running"."""
    if isinstance(value, Mapping):
        inner = [(name, nested) for name, nested in value.items() if nested not in (None, 0, "", {}, [])]
        return ", ".join(
            f"{name} {fact(nested)}" if isinstance(nested, Mapping) else f"{fact(nested)} {name}"
            for name, nested in inner
        ) or "none"  # fmt: skip
    if isinstance(value, list):
        return ", ".join(map(fact, value)) or "none"
    return _field(value) if isinstance(value, str) and len(value) == 64 else units.number(value)


def _field(value: object) -> str:
    text = str(value)
    if len(text) == 64 and all(char in "0123456789abcdef" for char in text):
        return text[:8]
    return repr(text) if " " in text else text
