"""Finished jobs go, but nothing that something else rests on, and no total changes."""

from __future__ import annotations

import pytest

from gamekeeper.core.errors import SettingsError
from gamekeeper.core.job_filter import parse
from gamekeeper.core.jobs import Need
from gamekeeper.store import bulk, job_control, job_queue, retention, submission, summary
from gamekeeper.store.job_control import Verb
from tests.unit.store.rig import Rig, spec

DAY = 86400.0


def sweep(rig: Rig, limits: retention.Limits) -> int:
    """One walk over all jobs: how many went."""
    cursor: int | None = 0
    gone = 0
    while cursor is not None:
        found = rig.r(retention.look, cursor, limits)
        for start in range(0, len(found.ids), retention.BATCH):
            gone += rig.w(retention.remove, found.ids[start : start + retention.BATCH], "coordinator")
        cursor = found.cursor
    return gone


def test_old_jobs_go_and_totals_stay(rig: Rig) -> None:
    """Breaks if a finished job stays for ever, or the report forgets what was done."""
    attempt = rig.running()
    rig.finish(attempt)
    rig.decide(f"job/{attempt.job_id}")
    before = (rig.r(summary.totals).jobs, rig.r(summary.totals).attempts, rig.r(summary.slot_times))
    assert sweep(rig, retention.Limits()) == 0
    rig.turn(31 * DAY)
    fresh = rig.job()
    assert sweep(rig, retention.Limits()) == 1
    assert [one.job.id for one in rig.r(job_queue.listing)] == [fresh]
    after = rig.r(summary.totals)
    assert after.jobs["done"] == before[0]["done"] == 1
    assert (after.attempts, rig.r(summary.slot_times)) == before[1:]
    assert rig.r(job_queue.attempts_of, attempt.job_id) == []
    rig.check()


def test_what_something_rests_on_stays(rig: Rig) -> None:
    """Breaks if a file or model loses its provenance, or a live job or operation the jobs it is about."""
    shipping = rig.running()
    rig.publish(shipping, 1)
    rig.finish(shipping)
    model = rig.model(2)
    rig.w(job_control.cancel, model.job_id, "no")
    needed = rig.attempt()
    rig.job(needs=(Need(needed.job_id), Need(rig.job())))
    rig.finish(needed)
    rig.turn(40 * DAY)
    assert sweep(rig, retention.Limits()) == 0
    doomed = rig.job()
    rig.w(job_control.cancel, doomed, "no")
    rig.turn(40 * DAY)
    bulk_id = rig.w(bulk.start, Verb.RETRY, parse(f"id={doomed}"), "", "admin")
    assert sweep(rig, retention.Limits()) == 0
    rig.w(bulk.stop, bulk_id)
    assert sweep(rig, retention.Limits()) == 1


def test_the_oldest_of_too_many_go(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the bound is not kept, or the newest go instead of the oldest."""
    monkeypatch.setattr(retention, "WINDOW", 300)
    ids = [job_id for job_id, _ in rig.w(submission.submit_many, [spec() for _ in range(1500)])]
    rig.w(job_control.act, Verb.CANCEL, ids, "no")
    live = rig.job()
    assert sweep(rig, retention.Limits(finished_jobs_max=1000)) == 500
    left = [one.job.id for one in rig.r(job_queue.listing, limit=2000)][::-1]
    assert left == [*ids[500:], live]


@pytest.mark.parametrize(
    "wrong", [{"finished_jobs_days": 0.0}, {"finished_jobs_days": float("nan")}, {"finished_jobs_max": 3}]
)
def test_bounds_that_keep_nothing_are_refused(wrong: dict[str, float]) -> None:
    """Breaks if a slip in the settings empties the history."""
    with pytest.raises(SettingsError):
        retention.Limits(**wrong)  # type: ignore[arg-type]
