"""Nodes: machines, what was declared about them and what was observed, kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class NodeStatus(StrEnum):
    """Reachability of a node as its leases show it. `unknown`: it never spoke since enrolment."""

    UNKNOWN = "unknown"
    UP = "up"
    LOST = "lost"


NODE_TRANSITIONS: Mapping[NodeStatus, frozenset[NodeStatus]] = {
    NodeStatus.UNKNOWN: frozenset({NodeStatus.UP}),
    NodeStatus.UP: frozenset({NodeStatus.LOST}),
    NodeStatus.LOST: frozenset({NodeStatus.UP}),
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What an agent measured about its machine; `None` where it could not be measured."""

    cpu_count: int | None
    memory_bytes: int | None
    disk_free_bytes: int | None
    load: float | None
    observed_at: float


@dataclass(frozen=True, slots=True)
class Node:
    """An enrolled machine. Its id is issued once; the host name is only an attribute."""

    id: str
    host_name: str
    slots: int
    status: NodeStatus
    enrolled_at: float
    last_seen_at: float | None
    observation: Observation | None


@dataclass(frozen=True, slots=True)
class AgentLease:
    """The lease of one agent incarnation: it covers every attempt that incarnation holds."""

    incarnation: str
    node_id: str
    token: int
    expires_at: float
