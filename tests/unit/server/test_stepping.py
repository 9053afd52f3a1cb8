"""The step of an agent: all of it in one commit, safe to repeat, and nothing of it under an overtaken incarnation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from gamekeeper.core.errors import StaleToken
from gamekeeper.core.jobs import EndReason, JobState
from gamekeeper.daemons.fused import StepMatch
from gamekeeper.policy import work_distributor
from gamekeeper.protocol import AttemptProgress, FinishOne, Grant, Observed, Step, Stepped
from gamekeeper.store import integrity, job_queue
from gamekeeper.store.engine import InlineStore
from tests.unit.server.rig import Rig, run, shard


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A coordinator that grants within the step, and an agent with two slots."""
    found = Rig(tmp_path)
    found.here.matching = partial(StepMatch, work_distributor.Limits(), found.epoch)
    found.join(slots=2)
    return found


def step(
    rig: Rig, *ended: FinishOne, slots: int = 0, held: tuple[Grant, ...] = (), incarnation: str = ""
) -> Stepped:
    """Take a step as the agent."""
    message = Step(
        incarnation=incarnation or rig.incarnation,
        finished=list(ended),
        attempts=[AttemptProgress(attempt=one.attempt, token=one.token, units=1) for one in held],
        observed=Observed(),
        slots=slots,
    )
    return run(rig.here.step(rig.node_id, message))


def end(grant: Grant, receipt: object = None, token: int | None = None) -> FinishOne:
    """The end of an attempt that exited with 0."""
    return FinishOne.model_validate(
        {
            "attempt": grant.attempt,
            "token": grant.token if token is None else token,
            "reason": EndReason.FINISHED,
            "exit_code": 0,
            "receipt": receipt,
        }
    )


def commits(rig: Rig) -> int:
    """Commits so far."""
    assert isinstance(rig.store, InlineStore)
    return rig.store.commits


def state(rig: Rig, job: int) -> JobState:
    return rig.store.read(lambda r: job_queue.get(r, job)).state


def test_an_end_a_renewal_and_a_grant_share_one_commit(rig: Rig) -> None:
    """Breaks if a busy agent costs more than one flush for each job it works off."""
    jobs = [rig.submit() for _ in range(3)]
    first, second = step(rig, slots=2).grants
    data = shard()
    rig.hand_in(first, data, games=2, samples=6)
    rig.clock.block(5)
    before = commits(rig)
    answer = step(rig, end(first, rig.selfplay_receipt((data, 2, 6))), slots=1, held=(second,))
    assert commits(rig) == before + 1
    assert [(one.attempt, one.result, one.state) for one in answer.finished] == [
        (first.attempt, "applied", "succeeded")
    ]
    assert [grant.job for grant in answer.grants] == [jobs[2]]
    assert answer.expires_in_s == rig.settings.timings.lease_s
    assert [state(rig, job) for job in jobs] == [JobState.DONE, JobState.RUNNING, JobState.RUNNING]
    assert rig.store.read(integrity.check) == []


def test_a_step_said_again_changes_nothing(rig: Rig) -> None:
    """Breaks if a lost answer makes an agent's end count twice, or its grant go to nobody."""
    rig.submit(), rig.submit()
    (first,) = step(rig, slots=1).grants
    data = shard()
    rig.hand_in(first, data, games=2, samples=6)
    ended = end(first, rig.selfplay_receipt((data, 2, 6)))
    once = step(rig, ended, slots=1)
    again = step(rig, ended, slots=1)
    assert [one.result for one in again.finished] == ["already"]
    assert [one.state for one in again.finished] == [one.state for one in once.finished]
    assert [grant.attempt for grant in again.grants] == [grant.attempt for grant in once.grants]
    assert rig.store.read(integrity.check) == []


def test_an_overtaken_incarnation_changes_nothing(rig: Rig) -> None:
    """Breaks if a paused agent's step takes effect after another took its node over."""
    job = rig.submit()
    (grant,) = step(rig, slots=1).grants
    former = rig.incarnation
    rig.connect(2, incarnation="b" * 32)
    waiting = rig.submit()
    with pytest.raises(StaleToken):
        step(rig, end(grant), slots=2, incarnation=former)
    assert state(rig, job) is JobState.READY
    assert state(rig, waiting) is JobState.READY


def test_a_stale_end_is_told_and_the_rest_applied(rig: Rig) -> None:
    """Breaks if one wrong token spoils the whole step, or is let through."""
    jobs = [rig.submit(), rig.submit()]
    first, second = step(rig, slots=2).grants
    answer = step(rig, end(first, token=first.token + 1000), end(second))
    assert [(one.attempt, one.stale) for one in answer.finished] == [
        (first.attempt, True),
        (second.attempt, False),
    ]
    assert answer.finished[1].state == "hollow"
    assert state(rig, jobs[0]) is JobState.RUNNING


def test_another_nodes_attempt_is_left_alone(rig: Rig) -> None:
    """Breaks if a node can end what another one runs."""
    job = rig.submit()
    (grant,) = step(rig, slots=1).grants
    rig.join(slots=1, incarnation="c" * 32)
    answer = step(rig, end(grant))
    assert answer.finished[0].stale
    assert state(rig, job) is JobState.RUNNING


def test_a_draining_coordinator_grants_nothing(rig: Rig) -> None:
    """Breaks if a step gets work while the loop is being wound down."""
    rig.submit()
    run(rig.here.stop("enough"))
    answer = step(rig, slots=2)
    assert answer.draining
    assert answer.grants == []
