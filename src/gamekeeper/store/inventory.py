"""Nodes: who may take part, what each machine has and when it was last heard; and the hashes of the tokens."""

from __future__ import annotations

from gamekeeper.core.errors import StaleToken, UsageError
from gamekeeper.core.events import NodeEnrolled, NodeLost
from gamekeeper.core.nodes import Node, NodeStatus, Observation
from gamekeeper.store.encoding import sentence
from gamekeeper.store.schema import nodes as node_table
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import adding, sql

_ADD_NODE = adding(node_table, "id", *(c.name for c in node_table.columns if c.name != "id"))
_NODES = sql("SELECT * FROM nodes ORDER BY id")
_LOST_NODES = sql("SELECT * FROM nodes WHERE status = 'lost' ORDER BY id LIMIT :limit")
_NODE = sql("SELECT * FROM nodes WHERE id = :id")
_BY_CREDENTIAL = sql("SELECT * FROM nodes WHERE credential_hash = :hash")
_REAP = sql("UPDATE agent_leases SET reaped = 1 WHERE node_id = :id AND expires_at <= :now AND reaped = 0")
_LOST = sql("UPDATE nodes SET status = 'lost' WHERE id = :id AND status = 'up'")
_SET_TOKEN = sql(
    "INSERT INTO tokens (name, hash, set_at) VALUES (:name, :hash, :now)"
    " ON CONFLICT (name) DO UPDATE SET hash = :hash, set_at = :now"
)
_TOKEN = sql("SELECT hash FROM tokens WHERE name = :name")


def enrol(w: Writing, host_name: str, slots: int, credential_hash: str) -> Node:
    """Issue a machine its identity, once. Raises `UsageError` for no slots."""
    if slots < 1:
        raise UsageError(f"node {host_name!r:.80} offers {slots} slots", remedy="offer at least one")
    node_id = f"n-{w.rng.getrandbits(32):08x}"
    while w.first(_NODE, id=node_id) is not None:
        node_id = f"n-{w.rng.getrandbits(32):08x}"
    host = sentence(host_name, 255)
    w.run(
        _ADD_NODE, id=node_id, host_name=host, slots=slots, status=NodeStatus.UNKNOWN, credential_hash=credential_hash,
        enrolled_at=w.now, last_seen_at=None, cpu_count=None, memory_bytes=None, disk_free_bytes=None, load=None,
        observed_at=None,
    )  # fmt: skip
    w.emit(NodeEnrolled(node_id, host, slots))
    return Node(node_id, host, slots, NodeStatus.UNKNOWN, w.now, None, None)


def node_by_credential(r: Reading, credential_hash: str) -> Node | None:
    """The node that was issued this credential."""
    row = r.first(_BY_CREDENTIAL, hash=credential_hash)
    return None if row is None else _node(row)


def node(r: Reading, node_id: str) -> Node | None:
    """The node of this id."""
    row = r.first(_NODE, id=node_id)
    return None if row is None else _node(row)


def nodes(r: Reading) -> list[Node]:
    """All enrolled nodes by id."""
    return [_node(row) for row in r.rows(_NODES)]


def lost_nodes(r: Reading, limit: int) -> list[Node]:
    """Up to `limit` nodes whose lease was reaped, by id."""
    return [_node(row) for row in r.rows(_LOST_NODES, limit=limit)]


def mark_lost(w: Writing, node_id: str) -> None:
    """Reap the lease of a node: it ran out, and only a new connection brings the node back.

    Raises `StaleToken`, and changes nothing, when the lease was renewed meanwhile, is reaped already, or never was.
    """
    if not w.run(_REAP, id=node_id, now=w.now):
        raise StaleToken(f"node {node_id} has no lease that ran out", remedy="look again")
    w.run(_LOST, id=node_id)
    w.emit(NodeLost(node_id))


def set_token_hash(w: Writing, name: str, token_hash: str) -> None:
    """Store the hash of the token called `name` ("admin", "join"), replacing an earlier one."""
    w.run(_SET_TOKEN, name=name, hash=token_hash, now=w.now)


def token_hash(r: Reading, name: str) -> str | None:
    """The hash of the token called `name`."""
    row = r.first(_TOKEN, name=name)
    return None if row is None else str(row["hash"])


def _node(row: Row) -> Node:
    observed_at = row["observed_at"]
    seen = None
    if observed_at is not None:
        seen = Observation(
            row["cpu_count"], row["memory_bytes"], row["disk_free_bytes"], row["load"], observed_at
        )
    return Node(
        row["id"], row["host_name"], row["slots"], NodeStatus(row["status"]), row["enrolled_at"], row["last_seen_at"],
        seen,
    )  # fmt: skip
