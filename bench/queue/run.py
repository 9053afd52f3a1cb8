"""Measures job queues side by side, on a disk that takes the same time for each flush.

    python bench/queue/run.py [--queues gamekeeper,bare] [--cells w1,w4,w32] [--runs 3]

Cells: `send` (jobs/s, one durable call each), `batch` (jobs/s, 1,000 a call), `wN` (N workers of one slot each),
`w1x100` (one worker that takes 100 at a time), `latency` (from before a job is sent to its execution, one idle worker).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from parts import Log, Queue, counted, stamps  # noqa: E402

MODULES = ("ours", "bare", "peers")
CELLS = "send,batch,w1,w4,w32,w1x100,latency"
BATCH = 1000


def queues() -> dict[str, tuple[str, type[Queue], dict[str, Any]]]:
    """All queues that can run here: {name: (module, class, options)}."""
    return {
        name: (module, cls, options)
        for module in MODULES
        for name, (cls, options) in importlib.import_module(module).QUEUES.items()
    }


class Disk:
    """The modelled disk: a folder in memory, and the environment that makes flushes last and be counted."""

    def __init__(self, root: Path, flush_us: int) -> None:
        shim = root / "flush_shim.so"
        subprocess.run(
            [
                os.environ.get("CC", "cc"),
                "-O2",
                "-shared",
                "-fPIC",
                "-o",
                shim,
                HERE / "flush_shim.c",
                "-ldl",
            ],
            check=True,
        )
        self._count = root / "flushes"
        self._count.write_bytes(bytes(4096))
        self.environment = {
            **os.environ, "LD_PRELOAD": str(shim), "FLUSH_COUNT": str(self._count), "FLUSH_US": str(flush_us),
            "PYTHONPATH": str(HERE.parents[1] / "src"),
        }  # fmt: skip

    def flushes(self) -> int:
        counts = [self._count, *filter(None, [os.environ.get("BENCH_POSTGRES_FLUSHES")])]
        return sum(int.from_bytes(Path(count).read_bytes()[:8], "little") for count in counts)


class Cell:
    """One measurement of one queue, in a folder of its own."""

    def __init__(self, disk: Disk, root: Path, name: str, scale: float) -> None:
        self.module, self.cls, self.options = queues()[name]
        self.name, self.disk, self.scale = name, disk, scale
        self.folder = Path(tempfile.mkdtemp(dir=root))
        self.started: list[subprocess.Popen[bytes]] = []

    def role(self, role: str, **more: Any) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            str(Path(__file__)),
            "--role",
            role,
            "--with",
            json.dumps({"queue": self.name, **more}),
        ]
        with (self.folder / f"{role}.err").open("ab") as errors:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors, env=self.disk.environment,
                start_new_session=True,
            )  # fmt: skip

    def run(self, role: str, **more: Any) -> Any:
        done = self.role(role, **more)
        said, _ = done.communicate(timeout=600)
        if done.returncode:
            raise RuntimeError(f"{self.name} {role}: {(self.folder / f'{role}.err').read_text()[-800:]}")
        return json.loads(said or b"null")

    def measure(self, cell: str) -> dict[str, float] | None:
        try:
            self.run("prepare")
            if self.cls.served:
                self.started.append(self.role("serve"))
            if cell in ("send", "batch"):
                return self._sending(cell)
            return self._latency() if cell == "latency" else self._working(cell)
        finally:
            for process in self.started:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _sending(self, cell: str) -> dict[str, float] | None:
        if cell == "batch" and not self.cls.batches:
            return None
        n = max(50, int(self.cls.jobs * self.scale * (0.3 if cell == "send" else 4)))
        before = self.disk.flushes()
        seconds = self.run(cell, n=n)
        return {"rate": n / seconds, "flushes": (self.disk.flushes() - before) / n, "cpu_us": self._cpu() / n}

    def _working(self, cell: str) -> dict[str, float]:
        workers, _, slots = cell[1:].partition("x")
        n = max(200, int(self.cls.jobs * self.scale * (3 if slots else 1) * (0.3 if cell == "w1" else 1)))
        self.run("fill", n=n)
        self._start(int(workers), slots=int(slots or 1), most=n + 10)
        cpu, before = self._cpu(), self.disk.flushes()
        (self.folder / "go").touch()
        self._until(n)
        flushes, cpu = self.disk.flushes() - before, self._cpu() - cpu
        over = sorted(done for _, done in stamps(self.folder))
        low, high = int(len(over) * 0.1), int(len(over) * 0.9) - 1
        rate = (high - low) / max(1e-9, (over[high] - over[low]) / 1e9)
        return {
            "rate": rate,
            "flushes": flushes / max(1, len(over)),
            "cpu_us": cpu / max(1, len(over)),
            "n": len(over),
        }

    def _latency(self) -> dict[str, float]:
        n = 150
        self._start(1, slots=1, most=n + 10, one_by_one=True)
        (self.folder / "go").touch()
        time.sleep(2)
        self.run("paced", n=n)
        self._until(n)
        took = sorted((done - sent) / 1e6 for sent, done in stamps(self.folder) if sent)
        return {"p50": took[len(took) // 2], "p99": took[int(len(took) * 0.99)], "n": len(took)}

    def _start(self, workers: int, **more: Any) -> None:
        self.started += [self.role("work", **more) for _ in range(workers)]
        until = time.monotonic() + 120
        while len(list(self.folder.glob("ready-*"))) < workers:
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name}: workers do not start")
            time.sleep(0.01)

    def _until(self, n: int) -> None:
        last, since = -1, time.monotonic()
        while (now := counted(self.folder)) < n and time.monotonic() - since < 15:
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.02)

    def _cpu(self) -> float:
        """Microseconds of processor time of all processes that were started so far and live."""
        ticks = 0
        for process in self.started:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks * 1e6 / os.sysconf("SC_CLK_TCK")


def act(role: str, given: dict[str, Any]) -> None:
    """Be one process of a cell."""
    _, cls, options = queues()[given["queue"]]
    folder = Path.cwd()
    queue, n, answer = cls(folder, options), given.get("n", 0), None
    if role == "prepare":
        queue.prepare()
    elif role == "serve":
        queue.serve()
    elif role == "work":
        log = Log(folder, given["most"])
        queue.ready(log)
        (folder / f"ready-{os.getpid()}").touch()
        while not (folder / "go").exists():
            time.sleep(0.002)
        queue.work(log, given["slots"], given.get("one_by_one", False))
    elif role == "paced":
        queue.send(5)
        for place in range(n):
            time.sleep(0.025 * (0.5 + place * 0.618034 % 1.0))
            queue.send(1, time.monotonic_ns())
    else:
        warm = 20 if role == "send" else 0
        queue.send(warm)
        since = time.monotonic()
        if role == "send" or not cls.batches:
            queue.send(n)
        else:
            for done in range(0, n, BATCH):
                queue.send_batch(min(BATCH, n - done))
        answer = time.monotonic() - since
    print(json.dumps(answer), flush=True)
    os._exit(0)


def table(found: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """Medians over the runs, as Markdown."""
    cells = list(dict.fromkeys(cell for each in found.values() for cell in each))
    lines = [
        "| queue | cell | jobs/s | flushes/job | CPU µs/job | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        for name, each in found.items():
            if cell in each:
                figures = {key: statistics.median(run[key] for run in each[cell]) for key in each[cell][0]}
                shown = [f"{figures[key]:,.{digits}f}" if key in figures else "" for key, digits in
                         (("rate", 0), ("flushes", 3), ("cpu_us", 0), ("p50", 2), ("p99", 2))]  # fmt: skip
                lines.append(f"| {name} | {cell} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--queues", default="", help="beginnings of names, separated by commas; all by default"
    )
    parser.add_argument("--cells", default=CELLS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of jobs")
    parser.add_argument("--flush-us", type=int, default=1000, help="how long a flush lasts")
    parser.add_argument(
        "--folder", default="/dev/shm", help="where the data lies; in memory, for a steady disk"
    )
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--with", dest="given", default="{}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        act(options.role, json.loads(options.given))
    wanted = [name for name in options.queues.lower().split(",") if name]
    names = [name for name in queues() if not wanted or any(name.lower().startswith(each) for each in wanted)]
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        disk = Disk(Path(folder), options.flush_us)
        for run in range(options.runs):
            turn = [(name, cell) for cell in options.cells.split(",") for name in names]
            random.Random(run).shuffle(turn)
            for name, cell in turn:
                figures = Cell(disk, Path(folder), name, options.scale).measure(cell)
                if figures:
                    found.setdefault(name, {}).setdefault(cell, []).append(figures)
                    shown = ", ".join(f"{key} {value:,.3f}" for key, value in figures.items())
                    print(f"{run} {name} {cell}: {shown}; load {os.getloadavg()[0]:.1f}", flush=True)
    print(table(dict(sorted(found.items()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
