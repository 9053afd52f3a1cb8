"""The executor: recorded before it is applied, all or nothing for each action, nothing without the role."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gamekeeper.core.actions import (
    Action,
    CancelJob,
    EndAttempt,
    GrantJob,
    MarkNodeLost,
    MoveChampion,
    SubmitJob,
)
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.jobs import EndReason, JobSpec, JobState
from gamekeeper.runtime.executor import Executor, Outcome, RoleLost
from gamekeeper.server.desk import ROLE
from gamekeeper.store import decisions, event_log, integrity, job_queue, leases, registry
from gamekeeper.store.decisions import Outcome as Applied
from tests.unit.server.rig import LINE, Rig, run


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A store with one connected node of two slots."""
    made = Rig(tmp_path)
    made.join(slots=2)
    return made


def carry_out(rig: Rig, *actions: Action, epoch: int | None = None) -> list[Outcome]:
    decision = Decision(
        "test", rig.clock.now(), (Verdict("line/mini", "why", "because", acted=True),), actions
    )
    return run(Executor(rig.store, ROLE).run(decision, rig.epoch if epoch is None else epoch))


def spec(key: str | None = None) -> JobSpec:
    return JobSpec("selfplay", LINE, ("true",), key=key)


def test_every_action_is_applied_and_its_outcome_recorded(rig: Rig) -> None:
    """An effect could have no recorded decision."""
    first, second = rig.submit(), rig.submit()
    outcomes = carry_out(
        rig,
        SubmitJob(spec("k")), SubmitJob(spec("k")), CancelJob(second, "no"),
        GrantJob(first, rig.node_id, rig.incarnation),
    )  # fmt: skip
    assert [one.result for one in outcomes] == [Applied.APPLIED] * 4
    states = {job.id: job.state for job in rig.store.read(job_queue.live)}
    assert states[first] is JobState.RUNNING
    assert second not in states
    assert len(states) == 2
    stored = rig.store.read(lambda r: decisions.decision(r, decisions.newest(r, 1)[0].decision_id))
    assert [action.outcome for action in stored.actions] == [Applied.APPLIED] * 4


def test_a_guard_that_no_longer_holds_changes_nothing_and_stops_nothing(rig: Rig) -> None:
    """One overtaken action could undo the others of its decision, or half of itself could stay."""
    job = rig.submit()
    granted = rig.attempt()
    before = rig.store.read(event_log.last_position)
    outcomes = carry_out(
        rig,
        GrantJob(granted.job, rig.node_id, rig.incarnation),
        GrantJob(job, rig.node_id, "f" * 32),
        GrantJob(999, rig.node_id, rig.incarnation),
        EndAttempt(granted.attempt, granted.token + 1, EndReason.LEASE_EXPIRED, "x"),
        MarkNodeLost(rig.node_id),
        MoveChampion(LINE, 5, None),
        SubmitJob(JobSpec("", LINE, ())),
        SubmitJob(spec()),
    )  # fmt: skip
    assert [one.result for one in outcomes] == [
        *[Applied.OVERTAKEN] * 6, Applied.REFUSED, Applied.APPLIED,
    ]  # fmt: skip
    assert all(one.detail for one in outcomes)
    names = [one.event.name for one in rig.store.read(lambda r: event_log.after(r, before, 50))]
    assert names == ["job-submitted"]
    assert rig.store.read(integrity.check) == []


def test_a_slot_is_never_granted_twice(rig: Rig) -> None:
    """Two passes that saw the same free slot could both fill it."""
    jobs = [rig.submit() for _ in range(4)]
    outcomes = carry_out(rig, *(GrantJob(job, rig.node_id, rig.incarnation) for job in jobs))
    assert [one.result for one in outcomes] == [Applied.APPLIED] * 2 + [Applied.OVERTAKEN] * 2
    assert len(rig.store.read(job_queue.live_attempts)) == 2


def test_an_overtaken_epoch_changes_nothing(rig: Rig) -> None:
    """A paused old leader that wakes could act beside the new one."""
    rig.store.write(lambda w: leases.take_role(w, ROLE, "successor", 60.0, displace=True))
    before = rig.store.read(event_log.last_position)
    with pytest.raises(RoleLost):
        carry_out(rig, SubmitJob(spec()))
    assert rig.store.read(event_log.last_position) == before
    assert rig.store.read(lambda r: decisions.newest(r, 5)) == []


def test_a_champion_moves_only_from_the_one_that_was_seen(rig: Rig) -> None:
    """Two decisions on the same view could move a champion twice."""
    job = rig.submit("found")
    for name in "ab":
        rig.store.write(
            partial(
                registry.register_model,
                line=LINE,
                model_hash=name * 64,
                parent_id=None,
                job_id=job,
                steps=0,
                samples=0,
                loss=None,
            )
        )
    outcomes = carry_out(rig, MoveChampion(LINE, 1, None), MoveChampion(LINE, 2, None))
    assert [one.result for one in outcomes] == [Applied.APPLIED, Applied.OVERTAKEN]
    champion = rig.store.read(lambda r: registry.champion(r, LINE))
    assert champion is not None
    assert champion.model_id == 1
