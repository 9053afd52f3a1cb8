"""What an agent is told when it starts."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from gamekeeper.protocol import GpuDevice, Machine
from gamekeeper.settings.schema import AgentSection

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Settings of one agent.

    `folder` is the agent's own (DIR/agent); `join_token` a file, read only when the node has no identity yet. `python`
    is the interpreter that runs the wardens; its folder leads the PATH of the jobs, so that a stage's
    "python" is the one Gamekeeper is installed for. `machine` is what was declared about this machine. Below
    `free_bytes_least` free bytes nothing is started or fetched.
    """

    url: str
    folder: Path
    slots: int
    join_token: Path
    host_name: str
    python: Path = field(default_factory=lambda: Path(sys.executable))
    machine: Machine = field(default_factory=Machine)
    threads: int = 1
    claim_wait_s: float = 50.0
    cache_bytes: int = 2048 * MIB
    free_bytes_least: int = 64 * MIB
    output_head_bytes: int = 2 * MIB
    output_tail_bytes: int = 1 * MIB
    scan_s: float = 0.5
    measure_s: float = 5.0
    shutdown_patience_s: float = 5.0


def declared(section: AgentSection) -> Machine:
    """What the settings say about this machine; what they leave out is measured, or stays unknown."""
    gpus = section.declared_gpus()
    devices = (
        None if gpus is None else [GpuDevice(name=gpu.name, memory_bytes=gpu.memory_bytes) for gpu in gpus]
    )
    return Machine(
        cpus=section.cpus,
        memory_bytes=section.memory_bytes,
        gpus=devices,
        labels=dict(section.labels),
        ephemeral=section.ephemeral,
    )
