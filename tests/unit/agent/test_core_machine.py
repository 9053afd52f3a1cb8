"""The agent's core under arbitrary events: whatever comes, in whatever order, its promises hold."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from gamekeeper.agent import messages as m
from gamekeeper.agent.endings import Exit
from gamekeeper.core.jobs import EndReason
from gamekeeper.protocol import Observed
from tests.thoroughness import examples
from tests.unit.agent.core_world import World, grant, identity

EXITS = [
    Exit("exited", 0, receipt={"games": 1}),
    Exit("exited", 0),
    Exit("exited", 1, errors="Traceback"),
    Exit("exited", None, 9),
    Exit("stopped", None, 15),
    Exit("deadline", None, 9),
    Exit("vanished"),
]
FAILURES = st.sampled_from([failure for failure in m.Failure if failure is not m.Failure.NOT_ALLOWED])


class CoreMachine(RuleBasedStateMachine):
    """`World` checks every command; the rules only choose what happens next."""

    world: World

    @initialize(slots=st.integers(1, 3), restored=st.integers(0, 2))
    def start(self, slots: int, restored: int) -> None:
        self.world = World(slots=slots)
        found = [m.RestoredAttempt(grant(1 + n), identity(1 + n), 990.0) for n in range(min(slots, restored))]
        self.world.begin(*found)

    def _call(self, pick: int) -> int:
        serials = sorted(self.world.calls)
        return serials[pick % len(serials)]

    def _one(self, attempts: set[int], pick: int) -> int:
        return sorted(attempts)[pick % len(attempts)]

    @precondition(lambda self: self.world.calls)
    @rule(
        pick=st.integers(0, 50), grants=st.integers(0, 3), stop=st.sets(st.integers(1, 8), max_size=2),
        drain=st.booleans(),
    )  # fmt: skip
    def answer(self, pick: int, grants: int, stop: set[int], drain: bool) -> None:
        self.world.succeed(self._call(pick), grants, tuple(stop), drain and pick % 5 == 0)

    @precondition(lambda self: self.world.calls)
    @rule(pick=st.integers(0, 50), grants=st.integers(0, 3))
    def answer_well(self, pick: int, grants: int) -> None:
        self.world.succeed(self._call(pick), grants)

    @precondition(lambda self: self.world.calls)
    @rule(pick=st.integers(0, 50), failure=FAILURES)
    def fail(self, pick: int, failure: m.Failure) -> None:
        self.world.fail(self._call(pick), failure)

    @precondition(lambda self: self.world.answered)
    @rule(pick=st.integers(0, 200))
    def repeat_an_answer(self, pick: int) -> None:
        before = self.world.core.desk.occupied
        self.world.send(self.world.answered[pick % len(self.world.answered)])
        assert self.world.core.desk.occupied <= before, "a repeated answer made work"

    @precondition(lambda self: self.world.starting)
    @rule(pick=st.integers(0, 5), fails=st.integers(0, 4))
    def process_starts(self, pick: int, fails: int) -> None:
        attempt = self._one(self.world.starting, pick)
        if fails == 0:
            self.world.start_fails(attempt)
        else:
            self.world.process_starts(attempt)

    @precondition(lambda self: self.world.running)
    @rule(pick=st.integers(0, 5), exit_=st.sampled_from(EXITS))
    def process_ends(self, pick: int, exit_: Exit) -> None:
        self.world.process_ends(self._one(self.world.running, pick), exit_)

    @precondition(lambda self: self.world.running)
    @rule(pick=st.integers(0, 5), name=st.sampled_from(["a", "b", "c"]))
    def seal(self, pick: int, name: str) -> None:
        self.world.seal(self._one(self.world.running, pick), name)

    @rule(attempt=st.integers(1, 8), units=st.integers(0, 100))
    def progress(self, attempt: int, units: int) -> None:
        self.world.send(m.Progressed(attempt, units, "", {}))

    @rule(attempt=st.integers(1, 8))
    def stray_events(self, attempt: int) -> None:
        """Events of attempts that are not in that state must not matter."""
        if attempt not in self.world.starting:
            self.world.send(m.ProcessStarted(attempt, identity(attempt), self.world.now))
            self.world.send(m.StartFailed(attempt, EndReason.CANNOT_START, ""))
        if attempt not in self.world.running | self.world.starting:
            self.world.send(m.ProcessEnded(attempt, Exit("exited", 0)))
        self.world.send(m.FileUnusable(99, "x", "y"))

    @rule(seconds=st.sampled_from([0.1, 0.5, 2.0, 5.0, 13.0, 17.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from([3.0, 18.0, 600.0]))
    def frozen(self, seconds: float) -> None:
        """The process was stopped: time passed without a tick."""
        self.world.now += seconds
        self.world.send(m.Tick())

    @rule(room=st.booleans())
    def measured(self, room: bool) -> None:
        self.world.send(m.Measured(Observed(), room))

    @rule(dice=st.integers(0, 15))
    def shut_down(self, dice: int) -> None:
        if dice == 0:
            self.world.shut = True
            self.world.send(m.ShutdownOrdered())

    def teardown(self) -> None:
        """With a kind world every attempt is reported once or forgotten, and nothing is left."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.send(m.Measured(Observed(), True))
        world.settle()
        assert not world.running or world.left
        assert not world.starting or world.left
        if not world.left:
            assert len(world.core.desk) == 0, "an attempt is left over"
            assert set(world.granted) == world.forgotten
        for attempt in world.granted:
            assert world.booked.get(attempt, 0) >= 1 or attempt in world.void or world.left
        if world.shut:
            assert world.left, "ordered to leave, and did not"


TestCoreMachine = CoreMachine.TestCase
TestCoreMachine.settings = settings(
    examples(60), stateful_step_count=40, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def world() -> World:
    world = World()
    world.begin()
    return world


def serial_of(world: World, kind: type[object]) -> int:
    return next(serial for serial, (call, _) in world.calls.items() if isinstance(call, kind))


def test_a_free_slot_is_claimed_while_the_last_files_still_ship(world: World) -> None:
    """A slot that waited for uploads would idle at every job change."""
    world.succeed(serial_of(world, m.SendConnect))
    world.succeed(serial_of(world, m.SendClaim), grants=2)
    while not world.starting:
        world.succeed(serial_of(world, m.FetchInputs))
    first = min(world.starting)
    world.process_starts(first)
    world.seal(first, "a")
    assert not any(isinstance(call, m.SendClaim) for call, _ in world.calls.values())
    world.process_ends(first)
    claims = [call for call, _ in world.calls.values() if isinstance(call, m.SendClaim)]
    assert [claim.message.slots for claim in claims] == [1]
    assert not world.finishes, "reported before its file was shipped"


def test_the_lease_counts_from_before_the_request(world: World) -> None:
    """Counting from the answer would let a job outlive its lease by the round trip."""
    serial = serial_of(world, m.SendConnect)
    world.now += 5.0
    world.succeed(serial)
    assert world.core.lease is not None
    assert world.core.lease.expires_at == 1020.0


def test_a_claim_without_an_answer_makes_a_fresh_incarnation(world: World) -> None:
    """A grant whose answer was lost would otherwise stay leased to an agent that never heard of it."""
    world.succeed(serial_of(world, m.SendConnect))
    before = world.incarnation
    world.fail(serial_of(world, m.SendClaim), m.Failure.UNREACHABLE)
    world.pass_time(1.0)
    call, _ = world.calls[serial_of(world, m.SendConnect)]
    assert isinstance(call, m.SendConnect)
    assert call.message.incarnation != before
    assert call.message.held == []


def test_running_jobs_survive_a_short_outage_of_the_coordinator(world: World) -> None:
    """A coordinator restart must not cost the work under way."""
    world.succeed(serial_of(world, m.SendConnect))
    world.succeed(serial_of(world, m.SendClaim), grants=1)
    world.succeed(serial_of(world, m.FetchInputs))
    world.process_starts(1)
    for _ in range(12):
        world.pass_time(1.0)
        for serial in list(world.calls):
            world.fail(serial, m.Failure.UNREACHABLE)
    world.pass_time(0.0)
    for _ in range(4):
        for serial in list(world.calls):
            world.succeed(serial)
        world.pass_time(2.0)
    assert world.running == {1}
    assert not world.told_to_stop
    world.process_ends(1)
    world.settle(10)
    assert world.booked == {1: 1}


def test_a_refused_node_stops_its_jobs_and_says_why(world: World) -> None:
    """An agent that is not accepted must neither work on nor ask for ever."""
    world.succeed(serial_of(world, m.SendConnect))
    world.succeed(serial_of(world, m.SendClaim), grants=1)
    world.succeed(serial_of(world, m.FetchInputs))
    world.process_starts(1)
    world.pass_time(5.0)
    world.fail(serial_of(world, m.SendBeat), m.Failure.NOT_ALLOWED)
    assert world.told_to_stop == {1}
    world.process_ends(1)
    assert world.left


def test_nothing_is_claimed_without_room_or_while_draining(world: World) -> None:
    """A node with a full disk would burn one job after the other."""
    world.send(m.Measured(Observed(), False))
    world.succeed(serial_of(world, m.SendConnect))
    world.pass_time(4.0)
    assert not any(isinstance(call, m.SendClaim) for call, _ in world.calls.values())
    world.send(m.Measured(Observed(), True))
    world.succeed(serial_of(world, m.SendClaim), drain=True)
    world.pass_time(0.5)
    assert not any(isinstance(call, m.SendClaim) for call, _ in world.calls.values())


def test_jobs_that_cannot_start_slow_the_claims_down(world: World) -> None:
    """A broken node would otherwise drain the queue into failures."""
    world.succeed(serial_of(world, m.SendConnect))
    claims = 0
    for _ in range(120):
        for serial in list(world.calls):
            claims += isinstance(world.calls[serial][0], m.SendClaim)
            world.succeed(serial, grants=1)
        for attempt in list(world.starting):
            world.start_fails(attempt)
        world.pass_time(0.5)
    assert claims < 25
