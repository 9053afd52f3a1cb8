"""The shape of `gamekeeper.toml`: every table and key, with its meaning, bounds and default.

The descriptions are the comments that `gamekeeper init` writes and the words of docs/reference/settings.md, so a key is
explained in one place. The tables of a line are in `line_schema`.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from gamekeeper.core.receipts import BUILT_IN_KINDS, FieldType, JobKind, ReceiptField
from gamekeeper.core.requirements import MAX_LABELS, Gpu
from gamekeeper.policy.work_distributor import Limits
from gamekeeper.protocol import Label
from gamekeeper.settings.line_schema import LineSection
from gamekeeper.settings.masking import database_url
from gamekeeper.settings.section import Name, OneLine, Section

MEBIBYTE = 1 << 20
MAX_BYTES = (1 << 62) - 1
RESERVED_KINDS = frozenset({*BUILT_IN_KINDS, "export", "sync", "scrub"})
DEFAULT_WEIGHTS = {"found": 8.0, "train": 4.0, "evaluate": 4.0, "evaluate/rating": 1.0, "selfplay": 1.0}

LineLane = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}(/[a-z0-9][a-z0-9-]{0,62}){0,2}$")]
Lane = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}(/[a-z0-9][a-z0-9-]{0,62})?$")]
Weight = Annotated[float, Field(gt=0, le=1e6)]
FieldName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
EvidenceType = Literal["count", "number", "hash", "hashes", "text"]


class CoordinatorSection(Section):
    """The coordinator: where it listens, and how long a silent agent keeps its work."""

    host: OneLine = Field("127.0.0.1", min_length=1, max_length=255, description="Address to listen on.")
    port: int = Field(8017, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    lease_s: float = Field(
        30.0,
        ge=1.0,
        le=3600.0,
        description="Seconds a silent agent keeps its jobs. All beats, margins and reaping follow from it.",
    )


class StoreSection(Section):
    """The database: a SQLite file in data_dir for one machine, PostgreSQL for a fleet."""

    url: Annotated[str, AfterValidator(database_url)] = Field(
        "",
        max_length=2000,
        repr=False,
        description=(
            'Empty: a SQLite file in data_dir. Else "postgresql://user@host:5432/name". Keep the password out of this '
            "file: set GAMEKEEPER_STORE__URL, or name a passfile."
        ),
    )
    passfile: OneLine = Field(
        "",
        max_length=4096,
        description=(
            "File with PostgreSQL passwords (host:port:database:user:password), readable by its owner alone; relative "
            "to this file."
        ),
    )


class AgentGpu(Section):
    """A device of this machine, declared because it cannot be measured."""

    name: OneLine = Field(min_length=1, max_length=120, description='For people: "H200".')
    memory_bytes: int | None = Field(
        None, ge=1, le=MAX_BYTES, description="Its memory. Left out: not known.", examples=[80 << 30]
    )


class AgentSection(Section):
    """The agent of this machine. What is declared here counts instead of what is measured."""

    slots: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="Jobs to run at once. Default: one for each processor core.",
    )
    url: OneLine = Field(
        "",
        max_length=500,
        description="Coordinator to work for. Default: the one that runs in data_dir.",
    )
    min_free_bytes: int = Field(
        256 * MEBIBYTE,
        ge=0,
        le=MAX_BYTES,
        description="Take no work while the disk of data_dir has less room than this.",
    )
    ephemeral: bool = Field(
        False, description="Whether this machine may vanish for good at any moment (spot, rented)."
    )
    labels: dict[Label, Label] = Field(
        default_factory=dict,
        max_length=MAX_LABELS,
        description='What jobs may ask for: { site = "attic" }.',
    )
    cpus: float | None = Field(
        None, gt=0, le=4096, description="Processor cores to share out. Left out: all.", examples=[16.0]
    )
    memory_bytes: int | None = Field(
        None,
        ge=1,
        le=MAX_BYTES,
        description="Main memory to share out. Left out: all.",
        examples=[64 << 30],
    )
    gpus: list[AgentGpu] = Field(
        default_factory=list,
        max_length=64,
        description='Devices in the order of their indices: [{ name = "H200", memory_bytes = 150754820096 }].',
    )

    def declared_gpus(self) -> tuple[Gpu, ...] | None:
        """The declared devices; `None` when none are, which does not mean that there are none."""
        return tuple(Gpu(gpu.name, gpu.memory_bytes) for gpu in self.gpus) or None


class ArtifactsSection(Section):
    """The artifact store: shards, models and match records."""

    max_bytes: int = Field(
        512 * MEBIBYTE, ge=1024, le=MAX_BYTES, description="Largest file a job may hand in."
    )
    min_free_bytes: int = Field(
        256 * MEBIBYTE,
        ge=0,
        le=MAX_BYTES,
        description="Refuse uploads that would leave the disk less room than this.",
    )


class RetentionSection(Section):
    """How long what is over is kept. Whichever bound is met first counts."""

    finished_jobs_days: float = Field(
        30.0, gt=0, le=36500, description="Days that a finished job and its attempts are kept."
    )
    finished_jobs_max: int = Field(
        200_000, ge=100, le=1_000_000_000, description="Finished jobs that are kept, the newest."
    )
    decisions_max: int = Field(
        2000,
        ge=100,
        le=10_000_000,
        description="Decisions that are kept of each policy, the newest; those that current verdicts stand in besides.",
    )


class CallsSection(Section):
    """How many calls of each class the coordinator serves at once; one beyond that is told when to come again."""

    beat: int = Field(16384, ge=1, le=1_000_000, description="Agents renewing their leases.")
    claim: int = Field(16384, ge=1, le=1_000_000, description="Agents waiting for work.")
    connect: int = Field(256, ge=1, le=1_000_000, description="Agents that come or come back.")
    connects_per_s: float = Field(
        400.0, gt=0, le=1e6, description="Agents that may come back in a second; the others are given a time."
    )
    enrol: int = Field(64, ge=1, le=1_000_000, description="Machines that ask for an identity.")
    agent: int = Field(1024, ge=1, le=1_000_000, description="Other calls of agents.")
    upload: int = Field(16, ge=1, le=100_000, description="Files on their way in.")
    download: int = Field(64, ge=1, le=100_000, description="Files on their way out.")
    people: int = Field(32, ge=1, le=100_000, description="Questions and orders of people and programs.")


class AdmissionSection(Section):
    """How much the coordinator takes on, so that a flood of one kind cannot hold others back."""

    max_ready_per_producer: int = Field(
        100_000, ge=1, le=1_000_000_000, description="Unfinished jobs one producer may have submitted."
    )
    max_ready_per_kind: int = Field(
        500_000, ge=1, le=1_000_000_000, description="Unfinished submitted jobs of one kind."
    )
    max_ready_in_all: int = Field(
        1_000_000, ge=1, le=1_000_000_000, description="Unfinished submitted jobs altogether."
    )
    calls: CallsSection = Field(default_factory=lambda: CallsSection.model_validate({}))


def _over_defaults(given: object) -> object:
    return {**DEFAULT_WEIGHTS, **given} if isinstance(given, dict) else given


class DistributionSection(Section):
    """Which waiting agent is given which job. There are no priorities: lanes share the slots by weight."""

    weights: Annotated[dict[Lane, Weight], BeforeValidator(_over_defaults)] = Field(
        default=DEFAULT_WEIGHTS,
        max_length=256,
        description='Share of a kind of jobs, or of "kind/purpose"; those not named here keep their default.',
    )
    default_weight: Weight = Field(1.0, description="Share of kinds that weights does not name.")
    line_weights: dict[Name, Weight] = Field(
        default_factory=dict, max_length=256, description="Share of a line; 1.0 where not named."
    )
    minimums: dict[LineLane, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        default_factory=dict,
        max_length=256,
        description='Slots that a line, or "line/kind" of it, gets before others get any, while it has work.',
    )
    minimums_yield_after_s: float = Field(
        3600.0,
        gt=0,
        le=604800,
        description="Seconds without a grant after which others go before minimums once.",
    )
    ageing_s: float = Field(
        60.0,
        gt=0,
        le=86400,
        description="Seconds without a grant after which a lane counts as twice as heavy.",
    )
    grants_per_pass: int = Field(
        500, ge=1, le=100_000, description="Jobs granted in one pass; the next one follows at once."
    )
    reserve_after_s: float = Field(
        300.0,
        gt=0,
        le=604800,
        description="Seconds without a grant after which jobs that ask for much have a machine's room kept for them.",
    )
    reservations: int = Field(
        4, ge=0, le=1000, description="Machines that may be kept free at once; 0 keeps none free."
    )

    def to_limits(self) -> Limits:
        """The limits as the distributor takes them."""
        return Limits(**{name: getattr(self, name) for name in type(self).model_fields})


class JobParkingSection(Section):
    """When repeated failures are blamed on a job (it is parked) or on a machine (it is left out for a time)."""

    poison_nodes: int = Field(
        3, ge=2, le=100, description="Park a job that failed on this many different machines."
    )
    blame_jobs: int = Field(
        3,
        ge=2,
        le=1000,
        description="Leave out a machine on which this many different jobs failed and none succeeded.",
    )
    blame_window_s: float = Field(
        1800.0, gt=0, le=86400, description="Seconds in which these failures count together."
    )
    exclusion_first_s: float = Field(
        600.0,
        gt=0,
        le=2592000,
        description="Seconds a machine is left out the first time; twice as long each time.",
    )
    exclusion_longest_s: float = Field(
        21600.0, gt=0, le=2592000, description="Seconds a machine is left out at most."
    )
    max_excluded_fraction: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Part of the fleet that may be left out at once; one machine always may, unless 0.",
    )


def _proves_something(receipt: dict[str, str]) -> dict[str, str]:
    if all(kind == FieldType.NUMBER for kind in receipt.values()):
        raise PydanticCustomError(
            "evidence", "it needs a field that proves work: a count, a hash, hashes or a text"
        )
    return receipt


class KindSection(Section):
    """A kind of jobs of your own: the unit of its progress, and the receipt that proves its work."""

    progress_unit: OneLine = Field(min_length=1, max_length=40, description='What progress counts: "boards".')
    receipt: Annotated[dict[FieldName, EvidenceType], AfterValidator(_proves_something)] = Field(
        min_length=1,
        max_length=64,
        description='Fields of the receipt, all required: { boards = "count", result = "hash" }.',
    )

    def to_kind(self, name: str) -> JobKind:
        """The kind as receipts are judged by it."""
        fields = tuple(ReceiptField(field, FieldType(kind)) for field, kind in self.receipt.items())
        return JobKind(name, self.progress_unit, fields)


def _own_kind(name: str) -> str:
    if name in RESERVED_KINDS:
        raise PydanticCustomError("own_kind", "it is built in and cannot be declared anew")
    return name


class Document(Section):
    """The whole document."""

    data_dir: OneLine = Field(
        "gamekeeper-data",
        min_length=1,
        max_length=4096,
        description="Folder of everything Gamekeeper keeps; relative to this file.",
    )
    seed: int = Field(0, ge=0, lt=1 << 63, description="From which the seeds of all jobs derive.")
    coordinator: CoordinatorSection = Field(default_factory=lambda: CoordinatorSection.model_validate({}))
    store: StoreSection = Field(default_factory=lambda: StoreSection.model_validate({}))
    agent: AgentSection = Field(default_factory=lambda: AgentSection.model_validate({}))
    artifacts: ArtifactsSection = Field(default_factory=lambda: ArtifactsSection.model_validate({}))
    retention: RetentionSection = Field(default_factory=lambda: RetentionSection.model_validate({}))
    admission: AdmissionSection = Field(default_factory=lambda: AdmissionSection.model_validate({}))
    distribution: DistributionSection = Field(default_factory=lambda: DistributionSection.model_validate({}))
    job_parking: JobParkingSection = Field(default_factory=lambda: JobParkingSection.model_validate({}))
    kinds: dict[Annotated[Name, AfterValidator(_own_kind)], KindSection] = Field(
        default_factory=dict, max_length=64
    )
    lines: dict[Name, LineSection] = Field(default_factory=dict, max_length=64)


SECTION_TYPES: dict[str, type[Section]] = {
    name: info.annotation
    for name, info in Document.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
}
