"""Classes of jobs: alike in line, kind, purpose, producer, share and requirements, so alike to whoever matches them.

A look at all classes and their oldest jobs costs the same with ten waiting jobs as with a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gamekeeper.core.jobs import JobState
from gamekeeper.core.requirements import Requirements
from gamekeeper.store.encoding import object_of
from gamekeeper.store.session import Reading
from gamekeeper.store.statements import sql

LATER_COUNTED = 1000

_LIVE = sql(
    "SELECT c.*, t.state, t.n FROM job_counts t JOIN job_classes c ON c.id = t.class_id"
    " WHERE t.{held_state} AND t.n > 0 ORDER BY c.id, t.state"
)
_DUE = sql(
    "SELECT id, created_at, not_before, deadline, inputs FROM jobs"
    " WHERE {ready_job} AND class_id = :class_id AND not_before <= :now ORDER BY not_before, id LIMIT :most"
)
_LATER = sql(
    "SELECT count(*) AS n, min(not_before) AS earliest FROM (SELECT not_before FROM jobs"
    " WHERE {ready_job} AND class_id = :class_id AND not_before > :now ORDER BY not_before LIMIT :most) AS later"
)


@dataclass(frozen=True, slots=True)
class JobClass:
    """A class with jobs that are not ended. `counts`: how many of them are in which state; zeros are left out."""

    id: int
    line: str
    kind: str
    purpose: str
    producer: str
    share: float
    requirements: Requirements
    last_granted_at: float | None
    counts: Mapping[JobState, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DueJob:
    """A job that may be granted now. `inputs` are the hashes of all files it reads."""

    job_id: int
    created_at: float
    due_since: float
    deadline: float | None
    inputs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Later:
    """Ready jobs of a class that are not due: how many (counted up to `LATER_COUNTED`), and when the first will be."""

    n: int
    earliest: float | None


def live(r: Reading) -> list[JobClass]:
    """All classes that have a job not ended, by id."""
    found: dict[int, JobClass] = {}
    counts: dict[int, dict[JobState, int]] = {}
    for row in r.rows(_LIVE):
        counts.setdefault(row["id"], {})[JobState(row["state"])] = row["n"]
        if row["id"] not in found:
            found[row["id"]] = JobClass(
                row["id"], row["line"], row["kind"], row["purpose"], row["producer"], row["share"],
                Requirements.from_map(object_of(row["requirements"])), row["last_granted_at"], counts[row["id"]],
            )  # fmt: skip
    return list(found.values())


def due(r: Reading, class_id: int, most: int) -> list[DueJob]:
    """The `most` jobs of a class that have been due longest."""
    return [
        DueJob(row["id"], row["created_at"], row["not_before"], row["deadline"], _hashes(row["inputs"]))
        for row in r.rows(_DUE, class_id=class_id, now=r.now, most=most)
    ]


def later(r: Reading, class_id: int) -> Later:
    """What of a class is ready but not due yet."""
    row = r.first(_LATER, class_id=class_id, now=r.now, most=LATER_COUNTED)
    return Later(0, None) if row is None else Later(row["n"], row["earliest"])


def _hashes(inputs: str) -> frozenset[str]:
    if inputs == "{}":
        return frozenset()
    return frozenset(
        str(each) for hashes in object_of(inputs).values() if isinstance(hashes, list) for each in hashes
    )
