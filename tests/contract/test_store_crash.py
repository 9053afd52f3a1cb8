"""A process that writes with many threads is killed at random moments: what it acknowledged is there, all adds up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gamekeeper.core.jobs import AttemptState, JobState
from gamekeeper.core.models import ModelState
from gamekeeper.store import artifacts, event_log, integrity, job_queue, registry
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Reading
from tests.unit.store.rig import TurnedClock

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("crash_child.py")
KILLS = 8

Fact = tuple[str, str, str]


def work_until_killed(path: Path | str, seed: int, lines: int) -> list[Fact]:
    """Let a child work until it has told `lines` facts, kill it, and return all it told."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(seed)], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        told = [line for _, line in zip(range(lines), child.stdout, strict=False)]
        child.send_signal(signal.SIGKILL)
        told += [line for line in child.stdout if line.endswith("\n")]
        assert child.wait() == -signal.SIGKILL
    facts = [line.split() for line in told]
    return [(what, name, rest) for what, name, rest in facts]


def missing(r: Reading, facts: list[Fact]) -> list[Fact]:
    """The facts that the store does not know."""
    moves = {(each.model_id, each.generation) for each in registry.promotions(r, "c4")}
    found: dict[str, Callable[[str, str], bool]] = {
        "job": lambda name, rest: job_queue.get(r, int(name)).spec.key == rest,
        "attempt": lambda name, rest: job_queue.attempt(r, int(name)).token == int(rest),
        "ended": lambda name, rest: job_queue.attempt(r, int(name)).state is AttemptState(rest),
        "cancelled": lambda name, _: job_queue.get(r, int(name)).state is JobState.CANCELLED,
        "artifact": lambda name, rest: name in {each.hash for each in artifacts.by_attempt(r, int(rest))},
        "model": lambda name, rest: registry.get(r, int(name)).hash == rest,
        "rejected": lambda name, _: registry.get(r, int(name)).state is ModelState.REJECTED,
        "champion": lambda name, rest: (int(name), int(rest)) in moves,
    }
    return [fact for fact in facts if not found[fact[0]](fact[1], fact[2])]


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_and_nothing_is_half_done(tmp_path: Path) -> None:
    """Breaks if a kill loses an acknowledged write, tears a transaction, or makes a token or position come twice."""
    path, rng = tmp_path / "gamekeeper.db", random.Random(7)
    facts: list[Fact] = []
    last = 0
    for seed in range(1, KILLS + 1):
        facts += work_until_killed(path, seed, rng.randint(1, 150))
        with Store.open(path, TurnedClock()) as store:
            assert store.read(integrity.check) == []
            assert store.read(partial(missing, facts=facts)) == []
            position = store.read(event_log.last_position)
            assert position > last
            last = position
    assert {fact[0] for fact in facts} == {
        "job", "attempt", "ended", "cancelled", "artifact", "model", "rejected", "champion",
    }  # fmt: skip
    tokens = [fact[2] for fact in facts if fact[0] == "attempt"]
    assert len(set(tokens)) == len(tokens)
