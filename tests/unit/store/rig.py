"""A store with a clock that tests turn, and one word for each common step."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Select, Table

from gamekeeper.core.actions import Action
from gamekeeper.core.artifacts import ArtifactKind, Manifest
from gamekeeper.core.decisions import Decision, Evidence, Verdict
from gamekeeper.core.jobs import END_STATES, Attempt, EndReason, Job, JobSpec, ProcessIdentity
from gamekeeper.core.models import Model
from gamekeeper.core.nodes import AgentLease, Observation
from gamekeeper.store import (
    artifacts,
    decisions,
    event_log,
    integrity,
    inventory,
    job_queue,
    leases,
    registry,
    schema,
)
from gamekeeper.store.engine import Store
from gamekeeper.store.job_queue import FinishResult
from gamekeeper.store.session import Reading, Writing

T = TypeVar("T")

LEASE_S = 30.0
START = 1_000_000.0
SEEN = Observation(cpu_count=2, memory_bytes=2**34, disk_free_bytes=None, load=0.5, observed_at=START)
PROCESS = ProcessIdentity("boot", 100, 7)
VIOLATED = (sqlite3.IntegrityError, psycopg.IntegrityError)
WRONG = (sqlite3.OperationalError, psycopg.ProgrammingError)
ENGINES = ("inline", "file", "postgres")


@dataclass
class TurnedClock:
    """A clock that stands still until it is turned."""

    seconds: float = START

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def block(self, seconds: float) -> None:
        self.seconds += seconds


def digest(number: int) -> str:
    """A hash unlike that of every other number."""
    return f"{number:064x}"


def shard(number: int, size: int = 100, kind: ArtifactKind = ArtifactKind.SHARD) -> Manifest:
    """A file with contents of its own."""
    return Manifest(kind, f"file-{number}.npz", digest(number), size, {"n": number})


def spec(kind: str = "selfplay", line: str = "c4", **more: Any) -> JobSpec:
    """A job that can be stored."""
    return JobSpec(kind=kind, line=line, command=("{python}", "play.py"), **more)


def say_decision(
    subject: str, at: float, *actions: Action, reason: str = "stronger", policy: str = "promotion"
) -> Decision:
    """A decision that acts on `subject`, with a number for evidence."""
    verdict = Verdict(subject, reason, "in words", True, (Evidence("llr", 3.0, 2.9, "settings"),))
    return Decision(policy, at, (verdict,), actions)


@dataclass
class Rig:
    """One store under test. `w` and `r` run a function of the store; the rest are steps made of them."""

    store: Store
    clock: TurnedClock
    done: Callable[[], None] = lambda: None
    _numbers: dict[str, int] = field(default_factory=dict)

    def w(self, function: Callable[..., T], *given: object, **named: object) -> T:
        return self.store.write(lambda w: function(w, *given, **named))

    def r(self, function: Callable[..., T], *given: object, **named: object) -> T:
        return self.store.read(lambda r: function(r, *given, **named))

    def turn(self, seconds: float) -> None:
        self.clock.seconds += seconds

    def number(self, of: str) -> int:
        self._numbers[of] = self._numbers.get(of, 0) + 1
        return self._numbers[of]

    def node(self, slots: int = 2) -> str:
        return self.w(inventory.enrol, "host", slots, digest(self.number("credential"))).id

    def connect(
        self, node_id: str, incarnation: str, held: Sequence[Attempt] = (), slots: int = 2
    ) -> tuple[AgentLease, list[int], list[int]]:
        pairs = [(attempt.id, attempt.token) for attempt in held]
        return self.w(
            leases.connect_agent, node_id, incarnation, LEASE_S, held=pairs, slots=slots, observation=SEEN
        )

    def agent(self, slots: int = 2) -> tuple[str, str]:
        """A connected agent: (node id, incarnation)."""
        node_id = self.node(slots)
        incarnation = f"agent-{self.number('incarnation')}"
        self.connect(node_id, incarnation, slots=slots)
        return node_id, incarnation

    def job(self, **more: Any) -> int:
        return self.w(job_queue.submit, spec(**more))[0]

    def get(self, job_id: int) -> Job:
        return self.r(job_queue.get, job_id)

    def attempt(self, **more: Any) -> Attempt:
        """A granted attempt on a node of its own."""
        node_id, incarnation = self.agent()
        return self.w(job_queue.grant, self.job(**more), node_id, incarnation)

    def running(self, **more: Any) -> Attempt:
        attempt = self.attempt(**more)
        return self.w(job_queue.started, attempt.id, attempt.token, PROCESS)

    def finish(
        self, attempt: Attempt, reason: EndReason = EndReason.FINISHED, **more: object
    ) -> FinishResult:
        return self.w(job_queue.finish, attempt.id, attempt.token, END_STATES[reason], reason, **more)

    def regrant(self, attempt: Attempt) -> Attempt:
        """The next try at the job of an ended attempt, once it is due, on the same node."""
        self.clock.seconds = max(self.clock.seconds, self.get(attempt.job_id).not_before)
        self.beat(attempt.incarnation)
        return self.w(job_queue.grant, attempt.job_id, attempt.node_id, attempt.incarnation)

    def beat(self, incarnation: str, *attempts: Attempt, units: int = 0) -> tuple[AgentLease, list[int]]:
        said = [leases.Progress(attempt.id, attempt.token, units) for attempt in attempts]
        return self.w(leases.beat, incarnation, LEASE_S, said, SEEN)

    def publish(self, attempt: Attempt, number: int, games: int = 2, samples: int = 20) -> bool:
        return self.w(
            artifacts.register, attempt.id, attempt.token, shard(number), games=games, samples=samples
        )

    def model(self, number: int, parent: Model | None = None, line: str = "c4") -> Model:
        job_id = self.job(kind="train", line=line)
        return self.w(
            registry.register_model, line, digest(number), parent_id=parent.id if parent else None, job_id=job_id,
            steps=10, samples=100, loss=0.5,
        )  # fmt: skip

    def decide(
        self, subject: str, *actions: Action, reason: str = "stronger", policy: str = "promotion"
    ) -> int:
        """A recorded decision that acts on `subject`."""
        decision = say_decision(subject, self.clock.now(), *actions, reason=reason, policy=policy)
        decision_id = self.w(decisions.record, decision, 1)
        assert decision_id is not None
        return decision_id

    def crown(self, model: Model, expected: int | None = None) -> int:
        """Make `model` champion; the decision's id."""
        decision_id = self.decide(f"model/{model.id}")
        self.w(registry.move_champion, model.line, model.id, expected, decision_id)
        return decision_id

    def names(self, subject: str) -> list[str]:
        """The story of a subject, by event names."""
        return [stored.event.name for stored in self.r(event_log.story, subject)]

    def close(self) -> None:
        """Close the store and let the next test have its place."""
        self.store.close()
        self.done()

    def check(self) -> None:
        """Fail unless the stored state breaks no invariant."""
        assert self.r(integrity.check) == []


def open_rig(engine: str, folder: Path = Path(), seed: int = 1) -> Rig:
    """A rig on the named engine."""
    clock, rng = TurnedClock(), random.Random(seed)
    if engine == "inline":
        return Rig(Store.inline(clock, rng), clock)
    if engine == "postgres":
        from tests.unit.store import server

        url = server.fresh()
        return Rig(server.open_store(url, clock, rng), clock, partial(server.release, url))
    return Rig(Store.open(folder / "gamekeeper.db", clock, rng), clock)


def everything(r: Reading) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables, to compare two states."""
    return {table.name: [tuple(row) for row in r.conn.execute(_ordered(table))] for table in _TABLES}


_TABLES = schema.metadata.sorted_tables


def _ordered(table: Table) -> Select[Any]:
    return table.select().order_by(*table.primary_key.columns)


def touch(w: Writing, key: str) -> int:
    """A small write: a job with a key."""
    return job_queue.submit(w, spec(key=key))[0]
