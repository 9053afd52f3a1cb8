"""The gates as a pure model: room of their own for beats, fairness among callers, and delays that spread callers."""

from __future__ import annotations

import heapq
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.server.gates import (
    MANY,
    MOST_WAIT_S,
    PLACE_KEPT_S,
    Bound,
    Gates,
    class_of,
    default_bounds,
)

KINDS = sorted(default_bounds())


def opened(bounds: dict[str, Bound] | None = None, seed: int = 1) -> Gates:
    return Gates(bounds or default_bounds(), random.Random(seed))


@pytest.mark.parametrize("flood", [kind for kind in KINDS if kind != "beat"])
@pytest.mark.parametrize("lag_s", [0.0, 10.0])
def test_no_flood_keeps_a_beat_out(flood: str, lag_s: float) -> None:
    """Agents could lose their leases because somebody uploads, asks or connects."""
    gates = opened()
    gates.lag_s = lag_s
    turned = [gates.enter(flood, caller, 0.0) for caller in range(20_000)]
    assert any(turned), "the flood was no flood"
    assert [gates.enter("beat", caller, 0.0) for caller in range(10_000)] == [None] * 10_000


@settings(max_examples=40)
@given(
    calls=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.booleans()), max_size=120),
    lag_s=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_no_class_and_no_caller_has_more_inside_than_its_bound(
    calls: list[tuple[str, int, bool]], lag_s: float
) -> None:
    """A bound could be passed, or a place given back twice or never."""
    bounds = {kind: Bound(most=5, each=2, yields_at_s=0.25 if kind == "people" else 9.0) for kind in KINDS}
    gates = opened(bounds)
    gates.lag_s = lag_s
    inside: Counter[tuple[str, int]] = Counter()
    for kind, caller, leaves in calls:
        if leaves and inside[kind, caller]:
            gates.leave(kind, caller)
            inside[kind, caller] -= 1
            continue
        total = sum(n for (which, _), n in inside.items() if which == kind)
        assert gates.inside(kind) == total
        room = total < (1 if kind == "people" and lag_s > 0.25 else 5) and inside[kind, caller] < 2
        turned = gates.enter(kind, caller, 0.0)
        assert (turned is None) == room
        inside[kind, caller] += turned is None


def test_one_caller_cannot_take_the_whole_gate() -> None:
    """One node in trouble could keep all others from uploading."""
    gates = opened()
    for _ in range(1000):
        gates.enter("upload", 1, 0.0)
    assert gates.enter("upload", 2, 0.0) is None


@settings(max_examples=40)
@given(waiting=st.integers(1, 400), seed=st.integers(0, 99))
def test_the_delay_grows_with_the_crowd_and_shrinks_when_it_is_gone(waiting: int, seed: int) -> None:
    """A crowd could be told to come back sooner than it can be served, or one late caller wait for nothing."""
    gates = opened({"people": Bound(4, again_after_s=1.0)}, seed)
    for caller in range(4):
        assert gates.enter("people", caller, 0.0) is None
    delays = [turned.again_after_s for n in range(waiting) if (turned := gates.enter("people", n, 0.0))]
    assert len(delays) == waiting
    assert all(0.5 <= delay <= MOST_WAIT_S for delay in delays)
    assert delays[-1] >= min(MOST_WAIT_S, 0.5 * (1 + waiting / 4)) * 0.99
    late = gates.enter("people", 1, 1000.0)
    assert late is not None
    assert late.again_after_s < 2.0


def test_callers_turned_away_together_do_not_come_back_together() -> None:
    """A wave of callers could bounce as one wave for ever."""
    gates = opened({"people": Bound(1, again_after_s=1.0)})
    gates.enter("people", 0, 0.0)
    delays = [turned.again_after_s for n in range(30) if (turned := gates.enter("people", n, 0.0))]
    assert len({round(delay, 2) for delay in delays}) > 20


@settings(max_examples=30, deadline=None)
@given(
    callers=st.integers(1, 3000),
    rate=st.sampled_from([50.0, 200.0, 400.0]),
    burst=st.sampled_from([1, 50, 200]),
    seed=st.integers(0, 99),
)
def test_a_storm_of_callers_is_let_in_at_the_rate_and_in_good_time(
    callers: int, rate: float, burst: int, seed: int
) -> None:
    """A storm could pass the rate, keep coming back in vain, or leave somebody outside."""
    gates, rng = opened({"connect": Bound(MANY, rate_per_s=rate, burst=burst)}, seed), random.Random(seed)
    coming = [(rng.uniform(0, 0.2), caller) for caller in range(callers)]
    heapq.heapify(coming)
    entered: list[float] = []
    tries: Counter[int] = Counter()
    while coming:
        at, caller = heapq.heappop(coming)
        tries[caller] += 1
        turned = gates.enter("connect", caller, at)
        if turned is None:
            gates.leave("connect", caller)
            entered.append(at)
        else:
            # who is told to wait comes a little later than told
            heapq.heappush(coming, (at + turned.again_after_s + rng.uniform(0, 0.05), caller))
    assert max(entered) <= callers / rate + 0.5
    per_second = Counter(int(at) for at in entered)
    assert max(per_second.values()) <= burst + 1.1 * rate + 2
    if callers / rate < MOST_WAIT_S:
        assert max(tries.values()) <= 2


def test_coming_back_too_early_gains_nothing() -> None:
    """An impatient caller could push itself before the patient ones, or lose its place."""
    gates = opened({"connect": Bound(MANY, rate_per_s=1.0)})
    assert gates.enter("connect", 0, 0.0) is None
    first, second = gates.enter("connect", 1, 0.0), gates.enter("connect", 2, 0.0)
    assert first is not None
    assert second is not None
    assert (first.again_after_s, second.again_after_s) == (1.0, 2.0)
    again = gates.enter("connect", 2, 0.5)
    assert again is not None
    assert again.again_after_s == 1.5
    assert gates.enter("connect", 1, 1.0) is None
    assert gates.enter("connect", 2, 2.0) is None


def test_places_of_callers_who_never_come_are_forgotten() -> None:
    """Ten million strangers could fill the memory with their places."""
    gates = opened({"connect": Bound(MANY, rate_per_s=100.0)})
    for n in range(20_000):
        gates.enter("connect", n, n / 150)
    assert len(gates._gates["connect"].places) <= (MOST_WAIT_S + PLACE_KEPT_S) * 100 + 1


def test_every_call_of_an_agent_has_a_class_with_bounds() -> None:
    """A renamed call could fall into the class of people's questions and starve there."""
    calls = {
        ("POST", "/v1/agent/beat"): "beat", ("POST", "/v1/agent/claim"): "claim",
        ("POST", "/v1/agent/connect"): "connect", ("POST", "/v1/enrol"): "enrol",
        ("POST", "/v1/attempts/1/finish"): "agent", ("POST", "/v1/attempts/1/started"): "agent",
        ("PUT", "/v1/attempts/1/2/artifacts/x"): "upload", ("GET", "/v1/attempts/1/2/artifacts/x"): "agent",
        ("POST", "/v1/attempts/1/2/artifacts/x/seal"): "upload", ("GET", "/v1/artifacts/x"): "download",
        ("GET", "/v1/status"): "people", ("POST", "/v1/stop"): "people",
    }  # fmt: skip
    assert {call: class_of(*call) for call in calls} == calls
    assert set(calls.values()) == set(KINDS)
