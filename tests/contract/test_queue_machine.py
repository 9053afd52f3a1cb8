"""The queue and its leases, driven at random and compared at every step with a model of a few lines."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gamekeeper.core.errors import IllegalTransition, StaleToken
from gamekeeper.core.jobs import (
    END_BUDGETS,
    END_STATES,
    Attempt,
    AttemptState,
    Budget,
    EndReason,
    JobState,
    ProcessIdentity,
)
from gamekeeper.store import inventory, job_queue, leases
from tests.unit.store.rig import LEASE_S, SEEN, Rig, open_rig, spec

NODES = 2
SLOTS = 2
FAILURES_ALLOWED = 2
LOSSES_ALLOWED = 3
REASONS = st.sampled_from(sorted(EndReason))
PICK = st.integers(0, 1000)


@dataclass
class ModelJob:
    """A job as the model sees it."""

    key: str | None
    state: str = "ready"
    failures: int = 0
    losses: int = 0
    cancelled: bool = False
    due: float = 0.0


@dataclass
class ModelTry:
    """An attempt as the model sees it. `word`: its agent's finish was taken."""

    granted: Attempt
    node: int
    incarnation: int
    seen: float
    live: bool = True
    started: bool = False
    told: bool = False
    end: EndReason | None = None
    word: bool = False
    units: int = 0


@dataclass
class ModelNode:
    """A node: its current incarnation (0: never connected), the end of its lease, whether that was reaped."""

    id: str
    incarnation: int = 0
    until: float = 0.0
    reaped: bool = False


@dataclass
class World:
    """What should be true."""

    jobs: dict[int, ModelJob] = field(default_factory=dict)
    tries: list[ModelTry] = field(default_factory=list)
    nodes: list[ModelNode] = field(default_factory=list)

    def live_on(self, node: int) -> list[ModelTry]:
        return [each for each in self.tries if each.live and each.node == node]

    def end(self, one: ModelTry, reason: EndReason, now: float, *, word: bool) -> None:
        one.live, one.end, one.word = False, reason, word
        job = self.jobs[one.granted.job_id]
        budget = END_BUDGETS[END_STATES[reason]]
        job.failures += budget is Budget.FAILURE
        job.losses += budget is Budget.LOSS
        if END_STATES[reason] is AttemptState.SUCCEEDED:
            job.state = "done"
        elif job.cancelled:
            job.state = "cancelled"
        elif budget is Budget.FAILURE and job.failures >= FAILURES_ALLOWED:
            job.state = "failed"
        elif budget is Budget.LOSS and job.losses >= LOSSES_ALLOWED:
            job.state = "dead"
        else:
            job.state, job.due = "ready", now


class QueueMachine(RuleBasedStateMachine):
    """Submits, grants, starts, beats, finishes, loses, cancels and waits in any order."""

    engine = "inline"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.rig: Rig = open_rig(self.engine, Path(self.folder.name))
        self.world = World()
        self.greatest = 0
        self.incarnations = 0

    def teardown(self) -> None:
        self.rig.check()
        self.rig.close()
        self.folder.cleanup()

    def now(self) -> float:
        return self.rig.clock.now()

    @initialize()
    def enrol(self) -> None:
        """Agents hold work from the start, so that the rules below mostly meet something."""
        self.world.nodes = [ModelNode(self.rig.node(SLOTS)) for _ in range(NODES)]
        for node in range(NODES):
            self._connect(node, set(), fresh=True)
            self._grant_ready(node)

    def name(self, incarnation: int) -> str:
        return f"i{incarnation}"

    @rule(key=st.sampled_from([None, "a", "b"]))
    def submit(self, key: str | None) -> None:
        self._submit(key)

    def _submit(self, key: str | None) -> None:
        wanted = spec(key=key, failures_allowed=FAILURES_ALLOWED, losses_allowed=LOSSES_ALLOWED)
        job_id, created = self.rig.w(job_queue.submit, wanted)
        taken = [
            known
            for known, job in self.world.jobs.items()
            if key and job.key == key and job.state in ("ready", "running", "done")
        ]
        assert created is not bool(taken)
        if taken:
            assert [job_id] == taken
        else:
            assert job_id not in self.world.jobs
            self.world.jobs[job_id] = ModelJob(key, due=self.now())

    @rule(node=st.integers(0, NODES - 1), holds=st.sets(PICK, max_size=4), fresh=st.booleans())
    def connect(self, node: int, holds: set[int], fresh: bool) -> None:
        self._connect(node, holds, fresh)

    def _connect(self, node: int, holds: set[int], fresh: bool) -> None:
        here = self.world.nodes[node]
        if fresh:
            self.incarnations += 1
            here.incarnation = self.incarnations
        tries = self.world.tries
        held = {index % len(tries) for index in holds} if tries else set()
        claims = [(tries[index].granted.id, tries[index].granted.token) for index in sorted(held)]
        _, keep, stop = self.rig.w(
            leases.connect_agent, here.id, self.name(here.incarnation), LEASE_S, held=claims, slots=SLOTS,
            observation=SEEN,
        )  # fmt: skip
        here.until, here.reaped = self.now() + LEASE_S, False
        kept = []
        for index, one in enumerate(tries):
            if one.live and one.node == node:
                if index in held:
                    one.incarnation, one.seen = here.incarnation, self.now()
                    kept.append(one.granted.id)
                elif one.incarnation != here.incarnation:
                    self.world.end(one, EndReason.AGENT_RESTARTED, self.now(), word=False)
        assert keep == kept
        assert stop == sorted({tries[index].granted.id for index in held} - set(kept))

    @rule(node=st.integers(0, NODES - 1), pick=PICK)
    def a_late_connect_is_refused(self, node: int, pick: int) -> None:
        here = self.world.nodes[node]
        late = pick % self.incarnations + 1
        if late != here.incarnation:
            with pytest.raises(StaleToken):
                self.rig.connect(here.id, self.name(late))

    @rule(node=st.integers(0, NODES - 1))
    def grant_ready(self, node: int) -> None:
        self._grant_ready(node)

    def _grant_ready(self, node: int) -> None:
        due = [job.id for job in self.rig.r(job_queue.ready, 5)]
        if not due:
            self._submit(None)
            due = [max(self.world.jobs)]
        self._grant(due[0], node, self.world.nodes[node].incarnation)

    @precondition(lambda self: self.world.jobs)
    @rule(pick=PICK, node=st.integers(0, NODES - 1), late=st.booleans())
    def grant_any(self, pick: int, node: int, late: bool) -> None:
        here = self.world.nodes[node].incarnation
        job_id = sorted(self.world.jobs)[pick % len(self.world.jobs)]
        self._grant(job_id, node, max(1, here - 1) if late else here)

    def _grant(self, job_id: int, node: int, incarnation: int) -> None:
        here, job = self.world.nodes[node], self.world.jobs[job_id]
        allowed = (
            incarnation == here.incarnation
            and not here.reaped
            and here.until > self.now()
            and len(self.world.live_on(node)) < SLOTS
            and job.state == "ready"
            and self.rig.get(job_id).not_before <= self.now()
        )
        try:
            granted = self.rig.w(job_queue.grant, job_id, here.id, self.name(incarnation))
        except StaleToken:
            assert not allowed
            return
        assert allowed
        assert granted.token > self.greatest
        self.greatest = granted.token
        job.state = "running"
        self.world.tries.append(ModelTry(granted, node, incarnation, self.now()))

    @precondition(lambda self: self.world.tries)
    @rule(pick=PICK, wrong=st.booleans(), other_process=st.booleans())
    def start(self, pick: int, wrong: bool, other_process: bool) -> None:
        one = self.world.tries[pick % len(self.world.tries)]
        token = self._wrong_token(one, pick) if wrong else one.granted.token
        identity = ProcessIdentity("boot", one.granted.id, 2 if other_process else 1)
        fine = one.live and token == one.granted.token and not (one.started and other_process)
        if not fine or (one.started and other_process):
            with pytest.raises(StaleToken):
                self.rig.w(job_queue.started, one.granted.id, token, identity)
        elif not other_process:
            self.rig.w(job_queue.started, one.granted.id, token, identity)
            one.seen = one.seen if one.started else self.now()
            one.started = True

    @rule(node=st.integers(0, NODES - 1), named=st.sets(PICK, max_size=4), units=st.integers(0, 50))
    def beat(self, node: int, named: set[int], units: int) -> None:
        here, tries = self.world.nodes[node], self.world.tries
        said = sorted({index % len(tries) for index in named}) if tries else []
        progress = [leases.Progress(tries[n].granted.id, tries[n].granted.token, units) for n in said]
        if here.reaped:
            with pytest.raises(StaleToken):
                self.rig.w(leases.beat, self.name(here.incarnation), LEASE_S, progress)
            return
        lease, stop = self.rig.w(leases.beat, self.name(here.incarnation), LEASE_S, progress)
        here.until = self.now() + LEASE_S
        assert lease.expires_at == here.until
        expected = {tries[n].granted.id for n in said if not (tries[n].live and tries[n].node == node)}
        for index, one in enumerate(tries):
            if not (one.live and one.node == node):
                continue
            if index in said:
                one.seen, one.units = self.now(), max(one.units, units)
            elif one.seen + LEASE_S <= self.now():
                self.world.end(one, EndReason.LEASE_EXPIRED, self.now(), word=False)
                continue
            if self.world.jobs[one.granted.job_id].cancelled:
                one.told = True
                expected.add(one.granted.id)
        assert stop == sorted(expected)

    @precondition(lambda self: self.world.tries)
    @rule(pick=PICK, reason=REASONS, wrong=st.booleans(), again=st.booleans())
    def finish(self, pick: int, reason: EndReason, wrong: bool, again: bool) -> None:
        one = self.world.tries[pick % len(self.world.tries)]
        token = self._wrong_token(one, pick) if wrong else one.granted.token
        call = (job_queue.finish, one.granted.id, token, END_STATES[reason], reason)
        if token != one.granted.token or (not one.live and not one.word):
            with pytest.raises(StaleToken):
                self.rig.w(*call)
            return
        result = self.rig.w(*call)
        assert result.result == ("applied" if one.live else "already")
        if one.live:
            self.world.end(one, reason, self.now(), word=True)
        assert result.attempt.reason is one.end
        if again:
            repeated = self.rig.w(*call)
            assert (repeated.result, repeated.attempt) == ("already", result.attempt)

    @rule()
    def reap(self) -> None:
        """What the reaper does: end attempts under leases that ran out, then mark their nodes lost."""
        for node, here in enumerate(self.world.nodes):
            over = here.until <= self.now()
            if over:
                for one in self.world.live_on(node):
                    self.rig.w(
                        job_queue.end_from_here,
                        one.granted.id,
                        one.granted.token,
                        EndReason.LEASE_EXPIRED,
                        "",
                    )
                    self.world.end(one, EndReason.LEASE_EXPIRED, self.now(), word=False)
            if over and not here.reaped:
                self.rig.w(inventory.mark_lost, here.id)
                here.reaped = True
            else:
                with pytest.raises(StaleToken):
                    self.rig.w(inventory.mark_lost, here.id)

    @precondition(lambda self: self.world.jobs)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        job_id = sorted(self.world.jobs)[pick % len(self.world.jobs)]
        job = self.world.jobs[job_id]
        if job.state in ("done", "failed", "dead"):
            with pytest.raises(IllegalTransition):
                self.rig.w(job_queue.cancel, job_id, "")
            return
        state = self.rig.w(job_queue.cancel, job_id, "")
        if job.state == "running":
            job.cancelled = True
        else:
            job.state = "cancelled"
        assert state == job.state

    @rule(seconds=st.sampled_from([0.5, 3.0, LEASE_S / 2, LEASE_S, 70.0]))
    def wait(self, seconds: float) -> None:
        self.rig.turn(seconds)

    def _wrong_token(self, one: ModelTry, pick: int) -> int:
        others = [each.granted.token for each in self.world.tries] + [0, self.greatest + 1]
        return others[pick % len(others)]

    @invariant()
    def the_store_agrees(self) -> None:
        for job_id, expected in self.world.jobs.items():
            job = self.rig.get(job_id)
            assert (job.state, job.failures, job.losses) == (
                expected.state,
                expected.failures,
                expected.losses,
            )
            assert job.state is not JobState.READY or expected.due <= job.not_before <= expected.due + 60
        live = [one.granted.id for one in self.world.tries if one.live]
        assert [attempt.id for attempt in self.rig.r(job_queue.live_attempts)] == live
        for one in self.world.tries:
            attempt = self.rig.r(job_queue.attempt, one.granted.id)
            assert attempt.state is self._state(one)
            assert (attempt.token, attempt.units) == (one.granted.token, one.units)
            assert attempt.incarnation == self.name(one.incarnation)

    @staticmethod
    def _state(one: ModelTry) -> AttemptState:
        if not one.live:
            assert one.end is not None
            return END_STATES[one.end]
        if one.told:
            return AttemptState.ENDING
        return AttemptState.RUNNING if one.started else AttemptState.LEASED


class InlineQueue(QueueMachine):
    """On the engine of the simulator."""


class FileQueue(QueueMachine):
    """On the engine of one machine."""

    engine = "file"


class PostgresQueue(QueueMachine):
    """On the engine of a fleet."""

    engine = "postgres"


TestInlineQueue = InlineQueue.TestCase
TestInlineQueue.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestFileQueue = FileQueue.TestCase
TestFileQueue.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

TestPostgresQueue = PostgresQueue.TestCase
TestPostgresQueue.settings = settings(
    max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
