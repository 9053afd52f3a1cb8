"""The loop in real processes, killed at random moments, resumes by itself and has lost and doubled nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.living_loop import LivingLoop
from tests.waiting import until

KILLS = 8
VICTIMS = ("coordinator", "agent", "job", "warden", "up", "everything")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[LivingLoop]:
    """A loop that has handed in its first shard."""
    living = LivingLoop(tmp_path)
    living.start()
    try:
        until(lambda: living.count("artifact-accepted") >= 2, within_s=60)
        yield living
    finally:
        living.end()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_loop_survives_kills_at_random_moments(loop: LivingLoop, seed: int) -> None:
    """Any state kept only in a process, or written in two steps, is lost or doubled by one of these kills."""
    rng = random.Random(seed)
    for number in range(KILLS):
        target = loop.position() + rng.randrange(1, 25)
        until(lambda target=target: loop.position() >= target, within_s=60)  # type: ignore[misc]
        loop.note_acknowledged()
        victim = VICTIMS[(seed + number) % len(VICTIMS)]
        until(lambda victim=victim: loop.kill(victim, rng.randrange(8)), within_s=30)  # type: ignore[misc]
        if not loop.is_up:
            loop.start()
        loop.check_now()
    games = loop.count("artifact-accepted")
    until(lambda: loop.count("artifact-accepted") >= games + 3, within_s=60)
    until(lambda: loop.count("champion-moved") >= 2, within_s=90)
    loop.check_now()
    loop.note_acknowledged()
    loop.stop()
    loop.check_at_rest()
