"""Jobs that need one another, held, released, cancelled, parked and retried at random, against a short model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gamekeeper.core.errors import IllegalTransition
from gamekeeper.core.jobs import FINAL_JOBS, EndReason, FailureRule, JobState, Need
from gamekeeper.store import job_control, job_queue, needs, submission
from gamekeeper.store.job_control import Verb
from tests.unit.store.rig import Rig, open_rig, spec

PICK = st.integers(0, 1000)
PICKS = st.lists(PICK, min_size=1, max_size=4)
RULES = st.sampled_from(sorted(FailureRule))
WANTS = st.lists(st.tuples(PICK, RULES), max_size=3)
UNSTARTED = ("waiting", "ready", "held")
CAME_TO_NOTHING = ("failed", "cancelled", "skipped", "dead")


@dataclass
class Known:
    """A job as the model sees it. `needs`: {needed job: rule}; `unmet`: those not met."""

    state: str
    needs: dict[int, FailureRule] = field(default_factory=dict)
    unmet: set[int] = field(default_factory=set)
    successor: int | None = None


class JobControlMachine(RuleBasedStateMachine):
    """Every operation, in any order, on jobs with needs."""

    engine = "inline"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.rig: Rig = open_rig(self.engine, Path(self.folder.name))
        self.jobs: dict[int, Known] = {}
        self.agent = self.rig.agent(slots=50)

    def teardown(self) -> None:
        self.rig.check()
        self.rig.store.close()
        self.folder.cleanup()

    @initialize(wants=st.lists(WANTS, min_size=3, max_size=6))
    def begin(self, wants: list[list[tuple[int, FailureRule]]]) -> None:
        self._submit(wants)

    @rule(wants=st.lists(WANTS, min_size=1, max_size=4))
    def submit_group(self, wants: list[list[tuple[int, FailureRule]]]) -> None:
        self._submit(wants)

    def _submit(self, wants: list[list[tuple[int, FailureRule]]]) -> None:
        """Needs are drawn from all earlier jobs and the earlier ones of the group."""
        before = sorted(self.jobs)
        chosen: list[dict[int, FailureRule]] = []
        for place, wanted in enumerate(wants):
            room = [*before, *(-1 - other for other in range(place))]
            chosen.append({room[pick % len(room)]: how for pick, how in wanted} if room else {})
        specs = [
            spec(failures_allowed=1, needs=tuple(Need(job, how) for job, how in each.items()))
            for each in chosen
        ]
        ids = [job_id for job_id, created in self.rig.w(submission.submit_many, specs) if created]
        assert ids == list(range(ids[0], ids[0] + len(wants)))
        for job_id, each in zip(ids, chosen, strict=True):
            self._add(job_id, {(ids[-1 - job] if job < 0 else job): how for job, how in each.items()})
        self._settle({job for job in before if self.jobs[job].state in CAME_TO_NOTHING}, set())

    def _add(self, job_id: int, wanted: dict[int, FailureRule]) -> None:
        unmet = {job for job in wanted if self.jobs[job].state not in ("done", "skipped")}
        self.jobs[job_id] = Known("waiting" if unmet else "ready", wanted, unmet)

    def _settle(self, bad: set[int], met: set[int]) -> None:
        """What the end of jobs does to those that need them, by looking at all jobs again and again."""
        open_jobs = {job_id: job for job_id, job in self.jobs.items() if job.state in ("waiting", "held")}

        def hit(job: Known, how: FailureRule) -> bool:
            return any(job.needs[one] is how for one in job.unmet & bad)

        again = True
        while again:
            again = False
            for job_id, job in open_jobs.items():
                if job.state in UNSTARTED and hit(job, FailureRule.CANCEL):
                    job.state, again = "cancelled", True
                    bad = bad | {job_id}
        for job_id, job in open_jobs.items():
            if job.state in UNSTARTED and hit(job, FailureRule.SKIP):
                job.state = "skipped"
                met = met | {job_id}
        for job in open_jobs.values():
            if job.state in UNSTARTED:
                job.unmet -= met | {one for one in bad if job.needs.get(one) is FailureRule.RUN}
                if job.state == "waiting" and not job.unmet:
                    job.state = "ready"

    @rule(pick=PICK, well=st.booleans())
    def work(self, pick: int, well: bool) -> None:
        """A ready job is granted and ends."""
        ready = [job_id for job_id, job in self.jobs.items() if job.state == "ready"]
        if not ready:
            return
        job_id = ready[pick % len(ready)]
        attempt = self.rig.w(job_queue.grant, job_id, *self.agent)
        self.rig.finish(attempt, EndReason.FINISHED if well else EndReason.OWN_ERROR)
        self.jobs[job_id].state = "done" if well else "failed"
        self._settle(set() if well else {job_id}, {job_id} if well else set())

    @precondition(lambda self: self.jobs)
    @rule(picks=PICKS, verb=st.sampled_from([Verb.CANCEL, Verb.HOLD, Verb.RELEASE]))
    def act(self, picks: list[int], verb: Verb) -> None:
        """Several at once: each changed, left or refused as if it stood alone, and then what they mean for others."""
        ids = sorted({self._id(pick) for pick in picks})
        done = self.rig.w(job_control.act, verb, ids, "because")
        changed = []
        for job_id in ids:
            job = self.jobs[job_id]
            if verb is Verb.CANCEL and job.state in UNSTARTED:
                job.state = "cancelled"
            elif verb is Verb.HOLD and job.state in ("waiting", "ready"):
                job.state = "held"
            elif verb is Verb.RELEASE and job.state == "held":
                job.state = "waiting" if job.unmet else "ready"
            else:
                continue
            changed.append(job_id)
        assert sorted(done.changed) == changed
        assert set(done.already).isdisjoint(done.refused)
        assert sorted([*done.changed, *done.already, *done.refused]) == ids
        if verb is Verb.CANCEL:
            self._settle(set(changed), set())

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def park(self, pick: int) -> None:
        job_id = self._id(pick)
        if self.jobs[job_id].state in UNSTARTED:
            self.rig.w(job_control.park, job_id, "poison")
            self.jobs[job_id].state = "dead"
            self._settle({job_id}, set())
        else:
            with pytest.raises(IllegalTransition):
                self.rig.w(job_control.park, job_id, "poison")

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        job_id = self._id(pick)
        job = self.jobs[job_id]
        if job.successor is not None:
            assert self.rig.w(job_control.retry, job_id) == (job.successor, False)
            return
        wanted = {self._latest(one): how for one, how in job.needs.items()}
        hopeless = any(
            self.jobs[one].state in ("failed", "cancelled", "dead") and how is not FailureRule.RUN
            for one, how in wanted.items()
        )
        if job.state not in CAME_TO_NOTHING or hopeless:
            with pytest.raises(IllegalTransition):
                self.rig.w(job_control.retry, job_id)
            return
        following, created = self.rig.w(job_control.retry, job_id)
        assert created
        assert following not in self.jobs
        self._add(following, wanted)
        job.successor = following
        self._settle({one for one in wanted if self.jobs[one].state in CAME_TO_NOTHING}, set())
        assert self.rig.get(following).retry_of == job_id

    def _latest(self, job_id: int) -> int:
        following = self.jobs[job_id].successor
        return job_id if following is None else self._latest(following)

    def _id(self, pick: int) -> int:
        return sorted(self.jobs)[pick % len(self.jobs)]

    @invariant()
    def the_store_agrees(self) -> None:
        for job_id, expected in self.jobs.items():
            job = self.rig.get(job_id)
            assert (job_id, job.state) == (job_id, expected.state)
            if job.state not in FINAL_JOBS:
                found = {need.job_id: met for need, met, _ in self.rig.r(needs.needs_of, job_id)}
                assert found == {one: one not in expected.unmet for one in expected.needs}

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Who waits, waits for a job that is not over: otherwise it would wait for ever."""
        for job in self.jobs.values():
            if job.state in ("waiting", "held"):
                assert all(JobState(self.jobs[one].state) not in FINAL_JOBS for one in job.unmet)
            if job.state == "waiting":
                assert job.unmet


class InlineControl(JobControlMachine):
    """On the engine of the simulator."""


class FileControl(JobControlMachine):
    """On the engine of the product."""

    engine = "file"


TestInlineControl = InlineControl.TestCase
TestInlineControl.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestFileControl = FileControl.TestCase
TestFileControl.settings = settings(
    max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
