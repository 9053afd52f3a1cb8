"""Child processes: restarted with growing delays, given up when that is no use, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gamekeeper
from gamekeeper.core.clock import SystemClock
from gamekeeper.runtime.supervisor import (
    EXITS_FOR_GOOD,
    Child,
    ChildSupervisor,
    GiveUp,
    Restart,
    RestartPolicy,
)
from tests.unit.server.rig import run
from tests.waiting import until

QUICK = RestartPolicy(first_s=0.01, most_s=0.05, steady_s=60.0)


@given(
    exit_code=st.integers(-64, 255).filter(lambda code: code not in EXITS_FOR_GOOD),
    ran_s=st.floats(0, 1000),
    streak=st.integers(0, 10_000),
    chance=st.floats(0, 1, exclude_max=True),
)
def test_delays_grow_are_jittered_and_bounded(
    exit_code: int, ran_s: float, streak: int, chance: float
) -> None:
    """A crash loop could spin, or a child stay away for ever."""
    policy = RestartPolicy()
    after = policy.after_exit(exit_code, ran_s, streak, chance)
    assert isinstance(after, Restart)
    ceiling = min(policy.most_s, policy.first_s * 2 ** min(0 if ran_s >= policy.steady_s else streak, 30))
    assert ceiling / 2 <= after.delay_s <= ceiling
    assert after.streak == (1 if ran_s >= policy.steady_s else streak + 1)


@pytest.mark.parametrize("exit_code", sorted(EXITS_FOR_GOOD))
def test_what_a_restart_cannot_mend_is_given_up(exit_code: int) -> None:
    """Wrong settings or a second coordinator could be retried for ever without a word."""
    assert RestartPolicy().after_exit(exit_code, 1.0, 0, 0.5) == GiveUp(exit_code)


def python(script: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", script, *arguments)


def test_a_crashing_child_is_restarted_until_it_ends_for_good(tmp_path: Path) -> None:
    """A killed coordinator could stay away."""
    script = (
        "import os, sys, signal\n"
        "tries = len(os.listdir(sys.argv[1]))\n"
        "open(os.path.join(sys.argv[1], str(tries)), 'w').close()\n"
        "if tries == 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(1 if tries == 1 else 5)\n"
    )
    seen: list[int] = []
    supervisor = ChildSupervisor(SystemClock(), policy=QUICK, noticed=lambda _child, code: seen.append(code))
    child = Child("one", python(script, str(tmp_path)))
    assert run(supervisor.run([child])) == 5
    assert seen == [-9, 1, 5]
    assert len(list(tmp_path.iterdir())) == 3


WAITER = (
    "import signal, sys, time\n"
    "def leave(*_):\n"
    "    open(sys.argv[1], 'a').write(sys.argv[2]); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, leave)\n"
    "open(sys.argv[1] + sys.argv[2], 'w').close()\n"
    "while True: time.sleep(60)\n"
)


def test_the_end_of_one_stops_the_others_in_reverse_order(tmp_path: Path) -> None:
    """A child could be left behind when its supervisor ends, or the coordinator end before its agent."""
    log = tmp_path / "log"
    children = [Child(name, python(WAITER, str(log), name)) for name in ("a", "b")]

    async def scene() -> None:
        supervisor = ChildSupervisor(SystemClock(), policy=QUICK)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, children)
            while not all((tmp_path / f"log{name}").exists() for name in ("a", "b")):
                await SystemClock().sleep(0.01)
            tasks.cancel_scope.cancel()
        assert supervisor.pids == {}

    run(scene())
    assert log.read_text() == "ba"


def test_a_child_that_will_not_stop_is_ended(tmp_path: Path) -> None:
    """A child that ignores the polite word could keep its supervisor for ever."""
    script = (
        "import signal, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'w').close()\nwhile True: time.sleep(60)\n"
    )
    mark = tmp_path / "mark"

    async def scene() -> None:
        supervisor = ChildSupervisor(SystemClock(), stop_grace_s=0.1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run, [Child("deaf", python(script, str(mark)))])
            while not mark.exists():
                await SystemClock().sleep(0.01)
            tasks.cancel_scope.cancel()

    run(scene())


def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    """A SIGKILL of `up` could leave a coordinator running that nobody watches."""
    script = (
        "import anyio, sys\n"
        "from gamekeeper.core.clock import SystemClock\n"
        "from gamekeeper.runtime.supervisor import Child, ChildSupervisor\n"
        "child = Child('c', (sys.executable, '-c', sys.argv[1], sys.argv[2]))\n"
        "anyio.run(ChildSupervisor(SystemClock()).run, [child])\n"
    )
    child = "import os, sys, time\nopen(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    mark = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": str(Path(gamekeeper.__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, "-c", script, child, str(mark)], env=environment)
    pid = int(until(lambda: mark.read_text() if mark.exists() else ""))
    started = psutil.Process(pid).create_time()
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    def gone() -> bool:
        try:
            process = psutil.Process(pid)
            return process.create_time() != started or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    until(gone)
