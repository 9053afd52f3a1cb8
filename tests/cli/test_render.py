"""What reaches the terminal."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.cli.render import Cell, Output, Page, printable, wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text())
def test_text_from_elsewhere_cannot_steer_the_terminal(text: str) -> None:
    """A job's error text could move the cursor, set the title or forge lines."""
    page = Page()
    page.line(text or "x")
    page.parts((text, "bold"))
    page.table(("A", "B"), [(text, text)])
    assert all(char.isprintable() or char == "\n" for char in page.text())
    assert page.text().count("\n") == 4
    assert len(printable(text)) == len(text)


@given(st.lists(st.tuples(st.text("ab ", max_size=9), st.integers(0, 10**6)), max_size=5))
def test_columns_line_up(rows: list[tuple[str, int]]) -> None:
    """A table would be unreadable, or a number would stand under the wrong head."""
    page = Page()
    page.table(("NAME", "COUNT"), [(name, Cell(str(count), right=True)) for name, count in rows])
    lines = page.text().splitlines()
    for (name, count), line in zip(rows, lines[1:], strict=True):
        assert line.endswith(f"  {count}") or not name.strip()
        assert len(line) == max(len(line) for line in lines[1:])


def test_only_a_terminal_cuts_the_last_column() -> None:
    """A script would get half a reason."""
    reason = "r" * 200
    page, narrow = Page(), Page(width=40)
    for target in (page, narrow):
        target.table(("JOB", "WHY"), [("17", reason)])
    assert reason in page.text()
    assert max(map(len, narrow.text().splitlines())) == 40
    assert "…" in narrow.text()


@pytest.mark.parametrize(
    ("variables", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_colour_follows_no_color(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], colour: bool
) -> None:
    """Escape codes would end up in logs of people who switched them off."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(Terminal()) is colour
    assert not wants_colour(io.StringIO())


def test_errors_are_one_line_and_a_hint_or_one_json_object() -> None:
    """A script could not tell what went wrong; a person would get a wall of text."""
    plain, machine = io.StringIO(), io.StringIO()
    Output(json=False, err=plain).error(code="usage", message="no\nsuch thing", remedy="try this")
    Output(json=True, err=machine).error(code="usage", message="no\nsuch thing", remedy="try this")
    assert plain.getvalue() == "error: no such thing\nhint: try this\n"
    assert json.loads(machine.getvalue()) == {
        "error": {"code": "usage", "message": "no\nsuch thing", "remedy": "try this"}
    }


def test_talk_is_silent_with_json() -> None:
    """Prose would mix with errors that a program reads."""
    err = io.StringIO()
    output = Output(json=True, err=err)
    output.talk("hello")
    output.hint("do this")
    assert err.getvalue() == ""
