"""`python -m gamekeeper` is the `gamekeeper` command."""

import sys

from gamekeeper.cli.main import entry

sys.exit(entry())
