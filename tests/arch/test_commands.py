"""Every command can be learned from its help and driven by a program."""

from __future__ import annotations

import re

import pytest
import typer

from tests.arch.commands import Command, command_line, read

TREE = command_line()


def faults(command: Command) -> list[str]:
    """What a command lacks: `--json`, an example of itself, its exit codes."""
    name = " ".join(("gamekeeper", *command.words))
    found = []
    # A command that answers lines of its standard input answers in JSON anyway.
    if not {"--json", "--stdin"} & command.options:
        found.append(f"{name}: has no --json")
    before, _, codes = command.help.partition("Exit codes:")
    _, _, examples = before.partition("Examples:")
    if not re.search(rf"{re.escape(name)}\b", examples):
        found.append(f"{name}: its help has no example of it below 'Examples:'")
    if not re.search(r"\b0 \w+", codes) or not re.search(r"\b2 \w+", codes):
        found.append(f"{name}: its help does not tell its exit codes, 0 and 2 at least, below 'Exit codes:'")
    return found


@pytest.mark.skipif(TREE is None, reason="the product has no command line")
def test_every_command_has_json_an_example_and_exit_codes() -> None:
    """A command that only its author can use, and no program can read."""
    assert TREE is not None
    commands = [command for command in TREE.walk() if command.words and command.runs and not command.hidden]
    assert commands
    assert [fault for command in commands for fault in faults(command)] == []


def small(help_text: str, as_json: bool = True) -> Command:
    """A command line of one command, `gamekeeper jobs`."""
    app = typer.Typer()

    def jobs(json: bool = typer.Option(False, "--json" if as_json else "--text")) -> None:
        """Nothing."""

    app.callback()(lambda: None)
    app.command("jobs", help=help_text)(jobs)
    return read(typer.main.get_command(app)).children["jobs"]


GOOD = "Jobs.\n\nExamples:\n  gamekeeper jobs --json\n\nExit codes: 0 done, 2 usage."


def test_a_good_command_has_no_faults() -> None:
    """A check that nothing can pass would be switched off."""
    assert faults(small(GOOD)) == []


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (small(GOOD, as_json=False), "--json"),
        (small(GOOD.replace("gamekeeper jobs", "gamekeeper nodes")), "example"),
        (small("Jobs.\n\nExit codes: 0 done, 2 usage."), "example"),
        (small(GOOD.partition("Exit")[0]), "exit codes"),
        (small(GOOD.replace("2 usage", "")), "exit codes"),
    ],
    ids=["json", "other", "none", "codes", "usage"],
)
def test_a_command_that_lacks_something_is_named(command: Command, fault: str) -> None:
    """A check that sees nothing missing would let every command be half done."""
    (found,) = faults(command)
    assert fault in found
