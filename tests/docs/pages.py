"""The documentation as tests see it: fenced blocks with their markers, commands, and links.

A block runs as a test when a marker stands on the line above its fence:

    <!-- run -->             run it; every command must end with exit code 0
    <!-- run exit=2 -->      run it; every command must end with this code
    <!-- file: NAME -->      write the block to this file first, for the blocks that follow it on the page

In a `console` block, lines starting with `$ ` are commands; lines after a command are its output, in which `...` stands
for anything. A `python` block is a program. All blocks of a page share one empty folder, in the order of the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(
    r"^(?:<!-- (?P<verb>run|file:)(?P<rest>[^>]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: where, what, and what its marker asks for. `verb` is run, file: or empty."""

    page: str
    line: int
    language: str
    text: str
    verb: str
    rest: str

    @property
    def exit_code(self) -> int:
        found = re.fullmatch(r"exit=(\d+)", self.rest)
        return int(found.group(1)) if found else 0

    def commands(self) -> list[tuple[str, str]]:
        """The commands of a console block, each with the output the page shows (empty: none shown)."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:].split("  #")[0].strip(), []))
            elif found:
                found[-1][1].append(line)
        return [(command, "\n".join(output).strip()) for command, output in found]


def pages(root: Path = ROOT) -> list[Path]:
    """Every page of the documentation: Markdown in the root and below docs/."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def blocks(text: str, page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(
            page=page,
            line=text[: match.start("text")].count("\n"),
            language=match["language"],
            text=match["text"],
            verb=match["verb"] or "",
            rest=(match["rest"] or "").strip(),
        )
        for match in _FENCE.finditer(text)
    ]


def matches(shown: str, written: str) -> bool:
    """Whether a command wrote what the page shows; `...` stands for any text, and trailing blanks do not count."""
    shown, written = (
        "\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (shown, written)
    )
    pattern = ".*".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, written, re.DOTALL) is not None


def anchor(heading: str) -> str:
    """The name under which a heading can be linked to."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(page: Path) -> list[str]:
    """Relative links of a page that lead to no file or no heading."""
    text = page.read_text("utf-8")
    text_without_blocks = _FENCE.sub("", text)
    found = []
    for match in _LINK.finditer(text_without_blocks):
        target = match[1] or match[2]
        if re.match(r"\w+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            found.append(f"{page.name}: {target} leads to nothing")
        elif fragment and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            if fragment not in map(anchor, headings):
                found.append(f"{page.name}: {target}: no such heading")
    return found
