"""The claims that are waiting for work. Only a hint to the distributor: nothing here needs to outlive the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import islice

import anyio

Rest = Callable[[float], Awaitable[bool]]
"""Waits out some seconds; answers early, with True, when the caller has left."""


@dataclass(slots=True)
class Offer:
    """A parked claim: `slots` jobs are wanted by this incarnation of a node's agent."""

    node_id: str
    incarnation: str
    slots: int
    cached: frozenset[str] = frozenset()
    replaced: bool = False
    _woken: bool = False
    _resting: anyio.CancelScope | None = field(default=None, repr=False)

    def wake(self) -> None:
        """Have the claim look at the store again."""
        self._woken = True
        if self._resting is not None:
            self._resting.cancel()

    async def rest(self, rest: Rest, seconds: float) -> bool:
        """Wait to be woken, for `seconds` at most; True when the caller has left. Takes the wake-up.

        A parked claim is one task that waits for one thing: there may be ten thousand of them.
        """
        gone = False
        if not self._woken:
            with anyio.CancelScope() as self._resting:
                gone = await rest(seconds)
            self._resting = None
        self._woken = False
        return gone


class ClaimBoard:
    """At most one parked claim for each agent incarnation; a later one replaces it."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}
        self._fresh: dict[str, Offer] = {}
        self.closing = False

    def park(self, node_id: str, incarnation: str, slots: int, cached: frozenset[str] = frozenset()) -> Offer:
        """Put a claim up. An earlier one of the same incarnation is sent home empty."""
        earlier = self._offers.pop(incarnation, None)
        if earlier is not None:
            earlier.replaced = True
            earlier.wake()
        offer = Offer(node_id, incarnation, slots, cached)
        self._offers[incarnation] = self._fresh[incarnation] = offer
        return offer

    def leave(self, offer: Offer) -> None:
        """Take a claim down, answered or not."""
        if self._offers.get(offer.incarnation) is offer:
            del self._offers[offer.incarnation]
            self._fresh.pop(offer.incarnation, None)

    def waiting(self) -> list[Offer]:
        """All parked claims."""
        return list(self._offers.values())

    def fresh(self, most: int) -> list[Offer]:
        """Up to `most` claims that were in neither answer before: what a look for idle agents has not seen."""
        seen = list(islice(self._fresh.values(), most))
        for offer in seen:
            del self._fresh[offer.incarnation]
        return seen

    def some(self, most: int) -> list[Offer]:
        """Up to `most` claims, in turn: each call goes on where the last one stopped."""
        seen = list(islice(self._offers.values(), most))
        for offer in seen:
            self._offers[offer.incarnation] = self._offers.pop(offer.incarnation)
            self._fresh.pop(offer.incarnation, None)
        return seen

    def wake(self, incarnation: str) -> None:
        """Have the claim of this incarnation look at the store again."""
        offer = self._offers.get(incarnation)
        if offer is not None:
            offer.wake()

    def wake_all(self) -> None:
        """Have every parked claim look again."""
        for offer in self._offers.values():
            offer.wake()

    def close(self) -> None:
        """Send everybody home: the coordinator is about to stop."""
        self.closing = True
        self.wake_all()
