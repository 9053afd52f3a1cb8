"""The claims that are waiting for work. Only a hint to the distributor: nothing here needs to outlive the process."""

from __future__ import annotations

from dataclasses import dataclass, field

from gamekeeper.runtime.daemon import Hint


@dataclass(slots=True)
class Offer:
    """A parked claim: `slots` jobs are wanted by this incarnation of a node's agent."""

    node_id: str
    incarnation: str
    slots: int
    woken: Hint = field(default_factory=Hint)
    replaced: bool = False


class ClaimBoard:
    """At most one parked claim for each agent incarnation; a later one replaces it."""

    def __init__(self) -> None:
        self._offers: dict[str, Offer] = {}
        self.closing = False

    def park(self, node_id: str, incarnation: str, slots: int) -> Offer:
        """Put a claim up. An earlier one of the same incarnation is sent home empty."""
        earlier = self._offers.get(incarnation)
        if earlier is not None:
            earlier.replaced = True
            earlier.woken.signal()
        offer = Offer(node_id, incarnation, slots)
        self._offers[incarnation] = offer
        return offer

    def leave(self, offer: Offer) -> None:
        """Take a claim down, answered or not."""
        if self._offers.get(offer.incarnation) is offer:
            del self._offers[offer.incarnation]

    def waiting(self) -> list[Offer]:
        """All parked claims."""
        return list(self._offers.values())

    def wake(self, incarnation: str) -> None:
        """Have the claim of this incarnation look at the store again."""
        offer = self._offers.get(incarnation)
        if offer is not None:
            offer.woken.signal()

    def wake_all(self) -> None:
        """Have every parked claim look again."""
        for offer in self._offers.values():
            offer.woken.signal()

    def close(self) -> None:
        """Send everybody home: the coordinator is about to stop."""
        self.closing = True
        self.wake_all()
