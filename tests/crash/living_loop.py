"""A whole loop in real processes, on the tic-tac-toe line, that tests may hurt.

`LivingLoop` starts `gamekeeper up` in a folder of its own, knows every process that belongs to it, kills the ones a
test names, and checks what must hold at any moment and at the end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import blake3
import psutil

from gamekeeper.adapters import processes
from gamekeeper.core.jobs import ProcessIdentity
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 4.0
# These processes are killed while they measure; measuring would only slow every restart.
UNMEASURED = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}


class LivingLoop:
    """`gamekeeper up` on a line small enough to be killed often. `up` is restarted by `start`."""

    def __init__(self, folder: Path, *, selfplay_games: int = 150) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.settings = folder / "gamekeeper.toml"
        self.output = folder / "up.log"
        self.acknowledged: set[str] = set()
        self._up: subprocess.Popen[bytes] | None = None
        shutil.copy(ROOT / "examples/tictactoe/tictactoe.py", folder)
        text = (ROOT / "examples/tictactoe/gamekeeper.toml").read_text()
        text = text.replace('"gamekeeper-data"', '"data"').replace(
            "port = 8018", f"port = 0\nlease_s = {LEASE_S}"
        )
        text = re.sub(r"games = \d+ }", f"games = {selfplay_games} }}", text, count=1)
        self.settings.write_text(text.replace("min_new_samples = 4000", "min_new_samples = 2000"))

    def start(self) -> None:
        """Start `up`, and wait until a coordinator listens."""
        with self.output.open("ab") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "gamekeeper", "up", "--config", str(self.settings)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, cwd=self.folder,
                env=UNMEASURED,
            )  # fmt: skip
        until(self.coordinator_lives, within_s=30)

    def coordinator_lives(self) -> bool:
        """Whether the coordinator that stands in coordinator.json is alive."""
        if self._up is not None and self._up.poll() is not None:
            raise AssertionError(f"up ended with {self._up.returncode}:\n{self.output.read_text()[-3000:]}")
        return self.coordinator() is not None

    def coordinator(self) -> psutil.Process | None:
        """The listening coordinator's process."""
        try:
            pid = int(json.loads((self.data / "coordinator.json").read_text())["pid"])
            process = psutil.Process(pid)
            return process if self._is_ours(process, "coordinator") else None
        except (OSError, ValueError, KeyError, psutil.Error):
            return None

    def agent(self) -> psutil.Process | None:
        """The agent's process, a child of `up`."""
        if self._up is None:
            return None
        try:
            children = psutil.Process(self._up.pid).children()
            return next((child for child in children if self._is_ours(child, "agent")), None)
        except psutil.Error:
            return None

    def _is_ours(self, process: psutil.Process, role: str) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and role in process.cmdline()
        except psutil.Error:
            return False

    def job_processes(self) -> dict[Path, tuple[ProcessIdentity, ProcessIdentity]]:
        """Every attempt folder whose warden or job is alive: (warden, job)."""
        found = {}
        for record in sorted(self.data.glob("agent/attempts/*/identity.json")):
            try:
                document = json.loads(record.read_text())
            except (OSError, ValueError):
                continue
            warden, job = (
                ProcessIdentity(document["boot_id"], document[part]["pid"], document[part]["start_ticks"])
                for part in ("warden", "job")
            )
            if processes.is_alive(warden) or processes.is_alive(job):
                found[record.parent] = (warden, job)
        return found

    def kill(self, victim: str, pick: int) -> bool:
        """SIGKILL the named victim: coordinator, agent, job, warden, up or everything. False: there was none."""
        if victim in ("coordinator", "agent"):
            process = self.coordinator() if victim == "coordinator" else self.agent()
            if process is None:
                return False
            process.kill()
            return True
        if victim in ("job", "warden"):
            living = list(self.job_processes().values())
            if not living:
                return False
            warden, job = living[pick % len(living)]
            return processes.send(warden if victim == "warden" else job, signal.SIGKILL)
        assert self._up is not None
        if victim == "everything":
            for warden, job in self.job_processes().values():
                processes.send(job, signal.SIGKILL)
                processes.send(warden, signal.SIGKILL)
        self._up.kill()
        self._up.wait()
        self._up = None
        return True

    @property
    def is_up(self) -> bool:
        """Whether `up` itself is there."""
        return self._up is not None and self._up.poll() is None

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """Read the store from outside, without disturbing it."""
        connection = sqlite3.connect(f"file:{self.data / 'gamekeeper.db'}?mode=ro", uri=True, timeout=20)
        try:
            return list(connection.execute(query))
        finally:
            connection.close()

    def position(self) -> int:
        """How far the event log has come."""
        return int(str(self.rows("SELECT coalesce(max(position), 0) FROM events")[0][0]))

    def count(self, event: str) -> int:
        """How many events of that name the log holds."""
        return int(str(self.rows(f"SELECT count(*) FROM events WHERE name = '{event}'")[0][0]))

    def note_acknowledged(self) -> None:
        """Remember every artifact the coordinator has made visible so far: none of them may ever be lost."""
        self.acknowledged |= {str(row[0]) for row in self.rows("SELECT hash FROM artifacts")}

    def check_now(self) -> None:
        """What must hold at any moment: no job has two live attempts, in the store or on the machine."""
        twice = self.rows(
            "SELECT job_id, count(*) FROM attempts WHERE state IN ('leased', 'running', 'ending')"
            " GROUP BY job_id HAVING count(*) > 1"
        )
        assert twice == []
        jobs: Counter[int] = Counter()
        for folder, (_, job) in self.job_processes().items():
            if processes.is_alive(job):
                jobs[json.loads((folder / "grant.json").read_text())["job"]] += 1
        assert [job for job, count in jobs.items() if count > 1] == []

    def command(self, *words: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a `gamekeeper` command against this loop."""
        return subprocess.run(
            [sys.executable, "-m", "gamekeeper", *words, "--data-dir", str(self.data)],
            capture_output=True, text=True, timeout=within_s, check=False, cwd=self.folder, env=UNMEASURED,
        )  # fmt: skip

    def stop(self) -> None:
        """End `up` as Ctrl-C does and wait until nothing is left."""
        assert self._up is not None
        self._up.terminate()
        self.wait_for_up()

    def wait_for_up(self) -> int:
        """Wait until `up` has ended by itself and left no job; returns its exit code."""
        assert self._up is not None
        code = self._up.wait(60)
        self._up = None
        until(lambda: not self.job_processes(), within_s=20)
        return code

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self._up is not None:
            self.kill("everything", 0)
        for warden, job in self.job_processes().values():
            processes.send(job, signal.SIGKILL)
            processes.send(warden, signal.SIGKILL)

    def check_at_rest(self) -> None:
        """What must hold once everything has stopped: counters, files and pointers agree with the facts."""
        from gamekeeper.core.clock import SystemClock
        from gamekeeper.store.engine import Store
        from gamekeeper.store.integrity import check

        store = Store.open(self.data / "gamekeeper.db", SystemClock())
        try:
            assert store.read(check) == []
        finally:
            store.close()
        visible = {str(row[0]) for row in self.rows("SELECT hash FROM artifacts")}
        assert self.acknowledged <= visible
        for name in visible:
            file = next((self.data / "artifacts").glob(f"**/{name}"), None)
            assert file is not None, f"artifact {name} is lost"
            assert blake3.blake3(file.read_bytes()).hexdigest() == name
        shards = self.rows("SELECT coalesce(sum(games), 0) FROM artifacts WHERE kind = 'shard'")[0][0]
        counted = self.rows("SELECT coalesce(sum(games), 0) FROM line_counts WHERE kind = 'shard'")[0][0]
        assert shards == counted
        moves = self.rows("SELECT count(*) FROM events WHERE name = 'champion-moved'")[0][0]
        assert moves == self.rows("SELECT count(*) FROM promotions")[0][0]
