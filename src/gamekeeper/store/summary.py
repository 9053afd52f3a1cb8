"""What `status`, `lines` and the report need, from the counters: work in proportion to lines and kinds, not to jobs."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.jobs import AttemptState, JobState
from gamekeeper.core.models import Champion, Model
from gamekeeper.store import artifacts, decisions, job_queue, registry
from gamekeeper.store.artifacts import LineCounts
from gamekeeper.store.decisions import StoredVerdict
from gamekeeper.store.session import Reading
from gamekeeper.store.statements import sql

_ATTEMPT_COUNTS = sql("SELECT state, sum(n) AS n FROM attempt_counts GROUP BY state")
_REMOVED = sql("SELECT state, sum(n) AS n FROM removed_counts WHERE what = 'jobs' GROUP BY state")
_LIVE_STATES = sql("SELECT state, count(*) AS n FROM attempts WHERE {live_attempt} GROUP BY state")
_NODE_COUNTS = sql("SELECT status, count(*) AS n, sum(slots) AS slots FROM nodes GROUP BY status")
_SLOT_TIME = sql("SELECT t.*, n.slots FROM slot_time t JOIN nodes n ON n.id = t.node_id ORDER BY t.node_id")
_LIVE_TIME = sql(
    "SELECT node_id, count(*) AS busy, sum(:now - leased_at) AS leased_s, sum(process_s) AS process_s"
    " FROM attempts WHERE {live_attempt} GROUP BY node_id"
)


@dataclass(frozen=True, slots=True)
class LineSummary:
    """Where one line stands. `live` counts its jobs that are not final: {"selfplay": {"ready": 1, "running": 2}}."""

    line: str
    champion: Champion | None
    promotions: int
    counts: LineCounts
    candidate: Model | None
    newest: Model | None
    live: dict[str, dict[str, int]]
    jobs: dict[str, dict[str, int]]
    last_verdict: StoredVerdict | None


@dataclass(frozen=True, slots=True)
class SlotTime:
    """How a node's slots were used since its first lease.

    leased_s: seconds of slots under lease; process_s: seconds in which a process ran, as agents report it. Live
    attempts count up to now, their process time up to the last beat. busy: live attempts.
    """

    node_id: str
    slots: int
    since: float
    leased_s: float
    process_s: float
    attempts: int
    busy: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Jobs and attempts by state, those that are no longer kept too; nodes by status, slots of nodes that are up, live
    attempts.
    """

    jobs: dict[str, int]
    attempts: dict[str, int]
    nodes: dict[str, int]
    slots_up: int
    busy: int


def lines(r: Reading) -> list[LineSummary]:
    """A summary of every line that has jobs, models or data, by name."""
    by_line: dict[str, list[job_queue.JobCount]] = {}
    for count in job_queue.counts(r):
        by_line.setdefault(count.line, []).append(count)
    counts = artifacts.all_line_counts(r)
    champions = {champion.line: champion for champion in registry.champions(r)}
    names = sorted(set(by_line) | set(counts) | set(champions))
    return [
        line_summary(r, name, by_line.get(name, []), counts.get(name), champions.get(name)) for name in names
    ]


def line_summary(
    r: Reading,
    name: str,
    job_counts: list[job_queue.JobCount],
    counts: LineCounts | None,
    champion: Champion | None,
) -> LineSummary:
    """The summary of one line from the counters that were read for it."""
    live: dict[str, dict[str, int]] = {}
    jobs: dict[str, dict[str, int]] = {}
    for count in job_counts:
        of_kind = jobs.setdefault(count.kind, {})
        of_kind[str(count.state)] = of_kind.get(count.state, 0) + count.n
        if count.state in (JobState.WAITING, JobState.READY, JobState.RUNNING):
            of_live = live.setdefault(count.kind, {})
            of_live[str(count.state)] = of_live.get(count.state, 0) + count.n
    newest = registry.models(r, name, 1)
    said = decisions.current(r, f"line/{name}")
    return LineSummary(
        line=name,
        champion=champion,
        promotions=champion.generation if champion else 0,
        counts=counts or LineCounts(),
        candidate=registry.candidate(r, name),
        newest=newest[0] if newest else None,
        live=live,
        jobs=jobs,
        last_verdict=said[0] if said else None,
    )


def totals(r: Reading) -> Totals:
    """Jobs, attempts, nodes and slots of the whole fleet."""
    jobs: dict[str, int] = {}
    for count in job_queue.counts(r):
        jobs[str(count.state)] = jobs.get(count.state, 0) + count.n
    for row in r.rows(_REMOVED):
        jobs[str(row["state"])] = jobs.get(row["state"], 0) + int(row["n"])
    attempts = {str(row["state"]): int(row["n"]) for row in r.rows(_ATTEMPT_COUNTS)}
    live = {str(row["state"]): int(row["n"]) for row in r.rows(_LIVE_STATES)}
    found = r.rows(_NODE_COUNTS)
    return Totals(
        jobs=jobs,
        attempts={**{str(state): 0 for state in AttemptState}, **attempts, **live},
        nodes={str(row["status"]): int(row["n"]) for row in found},
        slots_up=sum(int(row["slots"]) for row in found if row["status"] == "up"),
        busy=sum(live.values()),
    )


def slot_times(r: Reading) -> list[SlotTime]:
    """How the slots of every node that was ever granted a job were used, by node id."""
    live = {str(row["node_id"]): row for row in r.rows(_LIVE_TIME, now=r.now)}
    result = []
    for row in r.rows(_SLOT_TIME):
        now = live.get(row["node_id"])
        result.append(
            SlotTime(
                node_id=row["node_id"],
                slots=row["slots"],
                since=row["first_leased_at"],
                leased_s=row["leased_s"] + (now["leased_s"] if now else 0.0),
                process_s=row["process_s"] + (now["process_s"] if now else 0.0),
                attempts=row["attempts"] + (now["busy"] if now else 0),
                busy=now["busy"] if now else 0,
            )
        )
    return result


def last_verdict(r: Reading) -> StoredVerdict | None:
    """The verdict stored last."""
    found = decisions.newest(r, 1)
    return found[0] if found else None
