"""The free room of all waiting nodes, and which of it suits a job best.

Rooms in the same state are one heap, by node; each requirement has a heap of the states that meet it, by preference.
So a choice costs little however many nodes wait: a heap's top, and the states that came up since it was made.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gamekeeper.core.requirements import Capacity, GpuShare, Requirements
from gamekeeper.policy.work_distributor.fitting import (
    GRAIN,
    SLACK,
    Obstacle,
    Ranks,
    Room,
    Scale,
    State,
    enough,
    obstacle,
    place,
)
from gamekeeper.policy.work_distributor.view import ReadyJob

HOLDERS_LOOKED_AT = 32
"""Of an input that many nodes hold, no more of them are compared: all are as good, and a pass must end."""

Preference = tuple[float, float, int, int, int]
Choice = tuple[int, bool, Preference, int]


@dataclass(slots=True)
class Ask:
    """One requirement of a pass, shared by all classes that have it."""

    requirements: Requirements
    needed: Ranks
    obstacles: dict[int, Obstacle | None] = field(default_factory=dict)
    preferences: dict[State, Preference | None] = field(default_factory=dict)
    heap: list[tuple[Preference, int, State]] | None = None


class Kinds:
    """Sorts machines into kinds that all requirements of a pass treat alike."""

    def __init__(self, asked: Iterable[Requirements]) -> None:
        known = list(asked)
        self.scale = Scale.of(known)
        self.gpus = any(one.gpus for one in known)
        self._labels = tuple(sorted({pair for one in known for pair in one.labels}))
        self._architectures = any(one.architectures for one in known)
        self._numbers: dict[object, int] = {}
        self.capacities: list[Capacity] = []

    def number(self, capacity: Capacity) -> int:
        """The kind of a machine with that capacity."""
        devices = capacity.gpus
        key = (
            capacity.slots > 0,
            tuple(capacity.labels.get(name) == value for name, value in self._labels),
            capacity.architecture if self._architectures else "",
            capacity.ephemeral,
            self.scale.ranks(capacity.cpus, capacity.memory_bytes, capacity.disk_free_bytes),
            devices
            if devices is None
            else (tuple(gpu.memory_bytes for gpu in devices) if self.gpus else len(devices)),
        )
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.capacities)
            self.capacities.append(capacity)
        return known

    def obstacle(self, ask: Ask, kind: int) -> Obstacle | None:
        """What keeps an asking job off every empty machine of a kind."""
        if kind not in ask.obstacles:
            ask.obstacles[kind] = obstacle(ask.requirements, self.capacities[kind])
        return ask.obstacles[kind]


class Rooms:
    """The rooms that take jobs in a pass. `rooms` must be sorted by node."""

    def __init__(self, rooms: list[Room], kinds: Kinds, asks: Iterable[Ask], wanted: frozenset[str]) -> None:
        self._rooms = rooms
        self._kinds = kinds
        self._asks = list(asks)
        self._buckets: dict[State, list[int]] = {}
        self._holders: dict[str, list[int]] = {}
        self._kind_of = [kinds.number(room.node.capacity) for room in rooms]
        self._devices = [
            0 if room.node.capacity.gpus is None else len(room.node.capacity.gpus) for room in rooms
        ]
        for order, room in enumerate(rooms):
            room.order = order
            for name in wanted & room.node.cached if wanted else ():
                self._holders.setdefault(name, []).append(order)
            self.open(room)

    def state(self, room: Room) -> State:
        """What tells the room apart from others."""
        devices = None
        if self._kinds.gpus and room.gpus:
            devices = tuple(
                sorted((memory or 0, left) for memory, left in zip(room.memories, room.gpus, strict=True))
            )
        ranks = self._kinds.scale.ranks(room.cpus, room.memory, room.disk)
        return self._kind_of[room.order], room.slots, ranks, devices

    def open(self, room: Room) -> None:
        """Offer a room, or offer it again after it shrank."""
        if room.slots < 1:
            room.state = None
            return
        state = room.state = self.state(room)
        heapq.heappush(self._buckets.setdefault(state, []), room.order)
        for ask in self._asks:
            if ask.heap is not None and (preference := self.preference(ask, state)) is not None:
                heapq.heappush(ask.heap, (preference, room.order, state))

    def close(self, room: Room) -> None:
        """Offer a room no longer."""
        room.state = None

    def preference(self, ask: Ask, state: State) -> Preference | None:
        """How well a state suits: less is better; `None` where it does not fit."""
        if state not in ask.preferences:
            ask.preferences[state] = self._judged(ask, state)
        return ask.preferences[state]

    def _judged(self, ask: Ask, state: State) -> Preference | None:
        kind, slots, ranks, devices = state
        if slots < 1 or not enough(ask.needed, ranks) or self._kinds.obstacle(ask, kind) is not None:
            return None
        tight = sum(ranks)
        if not ask.requirements.gpus:
            there = self._kinds.capacities[kind].gpus
            return float(len(there or ())), 0.0, 0, tight, -slots
        if devices is None:
            return None
        memories = [memory or None for memory, _ in devices]
        free = [left for _, left in devices]
        placed = place(ask.requirements, memories, free)
        if placed is None:
            return None
        whole = sum(left > 1 - SLACK for left in free)
        memory = sum(memories[one.index] or 0 for one in placed)
        if ask.requirements.gpus >= 1:
            return 0.0, float(whole - len(placed)), memory, tight, -slots
        left = free[placed[0].index]
        return float(left > 1 - SLACK), round(left - placed[0].share, GRAIN), memory, tight, -slots

    def fits(self, ask: Ask, room: Room) -> bool:
        """Whether a job may run in a room now, offered or held."""
        return self.preference(ask, room.state or self.state(room)) is not None

    def best(self, ask: Ask) -> Room | None:
        """The offered room that suits best, data aside."""
        if ask.heap is None:
            found = ((self.preference(ask, state), state) for state in self._buckets)
            ask.heap = [
                (preference, first, state)
                for preference, state in found
                if preference is not None and (first := self._first(state)) is not None
            ]
            heapq.heapify(ask.heap)
        while ask.heap:
            preference, order, state = ask.heap[0]
            first = self._first(state)
            if first is None:
                heapq.heappop(ask.heap)
            elif first != order:
                heapq.heapreplace(ask.heap, (preference, first, state))
            else:
                return self._rooms[order]
        return None

    def _first(self, state: State) -> int | None:
        bucket = self._buckets[state]
        while bucket and self._rooms[bucket[0]].state != state:
            heapq.heappop(bucket)
        return bucket[0] if bucket else None

    def pick(self, ask: Ask, job: ReadyJob, barred: Iterable[Room], held: Iterable[Room]) -> Room | None:
        """The room for one job: most of its inputs at hand, then the best fit, then most free slots, then by node.

        `barred` rooms do not count; `held` ones are not offered to all, but may take this job.
        """
        shut = [room for room in barred if room.state is not None]
        for room in shut:
            self.close(room)
        found = self._pick(ask, job, held)
        for room in shut:
            self.open(room)
        return found

    def _pick(self, ask: Ask, job: ReadyJob, held: Iterable[Room]) -> Room | None:
        chosen: tuple[Choice, Room] | None = None
        first = self.best(ask)
        near = self._near(job.inputs) if job.inputs else {}
        rooms = [(self._rooms[order], False) for order in near]
        rooms += [(room, True) for room in held]
        if first is not None and first.order not in near:
            rooms.append((first, False))
        for room, kept in rooms:
            state = room.state or self.state(room)
            preference = self.preference(ask, state)
            if preference is None:
                continue
            at_hand = near.get(room.order, 0) or (len(job.inputs & room.node.cached) if job.inputs else 0)
            choice = (-at_hand, kept, preference, room.order)
            if chosen is None or choice < chosen[0]:
                chosen = choice, room
        return None if chosen is None else chosen[1]

    def _near(self, inputs: frozenset[str]) -> Mapping[int, int]:
        """How many of the inputs the offered rooms have, of those that have any."""
        near: dict[int, int] = {}
        for name in inputs:
            orders = self._holders.get(name)
            if orders is None:
                continue
            looked = passed = 0
            for order in orders:
                if self._rooms[order].state is None:
                    passed += 1
                    continue
                near[order] = near.get(order, 0) + 1
                looked += 1
                if looked >= HOLDERS_LOOKED_AT:
                    break
            if passed > HOLDERS_LOOKED_AT:
                self._holders[name] = [order for order in orders if self._rooms[order].slots > 0]
        if len(inputs) > 1:
            for order in near:
                near[order] = len(inputs & self._rooms[order].node.cached)
        return near

    def take(self, room: Room, asked: Requirements, *, offer: bool) -> tuple[GpuShare, ...]:
        """Hand a job its part of a room; the devices it gets. `offer` the rest to all, or keep it held."""
        gpus = room.placed(asked) or ()
        room.take(asked, gpus)
        room.given += 1
        if offer:
            self.open(room)
        return gpus
