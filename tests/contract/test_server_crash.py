"""A process that writes to PostgreSQL with many threads is killed at random moments: what it acknowledged is there."""

from __future__ import annotations

import random
from functools import partial

import pytest

from gamekeeper.store import event_log, integrity
from tests.contract.test_store_crash import Fact, missing, work_until_killed
from tests.unit.store import server
from tests.unit.store.rig import TurnedClock

KILLS = 3


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_on_a_server_either() -> None:
    """Breaks if a kill loses an acknowledged write, leaves half of one, or a token or position comes twice."""
    url, rng = server.fresh(), random.Random(3)
    facts: list[Fact] = []
    last = 0
    for seed in range(1, KILLS + 1):
        facts += work_until_killed(url, seed, rng.randint(30, 150))
        with server.open_store(url, TurnedClock()) as store:
            assert store.read(integrity.check) == []
            assert store.read(partial(missing, facts=facts)) == []
            position = store.read(event_log.last_position)
            assert position > last
            last = position
    tokens = [fact[2] for fact in facts if fact[0] == "attempt"]
    assert tokens
    assert len(set(tokens)) == len(tokens)
    server.release(url)
