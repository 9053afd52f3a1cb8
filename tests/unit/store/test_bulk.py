"""Operations on many jobs: what they touch, in batches, over crashes, and never twice."""

from __future__ import annotations

from typing import Any

import pytest

from gamekeeper.core.errors import IllegalTransition, NotFound, UsageError
from gamekeeper.core.job_filter import parse
from gamekeeper.core.jobs import JobState
from gamekeeper.store import bulk, job_control, submission
from gamekeeper.store.job_control import Verb
from gamekeeper.store.submission import OverQuota, Quotas, Terms
from tests.unit.store.rig import Rig, spec


def jobs_of(rig: Rig, n: int, **more: Any) -> list[int]:
    return [job_id for job_id, _ in rig.w(submission.submit_many, [spec(**more) for _ in range(n)])]


def run(rig: Rig, bulk_id: int) -> int:
    """Batches until the operation is done: how many."""
    batches = 1
    while rig.w(bulk.step, bulk_id):
        batches += 1
    return batches


def test_an_operation_touches_what_its_plan_said(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if plan and operation disagree, a batch is skipped or done twice, or one grows beyond its bound."""
    monkeypatch.setattr(bulk, "BATCH", 4)
    monkeypatch.setattr(bulk, "WINDOW", 10)
    wanted, others = jobs_of(rig, 25, line="a"), jobs_of(rig, 5, line="b")
    filter_ = parse("line=a state=ready")
    plan = rig.r(bulk.begin_plan, filter_)
    while rig.r(bulk.go_on_planning, plan, Verb.HOLD, filter_):
        pass
    assert (plan.jobs, plan.counts) == (25, {("ready", "selfplay", "a"): 25})
    assert [one.job_id for one in plan.samples] == wanted[:5]
    bulk_id = rig.w(bulk.start, Verb.HOLD, filter_, "wait", "admin")
    later = jobs_of(rig, 1, line="a")
    assert run(rig, bulk_id) >= 7
    done = rig.r(bulk.get, bulk_id)
    assert (done.state, done.seen, done.changed, done.skipped) == ("done", 25, 25, 0)
    assert {rig.get(one).state for one in wanted} == {JobState.HELD}
    assert {rig.get(one).state for one in others + later} == {JobState.READY}
    assert not rig.w(bulk.step, bulk_id)
    assert rig.r(bulk.running) == []
    assert rig.names(f"bulk/{bulk_id}") == ["bulk-started", "bulk-ended"]


def test_conditions_choose_jobs(rig: Rig) -> None:
    """Breaks if a condition is ignored, or text of people becomes part of the query."""
    old = rig.job(kind="train", producer="p")
    rig.turn(3600)
    strange = rig.job(purpose="it's 100%_", producer="p")
    rig.w(job_control.cancel, old, "Out Of Memory 100%")
    rig.w(job_control.cancel, strange, "other")

    def found(text: str) -> set[int]:
        plan = rig.r(bulk.begin_plan, parse(text))
        while rig.r(bulk.go_on_planning, plan, Verb.RETRY, parse(text)):
            pass
        return {one.job_id for one in plan.samples}

    assert found("producer=p") == {old, strange}
    assert found("reason~'of memory'") == found("reason~100%") == found("older=1h") == {old}
    assert found("reason~100_") == set()
    assert found('purpose="it\'s 100%_"') == found("newer=1m") == found(f"id={strange}") == {strange}
    assert found("state=ready") == found("""reason~"' OR 1=1 --" """) == set()


def test_an_operation_goes_on_after_a_stop_of_the_process(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a retried operation makes second successors, or forgets where it was."""
    monkeypatch.setattr(bulk, "BATCH", 3)
    ids = jobs_of(rig, 10)
    rig.w(job_control.act, Verb.CANCEL, ids, "no")
    bulk_id = rig.w(bulk.start, Verb.RETRY, parse("state=cancelled"), "", "admin")
    rig.w(bulk.step, bulk_id)

    class Crash(Exception):
        pass

    def die(w: object) -> None:
        bulk.step(w, bulk_id)  # type: ignore[arg-type]
        raise Crash

    with pytest.raises(Crash):
        rig.store.write(die)
    run(rig, bulk_id)
    assert rig.r(bulk.get, bulk_id).changed == 10
    followed = [rig.r(job_control.successor, one) for one in ids]
    assert len(set(followed)) == 10
    assert None not in followed


def test_a_retry_waits_for_room(rig: Rig) -> None:
    """Breaks if an operation breaks a quota, or gives up on one."""
    ids = jobs_of(rig, 4, producer="p")
    rig.w(job_control.act, Verb.CANCEL, ids, "no")
    blocking = jobs_of(rig, 3, producer="p")
    terms = Terms(quotas=Quotas(max_ready_per_producer=5))
    bulk_id = rig.w(bulk.start, Verb.RETRY, parse("state=cancelled", ids), "", "admin")
    with pytest.raises(OverQuota):
        rig.w(bulk.step, bulk_id, terms)
    assert rig.r(bulk.get, bulk_id).seen == 0
    rig.w(job_control.act, Verb.CANCEL, blocking, "no")
    assert not rig.w(bulk.step, bulk_id, terms)
    assert rig.r(bulk.get, bulk_id).state == "done"


def test_an_operation_can_be_stopped(rig: Rig) -> None:
    """Breaks if a mistake cannot be stopped, or a done operation is rewritten."""
    jobs_of(rig, 3)
    bulk_id = rig.w(bulk.start, Verb.CANCEL, parse("state=ready"), "", "admin")
    assert rig.w(bulk.stop, bulk_id).state == rig.w(bulk.stop, bulk_id).state == "stopped"
    assert not rig.w(bulk.step, bulk_id)
    other = rig.w(bulk.start, Verb.CANCEL, parse("state=ready"), "", "admin")
    run(rig, other)
    with pytest.raises(IllegalTransition):
        rig.w(bulk.stop, other)
    with pytest.raises(NotFound):
        rig.r(bulk.get, 99)
    assert [one.id for one in rig.r(bulk.newest)] == [other, bulk_id]


def test_all_jobs_are_never_meant_by_saying_nothing(rig: Rig) -> None:
    """Breaks if an empty filter cancels everything."""
    with pytest.raises(UsageError):
        rig.w(bulk.start, Verb.CANCEL, parse(""), "", "admin")
