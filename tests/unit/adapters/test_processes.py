"""Process identity: dead is dead, and a signal reaches exactly the process it was meant for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gamekeeper.adapters import processes
from tests.waiting import until


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "GAMEKEEPER_MARK": "mark-of-this-test"}
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], env=environment)
    yield child
    child.kill()
    child.wait()


def test_a_zombie_counts_as_dead(sleeper: subprocess.Popen[bytes]) -> None:
    """Where PID 1 reaps late, a dead job would otherwise seem to run on."""
    found = processes.identity(sleeper.pid)
    assert found is not None
    assert processes.is_alive(found)
    assert processes.send(found, signal.SIGKILL)
    assert processes.wait_gone(found, 10.0)
    status = until(lambda: processes.status(sleeper.pid))
    assert status.state == "Z"
    assert not processes.is_alive(found)
    assert not processes.send(found, signal.SIGKILL)


def test_only_the_exact_identity_is_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    """Each of the three parts must match, or nobody is signalled."""
    found = processes.identity(sleeper.pid)
    assert found is not None
    for wrong in (
        replace(found, boot_id="0"),
        replace(found, start_ticks=found.start_ticks + 1),
        replace(found, pid=0),
        replace(found, pid=-1),
        replace(found, pid=1 << 40),
        replace(found, pid=found.pid + 100_000_000),
    ):
        assert not processes.send(wrong, signal.SIGKILL)
        assert processes.wait_gone(wrong, 0.0)
    assert sleeper.poll() is None


def test_processes_are_found_by_their_environment(sleeper: subprocess.Popen[bytes]) -> None:
    """Descendants of a dead warden are known by nothing else; a prefix of the value is not the value."""
    found = processes.identity(sleeper.pid)
    assert until(lambda: processes.with_variable("GAMEKEEPER_MARK", "mark-of-this-test")) == [found]
    assert processes.with_variable("GAMEKEEPER_MARK", "mark-of-this") == []


def test_a_name_with_brackets_does_not_confuse_the_status() -> None:
    """The command name in /proc/PID/stat may hold spaces and brackets."""
    program = "import ctypes,time; ctypes.CDLL(None).prctl(15, b'a) R 1 (b'); print('x', flush=True); time.sleep(100)"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        found = processes.status(child.pid)
        assert found is not None
        assert found.parent == os.getpid()
        assert found.start_ticks > 1000
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
