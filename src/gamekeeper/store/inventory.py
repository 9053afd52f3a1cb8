"""Nodes: who may take part, what each machine has and when it was last heard; and the hashes of the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gamekeeper.core.errors import NotFound, StaleToken, UsageError
from gamekeeper.core.events import NodeEnrolled, NodeLost
from gamekeeper.core.nodes import Node, NodeStatus, Observation
from gamekeeper.core.requirements import Capacity, Gpu, GpuShare, Requirements
from gamekeeper.store.attempts import shares_of
from gamekeeper.store.encoding import list_of, object_of, sentence, to_json
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
_SET_MACHINE = sql(
    "UPDATE nodes SET architecture = :architecture, gpus = :gpus, labels = :labels, ephemeral = :ephemeral,"
    " declared_cpus = :cpus, declared_memory_bytes = :memory_bytes WHERE id = :id"
)
_SET_TARGET = sql("UPDATE nodes SET target_slots = :slots WHERE id = :id")
_STANDINGS = sql(
    "SELECT n.*, l.incarnation, l.expires_at, l.reaped FROM nodes n LEFT JOIN agent_leases l ON l.node_id = n.id"
    " ORDER BY n.id"
)
_STANDINGS_OF = sql(
    "SELECT n.*, l.incarnation, l.expires_at, l.reaped FROM nodes n LEFT JOIN agent_leases l ON l.node_id = n.id"
    " WHERE n.id IN LIST(:ids) ORDER BY n.id"
)
_TAKEN_OF = sql(
    "SELECT a.node_id, a.gpus, j.requirements FROM attempts a JOIN jobs j ON j.id = a.job_id"
    " WHERE a.{live_attempt} AND a.node_id IN LIST(:ids) ORDER BY a.id"
)
_TAKEN = sql(
    "SELECT a.node_id, a.gpus, j.requirements FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.{live_attempt}"
    " ORDER BY a.id"
)
_OTHER_SETTINGS = sql(
    "SELECT host_name FROM nodes WHERE status = 'up' AND settings_hash IS NOT NULL AND settings_hash <> :hash"
    " ORDER BY id LIMIT :limit"
)
_SET_SETTINGS = sql(
    "UPDATE nodes SET settings_hash = :hash WHERE id IN LIST(:ids)"
    " AND (settings_hash IS NULL OR settings_hash <> :hash)"
)
_SETTINGS = sql("SELECT id, settings_hash FROM nodes")
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
        observed_at=None, architecture=None, gpus=None, labels="{}", ephemeral=0, target_slots=None,
        settings_hash=None, declared_cpus=None, declared_memory_bytes=None,
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


@dataclass(frozen=True, slots=True)
class Standing:
    """A node as the distribution of work sees it.

    capacity: all it has. incarnation: the agent that holds its lease, until `lease_expires_at` (seconds since the
    epoch); `None` and 0 when nobody does. target_slots: use no more slots than that. taken: what its live attempts
    were granted, the devices of each last.
    """

    node_id: str
    capacity: Capacity
    incarnation: str | None
    lease_expires_at: float
    target_slots: int | None
    taken: tuple[tuple[Requirements, tuple[GpuShare, ...]], ...]


def standings(r: Reading, only: Sequence[str] | None = None) -> list[Standing]:
    """Nodes (those of `only`, if given) with what they have and what is taken of it, by id: two queries in all."""
    whole = only is None
    taken: dict[str, list[tuple[Requirements, tuple[GpuShare, ...]]]] = {}
    known: dict[str, Requirements] = {}
    for row in r.rows(_TAKEN) if whole else r.rows(_TAKEN_OF, ids=list(only or ())):
        words = row["requirements"]
        if words not in known:
            known[words] = Requirements.from_map(object_of(words))
        taken.setdefault(row["node_id"], []).append((known[words], shares_of(row["gpus"])))
    rows = r.rows(_STANDINGS) if whole else r.rows(_STANDINGS_OF, ids=list(only or ()))
    return [_standing(row, tuple(taken.get(row["id"], ()))) for row in rows]


def set_machine(w: Writing, node_id: str, machine: Capacity) -> None:
    """Note what a node is, as it was declared; `machine.cpus` and `memory_bytes` only where they were."""
    gpus = (
        None
        if machine.gpus is None
        else to_json([[sentence(g.name, 120), g.memory_bytes] for g in machine.gpus])
    )
    w.run(
        _SET_MACHINE, id=node_id, gpus=gpus, labels=to_json(dict(sorted(machine.labels.items()))),
        architecture=None if machine.architecture is None else sentence(machine.architecture, 40),
        ephemeral=int(machine.ephemeral), cpus=machine.cpus, memory_bytes=machine.memory_bytes,
    )  # fmt: skip


def note_settings(w: Writing, node_ids: Sequence[str], settings_hash: str | None) -> None:
    """Take down which settings the agents of these nodes say they run under; `None` when they did not say."""
    if settings_hash is not None and node_ids:
        w.run(_SET_SETTINGS, ids=sorted(node_ids), hash=sentence(settings_hash, 64))


def settings_hashes(r: Reading) -> dict[str, str | None]:
    """The settings each node said it runs under; `None` where it has not said."""
    return {row["id"]: row["settings_hash"] for row in r.rows(_SETTINGS)}


def other_settings(r: Reading, settings_hash: str, limit: int) -> list[str]:
    """The host names of up to `limit` live nodes that said they run under other settings."""
    return [str(row["host_name"]) for row in r.rows(_OTHER_SETTINGS, hash=settings_hash, limit=limit)]


def set_target(w: Writing, node_id: str, slots: int | None) -> None:
    """Let a node use no more than `slots` slots (`None`: all of them). Raises `NotFound`."""
    if not w.run(_SET_TARGET, id=node_id, slots=slots):
        raise NotFound(f"node {node_id} is not enrolled", remedy="see `gamekeeper nodes`")


def capacity_of(row: Row) -> Capacity:
    """What the node in a row of `nodes` has: what was declared, else what was observed."""
    gpus, cpus, memory = row["gpus"], row["declared_cpus"], row["declared_memory_bytes"]
    return Capacity(
        slots=row["slots"],
        cpus=row["cpu_count"] if cpus is None else cpus,
        memory_bytes=row["memory_bytes"] if memory is None else memory,
        disk_free_bytes=row["disk_free_bytes"],
        gpus=None if gpus is None else tuple(Gpu(str(name), size) for name, size in list_of(gpus)),
        architecture=row["architecture"],
        labels={name: str(value) for name, value in object_of(row["labels"]).items()},
        ephemeral=bool(row["ephemeral"]),
    )


def _standing(row: Row, taken: tuple[tuple[Requirements, tuple[GpuShare, ...]], ...]) -> Standing:
    held = row["incarnation"] is not None and not row["reaped"]
    return Standing(
        row["id"], capacity_of(row), row["incarnation"] if held else None, row["expires_at"] if held else 0.0,
        row["target_slots"], taken,
    )  # fmt: skip


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
