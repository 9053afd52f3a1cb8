"""The known machines, counted by kind and by whether work may go there: of the same size for every fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gamekeeper.core.requirements import Requirements
from gamekeeper.policy.work_distributor.fitting import UNKNOWNS, Obstacle
from gamekeeper.policy.work_distributor.rooms import Ask, Kinds
from gamekeeper.policy.work_distributor.view import Node, View

EXAMPLES = 3
GIB = 1 << 30
MIB = 1 << 20


class Standing(StrEnum):
    """Whether work may go to a machine."""

    USABLE = "usable"
    EXCLUDED = "excluded"
    UNREACHABLE = "unreachable"
    NO_TARGET = "told to run nothing"


def standing(node: Node, now: float) -> Standing:
    """Where a node stands at `now`."""
    if node.excluded_until is not None and node.excluded_until > now:
        return Standing.EXCLUDED
    if not node.reachable:
        return Standing.UNREACHABLE
    if node.target_slots is not None and node.target_slots < 1:
        return Standing.NO_TARGET
    return Standing.USABLE


@dataclass(frozen=True, slots=True)
class Ruling:
    """How the known nodes stand to one requirement: ruled out by which obstacle, or by their standing, or fit."""

    nodes: int
    obstacles: Mapping[Obstacle, int]
    standings: Mapping[Standing, int]

    @property
    def never(self) -> bool:
        """No known node could run it even when empty."""
        return self.nodes > 0 and self.impossible == self.nodes

    @property
    def impossible(self) -> int:
        """How many nodes could not run it, as far as is known."""
        return sum(n for obstacle, n in self.obstacles.items() if obstacle not in UNKNOWNS)

    @property
    def unknown(self) -> int:
        """How many nodes do not say whether they could."""
        return sum(n for obstacle, n in self.obstacles.items() if obstacle in UNKNOWNS)

    @property
    def usable(self) -> int:
        """How many nodes could run it, and may."""
        return self.standings.get(Standing.USABLE, 0)


class Census:
    """All known nodes of a view, each once."""

    def __init__(self, view: View, kinds: Kinds, now: float) -> None:
        nodes = {node.node_id: node for node in view.nodes}
        nodes |= {agent.node.node_id: agent.node for agent in view.agents}
        self.nodes = dict(sorted(nodes.items()))
        self._kinds = kinds
        self._counts: Counter[tuple[int, Standing]] = Counter()
        self._usable: dict[int, list[Node]] = {}
        for node in self.nodes.values():
            kind, stands = kinds.number(node.capacity), standing(node, now)
            self._counts[kind, stands] += 1
            if stands is Standing.USABLE:
                self._usable.setdefault(kind, []).append(node)
        self._rulings: dict[int, Ruling] = {}

    def ruling(self, ask: Ask) -> Ruling:
        """How all nodes stand to a requirement."""
        if id(ask) not in self._rulings:
            obstacles: Counter[Obstacle] = Counter()
            standings: Counter[Standing] = Counter()
            for (kind, stands), n in self._counts.items():
                obstacle = self._kinds.obstacle(ask, kind)
                if obstacle is None:
                    standings[stands] += n
                else:
                    obstacles[obstacle] += n
            self._rulings[id(ask)] = Ruling(len(self.nodes), obstacles, standings)
        return self._rulings[id(ask)]

    def usable(self, ask: Ask) -> Iterator[Node]:
        """The nodes that a job could run on when they are empty, and that may get work."""
        for kind, nodes in self._usable.items():
            if self._kinds.obstacle(ask, kind) is None:
                yield from nodes

    def examples(self, ask: Ask) -> list[str]:
        """A few of the usable nodes."""
        first = (
            node.node_id
            for kind, nodes in self._usable.items()
            if self._kinds.obstacle(ask, kind) is None
            for node in nodes[:EXAMPLES]
        )
        return sorted(first)[:EXAMPLES]

    def most(self, obstacle: Obstacle) -> str:
        """The most that any known node has of what an obstacle is about; empty where that says nothing."""
        capacities = [node.capacity for node in self.nodes.values()]
        if obstacle is Obstacle.GPUS:
            return f"{max((len(one.gpus or ()) for one in capacities), default=0)}"
        if obstacle is Obstacle.GPU_MEMORY:
            return size(
                max((gpu.memory_bytes or 0 for one in capacities for gpu in one.gpus or ()), default=0)
            )
        if obstacle is Obstacle.CPUS:
            return f"{max((one.cpus or 0 for one in capacities), default=0):g}"
        if obstacle is Obstacle.MEMORY:
            return size(max((one.memory_bytes or 0 for one in capacities), default=0))
        if obstacle is Obstacle.DISK:
            return size(max((one.disk_free_bytes or 0 for one in capacities), default=0))
        return ""


def size(number: int) -> str:
    """A size in words, exact enough to tell two machines apart."""
    if number >= GIB:
        return f"{number / GIB:.4g} GiB"
    return f"{number / MIB:.4g} MiB"


def asked_of(asked: Requirements, obstacle: Obstacle) -> str:
    """What a job asks for, of what an obstacle is about."""
    words = {
        Obstacle.LABELS: ", ".join(f"{name}={value}" for name, value in asked.labels[:EXAMPLES]),
        Obstacle.ARCHITECTURE: " or ".join(asked.architectures[:EXAMPLES]),
        Obstacle.GPUS: f"{asked.gpus:g}",
        Obstacle.GPU_MEMORY: size(asked.gpu_memory_bytes),
        Obstacle.CPUS: f"{asked.cpus:g}",
        Obstacle.MEMORY: size(asked.memory_bytes),
        Obstacle.DISK: size(asked.disk_bytes),
    }
    return words.get(obstacle, "")


def described(asked: Requirements) -> str:
    """All that a job asks for of a node, in words."""
    parts: list[str] = []
    if asked.gpus:
        memory = f" of {size(asked.gpu_memory_bytes)}" if asked.gpu_memory_bytes else ""
        parts.append(f"{asked.gpus:g} GPU{memory}" if asked.gpus <= 1 else f"{asked.gpus:g} GPUs{memory}")
    parts += [f"{asked.cpus:g} CPUs"] if asked.cpus else []
    parts += [f"{size(asked.memory_bytes)} memory"] if asked.memory_bytes else []
    parts += [f"{size(asked.disk_bytes)} disk"] if asked.disk_bytes else []
    parts += [f"label {name}={value}" for name, value in asked.labels[:EXAMPLES]]
    parts += [f"{len(asked.labels) - EXAMPLES} more labels"] if len(asked.labels) > EXAMPLES else []
    parts += [" or ".join(asked.architectures[:EXAMPLES])] if asked.architectures else []
    parts += ["lasting"] if asked.lasting else []
    return ", ".join(parts) or "a slot"


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names)
