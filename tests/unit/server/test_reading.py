"""What people are shown: lists, explanations and attention, from states a loop can be in."""

from __future__ import annotations

from functools import partial

import pytest

from gamekeeper.core.errors import NotFound, UsageError
from gamekeeper.core.jobs import EndReason, JobState
from gamekeeper.daemons.jobs import distribution_view, reaper_view
from gamekeeper.inspection import Status, Why
from gamekeeper.policy import job_reaper, work_distributor
from gamekeeper.protocol import Finish
from gamekeeper.runtime.executor import Executor
from gamekeeper.server import explaining, listing, status
from gamekeeper.server.desk import ROLE
from gamekeeper.store import job_queue
from tests.unit.server.rig import LINE, Rig, digest, run, shard


def why(rig: Rig, kind: str, subject: object) -> Why:
    return rig.store.read(lambda r: explaining.why(r, rig.settings, kind, str(subject)))


def shown(rig: Rig, lost: int = 0) -> Status:
    return rig.store.read(lambda r: status.status(r, rig.settings, lost))


def distribute(rig: Rig) -> None:
    """One pass of the distributor that no agent waits for."""
    view = rig.store.read(lambda r: distribution_view(r, []))
    decision = work_distributor.decide(view, work_distributor.Limits(), rig.clock.now())
    run(Executor(rig.store, ROLE).run(decision, rig.epoch))


def reap(rig: Rig) -> None:
    view = rig.store.read(lambda r: reaper_view(r, serving_since=0.0))
    decision = job_reaper.decide(view, job_reaper.Limits(lease_s=8.0), rig.clock.now())
    run(Executor(rig.store, ROLE).run(decision, rig.epoch))


def test_a_waiting_job_says_what_it_waits_for(rig: Rig) -> None:
    """A person could not tell why nothing happens."""
    job = rig.submit()
    assert "no pass has looked" in why(rig, "job", job).headline
    distribute(rig)
    told = why(rig, "job", job)
    assert "no agent offers a slot" in told.headline
    assert [row.reason for row in told.verdicts] == ["no-agent"]
    (row,) = rig.store.read(lambda r: listing.jobs(r, state=None, line=None, kind=None, limit=9))
    assert (row.state, row.why, row.unit) == ("ready", "no-agent", "games")


def test_a_refused_shard_is_told_with_its_job(rig: Rig) -> None:
    """The cause of a failure could be hidden in a folder."""
    grant = rig.attempt()
    rig.hand_in(grant, shard(nan=True), games=2, samples=6)
    rig.finish(grant, rig.selfplay_receipt((shard(nan=True), 2, 6)))
    told = why(rig, "job", grant.job)
    assert "not-finite" in str(told.facts["refused files"])
    assert [(row.state, row.reason) for row in told.attempts] == [("failed", "data-refused")]
    assert {row.name for row in told.events} >= {"artifact-refused", "attempt-ended"}


def test_a_failed_job_names_its_last_end(rig: Rig) -> None:
    """A final job could keep its cause to itself."""
    grant = rig.attempt(failures_allowed=1)
    rig.finish(grant, reason=EndReason.OUT_OF_MEMORY, exit_code=1)
    assert "failed: out-of-memory" in why(rig, "job", grant.job).headline
    (row,) = rig.store.read(
        lambda r: listing.jobs(r, state=JobState.FAILED, line=LINE, kind="selfplay", limit=9)
    )
    assert (row.why, row.failures, row.node) == ("out-of-memory", 1, rig.node_id)
    assert rig.store.read(lambda r: listing.jobs(r, state=JobState.DONE, line=None, kind=None, limit=9)) == []


def test_a_cancelled_but_running_job_says_so(rig: Rig) -> None:
    """A job that is being stopped could look like any other."""
    grant = rig.attempt()
    rig.store.write(lambda w: job_queue.cancel(w, grant.job, "no"))
    (row,) = rig.store.read(lambda r: listing.jobs(r, state=None, line=None, kind=None, limit=9))
    assert (row.state, row.why) == ("running", "cancel-requested")


def test_a_lost_node_is_named_with_when_it_was_last_heard(rig: Rig) -> None:
    """A vanished machine could stay unnoticed."""
    grant = rig.attempt()
    assert "is up" in why(rig, "node", rig.node_id).headline
    assert [row.id for row in why(rig, "node", rig.node_id).attempts] == [grant.attempt]
    rig.clock.advance(60)
    reap(rig)
    now = shown(rig)
    (item,) = [item for item in now.attention if item.subject == f"node/{rig.node_id}"]
    assert "60 s ago" in item.sentence
    assert now.healthy is False
    told = why(rig, "node", rig.node_id)
    assert "is lost" in told.headline
    assert "node-lost" in {row.name for row in told.events}
    assert rig.store.read(lambda r: listing.nodes(r, "h"))[0].status == "lost"


def test_stages_that_keep_failing_and_lost_files_need_attention(rig: Rig) -> None:
    """A line that only fails could look healthy."""
    assert shown(rig).attention == []
    for _ in range(2):
        grant = rig.attempt("train", failures_allowed=1)
        rig.finish(grant, reason=EndReason.OWN_ERROR, exit_code=1)
    subjects = {item.subject for item in shown(rig, lost=3).attention}
    assert subjects == {f"line/{LINE}/train", "artifacts"}


def test_a_line_without_a_start_is_explained(rig: Rig) -> None:
    """The first look at an empty store could fail."""
    assert why(rig, "line", LINE).headline.startswith(f"line {LINE}: no champion yet")
    assert shown(rig).lines[0].champion is None
    assert shown(rig).slot_utilisation is None


@pytest.mark.parametrize(("kind", "subject"), [("job", 99), ("model", 99), ("line", "x"), ("node", "n-0")])
def test_what_is_not_there_is_not_found(rig: Rig, kind: str, subject: object) -> None:
    """A wrong name could crash the call."""
    with pytest.raises(NotFound) as error:
        why(rig, kind, subject)
    assert error.value.remedy


def test_a_job_is_named_by_a_number(rig: Rig) -> None:
    """Any text could reach the query."""
    with pytest.raises(UsageError):
        why(rig, "job", "1 OR 1")


def test_events_are_paged_in_the_order_of_the_log(rig: Rig) -> None:
    """A reader that follows the log could miss or repeat events."""
    for _ in range(3):
        rig.submit()
    whole = rig.store.read(lambda r: listing.events(r, of=None, after=0, limit=100))
    positions = [row.position for row in whole]
    assert positions == list(range(1, len(whole) + 1))
    paged = []
    after = 0
    while page := rig.store.read(partial(listing.events, of=None, after=after, limit=2)):
        paged += page
        after = page[-1].position
    assert paged == whole
    assert rig.store.read(lambda r: listing.events(r, of=None, after=None, limit=2)) == whole[-2:]
    of_job = rig.store.read(lambda r: listing.events(r, of="job/2", after=None, limit=9))
    assert [row.fields["job_id"] for row in of_job] == [2]


def test_slot_time_counts_running_processes_only(rig: Rig) -> None:
    """Slots that wait for data could be counted as busy."""
    grant = rig.attempt()
    rig.clock.advance(10)
    data = shard()
    assert rig.hand_in(grant, data, games=2, samples=6).accepted
    receipt = {"games": 2, "samples": 6, "shards": [digest(data)]}
    message = Finish.model_validate(
        {"token": grant.token, "reason": "finished", "exit_code": 0, "receipt": receipt, "process_s": 8.0}
    )
    run(rig.here.finish(rig.node_id, grant.attempt, message))
    assert shown(rig).slot_utilisation == pytest.approx(8.0 / 40.0)
    run(rig.here.stop("enough"))
    rig.clock.advance(1000)
    assert shown(rig).slot_utilisation == pytest.approx(8.0 / 40.0)
