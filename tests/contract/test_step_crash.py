"""The machine dies at every statement, at every commit and in the middle of one: the agents go on where they were."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gamekeeper.core.jobs import AttemptState, EndReason, JobState
from gamekeeper.store import integrity, job_queue
from gamekeeper.store.endings import Finish
from gamekeeper.store.engine import FileStore, Store
from gamekeeper.store.session import Writing
from gamekeeper.store.step import Step, StepReply, take_steps
from tests.unit.store.rig import LEASE_S, Rig, TurnedClock

AGENTS = 3
SLOTS = 2
JOBS = 7
FRAME = 24 + 4096


@dataclass
class Agents:
    """What the agents know: what each holds, the steps they sent, and every answer that reached them."""

    names: list[str]
    held: dict[str, list[int]] = field(default_factory=dict)
    sent: list[Step] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def copy(self) -> Agents:
        held = {name: list(mine) for name, mine in self.held.items()}
        return Agents(self.names, held, list(self.sent), list(self.ended))

    def say(self) -> list[Step]:
        """All they hold is done; more, please."""
        self.sent = [
            Step(
                name,
                LEASE_S,
                finishes=[Finish(each, each, EndReason.FINISHED) for each in self.held.get(name, [])],
                want=SLOTS,
            )
            for name in self.names
        ]
        return self.sent

    def hear(self, replies: Sequence[StepReply]) -> None:
        for step, reply in zip(self.sent, replies, strict=True):
            assert reply.refused is None
            assert all(each.answer in ("applied", "already") for each in reply.finished)
            self.ended += [each.attempt_id for each in reply.finished]
            self.held[step.incarnation] = [each.attempt_id for each in reply.granted]


@dataclass
class Death:
    """The files as they were on disk at one moment, and what the agents knew then."""

    name: str
    folder: Path
    known: Agents
    log: int


class Deaths:
    """Copies of a store at every moment at which its process could have died."""

    def __init__(self, store: FileStore, path: Path, folder: Path, agents: Agents) -> None:
        self._raw, self._path, self._folder, self._agents = store._link.raw, path, folder, agents
        self.all: list[Death] = []

    def watch(self, on: bool) -> None:
        self._raw.set_trace_callback(self.die if on else None)

    def die(self, why: str) -> None:
        folder = self._folder / f"{len(self.all)}"
        folder.mkdir()
        for path in (self._path, self._path.with_name(f"{self._path.name}-wal")):
            if path.exists():
                shutil.copy(path, folder / path.name)
        log = folder / f"{self._path.name}-wal"
        self.all.append(
            Death(why[:40], folder, self._agents.copy(), log.stat().st_size if log.exists() else 0)
        )


def torn(before: Death, after: Death, folder: Path, rng: random.Random) -> Iterator[Death]:
    """The moments inside a commit: the log is written up to some place between its sizes before and after it."""
    cuts = {*range(before.log, after.log, FRAME), *(rng.randrange(before.log, after.log) for _ in range(3))}
    for cut in sorted(cuts - {after.log}):
        place = folder / f"torn-{after.folder.name}-{cut}"
        shutil.copytree(after.folder, place)
        with next(place.glob("*-wal")).open("r+b") as log:
            log.truncate(cut)
        yield Death(f"commit torn at {cut}", place, before.known, cut)


def go_on(death: Death) -> None:
    """Open what is left, let the agents repeat what was not answered and go on to the end; all must add up."""
    agents = death.known.copy()
    with Store.open(death.folder / "gamekeeper.db", TurnedClock(), random.Random(2)) as store:
        assert store.read(integrity.check) == [], death.name
        for attempt_id in agents.ended:
            ended = store.read(partial(job_queue.attempt, attempt_id=attempt_id))
            assert ended.state is AttemptState.SUCCEEDED, death.name
        for name, mine in agents.held.items():
            for attempt_id in mine:
                held = store.read(partial(job_queue.attempt, attempt_id=attempt_id))
                assert held.incarnation == name, death.name
        for _ in range(JOBS + 2):
            agents.hear(store.write(lambda w: take_steps(w, agents.say())))
        jobs = [store.read(partial(job_queue.get, job_id=job_id)) for job_id in range(1, JOBS + 1)]
        assert {job.state for job in jobs} == {JobState.DONE}, death.name
        tries = [each for job in jobs for each in store.read(partial(job_queue.attempts_of, job_id=job.id))]
        assert len(tries) == JOBS, f"{death.name}: a job was given out twice"
        assert {each.id for each in tries} == set(agents.ended), death.name
        assert store.read(integrity.check) == [], death.name


@pytest.mark.slow
def test_death_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Breaks if a step is applied in part, an answered one is lost, or a repeated one is applied twice."""
    path, copies = tmp_path / "gamekeeper.db", tmp_path / "copies"
    copies.mkdir()
    clock = TurnedClock()
    with FileStore(path, clock, random.Random(1)) as store:
        rig = Rig(store, clock)
        agents = Agents([rig.agent(SLOTS)[1] for _ in range(AGENTS)])
        for _ in range(JOBS):
            rig.job()
        deaths = Deaths(store, path, copies, agents)
        commits: list[tuple[Death, Death]] = []
        for _ in range(3):
            agents.sent = agents.say()
            deaths.watch(True)
            replies = store.join(take_all, tuple(agents.sent))
            deaths.watch(False)
            before = deaths.all[-1]
            assert before.name == "COMMIT"
            deaths.die("committed, not answered")
            commits.append((before, deaths.all[-1]))
            agents.hear(replies)
            deaths.die("answered")
    rng = random.Random(3)
    moments = deaths.all + [each for pair in commits for each in torn(*pair, copies, rng)]
    assert len(moments) > 100
    for death in moments:
        go_on(death)


def take_all(w: Writing, items: Sequence[tuple[Step, ...]]) -> list[list[StepReply]]:
    """All steps that wait, in one call, as the server does."""
    replies = iter(take_steps(w, [step for each in items for step in each]))
    return [[next(replies) for _ in each] for each in items]
