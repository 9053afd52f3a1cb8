"""Wall time of the demo's stage programs with the bundled settings, two processes side by side, start included.

PYTHONPATH=src OMP_NUM_THREADS=1 python bench/selfplay/stages.py
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from blake3 import blake3

import gamekeeper.demo

LINE: dict[str, Any] = tomllib.loads((Path(gamekeeper.demo.__file__).parent / "connect4.toml").read_text())[
    "lines"
]["connect4"]
SEEDS = itertools.count(7)


def start(
    folder: Path, kind: str, wanted: dict[str, Any], inputs: dict[str, list[Path]], seed: int
) -> subprocess.Popen[bytes]:
    (folder / "inputs").mkdir(parents=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for role, paths in inputs.items():
        for path in paths:
            content = path.read_bytes()
            digest = blake3(content).hexdigest()
            (folder / "inputs" / f"{digest}.npz").write_bytes(content)
            row = {"path": f"inputs/{digest}.npz", "hash": digest, "bytes": len(content), "metadata": {}}
            rows.setdefault(role, []).append(row)
    spec = {"protocol": 1, "job": 1, "attempt": 1, "token": 1, "kind": kind, "line": "connect4", "seed": seed}
    spec |= {
        "threads": 1,
        "grace_s": 10.0,
        "parameters": LINE[kind]["parameters"],
        "wanted": wanted,
        "inputs": rows,
    }
    (folder / "parameters.json").write_text(json.dumps(spec))
    environment = {
        **os.environ,
        "GAMEKEEPER_JOB_DIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen([sys.executable, "-m", f"gamekeeper.demo.{kind}"], env=environment)


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(root: Path, kind: str, wanted: list[dict[str, Any]], inputs: dict[str, list[Path]]) -> list[Path]:
    """Run one process for each entry of `wanted`, all at once; returns their main outputs."""
    began, used = time.perf_counter(), cpu_of_children()
    folders = [root / f"{kind}-{number}-{time.monotonic_ns()}" for number in range(len(wanted))]
    jobs = [
        start(folder, kind, each, inputs, next(SEEDS))
        for k, (folder, each) in enumerate(zip(folders, wanted, strict=True))
    ]
    failed = [job.wait() for job in jobs]
    assert not any(failed), failed
    receipts = [json.loads((folder / "receipt.json").read_text()) for folder in folders]
    numbers = {k: v for k, v in receipts[0].items() if isinstance(v, int | float)}
    wall, cpu = time.perf_counter() - began, (cpu_of_children() - used) / len(wanted)
    print(f"{kind} x {len(wanted)}: {wall:.1f} s wall, {cpu:.1f} CPU seconds each, {numbers}", flush=True)
    return [
        next(path for path in (folder / "outbox").iterdir() if path.suffix != ".seal") for folder in folders
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        games, pairs = LINE["selfplay"]["wanted"], LINE["evaluation"]["pairs_per_job"]
        founder = timed(root, "found", [{}], {})
        shards = timed(root, "selfplay", [games, games], {"model": founder})
        shards += timed(root, "selfplay", [games, games], {"model": founder})
        window = {"samples": LINE["training"]["window_samples"]}
        candidate = timed(root, "train", [window], {"model": founder, "shards": shards})
        for opponent in ("model", "alphabeta:4", "random"):
            wanted = [{"opponent": opponent, "pairs": pairs, "first_pair": first} for first in (0, pairs)]
            inputs = {"candidate": candidate} | ({"opponent": founder} if opponent == "model" else {})
            timed(root, "evaluate", wanted, inputs)


if __name__ == "__main__":
    main()
