"""What all stages of one line share while a pass looks at it: its facts, how it retries, and how it words a job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from gamekeeper.core import lines
from gamekeeper.core.actions import Action, SubmitJob
from gamekeeper.core.decisions import Evidence, counted
from gamekeeper.core.jobs import JobSpec
from gamekeeper.policy.continuous_loop.view import Limits, LineView, LiveJob, Reason, StageHistory

UNBOUNDED = 1 << 30


@dataclass(frozen=True, slots=True)
class Answer:
    """What a stage has to say, and the actions that follow."""

    reason: Reason
    sentence: str
    evidence: tuple[Evidence, ...] = ()
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many live jobs a stage may have after its failures; `wait` says so when it must wait."""

    jobs: int
    wait: Answer | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One line in one pass. `live` are its jobs that are still wanted."""

    declared: lines.Line
    view: LineView
    live: tuple[LiveJob, ...]
    slots: int
    measuring: bool
    limits: Limits
    now: float

    def setting(self, name: str) -> str:
        """Where a number of this line was set."""
        return f"lines.{self.declared.name}.{name}"

    def allowance(self, history: StageHistory) -> Allowance:
        """Whether a stage may be given jobs after its failures.

        The delay doubles with each failure in a row up to the longest, and then recurs: a stage is never given up.
        A time of failure ahead of the clock proves nothing and delays nothing.
        """
        if history.failures < 1:
            return Allowance(UNBOUNDED)
        doublings = min(history.failures - 1, 60)
        delay = min(self.limits.retry_longest_s, self.limits.retry_first_s * 2.0**doublings)
        since = None if history.last_failed_at is None else self.now - history.last_failed_at
        if since is not None and 0 <= since < delay:
            evidence = (
                Evidence("failures in a row", history.failures, self.limits.probe_after, "loop.probe_after"),
                Evidence("seconds since the last failure", round(since, 1), delay, "loop.retry_first_s"),
            )
            sentence = f"{counted(history.failures, 'failure')} in a row: next try in {delay - since:.0f} s"
            return Allowance(0, Answer(Reason.BACKING_OFF, sentence, evidence))
        return Allowance(1 if history.failures >= self.limits.probe_after else UNBOUNDED)

    def job(
        self,
        stage: lines.Stage,
        kind: str,
        key: str,
        *,
        purpose: str = "",
        wanted: Mapping[str, object] | None = None,
        inputs: Mapping[str, tuple[str, ...]] | None = None,
        failures: int = 0,
    ) -> SubmitJob:
        """A job of this line. Its seed follows from the loop's seed, its key, and how often the stage failed."""
        text = f"{self.limits.seed}/{key}/{failures}"
        seed = int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big")
        return SubmitJob(
            JobSpec(
                kind=kind,
                line=self.declared.name,
                command=stage.command,
                parameters=stage.parameters,
                wanted=wanted or {},
                inputs=inputs or {},
                purpose=purpose,
                seed=seed,
                key=key,
                grace_s=stage.grace_s,
                time_limit_s=stage.time_limit_s,
            )
        )
