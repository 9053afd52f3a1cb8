"""Every write an attempt, an agent or a role can make, tried under an overtaken token: zero rows change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gamekeeper.core.errors import StaleToken
from gamekeeper.core.jobs import Attempt, AttemptState, EndReason
from gamekeeper.core.models import Model
from gamekeeper.store import artifacts, inventory, job_queue, leases, registry
from gamekeeper.store.session import Writing
from tests.unit.store.rig import ENGINES, LEASE_S, PROCESS, SEEN, Rig, everything, open_rig, shard

ROLE = "coordinator"


@dataclass
class Stale:
    """A world in which everything was overtaken once: the first attempt, agent, epoch, candidate and champion."""

    rig: Rig
    over: Attempt
    live: Attempt
    wrong: int
    epoch: int
    decision: int
    first: Model
    second: Model
    third: Model

    @classmethod
    def build(cls, rig: Rig) -> Stale:
        epoch = rig.w(leases.take_role, ROLE, "first", LEASE_S)
        rig.w(leases.take_role, ROLE, "second", LEASE_S, displace=True)
        over = rig.running()
        rig.w(job_queue.end_from_here, over.id, over.token, EndReason.LEASE_EXPIRED, "gone")
        rig.connect(over.node_id, "later")
        rig.turn(100)
        rig.beat("later")
        live = rig.w(job_queue.grant, over.job_id, over.node_id, "later")
        rig.w(job_queue.started, live.id, live.token, PROCESS)
        first, second, third = (rig.model(n) for n in (1, 2, 3))
        rig.crown(first)
        rig.crown(second, first.id)
        decision = rig.decide(f"model/{third.id}")
        return cls(rig, over, live, over.token, epoch, decision, first, second, third)


WRITES: dict[str, Callable[[Writing, Stale], object]] = {
    "started": lambda w, s: job_queue.started(w, s.over.id, s.over.token, PROCESS),
    "started, token of the try before": lambda w, s: job_queue.started(w, s.live.id, s.wrong, PROCESS),
    "finish": lambda w, s: job_queue.finish(
        w, s.over.id, s.over.token, AttemptState.SUCCEEDED, EndReason.FINISHED
    ),
    "finish, token of the try before": lambda w, s: job_queue.finish(
        w, s.live.id, s.wrong, AttemptState.SUCCEEDED, EndReason.FINISHED
    ),
    "finish, token of the try after": lambda w, s: job_queue.finish(
        w, s.over.id, s.live.token, AttemptState.SUCCEEDED, EndReason.FINISHED
    ),
    "end from here": lambda w, s: job_queue.end_from_here(
        w, s.over.id, s.over.token, EndReason.LEASE_EXPIRED, ""
    ),
    "end from here, token of the try before": lambda w, s: job_queue.end_from_here(
        w, s.live.id, s.wrong, EndReason.LEASE_EXPIRED, ""
    ),
    "grant of a running job": lambda w, s: job_queue.grant(w, s.live.job_id, s.live.node_id, "later"),
    "grant to an overtaken agent": lambda w, s: job_queue.grant(
        w, s.live.job_id, s.over.node_id, s.over.incarnation
    ),
    "artifact": lambda w, s: artifacts.register(w, s.over.id, s.over.token, shard(1), games=1, samples=1),
    "artifact, token of the try before": lambda w, s: artifacts.register(
        w, s.live.id, s.wrong, shard(1), games=1, samples=1
    ),
    "refusal": lambda w, s: artifacts.refuse(w, s.over.id, s.over.token, shard(1), problem="nan", detail=""),
    "refusal, token of the try before": lambda w, s: artifacts.refuse(
        w, s.live.id, s.wrong, shard(1), problem="nan", detail=""
    ),
    "beat of an overtaken agent": lambda w, s: leases.beat(
        w, s.over.incarnation, LEASE_S, [leases.Progress(s.live.id, s.live.token, 99)], SEEN
    ),
    "connect of an overtaken agent": lambda w, s: leases.connect_agent(
        w, s.over.node_id, s.over.incarnation, LEASE_S, held=[], slots=1, observation=SEEN
    ),
    "mark a node lost that beats": lambda w, s: inventory.mark_lost(w, s.live.node_id),
    "renew a role": lambda w, s: leases.renew_role(w, ROLE, s.epoch, LEASE_S),
    "release a role": lambda w, s: leases.release_role(w, ROLE, s.epoch),
    "act under a role": lambda w, s: leases.assert_role(w, ROLE, s.epoch),
    "move a champion that moved": lambda w, s: registry.move_champion(
        w, "c4", s.third.id, s.first.id, s.decision
    ),
    "first champion where there is one": lambda w, s: registry.move_champion(
        w, "c4", s.third.id, None, s.decision
    ),
    "reject a model that is decided": lambda w, s: registry.reject(w, s.second.id, "weak", s.decision),
}


@pytest.fixture(params=ENGINES)
def stale(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stale]:
    rig = open_rig(request.param, tmp_path)
    try:
        yield Stale.build(rig)
    finally:
        rig.close()


@pytest.mark.parametrize("name", WRITES)
def test_a_stale_write_changes_no_row(stale: Stale, name: str) -> None:
    """Breaks if a guarded write under an overtaken token has any effect, or fails in silence."""
    before = stale.rig.store.read(everything)
    with pytest.raises(StaleToken):
        stale.rig.store.write(lambda w: WRITES[name](w, stale))
    assert stale.rig.store.read(everything) == before


def test_a_beat_with_a_wrong_token_notes_nothing(stale: Stale) -> None:
    """Breaks if progress is taken for an attempt under the token of an earlier try at the same job."""
    said = [
        leases.Progress(stale.live.id, stale.wrong, 99),
        leases.Progress(stale.over.id, stale.over.token, 99),
    ]
    _, stop = stale.rig.w(leases.beat, "later", LEASE_S, said, SEEN)
    assert stop == sorted([stale.live.id, stale.over.id])
    assert stale.rig.r(job_queue.attempt, stale.live.id).units == 0
    assert stale.rig.r(job_queue.attempt, stale.over.id).units == 0


def test_the_live_attempt_can_do_all_of_it(stale: Stale) -> None:
    """Breaks if the guards refuse those who are in the right, which would make the tests above pass for nothing."""
    rig, live = stale.rig, stale.live
    rig.w(job_queue.started, live.id, live.token, PROCESS)
    assert rig.publish(live, 1)
    assert rig.w(artifacts.refuse, live.id, live.token, shard(2), problem="nan", detail="")
    rig.beat("later", live)
    assert rig.finish(live).result == "applied"
    rig.w(registry.move_champion, "c4", stale.third.id, stale.second.id, stale.decision)
    rig.check()
