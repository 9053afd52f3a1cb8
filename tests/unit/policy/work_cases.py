"""Nodes, agents and classes of jobs to match, and short ways to read the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.requirements import Capacity, Gpu, Requirements
from gamekeeper.policy.work_distributor import (
    Free,
    JobClass,
    Node,
    Occupant,
    ReadyJob,
    View,
    WaitingAgent,
)

NOW = 10_000.0
GIB = 1 << 30
BARE = Requirements()


def machine(
    slots: int = 4,
    cpus: float | None = 8.0,
    memory: int | None = 16,
    disk: int | None = 100,
    gpus: tuple[int | None, ...] | None = (),
    **declared: Any,
) -> Capacity:
    """A machine; memory, disk and the memories of its GPUs in GiB."""
    return Capacity(
        slots,
        cpus,
        None if memory is None else memory * GIB,
        None if disk is None else disk * GIB,
        None if gpus is None else tuple(Gpu("any", None if one is None else one * GIB) for one in gpus),
        **declared,
    )


def node(name: str = "n-1", capacity: Capacity | None = None, *running: Occupant, **facts: Any) -> Node:
    """A node with what its running jobs leave free."""
    there = machine() if capacity is None else capacity
    return Node(
        name, there, Free.beside(there, running), running=running, **{"busy_slots": len(running), **facts}
    )


def asks(on: Node, free: int | None = None, expires_at: float = NOW + 30) -> WaitingAgent:
    """A parked claim of a node, for all its free slots or for some."""
    slots = on.capacity.slots - on.busy_slots if free is None else free
    return WaitingAgent(on, f"inc-{on.node_id}", expires_at, slots)


def agent(name: str = "n-1", free: int = 1, expires_at: float = NOW + 30) -> WaitingAgent:
    """A parked claim of a roomy node."""
    return asks(node(name, machine(slots=max(1, free))), free, expires_at)


def jobs(
    class_id: int,
    kind: str = "selfplay",
    line: str = "c4",
    *,
    n: int = 1,
    waited: float = 0.0,
    first: int | None = None,
    **facts: Any,
) -> JobClass:
    """A class with `n` due jobs, numbered from ten times its id on, due since `waited` seconds."""
    start = class_id * 10 if first is None else first
    heads = tuple(ReadyJob(start + i, NOW - waited, NOW - waited) for i in range(n))
    return JobClass(class_id, line, kind, **{"due": n, "heads": heads, **facts})


def with_inputs(one: JobClass, *names: str) -> JobClass:
    """The class with jobs that read those artifacts."""
    return replace(one, heads=tuple(replace(job, inputs=frozenset(names)) for job in one.heads))


def view(agents: Any = (), classes: Any = (), nodes: Any = (), *, draining: bool = False) -> View:
    return View(tuple(agents), tuple(classes), tuple(nodes), draining)


def grants(decision: Decision) -> list[GrantJob]:
    assert all(isinstance(action, GrantJob) for action in decision.actions)
    return [action for action in decision.actions if isinstance(action, GrantJob)]


def granted_ids(decision: Decision) -> list[int]:
    return [grant.job_id for grant in grants(decision)]


def where(decision: Decision) -> dict[int, str]:
    """The node of each granted job."""
    return {grant.job_id: grant.node_id for grant in grants(decision)}


def verdict(decision: Decision, subject: str) -> Verdict:
    (found,) = [verdict for verdict in decision.verdicts if verdict.subject == subject]
    return found


def reason(decision: Decision, subject: str) -> str:
    return verdict(decision, subject).reason


def evidence(decision: Decision, subject: str) -> dict[str, object]:
    return {item.name: item.value for item in verdict(decision, subject).evidence}
