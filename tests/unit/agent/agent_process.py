"""A real agent process against a served fake coordinator, and jobs for it written as small Python programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from gamekeeper.adapters import processes
from gamekeeper.agent.attempt_dir import AttemptDir, ProcessRecord
from gamekeeper.core.jobs import ProcessIdentity
from tests.unit.agent.fake_coordinator import JOIN_TOKEN
from tests.waiting import until

_MAIN = """
import json, sys, anyio
from pathlib import Path
from gamekeeper.agent.config import AgentConfig
from gamekeeper.agent.start import run_agent
from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import GamekeeperError
options = json.loads(sys.argv[1])
for name in ("folder", "join_token"):
    options[name] = Path(options[name])
try:
    anyio.run(run_agent, AgentConfig(**options), SystemClock())
except GamekeeperError as error:
    print(json.dumps(error.as_json()), file=sys.stderr)
    sys.exit(error.exit_code)
"""

PRELUDE = """
import hashlib, json, os, signal, sys, time
from pathlib import Path
here = Path(os.environ["GAMEKEEPER_JOB_DIR"])
parameters = json.loads((here / "parameters.json").read_text())
def receipt(**evidence):
    (here / "receipt.part").write_text(json.dumps(evidence))
    os.replace(here / "receipt.part", here / "receipt.json")
def seal(name, data, **metadata):
    (here / "outbox" / name).write_bytes(data)
    part = here / "outbox" / f".{name}.part"
    part.write_text(json.dumps({"artifact": "shard", "bytes": len(data), "hash": None, "metadata": metadata}))
    os.replace(part, here / "outbox" / f"{name}.seal")
def mark(name, text=""):
    part = (here / name).with_name(".mark.part")
    part.write_text(text)
    os.replace(part, here / name)
"""


def job(program: str) -> list[str]:
    """The command of a job that runs this program after the prelude."""
    return [sys.executable, "-I", "-S", "-c", PRELUDE + program]


class AgentProcess:
    """Starts, kills and ends agent processes on one folder."""

    def __init__(self, folder: Path, url: str, before: tuple[str, ...] = (), **options: object) -> None:
        self._before = before
        self.folder = folder / "agent"
        self.log = folder / "agent.log"
        token = folder / "join.token"
        token.write_text(JOIN_TOKEN + "\n")
        self.options: dict[str, object] = {
            "url": url, "folder": str(self.folder), "slots": 1, "join_token": str(token), "host_name": "test",
            "claim_wait_s": 5.0, "scan_s": 0.1, "measure_s": 0.5, "shutdown_patience_s": 1.0,
            "free_bytes_least": 1 << 20, **options,
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environment["GAMEKEEPER_TOKEN"] = "must-not-leak"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._before, sys.executable, "-c", _MAIN, json.dumps(self.options)],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def end(self, within_s: float = 30.0) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def place(self, attempt: int = 1) -> AttemptDir:
        return AttemptDir(self.folder / "attempts" / str(attempt))

    def record(self, attempt: int = 1) -> ProcessRecord:
        """The recorded processes, once they run."""
        return until(lambda: self.place(attempt).processes())

    def await_mark(self, name: str, attempt: int = 1) -> str:
        path = self.place(attempt).job / name
        until(path.exists)
        return path.read_text()

    def clean_up(self) -> None:
        """Leave no process behind, whatever the test did."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)
        attempts = self.folder / "attempts"
        for root in attempts.iterdir() if attempts.is_dir() else ():
            record = AttemptDir(root).processes()
            if record is not None:
                processes.send(record.warden, signal.SIGKILL)
                processes.send(record.job, signal.SIGKILL)


def until_gone(identity: ProcessIdentity, within_s: float = 20.0) -> None:
    until(lambda: not processes.is_alive(identity), within_s)
