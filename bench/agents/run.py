"""Ten thousand agents on one coordinator: latency of beats, processor time, and a reconnect storm. Writes a table.

    python bench/agents/run.py [--agents N] [--steady S] [--floods S] [--lease S] [--keep DIR]

The coordinator is started by the product's own command on a fresh folder; this process is the load.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
from floods import flooding
from swarm import Swarm, raise_file_limit

from gamekeeper.core.clock import SystemClock, boot_seconds
from gamekeeper.core.jobs import JobSpec
from gamekeeper.store import job_queue
from gamekeeper.store.engine import Store

CLOCK = SystemClock()


class Coordinator:
    """The coordinator's process."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        self.folder = folder
        self.config = folder / "gamekeeper.toml"
        self.config.write_text(
            f'data_dir = "{folder}"\n[coordinator]\nlease_s = {lease_s}\nport = 0\n[artifacts]\nmin_free_bytes = 0\n'
        )
        self.process: psutil.Popen | None = None

    async def start(self) -> tuple[str, int]:
        """Start it and wait until it answers: its host and port."""
        announced = self.folder / "coordinator.json"
        with (self.folder / "coordinator.log").open("ab") as log:
            self.process = psutil.Popen(
                [*PROFILER, sys.executable, "-m", "gamekeeper", "coordinator", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        while True:
            await asyncio.sleep(0.05)
            with contextlib.suppress(FileNotFoundError, ValueError):
                told = json.loads(announced.read_text())
                if told["pid"] == self.process.pid or PROFILER:
                    host, port = told["url"].removeprefix("http://").split(":")
                    return host, int(port)

    def kill(self) -> None:
        """SIGKILL: no good-bye."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def used(self) -> tuple[float, int]:
        """(processor seconds so far, bytes of resident memory)."""
        assert self.process is not None
        times = self.process.cpu_times()
        return times.user + times.system, self.process.memory_info().rss


PROFILER: list[str] = []


def submit(folder: Path, long: int, short: int) -> None:
    """Put jobs into the store before the coordinator opens it: some that run on, some that end after seconds."""
    with Store.open(folder / "gamekeeper.db", CLOCK) as store:
        for purpose, many in (("", long), ("short", short)):
            spec = JobSpec(
                kind="command", line="bench", command=("true",), purpose=purpose, failures_allowed=1000
            )
            for at in range(0, many, 1000):
                chunk = range(at, min(many, at + 1000))
                store.write(lambda w, spec=spec, chunk=chunk: [job_queue.submit(w, spec) for _ in chunk])


def centile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


@contextlib.asynccontextmanager
async def phase(name: str, swarm: Swarm, coordinator: Coordinator) -> AsyncIterator[None]:
    """Measure what happens inside, and print it."""
    swarm.tally.beats = type(swarm.tally.beats)("d")
    swarm.tally.lag = type(swarm.tally.lag)("d")
    swarm.tally.statuses.clear()
    swarm.tally.claims = 0
    began, (cpu, _) = CLOCK.monotonic(), coordinator.used()
    own = sum(os.times()[:2])
    yield
    took = CLOCK.monotonic() - began
    cpu_now, memory = coordinator.used()
    beats, lag = swarm.tally.beats, swarm.tally.lag
    refused = {f"{call} {status}": n for (call, status), n in swarm.tally.statuses.items() if status != 200}
    print(
        f"{name:8} {took:5.0f} s  {len(beats) / took:6.0f} beats/s  p50 {centile(beats, 0.5) * 1e3:6.1f}"
        f"  p99 {centile(beats, 0.99) * 1e3:6.1f}  max {max(beats, default=float('nan')) * 1e3:6.0f} ms"
        f"  claims/s {swarm.tally.claims / took:5.0f}"
        f"  coordinator {100 * (cpu_now - cpu) / took:4.0f} % of a core,"
        f" {1000 * (cpu_now - cpu) / max(1, len(beats)):5.2f} CPU s/1,000 beats, {memory >> 20} MiB"
        f"  load {100 * (sum(os.times()[:2]) - own) / took:3.0f} %, lag p99 {centile(lag, 0.99) * 1e3:.1f} ms"
        f"  not 200: {refused or 'none'}",
        flush=True,
    )


def lost(folder: Path) -> dict[str, int]:
    """What the store says was lost."""
    with Store.open(folder / "gamekeeper.db", CLOCK) as store:
        return store.read(
            lambda r: {
                "nodes": r.conn.exec_driver_sql("SELECT count(*) FROM nodes").scalar_one(),
                "nodes lost": r.conn.exec_driver_sql(
                    "SELECT count(*) FROM events WHERE name = 'node-lost'"
                ).scalar_one(),
                "attempts": r.conn.exec_driver_sql("SELECT count(*) FROM attempts").scalar_one(),
                "attempts lost": r.conn.exec_driver_sql(
                    "SELECT count(*) FROM attempts WHERE state = 'lost'"
                ).scalar_one(),
            }
        )


async def measure(options: argparse.Namespace, folder: Path) -> int:
    """The whole run; the exit code."""
    n = options.agents
    submit(folder, int(n * options.long), int(n * options.short))
    coordinator = Coordinator(folder, options.lease)
    host, port = await coordinator.start()
    swarm = Swarm(host, port, slots=2, claim_wait_s=options.claim_wait)
    lagging = asyncio.create_task(swarm.watch_lag())
    tokens = {name: (folder / "tokens" / f"{name}.token").read_text().strip() for name in ("join", "admin")}
    try:
        async with phase("enrol", swarm, coordinator):
            await swarm.enrol(n, tokens["join"])
        async with phase("start", swarm, coordinator):
            await swarm.begin(n / options.starts_per_s)
            await until(lambda: swarm.connected == n, swarm, 120)
        async with phase("settle", swarm, coordinator):
            await asyncio.sleep(options.lease / 4)
        async with phase("steady", swarm, coordinator):
            await asyncio.sleep(options.steady)
        for kind in options.flood:
            async with phase(kind, swarm, coordinator), flooding(kind, swarm, tokens["admin"]) as flood:
                await asyncio.sleep(options.floods)
            print(f"         {kind}: {flood}", flush=True)
        if options.storm:
            await storm(swarm, coordinator, options.lease)
    finally:
        lagging.cancel()
        print(
            f"agents: {swarm.connected} connected, {swarm.running} attempts held, {swarm.tally.dropped} ordered to stop"
        )
        print(f"notes: {dict(swarm.tally.notes)}")
        coordinator.stop()
    facts = lost(folder)
    print(f"store: {facts}")
    return 1 if facts["nodes lost"] or facts["attempts lost"] or swarm.tally.dropped else 0


async def storm(swarm: Swarm, coordinator: Coordinator, lease_s: float) -> None:
    """Kill the coordinator, start it again, and wait until everybody is back; then for a lease and a half."""
    n = len(swarm.agents)
    swarm.tally.connects = type(swarm.tally.connects)("d")
    killed, killed_at = CLOCK.monotonic(), boot_seconds()
    coordinator.kill()
    await coordinator.start()
    print(f"storm: answering again after {CLOCK.monotonic() - killed:.1f} s", flush=True)
    async with phase("storm", swarm, coordinator):
        await asyncio.sleep(lease_s / 16)  # by then every broken claim was noticed
        await until(lambda: swarm.connected == n, swarm, 120)
    returns = [at - killed_at for at in swarm.tally.connects]
    most = max(Counter(int(at) for at in returns).values(), default=0)
    print(
        f"storm: {len(returns)} of {n} had to return; the last {max(returns, default=0):.1f} s after the kill,"
        f" at most {most} in a second",
        flush=True,
    )
    async with phase("after", swarm, coordinator):
        await asyncio.sleep(1.3 * lease_s)


async def until(fact: object, swarm: Swarm, within_s: float) -> None:
    """Wait until `fact()`, which must come true in time."""
    assert callable(fact)
    end = CLOCK.monotonic() + within_s
    while not fact():
        if CLOCK.monotonic() > end:
            print(f"NOT in {within_s} s: {swarm.connected} of {len(swarm.agents)} connected", flush=True)
            return
        await asyncio.sleep(0.1)


def main() -> int:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--lease", type=float, default=120.0, help="lease_s; agents beat four times in it")
    parser.add_argument("--claim-wait", type=float, default=None)
    parser.add_argument("--starts-per-s", type=float, default=300.0)
    parser.add_argument("--long", type=float, default=0.1, help="jobs that run on, for each agent")
    parser.add_argument(
        "--short", type=float, default=0.005, help="jobs that end after seconds and come again"
    )
    parser.add_argument("--steady", type=float, default=60.0)
    parser.add_argument("--floods", type=float, default=20.0)
    parser.add_argument("--flood", nargs="*", default=["people", "uploads", "strangers"])
    parser.add_argument("--no-storm", dest="storm", action="store_false")
    parser.add_argument("--keep", type=Path, help="folder for the store; by default a temporary one")
    parser.add_argument("--profiler", default="", help="command that the coordinator is started under")
    options = parser.parse_args()
    if options.claim_wait is None:
        from gamekeeper.agent.config import AgentConfig

        options.claim_wait = AgentConfig.__dataclass_fields__["claim_wait_s"].default
    gc.disable()  # a walk through the objects of ten thousand agents would be measured as delay
    PROFILER.extend(options.profiler.split())
    print(f"{options.agents} agents, lease_s {options.lease:g}, at most {raise_file_limit()} open files")
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        loop = asyncio.new_event_loop
        with contextlib.suppress(ImportError):
            import uvloop

            loop = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(measure(options, folder))


if __name__ == "__main__":
    sys.exit(main())
