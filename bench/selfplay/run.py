"""Positions per second of the bundled game's self-play, and CPU seconds of each stage program.

`--full` also turns the whole cycle in one process, to three promotions (several minutes).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the scripts one after the other; the first failure ends it."""
    commands = [[sys.executable, str(HERE / "stages.py")]]
    promotions = "3" if "--full" in sys.argv[1:] else "1"
    commands.append(
        [sys.executable, str(HERE / "cycle.py"), "--promotions", promotions, "--rating-pairs", "0"]
    )
    for command in commands:
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
