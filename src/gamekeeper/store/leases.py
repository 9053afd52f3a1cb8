"""Leases: roles held by one coordinator at a time, and nodes held by one agent incarnation at a time.

All expiry is measured on the store's clock. Epochs and tokens come from the store's one counter, so a later holder
always has the greater number, and whoever holds an overtaken one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gamekeeper.core.errors import NotFound, RoleHeld, StaleToken
from gamekeeper.core.events import AgentConnected, CoordinatorStarted
from gamekeeper.core.jobs import AttemptState, EndReason
from gamekeeper.core.nodes import AgentLease, NodeStatus, Observation
from gamekeeper.store.encoding import sentence, to_json
from gamekeeper.store.endings import Finish, end_many
from gamekeeper.store.granting import Holder, holders
from gamekeeper.store.schema import agent_leases, attempts
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import Value, changing, sql

_ROLE = sql("SELECT * FROM roles WHERE role = :role")
# Held to the commit: nobody can take the role between the check of an epoch and the effects that it allows.
_ROLE_KEPT = sql("SELECT * FROM roles WHERE role = :role FOR UPDATE")
_TAKE_ROLE = sql(
    "INSERT INTO roles (role, holder, epoch, taken_at, expires_at, released)"
    " VALUES (:role, :holder, :epoch, :now, :expires_at, 0)"
    " ON CONFLICT (role) DO UPDATE SET holder = :holder, epoch = :epoch, taken_at = :now, expires_at = :expires_at,"
    " released = 0 WHERE roles.expires_at <= :free_at"
)
_ALWAYS = 1e300
_RENEW_ROLE = sql(
    "UPDATE roles SET expires_at = :expires_at WHERE role = :role AND epoch = :epoch AND released = 0"
)
_RELEASE_ROLE = sql(
    "UPDATE roles SET released = 1, expires_at = :now WHERE role = :role AND epoch = :epoch AND released = 0"
)
_NODE_UP = sql(
    "UPDATE nodes SET status = 'up', slots = coalesce(:slots, slots), last_seen_at = :now, cpu_count = :cpu_count,"
    " memory_bytes = :memory_bytes, disk_free_bytes = :disk_free_bytes, load = :load, observed_at = :observed_at"
    " WHERE id = :id"
)
_TAKE_NODE = sql(
    "INSERT INTO agent_leases (node_id, incarnation, token, since, expires_at, reaped)"
    " VALUES (:node_id, :incarnation, :token, :now, :expires_at, 0)"
    " ON CONFLICT (node_id) DO UPDATE SET incarnation = :incarnation, token = :token, since = :now,"
    " expires_at = :expires_at, reaped = 0"
)
_INCARNATION = sql(
    "SELECT i.node_id, l.incarnation AS newest FROM incarnations i JOIN agent_leases l ON l.node_id = i.node_id"
    " WHERE i.incarnation = :incarnation"
)
_NEW_INCARNATION = sql(
    "INSERT INTO incarnations (incarnation, node_id, since) VALUES (:incarnation, :node_id, :now)"
)
_RENEW = changing(agent_leases, keys=("node_id", "incarnation"), columns=("expires_at",), guard="reaped = 0")
_NODES_SEEN = sql("UPDATE nodes SET status = 'up', last_seen_at = :now WHERE id IN LIST(:ids)")
_LIVE_OF_NODES = sql(
    "SELECT a.id, a.job_id, a.node_id, a.token, a.incarnation, a.state, a.leased_at, a.seen_at, a.gpus, a.units,"
    " a.process_s, j.cancel_requested"
    " FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.node_id IN LIST(:ids) AND a.{live_attempt} ORDER BY a.id"
)
_ADOPT = sql(
    "UPDATE attempts SET incarnation = :incarnation, seen_at = :now"
    " WHERE id = :id AND token = :token AND node_id = :node_id AND {live_attempt}"
)
_PROGRESS_COLUMNS = ("seen_at", "note", "figures", "units", "process_s")
_PROGRESS = changing(
    attempts, keys=("id", "token", "incarnation"), columns=_PROGRESS_COLUMNS, guard="{live_attempt}"
)
_ENDING = sql(
    "UPDATE attempts SET state = 'ending' WHERE id IN LIST(:ids) AND state IN ('leased', 'running')"
)
_STATE = (
    "SELECT l.node_id, l.incarnation, l.token, l.since, l.expires_at, l.reaped, n.slots, n.status,"
    " (SELECT count(*) FROM attempts WHERE node_id = n.id AND {{live_attempt}}) AS busy"
    " FROM agent_leases l JOIN nodes n ON n.id = l.node_id{}"
)
_AGENTS = sql(_STATE.format(" ORDER BY l.node_id"))
_AGENT_OF = sql(_STATE.format(" WHERE l.node_id = :node_id"))
_RUN_OUT = sql(_STATE.format(" WHERE l.expires_at <= :now ORDER BY l.node_id"))
_UNHELD = sql(
    "SELECT a.id, a.token, a.job_id, a.node_id, a.incarnation, a.leased_at"
    " FROM attempts a LEFT JOIN agent_leases l ON l.node_id = a.node_id"
    " WHERE a.{live_attempt} AND (l.node_id IS NULL OR l.expires_at <= :now OR l.incarnation <> a.incarnation)"
    " ORDER BY a.id"
)


# When a node was last seen is written down no more often than this.
SEEN_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Role:
    """Who holds a role, under which epoch, and until when."""

    role: str
    holder: str
    epoch: int
    taken_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What an agent says of an attempt it runs: cumulative `units`, seconds of running process, words and figures."""

    attempt_id: int
    token: int
    units: int
    note: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    process_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Beat:
    """What an agent incarnation says of itself: it lives for another `lease_s`, and how its attempts stand."""

    incarnation: str
    lease_s: float
    progress: Sequence[Progress] = ()
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class Renewed:
    """A renewed lease. `stop`: attempts the agent must stop. `unheard`: rows of leased ones it does not name."""

    lease: AgentLease
    stop: tuple[int, ...]
    unheard: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class AgentState:
    """The newest lease of a node. `busy`: its live attempts. `reaped`: it was declared over; it cannot be renewed."""

    lease: AgentLease
    since: float
    reaped: bool
    slots: int
    busy: int
    status: NodeStatus


@dataclass(frozen=True, slots=True)
class Unheld:
    """A live attempt whose lease is over, was overtaken, or never was."""

    attempt_id: int
    token: int
    job_id: int
    node_id: str
    incarnation: str
    leased_at: float


def take_role(w: Writing, role: str, holder: str, lease_s: float, *, displace: bool = False) -> int:
    """Take `role` for `lease_s` seconds: its epoch, greater than every earlier one.

    `displace`: take it though its lease runs, for a caller that has proof that the former holder is gone (it holds the
    lock of the data folder). Raises `RoleHeld` while another holder's lease runs.
    """
    row = w.first(_ROLE_KEPT, role=role)
    if row is not None and not displace and row["expires_at"] > w.now:
        raise RoleHeld(
            f"the role {role} is held by {row['holder']} for another {row['expires_at'] - w.now:.0f} s",
            remedy="talk to that process, or stop it first",
        )
    epoch = w.next_token()
    taken = w.run(
        _TAKE_ROLE,
        role=role,
        holder=sentence(holder, 255),
        epoch=epoch,
        now=w.now,
        expires_at=w.now + lease_s,
        free_at=_ALWAYS if displace else w.now,
    )
    if not taken:
        # Two took a role that nobody ever held: the database lets one in.
        raise RoleHeld(f"the role {role} was taken a moment ago", remedy="talk to that process")
    w.emit(CoordinatorStarted(role, epoch, sentence(holder, 255)))
    return epoch


def renew_role(w: Writing, role: str, epoch: int, lease_s: float) -> float:
    """Extend the role; until when it is held now.

    One that ran out but was taken by nobody may be renewed. Raises `StaleToken` when it was taken or released.
    """
    if not w.run(_RENEW_ROLE, role=role, epoch=epoch, expires_at=w.now + lease_s):
        raise _overtaken(w, role, epoch)
    return w.now + lease_s


def release_role(w: Writing, role: str, epoch: int) -> None:
    """Give the role back, so that the next holder need not wait. Raises `StaleToken` when it is not held so."""
    if not w.run(_RELEASE_ROLE, role=role, epoch=epoch, now=w.now):
        raise _overtaken(w, role, epoch)
    w.hint()


def assert_role(w: Writing, role: str, epoch: int) -> None:
    """Raise `StaleToken` unless `epoch` is the role's current one: nobody took the role since, nor was it released."""
    row = w.first(_ROLE_KEPT, role=role)
    if row is None or row["epoch"] != epoch or row["released"]:
        raise _overtaken(w, role, epoch)


def holder(r: Reading, role: str) -> Role | None:
    """Who holds the role now, or `None`."""
    row = r.first(_ROLE, role=role)
    if row is None or row["expires_at"] <= r.now:
        return None
    return Role(row["role"], row["holder"], row["epoch"], row["taken_at"], row["expires_at"])


def connect_agent(
    w: Writing,
    node_id: str,
    incarnation: str,
    lease_s: float,
    *,
    held: Sequence[tuple[int, int]],
    slots: int,
    observation: Observation,
) -> tuple[AgentLease, list[int], list[int]]:
    """Give the node's lease to `incarnation`: (the lease, attempts it goes on with, attempts it must stop).

    `held` are the (attempt, token) it re-adopted. Attempts of earlier incarnations that are not among them end as lost
    (agent-restarted). A held one that is over, or is not this node's, must be stopped. Connecting again is harmless.
    Raises `StaleToken` for an incarnation that a later one has overtaken, or that is another node's (a message that
    comes late takes nothing from who came after); `NotFound` for an unknown node.
    """
    if not _seen(w, node_id, slots, observation):
        raise NotFound(f"node {node_id} is not enrolled", remedy="enrol it with the join token")
    _check_incarnation(w, node_id, incarnation)
    token = w.next_token()
    lease = AgentLease(incarnation, node_id, token, w.now + lease_s)
    w.run(
        _TAKE_NODE,
        node_id=node_id,
        incarnation=incarnation,
        token=token,
        now=w.now,
        expires_at=lease.expires_at,
    )
    claimed, keep = set(held), []
    endings = []
    for row in w.rows(_LIVE_OF_NODES, ids=[node_id]):
        if (row["id"], row["token"]) in claimed:
            w.run(
                _ADOPT, id=row["id"], token=row["token"], node_id=node_id, incarnation=incarnation, now=w.now
            )
            keep.append(row["id"])
        elif row["incarnation"] != incarnation:
            words = "the agent restarted and no longer had it"
            endings.append(Finish(row["id"], row["token"], EndReason.AGENT_RESTARTED, words))
    end_many(w, endings, here=True)
    stop = sorted({attempt for attempt, _ in claimed} - set(keep))
    w.emit(AgentConnected(node_id, incarnation, token, len(keep)))
    return lease, keep, stop


def beat(
    w: Writing,
    incarnation: str,
    lease_s: float,
    progress: Sequence[Progress],
    observation: Observation | None = None,
) -> tuple[AgentLease, list[int]]:
    """Renew the lease of an incarnation and note the progress of its attempts: (the lease, attempts it must stop).

    To be stopped: attempts that are over or not its own, and those of jobs that are to be cancelled. An attempt it does
    not name for `lease_s` seconds never reached it and ends as lost. A lease that ran out is renewed unless it was
    reaped. Raises `StaleToken` when the incarnation is not its node's current one.
    """
    held = holders(w, [incarnation])
    renewed = beat_many(w, [Beat(incarnation, lease_s, progress, observation)], held)[0]
    if renewed is None:
        raise overtaken_agent(incarnation)
    return renewed.lease, list(renewed.stop)


def overtaken_agent(incarnation: str) -> StaleToken:
    """Why a message of this incarnation changed nothing."""
    return StaleToken(
        f"agent {incarnation} does not hold its node any more", remedy="stop its jobs and connect again"
    )


def beat_many(w: Writing, beats: Sequence[Beat], held: Mapping[str, Holder]) -> list[Renewed | None]:
    """`beat` for many incarnations, each named once: one answer for each, in order; `None` for one that is stale.

    `held`: what `granting.holders` said of them in this transaction; it is kept up to date.
    """
    valid = [beat for beat in beats if holds(held, beat.incarnation)]
    if not valid:
        return [None] * len(beats)
    mine = {beat.incarnation: held[beat.incarnation] for beat in valid}
    for beat in valid:
        mine[beat.incarnation].expires_at = w.now + beat.lease_s
    w.run_rows(
        _RENEW,
        ("expires_at", "node_id", "incarnation"),
        [(holder.expires_at, holder.node_id, holder.incarnation) for holder in mine.values()],
    )
    unseen = [
        mine[beat.incarnation].node_id
        for beat in valid
        if beat.observation is None and abs(w.now - mine[beat.incarnation].seen_at) >= SEEN_AGAIN_S
    ]
    if unseen:
        w.run(_NODES_SEEN, now=w.now, ids=unseen)
    for beat in valid:
        if beat.observation is not None:
            _seen(w, mine[beat.incarnation].node_id, None, beat.observation)
    live: dict[str, list[Row]] = {}
    for row in w.rows(_LIVE_OF_NODES, ids=[holder.node_id for holder in mine.values()]):
        live.setdefault(row["node_id"], []).append(row)
    look = _Look(w)
    answers = [
        look.renew(beat, held[beat.incarnation], live.get(held[beat.incarnation].node_id, []))
        if beat.incarnation in mine
        else None
        for beat in beats
    ]
    look.write()
    return answers


def holds(held: Mapping[str, Holder], incarnation: str) -> bool:
    """Whether an incarnation may renew: its node was given to no later one, and its lease was not reaped."""
    return incarnation in held and not held[incarnation].reaped


class _Look:
    """What many beats change in attempts, in memory until `write`."""

    def __init__(self, w: Writing) -> None:
        self._w = w
        self._progress: dict[int, tuple[Value, ...]] = {}
        self._ending: list[int] = []
        self._unnamed: list[Finish] = []

    def renew(self, beat: Beat, holder: Holder, live: Sequence[Row]) -> Renewed:
        w, mine = self._w, {(row["id"], row["token"]): row for row in live}
        stop: set[int] = set()
        named: dict[tuple[int, int], tuple[int, float]] = {}
        for said in beat.progress:
            key = (said.attempt_id, said.token)
            row = mine.get(key)
            if row is None:
                stop.add(said.attempt_id)
                continue
            before = named.get(key, (row["units"], row["process_s"]))
            named[key] = (max(before[0], said.units), max(before[1], said.process_s))
            self._progress[said.attempt_id] = (
                w.now, sentence(said.note, 200), to_json(said.figures), *named[key], *key, holder.incarnation
            )  # fmt: skip
        unheard = []
        for key, row in mine.items():
            if key not in named and row["seen_at"] + beat.lease_s <= w.now:
                words = f"the agent did not name it for {beat.lease_s:.0f} s"
                self._unnamed.append(Finish(*key, EndReason.LEASE_EXPIRED, words))
                holder.busy -= 1
            elif row["cancel_requested"]:
                self._ending.append(row["id"])
                stop.add(row["id"])
            elif key not in named and row["state"] == AttemptState.LEASED:
                unheard.append(row)
        lease = AgentLease(holder.incarnation, holder.node_id, holder.token, holder.expires_at)
        return Renewed(lease, tuple(sorted(stop)), tuple(unheard))

    def write(self) -> None:
        w = self._w
        w.run_rows(
            _PROGRESS, (*_PROGRESS_COLUMNS, "id", "token", "incarnation"), list(self._progress.values())
        )
        if self._ending:
            w.run(_ENDING, ids=self._ending)
        end_many(w, self._unnamed, here=True)


def agents(r: Reading) -> list[AgentState]:
    """The newest lease of every node that ever connected, by node id."""
    return [_state_of(row) for row in r.rows(_AGENTS)]


def agent_of(r: Reading, node_id: str) -> AgentState | None:
    """The newest lease of a node; `None` when it never connected."""
    row = r.first(_AGENT_OF, node_id=node_id)
    return None if row is None else _state_of(row)


def expired_leases(r: Reading) -> list[AgentState]:
    """Leases that ran out and still have something to clear up: not yet reaped, or with live attempts."""
    return [
        state for row in r.rows(_RUN_OUT, now=r.now) if not (state := _state_of(row)).reaped or state.busy
    ]


def unheld_attempts(r: Reading) -> list[Unheld]:
    """Live attempts that no running lease of the incarnation they were granted to covers, the oldest first."""
    return [
        Unheld(row["id"], row["token"], row["job_id"], row["node_id"], row["incarnation"], row["leased_at"])
        for row in r.rows(_UNHELD, now=r.now)
    ]


def _state_of(row: Row) -> AgentState:
    return AgentState(
        AgentLease(row["incarnation"], row["node_id"], row["token"], row["expires_at"]), row["since"],
        bool(row["reaped"]), row["slots"], row["busy"], NodeStatus(row["status"]),
    )  # fmt: skip


def _check_incarnation(w: Writing, node_id: str, incarnation: str) -> None:
    known = w.first(_INCARNATION, incarnation=incarnation)
    if known is None:
        w.run(_NEW_INCARNATION, incarnation=incarnation, node_id=node_id, now=w.now)
    elif known["node_id"] != node_id or known["newest"] != incarnation:
        raise StaleToken(
            f"agent {incarnation} does not hold node {node_id} any more", remedy="start the agent again"
        )


def _seen(w: Writing, node_id: str, slots: int | None, observation: Observation) -> bool:
    changed = w.run(
        _NODE_UP, id=node_id, slots=slots, now=w.now, cpu_count=observation.cpu_count,
        memory_bytes=observation.memory_bytes, disk_free_bytes=observation.disk_free_bytes, load=observation.load,
        observed_at=observation.observed_at,
    )  # fmt: skip
    return changed > 0


def _overtaken(w: Writing, role: str, epoch: int) -> StaleToken:
    row = w.first(_ROLE, role=role)
    now_held = (
        "by nobody" if row is None or row["released"] else f"by {row['holder']} under epoch {row['epoch']}"
    )
    return StaleToken(
        f"the role {role} is not held under epoch {epoch} but {now_held}",
        remedy="stop this process: another took over",
    )
