"""The command line as a tree that tests can walk: names, options and help of every command."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer


@dataclass(frozen=True)
class Command:
    """One command: its words after `gamekeeper`, its options, its help, and the commands below it."""

    words: tuple[str, ...]
    options: frozenset[str]
    arguments: int
    help: str
    hidden: bool
    runs: bool
    children: dict[str, Command]

    def walk(self) -> Iterator[Command]:
        """This command and all below it."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def read(command: Any, words: tuple[str, ...] = (), hidden: bool = False) -> Command:
    """The tree below a command of typer's; a group counts as one that runs when it may be called alone."""
    below = getattr(command, "commands", {})
    hidden = hidden or bool(command.hidden)
    flags = [
        flag
        for option in command.params
        for flag in (*option.opts, *option.secondary_opts)
        if flag.startswith("-")
    ]
    return Command(
        words=words,
        options=frozenset([*flags, "--help"]),
        arguments=sum(not option.opts[0].startswith("-") for option in command.params),
        help=command.help or "",
        hidden=hidden,
        runs=not below or bool(command.invoke_without_command),
        children={name: read(child, (*words, name), hidden) for name, child in below.items()},
    )


def command_line() -> Command | None:
    """The product's command tree; None while the product has no command line."""
    if importlib.util.find_spec("gamekeeper.cli") is None:
        return None
    return read(typer.main.get_command(importlib.import_module("gamekeeper.cli.main").build()))
