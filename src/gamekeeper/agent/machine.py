"""What the agent measures of its machine; `None` where it cannot."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from gamekeeper.agent.input_cache import free_bytes
from gamekeeper.protocol import Machine, Observed

T = TypeVar("T")


def observe(folder: Path) -> Observed:
    """A fresh look: CPUs this process may use, memory, load of the last minute, free bytes below `folder`."""
    return Observed(
        cpu_count=_measured(lambda: len(os.sched_getaffinity(0))),
        memory_bytes=_measured(lambda: int(psutil.virtual_memory().total)),
        disk_free_bytes=_measured(lambda: free_bytes(folder)),
        load=_measured(lambda: os.getloadavg()[0]),
    )


def describe(declared: Machine) -> Machine:
    """What this machine is: as it was declared, with the processor architecture looked up where it was not."""
    if declared.architecture is not None:
        return declared
    return declared.model_copy(update={"architecture": platform.machine() or None})


def _measured(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except OSError:
        return None
