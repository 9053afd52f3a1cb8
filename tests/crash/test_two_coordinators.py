"""Real coordinators on one PostgreSQL: one leads, others stand by, and a leader that is gone or late is followed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

import gamekeeper
from gamekeeper.runtime import data_dir
from tests.unit.store.server import server
from tests.waiting import until

LEASE_S = 3.0
INCARNATION = "a1" * 16
SCRIPT = """
import os
import sys
from gamekeeper import bootstrap
from gamekeeper.core.errors import GamekeeperError
from gamekeeper.runtime import telemetry
from gamekeeper.settings import resolve
telemetry.configure(as_json=False)
flags = {"data_dir": sys.argv[1], "coordinator.port": 0, "coordinator.lease_s": float(sys.argv[2])}
try:
    sys.exit(bootstrap.run_coordinator(resolve({"store": {"url": os.environ["STORE"]}}, environment={}, flags=flags)))
except GamekeeperError as error:
    print(error.message, "|", error.remedy, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@dataclass
class Site:
    """A data folder and a database that several coordinators share."""

    folder: Path
    store: str
    running: list[subprocess.Popen[bytes]]

    def start(self) -> subprocess.Popen[bytes]:
        """A further coordinator."""
        environment = {
            **os.environ, "PYTHONPATH": str(Path(gamekeeper.__file__).parents[1]), "STORE": self.store,
        }  # fmt: skip
        log = self.folder / f"log-{len(self.running)}"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(self.folder / "data"), str(LEASE_S)],
                env=environment, stdout=stream, stderr=stream,
            )  # fmt: skip
        self.running.append(process)
        return process

    def log(self, process: subprocess.Popen[bytes]) -> str:
        return (self.folder / f"log-{self.running.index(process)}").read_text()

    def url(self) -> str:
        """Where the leader says it answers."""
        return data_dir.announced_url(self.folder / "data")

    def ask(self, words: str) -> tuple[float, ...]:
        """One row of the database."""
        with psycopg.connect(self.store) as raw:
            row = raw.execute(words).fetchone()
        assert row is not None
        return tuple(map(float, row))

    def now(self) -> float:
        return self.ask("SELECT extract(epoch FROM clock_timestamp())")[0]

    def role(self) -> tuple[float, ...]:
        """(epoch, when it was taken)."""
        return self.ask("SELECT coalesce(max(epoch), 0), coalesce(max(taken_at), 0) FROM roles")

    def leads(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether the role is this process's, and it said where it answers."""
        assert process.poll() is None, self.log(process)
        with psycopg.connect(self.store) as raw:
            try:
                row = raw.execute("SELECT holder FROM roles WHERE released = 0").fetchone()
            except psycopg.errors.UndefinedTable:
                return False
        return row is not None and f"process {process.pid} " in row[0] and row[0].endswith(f"at {self.url()}")

    def stands_by(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.log(process)
        return "standing by" in self.log(process)

    def call(
        self, path: str, body: object = None, token: str = "join", url: str = "", seconds: float = 20
    ) -> httpx.Response:
        secret = token if len(token) > 10 else data_dir.token_file(self.folder / "data", token)
        shown = {"Authorization": f"Bearer {secret}"}
        with httpx.Client(
            base_url=url or self.url(), headers=shown, trust_env=False, timeout=seconds
        ) as client:
            return client.request("GET" if body is None else "POST", path, json=body)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    built = Site(folder, server().create("coordinators"), [])
    (folder / "data").mkdir()
    try:
        yield built
    finally:
        for process in built.running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


OBSERVED = {"cpu_count": 1, "memory_bytes": 1, "disk_free_bytes": None, "load": 0.0}


class Agent:
    """Beats as an agent does, to whomever the data folder names; counts what it was told."""

    def __init__(self, here: Site, credential: str) -> None:
        self._here, self._credential = here, credential
        self.answers: list[int] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def __enter__(self) -> Agent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def heard(self) -> None:
        """Wait for the next beat that is answered well."""
        seen = self.answers.count(200)
        until(lambda: self.answers.count(200) > seen)

    def _beat(self) -> None:
        body = {"incarnation": INCARNATION, "observed": OBSERVED, "attempts": []}
        while not self._ending.wait(LEASE_S / 8):
            try:
                answer = self._here.call("/v1/agent/beat", body, self._credential, seconds=1)
            except httpx.TransportError:
                continue
            self.answers.append(answer.status_code)


@pytest.mark.slow
def test_the_role_passes_on_and_an_agent_keeps_its_lease(tmp_path: Path) -> None:
    """Breaks if a standby takes over late, serves early, or a leader that wakes from a pause still has a say."""
    with site(tmp_path) as here:
        first = here.start()
        until(lambda: here.leads(first))
        enrolled = here.call("/v1/enrol", {"protocol": 1, "host_name": "h", "slots": 1}).json()
        connect = {"protocol": 1, "incarnation": INCARNATION, "slots": 1, "held": [], "observed": OBSERVED}
        credential = enrolled["credential"]
        assert here.call("/v1/agent/connect", connect, credential).status_code == 200
        with Agent(here, credential) as agent:
            pass_it_on(here, first, agent)
        assert set(agent.answers) <= {200, 503}, "an agent that beats keeps its lease whoever leads"


def pass_it_on(here: Site, first: subprocess.Popen[bytes], agent: Agent) -> None:
    """Let the leader end in order, be killed, and be paused."""
    second = here.start()
    until(lambda: here.stands_by(second))
    port = here.log(second)
    assert f"process {first.pid}" in port
    released = here.now()
    first.send_signal(signal.SIGTERM)
    until(lambda: here.leads(second))
    assert first.wait(20) == 0
    agent.heard()
    in_order = here.role()[1] - released

    third = here.start()
    until(lambda: here.stands_by(third))
    killed = here.now()
    second.kill()
    until(lambda: here.leads(third))
    agent.heard()
    after_kill = here.role()[1] - killed
    assert after_kill <= LEASE_S + 1

    fourth = here.start()
    until(lambda: here.stands_by(fourth))
    late_url = here.url()
    stopped = here.now()
    third.send_signal(signal.SIGSTOP)
    until(lambda: here.leads(fourth))
    epoch, taken = here.role()
    assert taken - stopped <= LEASE_S + 1
    agent.heard()
    third.send_signal(signal.SIGCONT)
    try:
        late = here.call("/v1/stop", {"reason": "from the past"}, "admin", url=late_url)
        assert late.status_code == 503, late.text
    except httpx.TransportError:
        pass
    assert third.wait(20) == 5
    assert "another process took the coordinator's role" in here.log(third)
    assert here.role() == (epoch, taken)
    assert here.call("/v1/status", token="admin").json()["draining"] is False
    assert here.url() != late_url, "the late one must not withdraw or announce an address"
    assert in_order <= LEASE_S, "a role given back need not run out"
    print(f"\ntaken over {in_order:.2f} s after release, {after_kill:.2f} s after a kill,", end=" ")
    print(f"{taken - stopped:.2f} s after a pause")


@pytest.mark.slow
def test_one_that_stands_by_asks_callers_to_come_back(tmp_path: Path) -> None:
    """Breaks if a standby answers as if it led, or a load balancer cannot tell it from the leader."""
    with site(tmp_path) as here:
        first = here.start()
        until(lambda: here.leads(first))
        second = here.start()
        until(lambda: here.stands_by(second))
        leader = here.url()
        port = standby_port(second)
        other = f"http://127.0.0.1:{port}"
        assert here.call("/healthz/leader", url=leader).status_code == 200
        assert here.call("/healthz", url=leader).status_code == 200
        assert here.call("/healthz/leader", url=other).status_code == 503
        assert here.call("/healthz", url=other).json()["status"] == "standing by"
        busy = here.call("/v1/status", token="admin", url=other)
        assert (busy.status_code, busy.json()["code"]) == (503, "busy")
        assert int(busy.headers["Retry-After"]) >= 1
        assert busy.json()["retry_after_s"] > 0
        assert f"process {first.pid}" in busy.json()["message"]


def standby_port(process: subprocess.Popen[bytes]) -> int:
    """The port it listens on, though it has told nobody."""
    import psutil

    return next(
        int(each.laddr.port)
        for each in psutil.Process(process.pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    )
