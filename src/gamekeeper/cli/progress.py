"""Live progress of a demo: a picture that redraws itself on a terminal, plain lines elsewhere. All on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from gamekeeper.cli import tables, units
from gamekeeper.cli.render import Page, wants_colour
from gamekeeper.inspection import LineRow, Status

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_EVERY_S = 10.0
ATTENTION_SHOWN = 3


class Progress(Protocol):
    """What the run tells its watcher."""

    def update(self, phase: str, status: Status | None, elapsed_s: float) -> None:
        """Show the newest state; `status` is `None` while the coordinator does not answer."""


def progress_page(page: Page, phase: str, status: Status | None, elapsed_s: float) -> Page:
    """The whole picture: phase and time, then each line with its stage, data, candidate and last decision."""
    page.parts((f"{units.duration(elapsed_s):>12}  ", "dim"), (phase, "bold"))
    if status is None:
        return page
    for row in status.lines:
        page.parts(
            (f"{row.line:>12}  ", "accent"),
            (tables.champion(row), ""),
            (f", {units.promotions(row.promotions)}", ""),
        )
        for name, text in tables.line_facts(row, status.at):
            page.parts((f"{name:>12}  ", "dim"), (text, ""))
    use = f"{status.slots_busy} of {status.slots} busy"
    if status.slot_utilisation is not None:
        use += f", {units.percent(status.slot_utilisation)} since the first claim"
    page.parts((f"{'slots':>12}  ", "dim"), (use, ""))
    for item in status.attention[:ATTENTION_SHOWN]:
        page.parts((f"{'attention':>12}  ", "warn"), (f"{item.subject}: {item.sentence}", ""))
    return page


def plain_line(phase: str, row: LineRow, status: Status, elapsed_s: float) -> str:
    """One line of the loop in one line of text, for a log file."""
    facts = " | ".join(f"{name} {text}" for name, text in tables.line_facts(row, status.at))
    slots = f"slots {status.slots_busy}/{status.slots} busy"
    return f"[{units.duration(elapsed_s)}] {phase} | {row.line}: {units.promotions(row.promotions)} | {facts} | {slots}"


class PlainProgress:
    """Plain lines, at most one a line every ten seconds, sooner when the phase or the promotions change."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._said_at: float | None = None
        self._said: tuple[str, tuple[int, ...]] = ("", ())

    def update(self, phase: str, status: Status | None, elapsed_s: float) -> None:
        """Write the lines that are due."""
        marks = (phase, () if status is None else tuple(row.promotions for row in status.lines))
        due = self._said_at is None or elapsed_s - self._said_at >= PLAIN_EVERY_S
        if not due and marks == self._said:
            return
        self._said_at, self._said = elapsed_s, marks
        page = Page()
        if status is None or not status.lines:
            page.line(f"[{units.duration(elapsed_s)}] {phase}")
        else:
            for row in status.lines:
                page.line(plain_line(phase, row, status, elapsed_s))
            for item in status.attention[:ATTENTION_SHOWN]:
                page.line(f"  ! {item.subject}: {item.sentence}")
        self._err.write(page.text())
        self._err.flush()


class LiveProgress:
    """The picture on a terminal."""

    def __init__(self, live: Live, colour: bool) -> None:
        self._live = live
        self._colour = colour

    def update(self, phase: str, status: Status | None, elapsed_s: float) -> None:
        """Redraw."""
        from rich.text import Text

        page = progress_page(Page(colour=self._colour), phase, status, elapsed_s)
        self._live.update(
            Text.from_ansi(page.text().rstrip("\n"), no_wrap=True, overflow="ellipsis"), refresh=True
        )


class SilentProgress:
    """Nothing at all, for `--json`."""

    def update(self, phase: str, status: Status | None, elapsed_s: float) -> None:
        """Say nothing."""


@contextmanager
def watching(err: TextIO, *, silent: bool) -> Iterator[Progress]:
    """The progress display that suits the stream."""
    if silent:
        yield SilentProgress()
    elif not err.isatty():
        yield PlainProgress(err)
    else:
        from rich.console import Console
        from rich.live import Live

        colour = wants_colour(err)
        console = Console(file=err, no_color=not colour, highlight=False)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield LiveProgress(live, colour)
