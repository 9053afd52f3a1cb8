"""Steps of many agents at once, replayed, doubled, late and stale, driven at random beside all else a queue does."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from gamekeeper.core.jobs import END_STATES, EndReason
from gamekeeper.store.endings import Finish
from gamekeeper.store.leases import Progress
from gamekeeper.store.step import Step, StepReply, take_steps
from tests.contract.test_queue_machine import NODES, PICK, REASONS, SLOTS, ModelTry, QueueMachine
from tests.unit.store.rig import LEASE_S

FINISHES = st.lists(st.tuples(PICK, REASONS, st.booleans()), max_size=3)
SAYING = st.tuples(
    st.integers(0, NODES - 1), st.booleans(), FINISHES, st.sets(PICK, max_size=3), st.integers(0, 3)
)


def gist(reply: StepReply) -> tuple[object, ...]:
    """What an agent that hears the same twice must hear the second time."""
    return (
        reply.refused is None,
        [(each.attempt_id, each.answer == "fenced", each.state, each.reason) for each in reply.finished],
        reply.stop,
        [(each.attempt_id, each.token, each.job.spec) for each in reply.granted],
    )


class StepMachine(QueueMachine):
    """The queue's machine, with agents that say all at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[list[Step]] = []

    @rule(said=st.lists(SAYING, min_size=1, max_size=4))
    def step(self, said: list[tuple[int, bool, list[tuple[int, EndReason, bool]], set[int], int]]) -> None:
        tries = self.world.tries
        steps = []
        for node, late, finishes, named, want in said:
            here = self.world.nodes[node].incarnation
            picked = [
                (tries[pick % len(tries)], pick, reason, wrong) for pick, reason, wrong in finishes if tries
            ]
            steps.append(
                Step(
                    self.name(max(1, here - 1) if late else here),
                    LEASE_S,
                    progress=[
                        Progress(tries[index].granted.id, tries[index].granted.token, 1)
                        for index in sorted({pick % len(tries) for pick in named} if tries else set())
                    ],
                    finishes=[
                        Finish(
                            one.granted.id,
                            self._wrong_token(one, pick) if wrong else one.granted.token,
                            reason,
                        )
                        for one, pick, reason, wrong in picked
                    ],
                    want=want,
                )
            )
        self.sent.append(steps)
        replies = self._take(steps)
        if len({each.incarnation for each in steps}) == len(steps):
            assert [gist(each) for each in self._take(steps)] == [gist(each) for each in replies]

    @precondition(lambda self: self.sent)
    @rule(pick=PICK)
    def a_step_comes_again(self, pick: int) -> None:
        """However late: what was done since must stand."""
        self._take(self.sent[pick % len(self.sent)])

    def _take(self, steps: Sequence[Step]) -> list[StepReply]:
        replies = self.rig.w(take_steps, steps)
        assert len(replies) == len(steps)
        left = list(zip(steps, replies, strict=True))
        while left:
            turn: list[tuple[Step, StepReply]] = []
            later: list[tuple[Step, StepReply]] = []
            for each in left:
                known = each[0].incarnation in {step.incarnation for step, _ in turn}
                (later if known else turn).append(each)
            self._turn(turn)
            left = later
        return replies

    def _turn(self, turn: list[tuple[Step, StepReply]]) -> None:
        valid = []
        for step, reply in turn:
            node = self._holder(step.incarnation)
            if node is None:
                assert reply.refused is not None
                assert (reply.finished, reply.stop, reply.granted) == ((), (), ())
            else:
                assert reply.refused is None
                valid.append((step, reply, node))
        for step, reply, node in valid:
            self._finish(step, reply, node)
        rooms = [(reply, node, self._renew(step, reply, node)) for step, reply, node in valid]
        self._grant_new(rooms)

    def _holder(self, incarnation: str) -> int | None:
        for node, here in enumerate(self.world.nodes):
            if self.name(here.incarnation) == incarnation and not here.reaped:
                return node
        return None

    def _finish(self, step: Step, reply: StepReply, node: int) -> None:
        assert [each.attempt_id for each in reply.finished] == [each.attempt_id for each in step.finishes]
        for said, answer in zip(step.finishes, reply.finished, strict=True):
            one = next(each for each in self.world.tries if each.granted.id == said.attempt_id)
            mine = said.token == one.granted.token and one.node == node
            if not mine or not (one.live or one.word):
                assert answer.answer == "fenced"
                assert answer.refusal is not None
                continue
            assert answer.answer == ("applied" if one.live else "already")
            if one.live:
                self.world.end(one, said.reason, self.now(), word=True)
            assert one.end is not None
            assert (answer.reason, answer.state) == (one.end, END_STATES[one.end])

    def _renew(self, step: Step, reply: StepReply, node: int) -> tuple[list[ModelTry], int]:
        """Take its beat into the model: (attempts it has not heard of, how many more it can be given)."""
        here = self.world.nodes[node]
        here.until = self.now() + LEASE_S
        assert reply.lease is not None
        assert reply.lease.expires_at == here.until
        named = {said.attempt_id for said in step.progress}
        live = self.world.live_on(node)
        stop = named - {one.granted.id for one in live}
        unheard = []
        for one in live:
            if one.granted.id in named:
                one.seen, one.units = self.now(), max(one.units, 1)
            elif one.seen + LEASE_S <= self.now():
                self.world.end(one, EndReason.LEASE_EXPIRED, self.now(), word=False)
                continue
            if self.world.jobs[one.granted.job_id].cancelled:
                one.told = True
                stop.add(one.granted.id)
            elif one.granted.id not in named and not one.started and not one.told:
                unheard.append(one)
        assert set(reply.stop) == stop
        again = unheard[: step.want]
        room = min(step.want - len(again), SLOTS - len(self.world.live_on(node)))
        return again, max(0, room)

    def _grant_new(self, rooms: list[tuple[StepReply, int, tuple[list[ModelTry], int]]]) -> None:
        now = self.now()
        due = {
            job_id
            for job_id, job in self.world.jobs.items()
            if job.state == "ready" and self.rig.get(job_id).not_before <= now
        }
        granted = 0
        for reply, node, (again, room) in rooms:
            assert [each.attempt_id for each in reply.granted[: len(again)]] == [
                one.granted.id for one in again
            ]
            fresh = reply.granted[len(again) :]
            assert len(fresh) <= room
            granted += len(fresh)
            for each in fresh:
                job_id = each.job.id
                assert job_id in due
                due.discard(job_id)
                assert each.token > self.greatest
                self.world.jobs[job_id].state = "running"
                incarnation = self.world.nodes[node].incarnation
                self.world.tries.append(ModelTry(each.attempt, node, incarnation, now))
        assert granted == sum(room for _, _, (_, room) in rooms) or not due, (
            "a free slot and a due job are left"
        )
        self.world.tries.sort(key=lambda one: one.granted.id)
        self.greatest = max((one.granted.token for one in self.world.tries), default=0)


class InlineSteps(StepMachine):
    """On the engine of the simulator."""


class FileSteps(StepMachine):
    """On the engine of the product."""

    engine = "file"


TestInlineSteps = InlineSteps.TestCase
TestInlineSteps.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestFileSteps = FileSteps.TestCase
TestFileSteps.settings = settings(
    max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class PostgresSteps(StepMachine):
    """On the engine of a fleet."""

    engine = "postgres"


TestPostgresSteps = PostgresSteps.TestCase
TestPostgresSteps.settings = settings(
    max_examples=8, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
