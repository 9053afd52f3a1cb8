"""`python -m gamekeeper` is the `gamekeeper` command."""

from gamekeeper.cli.main import entry

entry()
