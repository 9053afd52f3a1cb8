"""`python -m gamekeeper.cli`: how `up` starts its child processes, whatever the console script is called."""

from __future__ import annotations

import sys

from gamekeeper.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())
