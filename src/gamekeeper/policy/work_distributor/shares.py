"""Whose turn it is: weighted fair sharing over lines, lanes and classes, with minimums and ageing.

At each level the turn goes to the member with the least cost

    (running + 1) / weight / (1 + waited / ageing_s)

where `running` counts live jobs, the ones granted in this pass included. The first part is weighted fair sharing: where
slots abound, busy members hold them in proportion to their weights. The second makes every cost fall while a class has
no grant, so that nothing starves whatever the weights. A class's wait counts in its lane and line by its share of them:
many classes in one lane age no faster, together, than one alone. Members below their minimum go first.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gamekeeper.policy.work_distributor.limits import Limits
from gamekeeper.policy.work_distributor.rooms import Ask
from gamekeeper.policy.work_distributor.view import JobClass, ReadyJob, View

Key = tuple[int, float]


@dataclass(slots=True)
class Entry:
    """A class of jobs with its place in a pass."""

    job_class: JobClass
    lane: str
    ask: Ask
    queue: list[ReadyJob]
    waited: float
    weight: float
    urgency: float
    running: int
    limits: Limits
    given: int = 0
    avoiding: int = 0

    @property
    def owed(self) -> float:
        """Seconds without a grant; a backlog of old jobs is one wait, not many."""
        return 0.0 if self.given else self.waited

    @property
    def stuck(self) -> bool:
        """Whether it went without a grant for so long that room may be held for it."""
        return self.owed > self.limits.reserve_after_s

    def key(self) -> Key:
        """Its place among the classes of its lane."""
        first = self.owed > self.limits.minimums_yield_after_s
        return 0 if first else 1, _cost(self.running + self.given, self.weight, self.owed, self.limits)

    def first(self) -> Entry:
        """Itself: the class whose turn it is."""
        return self

    def settle(self, *, served: bool, over: bool) -> bool:
        """Note what its turn came to; whether it has no further turn in this pass."""
        self.given += served
        return over or not self.queue


class Member(Protocol):
    """What takes turns with others of its level."""

    @property
    def weight(self) -> float: ...

    @property
    def owed(self) -> float: ...

    def key(self) -> Key: ...

    def first(self) -> Entry: ...

    def settle(self, *, served: bool, over: bool) -> bool: ...


@dataclass(slots=True)
class Group:
    """A lane of classes, a line of lanes, or all lines."""

    weight: float
    running: int
    minimum: int
    limits: Limits
    heap: list[tuple[Key, int, Member]] = field(default_factory=list)
    total: float = 0.0
    owed: float = 0.0

    @classmethod
    def of(
        cls,
        members: Sequence[Member],
        limits: Limits,
        weight: float = 1.0,
        running: int = 0,
        minimum: int = 0,
    ) -> Group:
        """A group of members in their order."""
        group = cls(weight, running, minimum, limits)
        group.total = sum(member.weight for member in members)
        group.heap = [(member.key(), order, member) for order, member in enumerate(members)]
        heapq.heapify(group.heap)
        group._age()
        return group

    def _age(self) -> None:
        self.owed = max((member.owed * member.weight for *_, member in self.heap), default=0.0) / self.total

    def key(self) -> Key:
        """Its place among its likes. It goes first when it, or a member, is below its minimum."""
        below = self.running < self.minimum or self.heap[0][0][0] == 0
        return 0 if below else 1, _cost(self.running, self.weight, self.owed, self.limits)

    def first(self) -> Entry:
        """The class whose turn it is."""
        return self.heap[0][2].first()

    def settle(self, *, served: bool, over: bool) -> bool:
        """Note what the first class's turn came to (`over`: it gets no other); whether no class is left."""
        _, order, member = self.heap[0]
        ended = member.settle(served=served, over=over)
        self.running += served
        if ended:
            heapq.heappop(self.heap)
        else:
            heapq.heapreplace(self.heap, (member.key(), order, member))
        self._age()
        return not self.heap


def _cost(running: int, weight: float, waited: float, limits: Limits) -> float:
    return (running + 1) / weight / (1 + waited / limits.ageing_s)


class Loads:
    """How many jobs of each line and lane run, those granted in this pass included."""

    def __init__(self, view: View, limits: Limits) -> None:
        self._limits = limits
        self.lines: Counter[str] = Counter()
        self.lanes: Counter[tuple[str, str]] = Counter()
        for one in view.classes:
            self.lines[one.line] += one.running
            self.lanes[one.line, limits.lane(one.kind, one.purpose)] += one.running

    def grant(self, entry: Entry) -> None:
        """Count one job more."""
        self.lines[entry.job_class.line] += 1
        self.lanes[entry.job_class.line, entry.lane] += 1

    def turns(self, entries: Iterable[Entry]) -> Group:
        """The turns of classes that have jobs left."""
        limits = self._limits
        lanes: dict[tuple[str, str], list[Member]] = {}
        for entry in sorted(entries, key=lambda one: (one.job_class.line, one.lane, one.job_class.class_id)):
            lanes.setdefault((entry.job_class.line, entry.lane), []).append(entry)
        lines: dict[str, list[Member]] = {}
        for (line, lane), classes in lanes.items():
            minimum = limits.minimums.get(f"{line}/{lane}", 0)
            group = Group.of(classes, limits, limits.lane_weight(lane), self.lanes[line, lane], minimum)
            lines.setdefault(line, []).append(group)
        members: list[Member] = [
            Group.of(groups, limits, limits.line_weight(line), self.lines[line], limits.minimums.get(line, 0))
            for line, groups in lines.items()
        ]
        return Group.of(members, limits)


def entry_of(one: JobClass, ask: Ask, queue: list[ReadyJob], limits: Limits, now: float) -> Entry:
    """A class at the start of a pass. `queue`: its jobs that may start, oldest first, at least one."""
    lane = limits.lane(one.kind, one.purpose)
    served = float("-inf") if one.last_granted_at is None else one.last_granted_at
    waited = max(0.0, now - max(served, queue[0].due_at))
    share = one.share if one.share > 0 else 1.0
    urgency = waited * share * limits.lane_weight(lane) * limits.line_weight(one.line)
    return Entry(one, lane, ask, queue, waited, share, urgency, one.running, limits)
