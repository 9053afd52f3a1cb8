"""A few words that hold over restarts: what a person last asked of the whole loop, by name."""

from __future__ import annotations

from gamekeeper.store.encoding import sentence
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.statements import sql

_VALUE = sql("SELECT value FROM controls WHERE name = :name")
_SET = sql(
    "INSERT INTO controls (name, value, set_at) VALUES (:name, :value, :now)"
    " ON CONFLICT (name) DO UPDATE SET value = :value, set_at = :now"
)


def value(r: Reading, name: str) -> str | None:
    """What was set under `name` last, or `None`."""
    row = r.first(_VALUE, name=name)
    return None if row is None else str(row["value"])


def set_value(w: Writing, name: str, words: str) -> None:
    """Keep `words` under `name`, replacing what was there."""
    w.run(_SET, name=name, value=sentence(words), now=w.now)
