"""The one way jobs are given out: many at once, each under a fresh token, to agents that hold their node's lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.errors import GamekeeperError, IllegalTransition, NotFound, StaleToken
from gamekeeper.core.events import AttemptLeased
from gamekeeper.core.jobs import Attempt, AttemptState, Job, JobState
from gamekeeper.core.nodes import NodeStatus
from gamekeeper.core.requirements import Capacity, GpuShare, Requirements, Taken, overcommitted
from gamekeeper.store import inventory
from gamekeeper.store.attempts import job_of
from gamekeeper.store.counters import Tally
from gamekeeper.store.encoding import object_of, to_json
from gamekeeper.store.schema import attempts, jobs
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import adding, changing, sql

_HOLDERS = sql(
    "SELECT l.node_id, l.incarnation, l.token, l.expires_at, l.reaped, n.slots, n.status,"
    " n.last_seen_at, t.node_id AS timed,"
    " (SELECT count(*) FROM attempts WHERE node_id = n.id AND {live_attempt}) AS busy"
    " FROM agent_leases l JOIN nodes n ON n.id = l.node_id LEFT JOIN slot_time t ON t.node_id = l.node_id"
    " WHERE l.incarnation IN LIST(:incarnations) ORDER BY l.node_id FOR UPDATE OF l"
)
_JOBS = sql("SELECT * FROM jobs WHERE id IN LIST(:ids) ORDER BY id FOR UPDATE")
_TAKE = changing(jobs, keys=("id",), columns=("state", "reason"), guard="{ready_job}")
_ATTEMPT_COLUMNS = tuple(column.name for column in attempts.columns)
_ADD_ATTEMPT = adding(attempts, *_ATTEMPT_COLUMNS)
# Ageing counts in minutes: within a second of the last note, another would only cost a page of the log.
_GRANTED_LAST = sql(
    "UPDATE job_classes SET last_granted_at = :now"
    " WHERE id IN LIST(:ids) AND (last_granted_at IS NULL OR last_granted_at < :now - 1 OR last_granted_at > :now)"
)
_FIRST_LEASE = sql(
    "INSERT INTO slot_time (node_id, first_leased_at, leased_s, process_s, attempts) VALUES (:node_id, :now, 0, 0, 0)"
    " ON CONFLICT (node_id) DO NOTHING"
)
_HEADS = sql(
    "SELECT c.id, (SELECT min(j.not_before) FROM jobs j WHERE j.class_id = c.id AND j.{ready_job}) AS head"
    " FROM job_counts t JOIN job_classes c ON c.id = t.class_id"
    " WHERE t.state = 'ready' AND t.n > 0 AND c.requirements = '{{}}'"
)
_OLDEST = sql(
    "SELECT not_before, id FROM jobs WHERE class_id = :class_id AND {ready_job} AND not_before <= :now"
    " ORDER BY not_before, id LIMIT :limit FOR UPDATE SKIP LOCKED"
)


class Holder:
    """A node and the agent incarnation that holds its newest lease, as one transaction knows them."""

    __slots__ = (
        "busy",
        "expires_at",
        "incarnation",
        "node_id",
        "reaped",
        "seen_at",
        "slots",
        "timed",
        "token",
    )

    def __init__(self, row: Row) -> None:
        self.node_id: str = row["node_id"]
        self.incarnation: str = row["incarnation"]
        self.token: int = row["token"]
        self.expires_at: float = row["expires_at"]
        self.reaped = bool(row["reaped"])
        self.slots: int = row["slots"]
        self.busy: int = row["busy"]
        # When a node that is up was last heard of, as far as the store says.
        self.seen_at: float = row["last_seen_at"] or 0.0 if row["status"] == NodeStatus.UP else 0.0
        self.timed = row["timed"] is not None


class Free(NamedTuple):
    """An agent that asks for work, and for how many jobs it has free slots."""

    node_id: str
    incarnation: str
    slots: int


class Granted(NamedTuple):
    """A job given out. The attempt's id is its token; `job` is decoded when it is asked for."""

    attempt_id: int
    node_id: str
    incarnation: str
    leased_at: float
    gpus: tuple[GpuShare, ...]
    row: Row

    @property
    def token(self) -> int:
        """The fencing token."""
        return self.attempt_id

    @property
    def job(self) -> Job:
        """The job as it was when it was given out."""
        return job_of(self.row)

    @property
    def attempt(self) -> Attempt:
        """The attempt, not yet started."""
        return Attempt(
            self.attempt_id, self.row["id"], self.node_id, self.incarnation, self.attempt_id, AttemptState.LEASED,
            self.leased_at, None, None, None, "", 0, self.gpus,
        )  # fmt: skip


def holders(w: Writing, incarnations: Sequence[str]) -> dict[str, Holder]:
    """The newest leases of nodes that these incarnations hold, reaped ones too, by incarnation."""
    return {row["incarnation"]: Holder(row) for row in w.rows(_HOLDERS, incarnations=list(incarnations))}


def jobs_of(w: Writing, ids: Sequence[int]) -> dict[int, Row]:
    """Rows of `jobs` by id, kept from other writers until the commit."""
    return {row["id"]: row for row in w.rows(_JOBS, ids=list(ids))}


def oldest_first(r: Reading, waiting: Sequence[Free]) -> list[GrantJob]:
    """Due jobs that any node can run, the longest due first, to the agents in turn, one each per turn.

    Looks at no more than the heads of the classes and as many jobs as there are slots: no scan of what is ready.
    """
    slots = [(free.node_id, free.incarnation) for free in waiting for _ in range(free.slots)]
    if len(waiting) > 1:
        turns = sorted((turn, place) for place, free in enumerate(waiting) for turn in range(free.slots))
        slots = [(waiting[place].node_id, waiting[place].incarnation) for _, place in turns]
    found: list[tuple[float, int]] = []
    heads = sorted((row["head"], row["id"]) for row in r.rows(_HEADS) if row["head"] is not None)
    for head, class_id in heads:
        if head > r.now or (len(found) >= len(slots) and head > found[-1][0]):
            break
        rows = r.rows(_OLDEST, class_id=class_id, now=r.now, limit=len(slots))
        found = sorted([*found, *((row["not_before"], row["id"]) for row in rows)])[: len(slots)]
    return [
        GrantJob(job_id, node_id, incarnation)
        for (_, job_id), (node_id, incarnation) in zip(found, slots, strict=False)
    ]


def grant_many(
    w: Writing, grants: Sequence[GrantJob], known: dict[str, Holder] | None = None
) -> list[Granted | GamekeeperError]:
    """Lease ready jobs to agent incarnations, each under a fresh token: one answer for each grant, in order.

    A refusal changes nothing: `StaleToken` when the job is not ready or not due, the incarnation is not the node's
    current one, its lease is over, no slot is free, or the node has not enough left of what the job asks for;
    `NotFound` for an unknown job. `known`: what `holders` said in this transaction; it is kept up to date.
    """
    if not grants:
        return []
    held = known if known is not None else holders(w, [grant.incarnation for grant in grants])
    rows = jobs_of(w, [grant.job_id for grant in grants])
    taken: set[int] = set()
    rooms = _Rooms(w, taken)
    refusals = [_refusal(w, grant, held.get(grant.incarnation), rows, rooms) for grant in grants]
    last = w.take("fence", len(taken)) if taken else 0
    tokens = iter(range(last - len(taken) + 1, last + 1))
    answers = [
        refusal
        or Granted(
            next(tokens), grant.node_id, grant.incarnation, w.now, tuple(grant.gpus), rows[grant.job_id]
        )
        for grant, refusal in zip(grants, refusals, strict=True)
    ]
    if taken:
        _write(w, [answer for answer in answers if isinstance(answer, Granted)], held)
    return answers


def _refusal(
    w: Writing, grant: GrantJob, held: Holder | None, rows: dict[int, Row], rooms: _Rooms
) -> GamekeeperError | None:
    """Why a grant cannot be; a grant that can takes its job and a slot."""
    if held is None or held.node_id != grant.node_id or held.expires_at <= w.now:
        return StaleToken(
            f"node {grant.node_id} is not held by a live agent {grant.incarnation}",
            remedy="wait for it to connect",
        )
    if held.busy >= held.slots:
        return StaleToken(f"node {grant.node_id} has no free slot: {held.busy} of {held.slots} are taken")
    row = rows.get(grant.job_id)
    if row is None:
        return NotFound(f"job {grant.job_id} does not exist", remedy="see `gamekeeper jobs`")
    if row["state"] != JobState.READY or row["not_before"] > w.now or grant.job_id in rooms.given:
        state = JobState.RUNNING if grant.job_id in rooms.given else row["state"]
        return StaleToken(f"job {grant.job_id} is {state} and not to be granted now")
    if row["requirements"] != "{}":
        lacking = rooms.lacking(grant, row["requirements"])
        if lacking:
            return StaleToken(f"node {grant.node_id} has not enough {lacking} left for job {grant.job_id}")
    rooms.given.add(grant.job_id)
    held.busy += 1
    return None


class _Rooms:
    """The jobs given out in this round, and what nodes have left: looked up only for jobs that ask for anything."""

    def __init__(self, w: Writing, given: set[int]) -> None:
        self._w = w
        self.given = given
        self._capacity: dict[str, Capacity] = {}
        self._taken: dict[str, list[Taken]] = {}

    def lacking(self, grant: GrantJob, requirements: str) -> str:
        """What a node has too little of for this grant, or "": then it is taken."""
        if grant.node_id not in self._capacity:
            (standing,) = inventory.standings(self._w, [grant.node_id])
            self._capacity[grant.node_id] = standing.capacity
            self._taken[grant.node_id] = list(standing.taken)
        taken = self._taken[grant.node_id]
        taken.append((Requirements.from_map(object_of(requirements)), tuple(grant.gpus)))
        lacking = overcommitted(self._capacity[grant.node_id], taken)
        if lacking:
            taken.pop()
        return lacking


def _write(w: Writing, given: Sequence[Granted], held: dict[str, Holder]) -> None:
    taken = [(JobState.RUNNING, "", each.row["id"]) for each in given]
    if w.run_rows(_TAKE, ("state", "reason", "id"), taken) != len(given):
        raise IllegalTransition("a job that was ready a moment ago is not")
    w.run_rows(_ADD_ATTEMPT, _ATTEMPT_COLUMNS, [_attempt_row(each) for each in given])
    tally = Tally()
    for each in given:
        tally.job_moved(each.row["class_id"], JobState.READY, JobState.RUNNING)
        w.emit(AttemptLeased(each.attempt_id, each.row["id"], each.node_id, each.attempt_id))
    tally.write(w)
    w.run(_GRANTED_LAST, now=w.now, ids=sorted({each.row["class_id"] for each in given}))
    for incarnation in sorted({each.incarnation for each in given}):
        holder = held[incarnation]
        if not holder.timed:
            w.run(_FIRST_LEASE, node_id=holder.node_id, now=w.now)
            holder.timed = True


def _attempt_row(each: Granted) -> tuple[str | int | float | None, ...]:
    """The values of a fresh attempt in the order of the table's columns."""
    gpus = to_json([[share.index, share.share] for share in each.gpus]) if each.gpus else "[]"
    return (
        each.attempt_id, each.row["id"], each.node_id, each.incarnation, each.attempt_id, AttemptState.LEASED, None, "",
        each.leased_at, each.leased_at, None, None, 0, None, None, None, 0, "", "{}", 0.0, None, gpus, 0,
    )  # fmt: skip
