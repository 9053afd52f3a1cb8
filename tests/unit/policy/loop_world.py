"""A line in memory with the store's rules (keys, compare and set, final states), to drive policies without effects."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from gamekeeper.core.actions import CancelJob, MoveChampion, RejectCandidate, SubmitJob
from gamekeeper.core.decisions import Decision
from gamekeeper.core.jobs import Job, JobSpec, JobState
from gamekeeper.core.lines import Line, Stage
from gamekeeper.core.matches import NO_GAMES, PairTally
from gamekeeper.core.models import ModelState
from gamekeeper.policy import continuous_loop as loop
from gamekeeper.policy import promotion

LIVE = (JobState.WAITING, JobState.READY, JobState.RUNNING)


def a_line(name: str = "c4", **changes: Any) -> Line:
    """A small line whose every number differs from the others."""
    line = Line(
        name,
        found=Stage(("found",), {"width": 7}, 1.0, 60.0),
        selfplay=Stage(("selfplay",), {"simulations": 32}, 2.0, 120.0),
        train=Stage(("train",), {"rate": 0.1}, 3.0, 180.0),
        evaluate=Stage(("evaluate",), {"simulations": 16}, 4.0, 240.0),
        contract={},
        selfplay_games=24,
        min_new_samples=1000,
        window_samples=5000,
        pairs_per_job=16,
        max_pairs=200,
        elo0=0.0,
        elo1=40.0,
        alpha=0.05,
        beta=0.05,
        canary_pairs=6,
        rating_opponents=("random", "first", "alphabeta:4"),
        rating_pairs=20,
    )
    return replace(line, **changes)


@dataclass
class Held:
    """A stored job of the world."""

    id: int
    spec: JobSpec
    state: JobState = JobState.READY
    cancelling: bool = False
    ended_at: float | None = None


@dataclass
class HeldModel:
    """A stored model of the world, with the parent it announced, the one it was given, and its true strength."""

    id: int
    hash: str
    parent: str | None
    given: str | None
    strength: float
    state: ModelState = ModelState.CANDIDATE
    reason: str = ""


@dataclass
class Chances:
    """How likely things go wrong at the end of a job, and how likely a training makes a stronger model."""

    fail: float = 0.0
    lose: float = 0.0
    partial: float = 0.0
    duplicate: float = 0.0
    better: float = 0.8


@dataclass
class LoopWorld:
    """One line, its jobs, models and matches."""

    line: Line
    limits: loop.Limits
    promotion_limits: promotion.Limits
    seed: int = 0
    slots: int = 2
    chances: Chances = field(default_factory=Chances)
    phase: loop.Phase = loop.Phase.TURNING

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now = 1000.0
        self.jobs: list[Held] = []
        self.keys: dict[str | None, Held] = {}
        self.live: dict[int, Held] = {}
        self.tests: dict[tuple[int, str, str], list[Held]] = {}
        self.ended: list[Held] = []
        self.counts: Counter[tuple[str, JobState]] = Counter()
        self.models: list[HeldModel] = []
        self.champions: list[HeldModel] = []
        self.tallies: dict[tuple[int, str, str], PairTally] = {}
        self.samples = 0
        self.samples_at_training = 0
        self.shards: list[str] = []
        self.moves: list[tuple[int | None, int]] = []

    # --- what policies see -------------------------------------------------------------------------------------

    def history(self, kind: str, purposes: tuple[str, ...] = ("",), candidate: str = "") -> loop.StageHistory:
        """Count over the jobs that ended, the newest first."""
        return loop.StageHistory.of(
            (job.state, job.ended_at)
            for job in reversed(self.ended)
            if job.spec.kind == kind
            and job.spec.purpose in purposes
            and (not candidate or job.spec.inputs["candidate"] == (candidate,))
        )

    def candidate(self) -> HeldModel | None:
        return next((model for model in self.models if model.state is ModelState.CANDIDATE), None)

    def tally(self, model: int, opponent: str, purpose: str) -> PairTally:
        booked = self.tallies.get((model, opponent, purpose), NO_GAMES)
        ends = [
            int(str(job.spec.wanted["first_pair"])) + int(str(job.spec.wanted["pairs"]))
            for job in self.tests.get((model, opponent, purpose), [])
            if job.state in LIVE or job.state is JobState.DONE
        ]
        return replace(booked, next_pair=max([booked.next_pair, *ends]))

    def names(self, spec: JobSpec) -> tuple[int, str, str]:
        candidate = self.model(spec.inputs["candidate"][0])
        opponent = str(spec.wanted["opponent"])
        if opponent == "model":
            opponent = f"model/{self.model(spec.inputs['opponent'][0]).id}"
        return candidate.id, opponent, spec.purpose

    def model(self, weights: str) -> HeldModel:
        return self.models[int(weights.removeprefix("hash-")) - 1]

    def line_view(self) -> loop.LineView:
        champion = self.champions[-1] if self.champions else None
        candidate = self.candidate()
        opponents = ["random", "alphabeta:4", *(f"model/{model.id}" for model in self.champions[:1])]
        return loop.LineView(
            line=self.line.name,
            champion=None
            if champion is None
            else loop.ChampionView(champion.id, champion.hash, len(self.champions) - 1),
            champions=tuple(
                loop.ChampionView(
                    m.id, m.hash, i, {name: self.tally(m.id, name, "rating") for name in opponents}
                )
                for i, m in enumerate(self.champions)
            ),
            candidate=None if candidate is None else self._loop_candidate(candidate, champion),
            live=tuple(
                loop.LiveJob.of(
                    Job(job.id, job.spec, job.state, 0, 0, 0.0, 0.0, None, ""), cancelling=job.cancelling
                )
                for job in self.live.values()
            ),
            founded=self.counts["found", JobState.DONE],
            trained=self.counts["train", JobState.DONE],
            selfplay_submitted=sum(self.counts["selfplay", state] for state in JobState),
            verified_samples=self.samples,
            samples_at_training=self.samples_at_training,
            window=loop.Window(tuple(self.shards[-3:]), min(self.samples, self.line.window_samples + 7)),
            found_history=self.history("found"),
            selfplay_history=self.history("selfplay"),
            train_history=self.history("train"),
            evaluate_history=loop.StageHistory()
            if candidate is None
            else self.history("evaluate", ("canary", "promotion"), candidate.hash),
            rating_history=self.history("evaluate", ("rating",)),
        )

    def _loop_candidate(self, candidate: HeldModel, champion: HeldModel | None) -> loop.CandidateView:
        return loop.CandidateView(
            candidate.id,
            candidate.hash,
            self.tally(candidate.id, "random", "canary"),
            self.tally(candidate.id, "self", "canary"),
            NO_GAMES if champion is None else self.tally(candidate.id, f"model/{champion.id}", "promotion"),
        )

    def view(self) -> loop.View:
        return loop.View((self.line_view(),), self.slots, self.phase)

    def promotion_view(self) -> promotion.View:
        candidate = self.candidate()
        champion = self.champions[-1] if self.champions else None
        shown = None
        if candidate is not None:
            seen = self._loop_candidate(candidate, champion)
            failed = sum(
                job.state is JobState.FAILED
                for (model, _, _), jobs in self.tests.items()
                for job in jobs
                if model == candidate.id
            )
            shown = promotion.CandidateView(
                candidate.id, candidate.hash, candidate.parent, candidate.given,
                seen.random, seen.mirror, seen.promotion, failed,
            )  # fmt: skip
        pointer = None if champion is None else promotion.ChampionView(champion.id, champion.hash)
        return promotion.View((promotion.LineView(self.line.name, pointer, shown),))

    # --- the store's rules -------------------------------------------------------------------------------------

    def apply(self, decision: Decision) -> int:
        """Apply guarded actions; returns how many changed anything."""
        return sum(self._apply(action) for action in decision.actions)

    def _apply(self, action: object) -> bool:
        if isinstance(action, SubmitJob):
            key = action.spec.key
            taken = self.keys.get(key)
            if taken is not None and (taken.state in LIVE or taken.state is JobState.DONE):
                return False
            job = self.keys[key] = Held(len(self.jobs) + 1, action.spec)
            self.jobs.append(job)
            self.live[job.id] = job
            self.counts[job.spec.kind, job.state] += 1
            if job.spec.kind == "evaluate":
                self.tests.setdefault(self.names(job.spec), []).append(job)
            return True
        if isinstance(action, CancelJob):
            job = self.jobs[action.job_id - 1]
            if job.state is JobState.RUNNING:
                changed, job.cancelling = not job.cancelling, True
                return changed
            if job.state in LIVE:
                self.close(job, JobState.CANCELLED)
                return True
            return False
        if isinstance(action, MoveChampion):
            current = self.champions[-1].id if self.champions else None
            model = self.models[action.model_id - 1]
            if current != action.expected or model.state is not ModelState.CANDIDATE:
                return False
            model.state = ModelState.PROMOTED
            self.champions.append(model)
            self.moves.append((current, model.id))
            return True
        assert isinstance(action, RejectCandidate)
        model = self.models[action.model_id - 1]
        if model.state is not ModelState.CANDIDATE:
            return False
        model.state, model.reason = ModelState.REJECTED, action.reason
        return True

    # --- the machines ------------------------------------------------------------------------------------------

    def run_some(self) -> None:
        """Start ready jobs in free slots, and end some of those that run."""
        ready = [job for job in self.live.values() if job.state is JobState.READY]
        running = [job for job in self.live.values() if job.state is JobState.RUNNING]
        self.random.shuffle(ready)
        for job in ready[: max(0, self.slots - len(running))]:
            self.counts[job.spec.kind, job.state] -= 1
            job.state = JobState.RUNNING
            self.counts[job.spec.kind, job.state] += 1
            running.append(job)
        for job in running:
            if self.random.random() < 0.7:
                self.end(job)

    def close(self, job: Held, state: JobState) -> None:
        """Bring a job to a final state."""
        self.counts[job.spec.kind, job.state] -= 1
        job.state, job.ended_at = state, self.now
        self.counts[job.spec.kind, state] += 1
        self.ended.append(self.live.pop(job.id))

    def end(self, job: Held) -> None:
        """End a running job, by the chances."""
        luck = self.random.random()
        if job.cancelling:
            self.close(job, JobState.CANCELLED)
        elif luck < self.chances.fail:
            self.close(job, JobState.FAILED)
        elif luck < self.chances.fail + self.chances.lose:
            self.close(job, JobState.DEAD)
        else:
            self.close(job, JobState.DONE)
            self._deliver(job)

    def _deliver(self, job: Held) -> None:
        spec = job.spec
        if spec.kind == "found":
            self.models.append(
                HeldModel(len(self.models) + 1, f"hash-{len(self.models) + 1}", None, None, 0.0)
            )
        elif spec.kind == "selfplay":
            self.samples += self.random.randint(100, 300)
            self.shards.append(f"shard-{job.id}")
        elif spec.kind == "train":
            self.samples_at_training = int(str(spec.wanted["verified_samples"]))
            parent = self.model(spec.inputs["model"][0])
            gain = 1.0 if self.random.random() < self.chances.better else -0.5
            number = len(self.models) + 1
            self.models.append(
                HeldModel(number, f"hash-{number}", parent.hash, parent.hash, parent.strength + gain)
            )
        else:
            self._book(spec)

    def _book(self, spec: JobSpec) -> None:
        model_id, opponent, _ = key = self.names(spec)
        pairs = int(str(spec.wanted["pairs"]))
        if self.random.random() < self.chances.partial:
            pairs = self.random.randint(1, pairs)
        counts, duplicates = list(self.tally(*key).counts), self.tally(*key).duplicates
        for _ in range(pairs):
            if sum(counts) and self.random.random() < self.chances.duplicate:
                duplicates += 1
            else:
                counts[self._points(model_id, opponent)] += 1
        end = int(str(spec.wanted["first_pair"])) + pairs
        booked = self.tallies.get(key, NO_GAMES)
        tally = PairTally((counts[0], counts[1], counts[2], counts[3], counts[4]), duplicates, 0)
        self.tallies[key] = replace(tally, next_pair=max(booked.next_pair, end))

    def _points(self, model_id: int, opponent: str) -> int:
        if opponent == "self":
            return 2
        other = -3.0
        if opponent.startswith("model/"):
            other = self.models[int(opponent.removeprefix("model/")) - 1].strength
        chance = 1 / (1 + 10 ** ((other - self.models[model_id - 1].strength) / 2))
        return 2 * sum(self.random.random() < chance for _ in range(2))

    def turn(self) -> tuple[Decision, Decision]:
        """One pass of both policies, then some work, then ten seconds."""
        promoted = promotion.decide(self.promotion_view(), self.promotion_limits, self.now)
        self.apply(promoted)
        looped = loop.decide(self.view(), self.limits, self.now)
        self.apply(looped)
        self.run_some()
        self.now += 10.0
        return promoted, looped


def a_world(seed: int = 0, slots: int = 2, chances: Chances | None = None, **changes: Any) -> LoopWorld:
    """A world around `a_line`."""
    line = a_line(**changes)
    return LoopWorld(
        line,
        loop.Limits({line.name: line}, seed=7),
        promotion.Limits({line.name: line}),
        seed,
        slots,
        chances or Chances(),
    )
