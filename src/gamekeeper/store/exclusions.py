"""Nodes that are granted nothing for a while: each with its cause, who said so, and when it ends by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gamekeeper.core.control_events import NodeAllowed, NodeExcluded
from gamekeeper.core.errors import NotFound, UsageError
from gamekeeper.store.encoding import sentence
from gamekeeper.store.schema import exclusions
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import adding, sql

LONGEST_S = 365 * 86400.0

_NODE = sql("SELECT id FROM nodes WHERE id = :node_id")
_ADD = adding(exclusions, returning="id")
_CURRENT = sql(
    "SELECT * FROM exclusions WHERE lifted_at IS NULL AND until > :now ORDER BY node_id, until DESC, id DESC"
)
_OF = sql("SELECT * FROM exclusions WHERE node_id = :node_id ORDER BY id DESC LIMIT :limit")
_LIFT = sql(
    "UPDATE exclusions SET lifted_at = :now WHERE node_id = :node_id AND lifted_at IS NULL AND until > :now"
)
_STRIKES = sql(
    "SELECT node_id, count(*) AS n FROM exclusions WHERE author = :author AND since > :since GROUP BY node_id"
)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A time in which a node is granted nothing: cause, author, and `lifted_at` when it ended before `until`."""

    id: int
    node_id: str
    cause: str
    author: str
    since: float
    until: float
    lifted_at: float | None


def exclude(w: Writing, node_id: str, cause: str, author: str, until: float) -> Exclusion:
    """Grant nothing to a node until `until` (seconds since the epoch); what runs on it goes on.

    Raises `UsageError` for a time that is over, or more than a year away: every exclusion ends; `NotFound`.
    """
    if not math.isfinite(until) or not w.now < until <= w.now + LONGEST_S:
        raise UsageError(
            "an exclusion must end in the future, within a year", remedy="say for how long, as in: --for 2h"
        )
    _check_node(w, node_id)
    cause, author = sentence(cause), sentence(author, 255)
    found = w.number(
        _ADD, node_id=node_id, cause=cause, author=author, since=w.now, until=until, lifted_at=None
    )
    w.emit(NodeExcluded(node_id, cause, author, until))
    return Exclusion(found, node_id, cause, author, w.now, until, None)


def lift(w: Writing, node_id: str, author: str) -> bool:
    """End all current exclusions of a node; whether there was one. Raises `NotFound`."""
    _check_node(w, node_id)
    if not w.run(_LIFT, node_id=node_id, now=w.now):
        return False
    w.emit(NodeAllowed(node_id, sentence(author, 255)))
    return True


def current(r: Reading) -> dict[str, Exclusion]:
    """The exclusion of each node that is excluded now; of several, the one that ends last."""
    found: dict[str, Exclusion] = {}
    for row in r.rows(_CURRENT, now=r.now):
        found.setdefault(row["node_id"], _of(row))
    return found


def of(r: Reading, node_id: str, limit: int = 20) -> list[Exclusion]:
    """All exclusions of a node, the newest first."""
    return [_of(row) for row in r.rows(_OF, node_id=node_id, limit=limit)]


def strikes(r: Reading, author: str, since: float) -> dict[str, int]:
    """How often `author` excluded each node since then."""
    return {row["node_id"]: row["n"] for row in r.rows(_STRIKES, author=author, since=since)}


def _check_node(r: Reading, node_id: str) -> None:
    if r.first(_NODE, node_id=node_id) is None:
        raise NotFound(f"node {node_id!r:.80} does not exist", remedy="see `gamekeeper nodes`")


def _of(row: Row) -> Exclusion:
    return Exclusion(
        row["id"], row["node_id"], row["cause"], row["author"], row["since"], row["until"], row["lifted_at"]
    )
