"""Whether a call is let in, decided without input or output.

Calls fall into classes, each with bounds of its own, so that no class can take another's room: beats are let in
whatever else goes on. A call that is turned away is told when to come again. That delay grows with the number that
were turned away, and no two callers are told the same, so those who left together do not come back together.

A class may also have a rate. Whoever is beyond it is given a place in the schedule of that rate, and is let in without
further ado when coming at that time: ten thousand agents that lost their coordinator at one moment come back
one after the other.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from gamekeeper.settings.schema import CallsSection

MOST_WAIT_S = 60.0
PLACE_KEPT_S = 30.0
MANY = 1 << 30


@dataclass(frozen=True, slots=True)
class Bound:
    """The bounds of a class.

    most: calls inside at once; each: calls inside at once of one caller. again_after_s: about how long a call that was
    turned away should wait when few were. rate_per_s, burst: calls let in per second over time, and at once.
    yields_at_s: while the event loop is later than this, the class keeps to one call at a time. served: of the calls
    inside, how many are worked on at once; the others wait for their turn.
    """

    most: int
    each: int = MANY
    again_after_s: float = 0.5
    rate_per_s: float = float("inf")
    burst: int = 1
    yields_at_s: float = float("inf")
    served: int = MANY


def default_bounds() -> dict[str, Bound]:
    """The classes of calls with their bounds."""
    return {
        "beat": Bound(16384, each=4),
        "claim": Bound(16384, each=4),
        "connect": Bound(256, each=2, rate_per_s=400.0, burst=200),
        "enrol": Bound(64),
        "agent": Bound(1024, each=64),
        "upload": Bound(16, each=4, yields_at_s=0.5),
        "download": Bound(64, each=8, yields_at_s=1.0),
        "people": Bound(32, again_after_s=1.0, yields_at_s=0.25, served=2),
    }


def bounds_of(calls: CallsSection) -> dict[str, Bound]:
    """The classes of calls with the bounds that the settings give them."""
    found = {name: replace(bound, most=int(getattr(calls, name))) for name, bound in default_bounds().items()}
    connects = found["connect"]
    burst = max(1, min(connects.burst, round(calls.connects_per_s)))
    return found | {"connect": replace(connects, rate_per_s=calls.connects_per_s, burst=burst)}


def class_of(method: str, path: str) -> str:
    """Which class a call belongs to."""
    match path:
        case "/v1/agent/beat" | "/v1/agent/step":
            return "beat"
        case "/v1/agent/claim":
            return "claim"
        case "/v1/agent/connect":
            return "connect"
        case "/v1/enrol":
            return "enrol"
    if path.startswith("/v1/attempts/") and "/artifacts/" in path:
        return "upload" if method != "GET" else "agent"
    if path.startswith("/v1/artifacts/"):
        return "download"
    if path.startswith(("/v1/agent/", "/v1/attempts/")):
        return "agent"
    return "people"


@dataclass(frozen=True, slots=True)
class Turned:
    """A call was not let in: why, and after how many seconds to come again."""

    why: str
    again_after_s: float


@dataclass(slots=True)
class _Gate:
    bound: Bound
    inside: int = 0
    callers: dict[int, int] = field(default_factory=dict)
    turned: float = 0.0
    turned_at: float = float("-inf")
    next_at: float = float("-inf")
    places: dict[int, float] = field(default_factory=dict)


class Gates:
    """All gates. `lag_s` is how late the event loop was when last measured; whoever measures it sets it."""

    def __init__(self, bounds: Mapping[str, Bound], rng: random.Random) -> None:
        self._gates = {name: _Gate(bound) for name, bound in bounds.items()}
        self._rng = rng
        self.lag_s = 0.0

    def enter(self, kind: str, caller: int, now: float) -> Turned | None:
        """Let a call in (`None`; `leave` must follow), or turn it away. `now`: seconds on a steady clock."""
        gate = self._gates[kind]
        bound = gate.bound
        most = 1 if self.lag_s > bound.yields_at_s else bound.most
        if gate.inside >= min(most, bound.most):
            return self._full(gate, f"{gate.inside} calls of this kind are under way", now)
        if gate.callers.get(caller, 0) >= bound.each:
            return self._full(gate, f"this caller has {bound.each} calls of this kind under way", now)
        if bound.rate_per_s < float("inf"):
            turned = self._out_of_turn(gate, caller, now)
            if turned is not None:
                return turned
        gate.inside += 1
        gate.callers[caller] = gate.callers.get(caller, 0) + 1
        return None

    def leave(self, kind: str, caller: int) -> None:
        """A call that was let in is over."""
        gate = self._gates[kind]
        gate.inside -= 1
        left = gate.callers[caller] - 1
        if left:
            gate.callers[caller] = left
        else:
            del gate.callers[caller]

    def served(self) -> dict[str, int]:
        """How many calls are worked on at once, for the classes that bound it."""
        return {name: gate.bound.served for name, gate in self._gates.items() if gate.bound.served < MANY}

    def inside(self, kind: str) -> int:
        """How many calls of a class are under way."""
        return self._gates[kind].inside

    def _full(self, gate: _Gate, why: str, now: float) -> Turned:
        """The delay grows with how many were turned away of late: they cannot all fit in at once either."""
        pause = gate.bound.again_after_s
        gate.turned = 1 + gate.turned * 0.5 ** min(60.0, (now - gate.turned_at) / (2 * pause))
        gate.turned_at = now
        delay = pause * (1 + gate.turned / max(1, gate.bound.most)) * self._rng.uniform(0.5, 1.5)
        return Turned(why, min(MOST_WAIT_S, delay))

    def _out_of_turn(self, gate: _Gate, caller: int, now: float) -> Turned | None:
        every = 1 / gate.bound.rate_per_s
        self._forget(gate, now)
        place = gate.places.get(caller)
        if place is None:
            place = max(gate.next_at, now - (gate.bound.burst - 1) * every)
            if place > now + MOST_WAIT_S:
                return Turned("too many callers at once", MOST_WAIT_S * self._rng.uniform(0.5, 1.0))
            gate.next_at = place + every
            if place > now:
                gate.places[caller] = place
        elif place <= now:
            del gate.places[caller]
        if place <= now:
            return None
        return Turned("callers are let in one after the other", place - now)

    def _forget(self, gate: _Gate, now: float) -> None:
        """Drop places whose holders did not come. They were handed out in order of time."""
        for caller in [who for who, place in islice(gate.places.items(), 4) if place + PLACE_KEPT_S < now]:
            del gate.places[caller]
