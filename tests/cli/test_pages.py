"""The pages of the reading commands, as they were approved. `BLESS=1` writes changed pages for the diff to be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gamekeeper.cli import explanation, progress, report, tables
from gamekeeper.cli.render import Page
from tests.cli import samples

SNAPSHOTS = Path(__file__).parent / "snapshots"
NOW = samples.NOW
PAGES: dict[str, Callable[[Page], Page]] = {
    "status": lambda page: tables.status_page(page, samples.STATUS),
    "lines": lambda page: tables.lines_table(page, [samples.LINE, samples.EMPTY_LINE]),
    "jobs": lambda page: tables.jobs_table(page, [samples.JOB, samples.DONE_JOB], NOW),
    "nodes": lambda page: tables.nodes_table(page, [samples.NODE], NOW),
    "models": lambda page: tables.models_table(page, [samples.MODEL], NOW),
    "events": lambda page: tables.event_line(page, samples.EVENT),
    "why": lambda page: explanation.why_page(page, samples.WHY, NOW),
    "progress": lambda page: progress.progress_page(page, "turning", samples.STATUS, 75.0),
    "report": lambda page: report.report_page(page, samples.REPORT),
    "report-empty": lambda page: report.report_page(page, samples.EMPTY_REPORT),
}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_as_approved(name: str) -> None:
    """A column, unit, verdict or hint would change unnoticed."""
    text = PAGES[name](Page()).text()
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("BLESS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_colour_changes_nothing_but_colour(name: str) -> None:
    """People with and without colour would read different things."""
    import re

    painted = PAGES[name](Page(colour=True)).text()
    plain = [line.rstrip() for line in re.sub(r"\x1b\[\d+m", "", painted).splitlines()]
    assert plain == PAGES[name](Page()).text().splitlines()


def test_unknown_health_looks_neither_good_nor_bad() -> None:
    """A coordinator that cannot tell would be painted green or red."""
    shades = {
        healthy: tables.status_page(
            Page(colour=True), samples.STATUS.model_copy(update={"healthy": healthy})
        ).lines[0]
        for healthy in (True, False, None)
    }
    assert len(set(shades.values())) == 3


def test_a_subject_without_verdicts_says_so() -> None:
    """`why` would show an empty space where the reason should be."""
    bare = samples.WHY.model_copy(update={"verdicts": [], "attempts": [], "events": []})
    assert "none was recorded" in explanation.why_page(Page(), bare, NOW).text()


def test_an_unmeasured_number_is_called_unmeasured() -> None:
    """Evidence that is missing would read as zero or as a value."""
    text = explanation.why_page(Page(), samples.WHY, NOW).text()
    assert "mirror  not measured" in text


def test_plain_progress_is_sparse_but_never_misses_a_promotion() -> None:
    """A log would be flooded, or the one line that matters would be missing."""
    import io

    err = io.StringIO()
    display = progress.PlainProgress(err)
    for second in range(25):
        promotions = 1 if second < 13 else 2
        line = samples.LINE.model_copy(update={"promotions": promotions})
        display.update("turning", samples.STATUS.model_copy(update={"lines": [line]}), float(second))
    display.update("measuring", None, 25.0)
    said = [line for line in err.getvalue().splitlines() if not line.startswith("  !")]
    assert "  ! node/n-2: not heard for 2 min" in err.getvalue().splitlines()
    assert [line.split("]")[0] for line in said] == ["[0 s", "[10 s", "[13 s", "[23 s", "[25 s"]
    assert "2 promotions" in said[2]
    assert "measuring" in said[4]


def test_a_terminal_gets_a_picture_that_is_gone_at_the_end_and_a_program_gets_nothing() -> None:
    """Progress would scroll the terminal full, or break the JSON of a program."""
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, silent = Terminal(), Terminal()
    with progress.watching(terminal, silent=False) as display:
        display.update("turning", samples.STATUS, 75.0)
        display.update("measuring", None, 76.0)
    with progress.watching(silent, silent=True) as display:
        display.update("turning", samples.STATUS, 75.0)
    assert "1,024 verified games" in terminal.getvalue()
    assert "measuring" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[?25h") or "\x1b[2K" in terminal.getvalue()
    assert silent.getvalue() == ""
