"""Small looks at the store: which phase the loop is in, who holds a node, what it was granted, what is cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gamekeeper.core.events import StopRequested
from gamekeeper.policy.continuous_loop import Phase
from gamekeeper.store.encoding import sentence
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.statements import sql

_CONTROL = sql("SELECT value FROM controls WHERE name = :name")
_DRAINING_SINCE = sql("SELECT set_at FROM controls WHERE name = 'phase' AND value = 'draining'")
_SET_CONTROL = sql(
    "INSERT INTO controls (name, value, set_at) VALUES (:name, :value, :now)"
    " ON CONFLICT (name) DO UPDATE SET value = :value, set_at = :now"
)
_INCARNATION = sql("SELECT incarnation FROM agent_leases WHERE node_id = :node_id AND reaped = 0")
_HOLDERS = sql(
    "SELECT n.id, n.credential_hash, l.incarnation FROM nodes n"
    " LEFT JOIN agent_leases l ON l.node_id = n.id AND l.reaped = 0 WHERE n.id IN LIST(:ids)"
)
_LEASED = sql(
    "SELECT id FROM attempts WHERE node_id = :node_id AND incarnation = :incarnation AND state = 'leased'"
    " ORDER BY id LIMIT :limit"
)
_LIVE = sql("SELECT id, token FROM attempts WHERE {live_attempt}")
_CATALOGUE = sql("SELECT id, hash, bytes FROM artifacts WHERE id > :after ORDER BY id LIMIT :limit")
_CANCELLING = sql("SELECT id FROM jobs WHERE {held_job} AND cancel_requested = 1")
_STANDING = sql(
    "SELECT n.id AS owner, l.incarnation, (SELECT value FROM controls WHERE name = 'phase') AS phase,"
    " EXISTS (SELECT 1 FROM attempts a WHERE a.node_id = n.id AND a.{live_attempt}"
    " AND a.incarnation = :incarnation AND a.state = 'leased') AS granted"
    " FROM nodes n LEFT JOIN agent_leases l ON l.node_id = n.id AND l.reaped = 0"
    " WHERE n.credential_hash = :credential_hash"
)
_DUE = sql(
    "SELECT count(*) FROM (SELECT 1 FROM jobs WHERE {ready_job} AND not_before <= :now LIMIT :limit) AS due"
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What an idle claim needs to know of its caller.

    owner: the node that a credential belongs to; incarnation: of the agent that holds it, `None` when none does;
    granted: whether the caller's incarnation was granted something it did not start; draining: nothing will be.
    """

    owner: str
    incarnation: str | None
    granted: bool
    draining: bool


def standing(r: Reading, credential_hash: str, incarnation: str) -> Standing | None:
    """How the caller stands, in one statement; `None` for a credential that is nobody's."""
    row = r.first(_STANDING, credential_hash=credential_hash, incarnation=incarnation)
    if row is None:
        return None
    draining = row["phase"] == Phase.DRAINING
    return Standing(row["owner"], row["incarnation"], bool(row["granted"]), draining)


def phase(r: Reading) -> Phase:
    """What the loop was last asked to do."""
    row = r.first(_CONTROL, name="phase")
    return Phase.TURNING if row is None else Phase(row["value"])


def set_phase(w: Writing, wanted: Phase, role: str, reason: str) -> bool:
    """Ask for a phase; it holds over restarts. Returns whether that changed anything."""
    if phase(w) is wanted:
        return False
    w.run(_SET_CONTROL, name="phase", value=wanted, now=w.now)
    if wanted is not Phase.TURNING:
        w.emit(StopRequested(role, sentence(f"{wanted}: {reason}")))
    return True


def draining(r: Reading) -> bool:
    """Whether nothing is to be granted any more."""
    return phase(r) is Phase.DRAINING


def draining_since(r: Reading) -> float | None:
    """Since when nothing is granted any more; `None` while something is."""
    row = r.first(_DRAINING_SINCE)
    return None if row is None else float(row["set_at"])


def begin_run(w: Writing, run: str) -> None:
    """Turn again when a person started the processes anew: `run` names that start and survives restarts of children."""
    row = w.first(_CONTROL, name="run")
    if row is None or row["value"] != run:
        w.run(_SET_CONTROL, name="run", value=sentence(run, 100), now=w.now)
        w.run(_SET_CONTROL, name="phase", value=Phase.TURNING, now=w.now)


def incarnation_of(r: Reading, node_id: str) -> str | None:
    """The agent incarnation that holds the node's newest lease, unless that was reaped."""
    row = r.first(_INCARNATION, node_id=node_id)
    return None if row is None else str(row["incarnation"])


@dataclass(frozen=True, slots=True)
class Holder:
    """Who may speak for a node: whoever has its credential, as the incarnation that holds its newest lease, if any."""

    credential_hash: str
    incarnation: str | None


def holders(r: Reading, node_ids: Sequence[str]) -> dict[str, Holder]:
    """Who may speak for each of these nodes, in one query; a reaped lease is nobody's."""
    return {
        row["id"]: Holder(row["credential_hash"], row["incarnation"])
        for row in r.rows(_HOLDERS, ids=list(node_ids))
    }


def leased_attempts(r: Reading, node_id: str, incarnation: str, limit: int = 1024) -> list[int]:
    """Attempts that were granted to the incarnation and not reported as started, the oldest first."""
    return [row["id"] for row in r.rows(_LEASED, node_id=node_id, incarnation=incarnation, limit=limit)]


def due_jobs(r: Reading, limit: int) -> int:
    """How many jobs could be granted now, counted up to `limit`."""
    return r.number(_DUE, now=r.now, limit=limit)


def cancelling(r: Reading) -> frozenset[int]:
    """Running jobs whose cancellation was requested."""
    return frozenset(row["id"] for row in r.rows(_CANCELLING))


def live_tokens(r: Reading) -> frozenset[tuple[int, int]]:
    """(attempt, token) of all live attempts."""
    return frozenset((row["id"], row["token"]) for row in r.rows(_LIVE))


def catalogue_page(r: Reading, after: int, limit: int) -> list[tuple[int, str, int]]:
    """(id, hash, bytes) of catalogued files with ids above `after`, in order: for an audit of the files themselves."""
    return [(row["id"], row["hash"], row["bytes"]) for row in r.rows(_CATALOGUE, after=after, limit=limit)]
