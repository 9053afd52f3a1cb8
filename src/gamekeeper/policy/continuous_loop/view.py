"""What the loop is shown, and the limits it keeps to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gamekeeper.core.errors import SettingsError
from gamekeeper.core.jobs import Job, JobState
from gamekeeper.core.lines import Line
from gamekeeper.core.matches import NO_GAMES, PairTally

POLICY = "continuous_loop"


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job of the line that is not final: waiting, ready or running.

    model_hash: the model a self-play or training job was given. candidate_hash, opponent, opponent_hash,
    first_pair, pairs: what an evaluation job plays; `opponent` is "model" (then opponent_hash names it) or a built-in
    player. cancelling: it was asked to stop, and will not deliver what was wanted.
    """

    job_id: int
    kind: str
    purpose: str
    running: bool
    model_hash: str = ""
    candidate_hash: str = ""
    opponent: str = ""
    opponent_hash: str = ""
    first_pair: int = 0
    pairs: int = 0
    cancelling: bool = False

    @classmethod
    def of(cls, job: Job, *, cancelling: bool) -> LiveJob:
        """Read a stored job; `cancelling` when its cancellation was requested.

        Anything that this policy did not write into it stays at its default.
        """
        spec = job.spec
        return cls(
            job_id=job.id,
            kind=spec.kind,
            purpose=spec.purpose,
            running=job.state is JobState.RUNNING,
            model_hash=_first(spec.inputs.get("model", ())),
            candidate_hash=_first(spec.inputs.get("candidate", ())),
            opponent=str(spec.wanted.get("opponent", "")),
            opponent_hash=_first(spec.inputs.get("opponent", ())),
            first_pair=_count(spec.wanted.get("first_pair")),
            pairs=_count(spec.wanted.get("pairs")),
            cancelling=cancelling,
        )


@dataclass(frozen=True, slots=True)
class StageHistory:
    """How a stage has fared: jobs failed or dead since the last done one, and when the last of them ended."""

    failures: int = 0
    last_failed_at: float | None = None

    @classmethod
    def of(cls, newest_first: Iterable[tuple[JobState, float | None]]) -> StageHistory:
        """Count over final jobs as (state, ended_at), the newest first; reads no further than the newest done one."""
        failures, last = 0, None
        for state, ended_at in newest_first:
            if state is JobState.DONE:
                break
            if state in (JobState.FAILED, JobState.DEAD):
                failures += 1
                last = ended_at if last is None else last
        return cls(failures, last)


@dataclass(frozen=True, slots=True)
class ChampionView:
    """A model that is or was champion. `ratings`: games for its rating, by opponent as booked ("random", "model/1")."""

    model_id: int
    hash: str
    generation: int
    ratings: Mapping[str, PairTally] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CandidateView:
    """The line's model in state candidate, with its tallies: `random` and `mirror` (against itself) are canaries,
    `promotion` is the test against the current champion.
    """

    model_id: int
    hash: str
    random: PairTally = NO_GAMES
    mirror: PairTally = NO_GAMES
    promotion: PairTally = NO_GAMES


@dataclass(frozen=True, slots=True)
class Window:
    """The newest verified shards, oldest first, that together hold at least the line's window (or all there is)."""

    hashes: tuple[str, ...] = ()
    samples: int = 0


@dataclass(frozen=True, slots=True)
class LineView:
    """All that one line's needs are computed from.

    champion: `None` before the first. champions: all that ever were, each once, by generation, the current one
    included. candidate: the model awaiting its decision. live: all jobs that are not final.
    founded, trained: done jobs of these kinds. selfplay_submitted: self-play jobs ever submitted.
    verified_samples: total of the line. samples_at_training: `verified_samples` when the last done training was
    submitted (its wanted "verified_samples"), 0 before the first. evaluate_history: of the candidate's canary and
    promotion jobs only.
    """

    line: str
    champion: ChampionView | None = None
    champions: tuple[ChampionView, ...] = ()
    candidate: CandidateView | None = None
    live: tuple[LiveJob, ...] = ()
    founded: int = 0
    trained: int = 0
    selfplay_submitted: int = 0
    verified_samples: int = 0
    samples_at_training: int = 0
    window: Window = Window()
    found_history: StageHistory = StageHistory()
    selfplay_history: StageHistory = StageHistory()
    train_history: StageHistory = StageHistory()
    evaluate_history: StageHistory = StageHistory()
    rating_history: StageHistory = StageHistory()


class Phase(StrEnum):
    """`turning`: the whole loop. `measuring`: only ratings of champions are still wanted. `draining`: nothing is."""

    TURNING = "turning"
    MEASURING = "measuring"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class View:
    """All lines, and the slots of all nodes that are up (`None` while no node was ever seen)."""

    lines: tuple[LineView, ...]
    slots: int | None
    phase: Phase = Phase.TURNING


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds the loop.

    lines: the declared lines by name. seed: from which every job's seed derives, with its key.
    selfplay_margin: self-play jobs kept ready beyond one for each slot. selfplay_jobs_max, evaluate_jobs_max: live
    jobs of a line at most. rating_jobs_max: likewise while the loop turns (while measuring, as many as slots).
    retry_first_s, retry_longest_s: delay after the first failed job of a stage, doubled with each further one up to the
    longest; it never ends for good. probe_after: from that many failures in a row on, a stage runs one job at a time.
    """

    lines: Mapping[str, Line] = field(default_factory=dict)
    seed: int = 0
    selfplay_margin: int = 2
    selfplay_jobs_max: int = 1000
    evaluate_jobs_max: int = 64
    rating_jobs_max: int = 1
    retry_first_s: float = 2.0
    retry_longest_s: float = 600.0
    probe_after: int = 3

    def __post_init__(self) -> None:
        """Raise `SettingsError` for bounds with which a stage could never run, or retries would not slow down."""
        at_least_one = (
            self.selfplay_margin, self.selfplay_jobs_max, self.evaluate_jobs_max,
            self.rating_jobs_max, self.probe_after,
        )  # fmt: skip
        if min(at_least_one) < 1 or not 0 < self.retry_first_s <= self.retry_longest_s < float("inf"):
            raise SettingsError(
                "the bounds of the loop must be 1 or more, and 0 < retry_first_s <= retry_longest_s",
                remedy="correct [loop] in gamekeeper.toml",
            )


class Stage(StrEnum):
    """The stages of a line; each gets one verdict in every pass, about "line/NAME/STAGE"."""

    FOUND = "found"
    SELFPLAY = "selfplay"
    TRAIN = "train"
    CANARY = "canary"
    PROMOTION = "promotion"
    RATING = "rating"


class Reason(StrEnum):
    """Why a stage was given work, or none."""

    SUBMITTED = "submitted"
    ENOUGH_IN_FLIGHT = "enough-in-flight"
    BACKING_OFF = "backing-off"
    NOT_NEEDED = "not-needed"
    COMPLETE = "complete"
    NO_CHAMPION = "no-champion"
    NO_CANDIDATE = "no-candidate"
    CANDIDATE_PENDING = "candidate-pending"
    TOO_FEW_SAMPLES = "too-few-samples"
    NO_WINDOW = "no-window"
    CANARY_FIRST = "canary-first"
    AT_MAX_PAIRS = "at-max-pairs"
    CANCELLED = "cancelled"
    MEASURING = "measuring"
    DRAINING = "draining"
    UNDECLARED_LINE = "undeclared-line"


def _first(hashes: tuple[str, ...]) -> str:
    return hashes[0] if hashes else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
