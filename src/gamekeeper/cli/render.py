"""Output: data on stdout, talk on stderr; tables, colour only where it is wanted, nothing that a terminal obeys."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from pydantic import BaseModel

_STYLES = {
    "bold": "1",
    "dim": "2",
    "good": "32",
    "bad": "31",
    "warn": "33",
    "accent": "36",
}
_STATE_STYLES = {
    **dict.fromkeys(("done", "up", "succeeded", "promoted", "champion"), "good"),
    **dict.fromkeys(("failed", "dead", "lost", "hollow", "refused"), "bad"),
    **dict.fromkeys(("waiting", "ready", "unknown", "stopped", "cancelled"), "dim"),
    **dict.fromkeys(("running", "leased", "ending", "candidate"), "accent"),
}


def printable(text: str) -> str:
    """`text` without anything a terminal would obey: control characters and line breaks become spaces."""
    return "".join(char if char.isprintable() else " " for char in text)


def state_style(state: str) -> str:
    """The style in which a state is shown; "" for an unknown one."""
    return _STATE_STYLES.get(state, "")


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell: its text, its style, and whether it stands to the right."""

    text: str
    style: str = ""
    right: bool = False


Row = Sequence["Cell | str"]


class Page:
    """Lines of text with optional styles, built first and written once."""

    def __init__(self, *, colour: bool = False, width: int | None = None) -> None:
        self.colour = colour
        self.width = width
        self.lines: list[str] = []

    def paint(self, text: str, style: str) -> str:
        """`text` in a style, when colour is on."""
        code = _STYLES.get(style, "")
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text else text

    def line(self, text: str = "", style: str = "") -> None:
        """Add one line."""
        self.lines.append(self.paint(printable(text), style).rstrip() if text else "")

    def parts(self, *pieces: tuple[str, str]) -> None:
        """Add one line of several (text, style) pieces."""
        self.lines.append("".join(self.paint(printable(text), style) for text, style in pieces).rstrip())

    def table(self, head: Sequence[str], rows: Sequence[Row], *, indent: int = 0) -> None:
        """Add aligned columns. On a terminal the last column is cut to the width; elsewhere nothing is."""
        cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
        plain = [[printable(cell.text) for cell in row] for row in cells]
        widths = [max(map(len, column)) for column in zip(list(head), *plain, strict=True)]
        if self.width is not None and widths:
            room = self.width - indent - sum(widths[:-1]) - 2 * (len(widths) - 1)
            widths[-1] = min(widths[-1], max(12, room))
        right = [all(row[i].right for row in cells) and bool(cells) for i in range(len(head))]
        self._row([Cell(text, "dim") for text in head], list(head), widths, right, indent)
        for row, texts in zip(cells, plain, strict=True):
            self._row(row, texts, widths, right, indent)

    def _row(
        self, row: Sequence[Cell], texts: list[str], widths: list[int], right: list[bool], indent: int
    ) -> None:
        pieces = []
        for i, (cell, text, wide) in enumerate(zip(row, texts, widths, strict=True)):
            shown = text if len(text) <= wide else text[: wide - 1] + "…"
            padding = " " * (wide - len(shown))
            last = i == len(widths) - 1
            painted = self.paint(shown, cell.style)
            pieces.append(padding + painted if right[i] else painted + ("" if last else padding))
        self.lines.append((" " * indent + "  ".join(pieces)).rstrip())

    def text(self) -> str:
        """The whole page, ending in a line break."""
        return "".join(f"{line}\n" for line in self.lines)


class Output:
    """Where a command writes. `json`: machine-readable data on stdout, and errors as JSON on stderr."""

    def __init__(self, *, json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.json = json
        self.out = out if out is not None else sys.stdout
        self.err = err if err is not None else sys.stderr

    def page(self) -> Page:
        """An empty page for stdout."""
        if not self.out.isatty():
            return Page()
        return Page(colour=wants_colour(self.out), width=_terminal_width())

    def show(self, page: Page) -> None:
        """Write a page on stdout."""
        self.out.write(page.text())
        self.out.flush()

    def data(self, value: BaseModel | Sequence[BaseModel]) -> None:
        """Write a model, or a list of models, as one JSON document."""
        if isinstance(value, Sequence):
            document: object = [item.model_dump(mode="json") for item in value]
        else:
            document = value.model_dump(mode="json")
        self.out.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        self.out.flush()

    def stream(self, values: Iterable[BaseModel]) -> None:
        """Write models as one JSON object a line."""
        for value in values:
            self.out.write(value.model_dump_json() + "\n")
        self.out.flush()

    def document(self, value: dict[str, object]) -> None:
        """Write a plain JSON object."""
        self.out.write(json.dumps(value, ensure_ascii=False) + "\n")
        self.out.flush()

    def talk(self, sentence: str) -> None:
        """Say something to the person; silent with `--json`."""
        if not self.json:
            self.err.write(printable(sentence) + "\n")
            self.err.flush()

    def hint(self, sentence: str) -> None:
        """Name the next thing to do."""
        if sentence:
            self.talk(f"hint: {sentence}")

    def error(self, *, code: str, message: str, remedy: str) -> None:
        """Say what went wrong: one line and a hint, or one JSON object with `--json`."""
        if self.json:
            error = {"code": code, "message": message, "remedy": remedy}
            self.err.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
        else:
            label = Page(colour=wants_colour(self.err)).paint("error:", "bad")
            self.err.write(f"{label} {printable(message)}\n")
            if remedy:
                self.err.write(f"hint: {printable(remedy)}\n")
        self.err.flush()


def wants_colour(stream: TextIO) -> bool:
    """Whether colour is wanted: a terminal that is not dumb, and no NO_COLOR (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 30)).columns
