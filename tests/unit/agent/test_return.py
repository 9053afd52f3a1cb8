"""How a fleet comes back to a coordinator that was gone: real agent cores, the real gates, pretended time."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest

from gamekeeper.agent import messages as m
from gamekeeper.agent.core import AgentCore
from gamekeeper.protocol import Claimed, Connected, Observed
from gamekeeper.server.gates import Gates, default_bounds

CONNECTS = default_bounds()["connect"]


class Fleet:
    """Agents that hold a lease and a parked claim until `lost`, and a coordinator that answers from `back_at` on."""

    def __init__(self, agents: int, lease_s: float, back_at: float) -> None:
        self.lease_s, self.back_at = lease_s, back_at
        self.gates = Gates(default_bounds(), random.Random(5))
        self.cores = [AgentCore(1, random.Random(number)) for number in range(agents)]
        self.tries: list[float] = []
        self.back: dict[int, float] = {}
        self.lost_leases = 0

    def settle(self, now: float) -> None:
        """Connect everybody, and park their claims."""
        for core in self.cores:
            core.handle(m.Measured(Observed(), True), now)
            (connect,) = [c for c in core.handle(m.Restored(()), now) if isinstance(c, m.SendConnect)]
            core.handle(m.ConnectAnswered(connect.serial, now, self.granted()), now)

    def granted(self) -> Connected:
        return Connected(lease_s=self.lease_s, expires_in_s=self.lease_s, keep=[], stop=[], settings_hash="")

    def lost(self, now: float, until: float) -> None:
        """All connections break at once; play what follows."""
        due: list[tuple[float, int]] = []
        for number, core in enumerate(self.cores):
            serial = next(iter(core._claims))
            core.handle(m.Failed(serial, m.Failure.UNREACHABLE, "gone"), now)
            heapq.heappush(due, (core.next_wake, number))
        while due and due[0][0] < until and len(self.back) < len(self.cores):
            at, number = heapq.heappop(due)
            core = self.cores[number]
            for command in core.handle(m.Tick(), at):
                if isinstance(command, m.SendConnect):
                    self._connect(number, command, at)
            self.lost_leases += core.lease is None
            heapq.heappush(due, (core.next_wake, number))

    def _connect(self, number: int, command: m.SendConnect, at: float) -> None:
        self.tries.append(at)
        core = self.cores[number]
        if at < self.back_at:
            core.handle(m.Failed(command.serial, m.Failure.UNREACHABLE, "refused"), at)
            return
        turned = self.gates.enter("connect", number, at)
        if turned is not None:
            core.handle(m.Failed(command.serial, m.Failure.BUSY, turned.why, turned.again_after_s), at)
            return
        self.gates.leave("connect", number)
        self.back[number] = at
        core.handle(m.ConnectAnswered(command.serial, at, self.granted()), at)


def busiest(times: list[float]) -> int:
    """Most in any second."""
    return max(Counter(int(at) for at in times).values())


@pytest.mark.slow
@pytest.mark.parametrize(("agents", "down_s"), [(10_000, 3.0), (1_000, 0.0), (1_000, 20.0)])
def test_many_agents_return_spread_out_and_before_their_leases_end(agents: int, down_s: float) -> None:
    """A restart of the coordinator could bring everybody back at one moment, or cost leases."""
    lease_s, at = 120.0, 100.0
    fleet = Fleet(agents, lease_s, at + down_s)
    fleet.settle(at)
    fleet.lost(at, at + lease_s)
    assert len(fleet.back) == agents
    assert fleet.lost_leases == 0
    assert busiest(list(fleet.back.values())) <= CONNECTS.burst + 1.1 * CONNECTS.rate_per_s
    assert max(fleet.back.values()) - (at + down_s) <= agents / CONNECTS.rate_per_s + lease_s / 16 + 1
    tries_when_back = [when for when in fleet.tries if when >= at + down_s]
    assert len(tries_when_back) <= 2.2 * agents, "agents come again and again in vain"
    assert busiest(tries_when_back) <= agents / 2, "they come in waves"


def test_a_busy_coordinator_is_asked_again_when_it_said() -> None:
    """A place in the schedule could be lost by coming early, or wasted by coming late."""
    core = AgentCore(1, random.Random(1))
    core.handle(m.Measured(Observed(), True), 10.0)
    (connect,) = [c for c in core.handle(m.Restored(()), 10.0) if isinstance(c, m.SendConnect)]
    core.handle(m.Failed(connect.serial, m.Failure.BUSY, "busy", 7.5), 10.0)
    assert core.next_wake == 17.5
    assert not [c for c in core.handle(m.Tick(), 17.4) if isinstance(c, m.SendConnect)]
    assert [c for c in core.handle(m.Tick(), 17.5) if isinstance(c, m.SendConnect)]


def test_a_claim_that_brought_nothing_does_not_end_the_lease() -> None:
    """An empty answer could be taken for a lost connection."""
    core = AgentCore(1, random.Random(1))
    core.handle(m.Measured(Observed(), True), 10.0)
    (connect,) = [c for c in core.handle(m.Restored(()), 10.0) if isinstance(c, m.SendConnect)]
    reply = Connected(lease_s=30.0, expires_in_s=30.0, keep=[], stop=[], settings_hash="")
    core.handle(m.ConnectAnswered(connect.serial, 10.0, reply), 10.0)
    core.handle(m.ClaimAnswered(next(iter(core._claims)), Claimed(grants=[])), 25.0)
    assert core.connected
