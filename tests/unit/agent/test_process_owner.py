"""The process owner and its wardens with real processes: whatever a job does, it ends, and only it is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from gamekeeper.adapters import processes
from gamekeeper.agent.attempt_dir import AttemptDir, ProcessRecord
from gamekeeper.agent.config import AgentConfig
from gamekeeper.agent.endings import Exit
from gamekeeper.agent.process_owner import ProcessOwner, Standing
from gamekeeper.core.clock import SystemClock, boot_seconds
from gamekeeper.core.errors import Refused
from gamekeeper.protocol import Grant
from tests.unit.agent.agent_process import job, until_gone
from tests.unit.agent.core_world import grant
from tests.waiting import until

pytestmark = pytest.mark.slow

FOREVER = 'mark("running")\nwhile True: time.sleep(0.05)\n'
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER


class Stage:
    """A process owner and the attempts a test starts with it."""

    def __init__(self, folder: Path) -> None:
        config = AgentConfig(
            "http://127.0.0.1:1", folder, 1, folder / "none", "test",
            output_head_bytes=20_000, output_tail_bytes=10_000,
        )  # fmt: skip
        self.folder = folder
        self.owner = ProcessOwner(config, SystemClock(), boot_seconds)
        self.places: list[AttemptDir] = []

    def start(
        self, program: str | list[str], ahead_s: float = 60.0, **changes: object
    ) -> tuple[AttemptDir, ProcessRecord]:
        command = job(program) if isinstance(program, str) else program
        given: Grant = grant(len(self.places) + 1).model_copy(update={"command": command, **changes})
        place = AttemptDir(self.folder / str(given.attempt))
        place.make(given)
        self.places.append(place)
        now = boot_seconds()
        return place, self.owner.start(place, given, now + ahead_s, now + ahead_s + 1.0)

    def running(self, place: AttemptDir, name: str = "running") -> str:
        path = place.job / name
        until(path.exists)
        return path.read_text()

    def end(self, place: AttemptDir, record: ProcessRecord, within_s: float = 20.0) -> Exit:
        assert anyio.run(self.owner.gone, place, record, within_s), "the warden lives on"
        return self.owner.settle(place)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for place in stage.places:
        record = place.processes()
        if record is not None:
            processes.send(record.warden, signal.SIGKILL)
        stage.owner.settle(place)


def test_a_job_that_ignores_sigterm_is_killed_after_its_grace(stage: Stage) -> None:
    """Without the last rung a stubborn job would hold its slot for ever."""
    place, record = stage.start(STUBBORN, grace_s=0.5)
    stage.running(place)
    stage.owner.stop(place, record)
    exit_ = stage.end(place, record)
    assert (exit_.cause, exit_.signal) == ("stopped", signal.SIGKILL)
    assert not processes.is_alive(record.job)


def test_a_polite_job_is_asked_before_it_is_told(stage: Stage) -> None:
    """A job without a SIGTERM handler must get its chance to hand in what it has."""
    program = 'mark("running")\nwhile not (here / "stop").exists(): time.sleep(0.02)\nreceipt(games=1)\n'
    place, record = stage.start(program, grace_s=8.0)
    stage.running(place)
    stage.owner.stop(place, record)
    exit_ = stage.end(place, record)
    assert (exit_.cause, exit_.exit_code, exit_.receipt) == ("stopped", 0, {"games": 1})


def test_daemonised_children_end_with_their_job(stage: Stage) -> None:
    """A double fork into a session of its own must not escape: it would hold CPU and memory unseen."""
    program = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        mark("daemon", str(os.getpid()))
        while True: time.sleep(1)
    os._exit(0)
while not (here / "go").exists(): time.sleep(0.02)
receipt(games=1)
"""
    place, record = stage.start(program)
    daemon = processes.identity(int(stage.running(place, "daemon")))
    assert daemon is not None
    (place.job / "go").touch()
    exit_ = stage.end(place, record)
    assert (exit_.cause, exit_.exit_code) == ("exited", 0)
    assert not processes.is_alive(daemon)
    assert json.loads((place.root / "exit.json").read_text())["leftovers"] == 1


def test_the_deadline_can_be_moved_and_is_kept(stage: Stage) -> None:
    """A warden that read its deadline once would kill jobs whose lease was renewed, or none at all."""
    place, record = stage.start(FOREVER, ahead_s=1.0, grace_s=0.5)
    later = boot_seconds() + 2.5
    place.write_deadline(later, later + 0.5)
    assert not anyio.run(stage.owner.gone, place, record, 1.6)
    exit_ = stage.end(place, record)
    assert exit_.cause == "deadline"
    assert boot_seconds() < later + 3.0


def test_the_hard_deadline_cuts_the_grace_short(stage: Stage) -> None:
    """A long grace must not carry a job beyond its lease."""
    place, record = stage.start(STUBBORN, ahead_s=1.0, grace_s=600.0)
    exit_ = stage.end(place, record, 8.0)
    assert (exit_.cause, exit_.signal) == ("deadline", signal.SIGKILL)


def test_a_torn_deadline_is_not_obeyed(stage: Stage) -> None:
    """Half a number read while it is written must not kill a healthy job."""
    place, record = stage.start(FOREVER, ahead_s=60.0)
    stage.running(place)
    (place.root / "deadline").write_text("12.0 13.0 9")
    assert not anyio.run(stage.owner.gone, place, record, 0.8)


def test_the_time_limit_is_kept(stage: Stage) -> None:
    """A hanging job must not run for ever."""
    place, record = stage.start(FOREVER, time_limit_s=0.5, grace_s=0.5)
    assert stage.end(place, record).cause == "time-limit"


def test_long_output_is_bounded_and_both_ends_are_kept(stage: Stage) -> None:
    """A talkative job must not fill the disk, nor lose its first words or its last."""
    program = """
print("first words", flush=True)
for _ in range(3000): sys.stdout.write("x" * 1000 + "\\n")
print("last words", flush=True)
sys.stderr.write("e" * 200_000 + "the cause")
sys.exit(3)
"""
    place, record = stage.start(program)
    exit_ = stage.end(place, record)
    assert exit_.exit_code == 3
    assert exit_.errors.endswith("the cause")
    sizes = {path.name: path.stat().st_size for path in place.root.glob("std*")}
    assert sum(sizes.values()) <= 2 * (20_000 + 2 * 10_000)
    assert (place.root / "stdout").read_text().startswith("first words")
    assert (place.root / "stdout.tail").read_text().endswith("last words\n")


def test_a_missing_program_is_named(stage: Stage) -> None:
    """ "cannot start" without the name helps nobody; nothing may be left running."""
    with pytest.raises(Refused, match=r"no-such-program.*No such file"):
        stage.start(["no-such-program", "x"])
    assert not stage.owner.warden_lives(stage.places[0])
    with pytest.raises(Refused, match="zero byte"):
        stage.start(["a\0b"])


def test_a_killed_warden_leaves_nothing(stage: Stage) -> None:
    """The job and what it started, in its group or not, must not outlive the one who can stop it."""
    program = (
        """
if os.fork() == 0:
    os.setsid()
    mark("child", str(os.getpid()))
    while True: time.sleep(1)
"""
        + FOREVER
    )
    place, record = stage.start(program)
    child = processes.identity(int(stage.running(place, "child")))
    assert child is not None
    processes.send(record.warden, signal.SIGKILL)
    exit_ = stage.end(place, record)
    assert exit_.cause == "vanished"
    until_gone(record.job, 5.0)
    assert not processes.is_alive(child)


@pytest.mark.parametrize("wrong", ["boot_id", "start_ticks"])
def test_a_reused_pid_is_never_signalled(stage: Stage, wrong: str) -> None:
    """A number that now belongs to somebody else must be left alone, whoever wrote it down."""
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        place, record = stage.start(FOREVER, grace_s=0.5)
        stage.running(place)
        true = processes.identity(bystander.pid)
        assert true is not None
        forged = {"boot_id": true.boot_id, "pid": true.pid, "start_ticks": true.start_ticks}
        forged[wrong] = "another-boot" if wrong == "boot_id" else true.start_ticks - 1
        person = {"pid": forged["pid"], "start_ticks": forged["start_ticks"]}
        document = {"boot_id": forged["boot_id"], "warden": person, "job": person, "started_at": 1.0}
        (place.root / "identity.json").write_text(json.dumps(document))
        doctored = place.processes()
        assert doctored is not None
        stage.owner.stop(place, doctored)
        stage.owner.put_down(place, doctored)
        exit_ = stage.end(place, doctored)
        assert exit_.cause in ("stopped", "deadline", "vanished", "exited")
        assert bystander.poll() is None, "a bystander was signalled"
        until_gone(record.job)
    finally:
        bystander.kill()
        bystander.wait()


def test_standing_tells_the_four_cases_apart(stage: Stage) -> None:
    """A restarted agent that mistakes a live attempt for a dead one would start it twice."""
    never = AttemptDir(stage.folder / "77")
    never.make(grant(77))
    assert stage.owner.standing(never) is Standing.NEVER
    place, record = stage.start(FOREVER, grace_s=0.2)
    assert stage.owner.standing(place) is Standing.LIVE
    other = ProcessOwner(stage.owner._config, SystemClock(), boot_seconds)
    assert other.standing(place) is Standing.LIVE
    stage.owner.stop(place, record)
    stage.end(place, record)
    assert other.standing(place) is Standing.ENDED
    (place.root / "exit.json").unlink()
    assert other.standing(place) is Standing.VANISHED


def test_an_attempt_is_not_started_twice(stage: Stage) -> None:
    """The second start must neither run nor harm the first."""
    place, record = stage.start(FOREVER, grace_s=0.2)
    stage.running(place)
    with pytest.raises(Refused, match="already"):
        stage.owner.start(place, grant(1).model_copy(update={"command": ["true"]}), 1e9, 1e9)
    assert processes.is_alive(record.job)


def test_the_job_runs_in_a_session_of_its_own(stage: Stage) -> None:
    """A Ctrl-C at the terminal, or a signal to the agent's group, must not reach jobs."""
    place, record = stage.start(FOREVER)
    job_status, warden_status = processes.status(record.job.pid), processes.status(record.warden.pid)
    assert job_status is not None
    assert warden_status is not None
    assert job_status.session == job_status.group == record.job.pid
    assert warden_status.session == record.warden.pid != os.getsid(0)
    assert job_status.parent == record.warden.pid
    assert place.processes() == record
