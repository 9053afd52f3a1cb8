"""Daemons: cycles, hints, and failures that touch nobody else."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gamekeeper.core.decisions import Decision
from gamekeeper.core.errors import Busy, GamekeeperError
from gamekeeper.runtime.daemon import BACKOFF_MOST_S, Daemon, Hint
from gamekeeper.runtime.executor import RoleLost
from gamekeeper.runtime.supervisor import keep_daemon, keep_daemons
from tests.unit.server.rig import HandClock, run


class Trace:
    """A daemon whose steps are written down, and that fails when told to."""

    def __init__(self, name: str = "one", fails: Callable[[int], Exception | None] = lambda _n: None) -> None:
        self.steps: list[str] = []
        self.cycles = 0
        self.fails = fails
        self.daemon = Daemon(
            name=name, every_s=10.0, rest_s=1.0, gather=self.gather, decide=self.decide, apply=self.apply
        )

    async def gather(self) -> int | None:
        self.cycles += 1
        error = self.fails(self.cycles)
        if error is not None:
            raise error
        self.steps.append("gather")
        return self.cycles

    def decide(self, view: int, now: float) -> Decision:
        self.steps.append(f"decide {view}")
        return Decision("one", now, ())

    async def apply(self, decision: Decision) -> None:
        self.steps.append(f"apply {decision.policy}")


async def settle() -> None:
    for _ in range(20):
        await checkpoint()


def test_a_cycle_gathers_decides_and_applies_in_this_order() -> None:
    """An effect could come before its decision."""
    trace = Trace()
    assert run(trace.daemon.cycle(5.0)) is not None
    assert trace.steps == ["gather", "decide 1", "apply one"]
    assert (trace.daemon.tally.cycles, trace.daemon.tally.last_cycle_at) == (1, 5.0)


def test_a_hint_wakes_early_but_never_before_the_rest() -> None:
    """A flood of hints could make a daemon spin, or a hint be slept through."""
    clock, trace = HandClock(), Trace()

    async def scene() -> list[int]:
        seen: list[int] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_daemon, trace.daemon, clock)
            await settle()
            seen.append(trace.cycles)
            for _ in range(5):
                trace.daemon.hint.signal()
                await settle()
            seen.append(trace.cycles)  # still resting
            clock.advance(1.0)
            await settle()
            seen.append(trace.cycles)  # hinted
            clock.advance(1.0)
            await settle()
            seen.append(trace.cycles)  # five hints were one
            clock.advance(9.0)
            await settle()
            seen.append(trace.cycles)  # the timer
            tasks.cancel_scope.cancel()
        return seen

    assert run(scene()) == [1, 1, 2, 2, 3]


def test_a_signal_before_the_wait_is_not_lost() -> None:
    """A wake-up between two looks could be lost."""
    hint = Hint()
    hint.signal()
    assert run(hint.wait(HandClock(), 100.0))


def test_a_failing_daemon_slows_down_recovers_and_leaves_its_sibling_alone() -> None:
    """One broken daemon could end all, or hammer what is broken."""
    clock = HandClock()
    broken = Trace("broken", lambda n: ValueError(f"trouble {n}") if n <= 5 else None)
    sound = Trace("sound")

    async def scene() -> list[float]:
        times: list[float] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_daemons, [broken.daemon, sound.daemon], clock)
            last = 0
            for _ in range(400):
                await settle()
                if broken.cycles > last:
                    times.append(clock.now())
                    last = broken.cycles
                clock.advance(0.25)
            tasks.cancel_scope.cancel()
        return times

    times = run(scene())
    gaps = [round(b - a, 2) for a, b in pairwise(times)]
    assert gaps[:5] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert broken.daemon.tally.failures == 5
    assert broken.daemon.tally.failures_in_row == 0
    assert broken.daemon.tally.last_error == "ValueError: trouble 5"
    assert sound.cycles >= 9


def test_the_delay_is_bounded() -> None:
    """A daemon that failed for a day could need another day to come back."""
    daemon = Trace().daemon
    delays = [daemon.note_failure(Busy("x")) for _ in range(2000)]
    assert delays == sorted(delays)
    assert delays[-1] == BACKOFF_MOST_S


@pytest.mark.parametrize("kind", [RoleLost, KeyboardInterrupt])
def test_what_is_fatal_gets_out(kind: type[BaseException]) -> None:
    """A deposed leader could go on as if nothing were."""
    trace = Trace("one", lambda _n: kind("over"))  # type: ignore[return-value, arg-type]
    with pytest.raises(kind):
        run(keep_daemon(trace.daemon, HandClock(), fatal=(RoleLost,)))


def test_expected_errors_are_not_fatal() -> None:
    """A busy store could end the coordinator."""
    clock = HandClock()
    trace = Trace("one", lambda n: GamekeeperError("busy") if n == 1 else None)

    async def scene() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keep_daemon, trace.daemon, clock)
            await settle()
            clock.advance(1.0)
            await settle()
            tasks.cancel_scope.cancel()

    run(scene())
    assert trace.cycles == 2
