"""The checks of the documentation catch what is wrong in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from tests.arch.commands import read
from tests.docs.pages import blocks, broken_links, matches
from tests.docs.test_examples import perform, unknown

FENCE = "```"


def page(marker: str, language: str, text: str) -> str:
    return f"# A page\n\n{marker}\n{FENCE}{language}\n{text}\n{FENCE}\n"


def test_only_marked_blocks_run() -> None:
    """Every example would run, also one that starts a fleet."""
    (unmarked,) = blocks(page("", "console", "$ gamekeeper up"), "a.md")
    (marked,) = blocks(page("<!-- run exit=2 -->", "console", "$ gamekeeper up"), "a.md")
    assert (unmarked.verb, marked.verb, marked.exit_code) == ("", "run", 2)
    assert marked.line == 4


def test_commands_are_told_from_their_output() -> None:
    """Output would be run, or a command taken for output."""
    (block,) = blocks(page("", "console", "$ gamekeeper jobs   # all\nID\n17\n$ gamekeeper nodes"), "a.md")
    assert block.commands() == [("gamekeeper jobs", "ID\n17"), ("gamekeeper nodes", "")]


@pytest.mark.parametrize(
    ("shown", "written", "same"),
    [
        ("17 done", "17 done  \n", True),
        ("17 ... done", "17 train done", True),
        ("ID\n...", "ID\n17\n18\n", True),
        ("17 done", "17 failed", False),
        ("17", "170", False),
        ("a.b", "axb", False),
    ],
)
def test_output_is_compared(shown: str, written: str, same: bool) -> None:
    """A page would show output that no version ever wrote."""
    assert matches(shown, written) == same


def test_a_failing_program_is_caught(tmp_path: Path) -> None:
    """An example that ends with an error would be shown as working."""
    (good,) = blocks(page("<!-- run -->", "python", "open('made', 'w').close()"), "a.md")
    perform(good, tmp_path)
    assert (tmp_path / "made").exists()
    (bad,) = blocks(page("<!-- run -->", "python", "raise SystemExit(3)"), "a.md")
    with pytest.raises(AssertionError, match=r"a\.md:4"):
        perform(bad, tmp_path)


def test_a_file_block_is_written_for_the_blocks_after_it(tmp_path: Path) -> None:
    """An example that needs a file would have to be taken on trust."""
    (file,) = blocks(page("<!-- file: games/own.toml -->", "toml", "a = 1"), "a.md")
    perform(file, tmp_path)
    (use,) = blocks(page("<!-- run -->", "console", "$ python games/own.toml"), "a.md")
    with pytest.raises(AssertionError, match=r"a\.md:4"):
        perform(blocks(page("<!-- run -->", "console", "$ rm -rf games"), "a.md")[0], tmp_path)
    (tmp_path / "games" / "own.toml").write_text("print('ran')", "utf-8")
    perform(use, tmp_path)


def test_unknown_commands_and_options_are_named() -> None:
    """A renamed option would live on in the documentation."""
    app, group = typer.Typer(), typer.Typer()

    def jobs(state: str = typer.Option("", "--state")) -> None:
        """Nothing."""

    app.callback()(lambda: None)
    app.command("jobs")(jobs)
    group.command("play")(jobs)
    group.command("show")(jobs)
    app.add_typer(group, name="demo")
    tree = read(typer.main.get_command(app))
    assert unknown("gamekeeper jobs --state=ready 17", tree) == ""
    assert unknown("gamekeeper demo play --help", tree) == ""
    assert unknown("gamekeeper job", tree) == "job"
    assert unknown("gamekeeper jobs --stat x", tree) == "--stat"
    assert unknown("gamekeeper demo ply", tree) == "ply"


def test_broken_links_are_named(tmp_path: Path) -> None:
    """A link checker that finds every link good is worth nothing."""
    (tmp_path / "b.md").write_text("# What it is: a page\n", "utf-8")
    good = "[b](b.md) [c](b.md#what-it-is-a-page) [d](#here) [e](https://example.com/x)"
    (tmp_path / "a.md").write_text(f"# Here\n{good}\n[g](no.md) [h](b.md#no) [i](#no)\n", "utf-8")
    assert broken_links(tmp_path / "a.md") == [
        "a.md: no.md leads to nothing",
        "a.md: b.md#no: no such heading",
        "a.md: #no: no such heading",
    ]
