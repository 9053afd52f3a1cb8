"""What the documentation shows works: marked examples run, named commands exist, links lead somewhere."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.commands import Command, command_line
from tests.docs.pages import ROOT, Block, blocks, broken_links, matches, pages

PAGES = pages()
ALL = [
    block for page in PAGES for block in blocks(page.read_text("utf-8"), page.relative_to(ROOT).as_posix())
]
RUNNABLE = sorted({block.page for block in ALL if block.verb == "run"})
TREE = command_line()
_ENTRY = "import sys; from gamekeeper.cli.main import entry; sys.argv[0] = 'gamekeeper'; sys.exit(entry())"


def run(arguments: list[str], folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of the documentation in its page's folder, without a shell."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "COLUMNS": "100"}
    return subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def perform(block: Block, folder: Path) -> None:
    """Do what a block's marker asks for; fails with the page and line of the block."""
    where = f"{block.page}:{block.line}"
    if block.verb == "file:":
        (folder / block.rest).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.rest).write_text(block.text, "utf-8")
    elif block.verb == "run" and block.language == "python":
        done = run([sys.executable, "-"], folder, block.text)
        assert done.returncode == block.exit_code, f"{where}: {done.stderr}"
    elif block.verb == "run":
        assert block.commands(), f"{where}: no line starts with '$ '"
        for command, shown in block.commands():
            program, *arguments = shlex.split(command)
            assert program in {"gamekeeper", "python"}, f"{where}: only gamekeeper and python run here"
            if program == "gamekeeper" and TREE is None:
                pytest.skip("the product has no command line")
            start = [sys.executable] + (["-c", _ENTRY] if program == "gamekeeper" else [])
            done = run([*start, *arguments], folder)
            assert done.returncode == block.exit_code, f"{where}: {command}: {done.stdout}{done.stderr}"
            assert not shown or matches(shown, done.stdout), f"{where}: {command} wrote:\n{done.stdout}"


@pytest.mark.parametrize("page", RUNNABLE)
def test_the_examples_of_a_page_run(page: str, tmp_path: Path) -> None:
    """The first thing a newcomer types would fail."""
    for block in ALL:
        if block.page == page and block.verb:
            perform(block, tmp_path)


def unknown(command: str, tree: Command) -> str:
    """What of a `gamekeeper …` command line the product does not know; empty when it knows everything."""
    here = tree
    for word in shlex.split(command, comments=True)[1:]:
        if word.startswith("-"):
            option = word.split("=")[0]
            if option not in here.options and option not in tree.options:
                return option
        elif word in here.children:
            here = here.children[word]
        elif here.children and not here.runs:
            return word
    return ""


@pytest.mark.skipif(TREE is None, reason="the product has no command line")
@pytest.mark.parametrize("page", sorted({block.page for block in ALL}))
def test_every_command_of_a_page_exists(page: str) -> None:
    """A command that was renamed would live on in the documentation."""
    assert TREE is not None
    shown = [
        (block, command)
        for block in ALL
        if block.page == page and block.language == "console"
        for command, _ in block.commands()
        if command.startswith("gamekeeper")
    ]
    lost = [
        f"{page}:{block.line}: {command}: {unknown(command, TREE)}"
        for block, command in shown
        if unknown(command, TREE)
    ]
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A reader would be sent to a page that was moved or never written."""
    assert broken_links(page) == []


def test_the_readme_runs_something() -> None:
    """A marker that is no longer recognised would switch every example off."""
    assert "README.md" in RUNNABLE
