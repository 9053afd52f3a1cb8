"""The tic-tac-toe stages with faults on order: a file `order-NAME` beside this one is used up by the next fitting job.

Run by an agent as `python sabotage.py STAGE`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import tictactoe  # type: ignore[import-not-found]

from gamekeeper.client import Job

Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
FOLDER = Path(__file__).resolve().parent
_save = np.savez_compressed


def ordered(name: str) -> bool:
    """Whether that fault was ordered; the first to ask gets it."""
    try:
        (FOLDER / f"order-{name}").unlink()
    except FileNotFoundError:
        return False
    return True


def spoil(**arrays: Array) -> dict[str, Array]:
    """The arrays of a shard with the ordered damage."""
    if ordered("nan"):
        arrays["outcomes"] = np.full_like(arrays["outcomes"], np.nan)
    elif ordered("shape"):
        arrays["outcomes"] = arrays["outcomes"].reshape(-1, 1)
    elif ordered("no-targets"):
        del arrays["outcomes"]
    return arrays


def save(out: BinaryIO, **arrays: Array) -> None:
    """Stands in for numpy's function of that name."""
    _save(out, **cast("dict[str, Any]", spoil(**arrays)))


if __name__ == "__main__":
    stage = sys.argv[1]
    if ordered(f"hollow-{stage}"):
        sys.exit(0)
    np.savez_compressed = save  # type: ignore[assignment]
    tictactoe.STAGES[stage](Job.from_environment())
