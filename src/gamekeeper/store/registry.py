"""Models and champions: what was trained from what, and the pointer of each line, moved by compare and set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gamekeeper.core.decisions import Evidence
from gamekeeper.core.errors import IllegalTransition, NotFound, StaleToken, UsageError
from gamekeeper.core.events import CandidateRejected, ChampionMoved, ModelRegistered
from gamekeeper.core.matches import Purpose
from gamekeeper.core.models import MODEL_TRANSITIONS, Champion, Model, ModelState
from gamekeeper.store import decisions, matches
from gamekeeper.store.encoding import from_json, sentence, to_json
from gamekeeper.store.schema import models as model_table
from gamekeeper.store.schema import promotions as promotion_table
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import adding, sql

_ADD = adding(model_table, returning="id")
_ADD_PROMOTION = adding(promotion_table, returning="id")
_MODEL = sql("SELECT * FROM models WHERE id = :id")
_BY_HASH = sql("SELECT * FROM models WHERE line = :line AND hash = :hash")
_NEWEST = sql("SELECT * FROM models WHERE line = :line ORDER BY id DESC LIMIT :limit")
_NEWEST_OF_ALL = sql("SELECT * FROM models ORDER BY id DESC LIMIT :limit")
_CANDIDATE = sql("SELECT * FROM models WHERE line = :line AND state = 'candidate' ORDER BY id LIMIT 1")
_CHAMPION = sql("SELECT c.*, m.hash FROM champions c JOIN models m ON m.id = c.model_id WHERE c.line = :line")
_CHAMPIONS = sql("SELECT c.*, m.hash FROM champions c JOIN models m ON m.id = c.model_id ORDER BY c.line")
_MOVE = sql(
    "UPDATE champions SET model_id = :model_id, generation = generation + 1, since = :now"
    " WHERE line = :line AND model_id = :expected RETURNING generation"
)
_FIRST = sql(
    "INSERT INTO champions (line, model_id, generation, since) VALUES (:line, :model_id, 0, :now)"
    " ON CONFLICT (line) DO NOTHING RETURNING generation"
)
_DECIDE = sql(
    "UPDATE models SET state = :state, decided_at = :now, reason = :reason, decision_id = :decision_id"
    " WHERE id = :id AND state = 'candidate'"
)
_PROMOTIONS = sql("SELECT * FROM promotions WHERE line = :line ORDER BY generation")


@dataclass(frozen=True, slots=True)
class Promotion:
    """One move of a champion: from which model, by which decision, on which game pairs (pentanomial counts).

    `evidence` are the numbers of the decision's verdict on the model.
    """

    line: str
    generation: int
    model_id: int
    previous_id: int | None
    at: float
    decision_id: int
    pairs: tuple[int, int, int, int, int]
    evidence: tuple[Evidence, ...]


def register_model(
    w: Writing,
    line: str,
    model_hash: str,
    *,
    parent_id: int | None,
    job_id: int,
    steps: int,
    samples: int,
    loss: float | None,
) -> Model:
    """Make a model known as a candidate of its line. Weights the line knows already: that model, as it is.

    Raises `UsageError` when the parent is not a model of the line.
    """
    known = by_hash(w, line, model_hash)
    if known is not None:
        return known
    if parent_id is not None and get(w, parent_id).line != line:
        raise UsageError(
            f"model/{parent_id} is no model of line {line}", remedy="train from a model of the same line"
        )
    model_id = w.number(
        _ADD, line=line, hash=model_hash, parent_id=parent_id, job_id=job_id, state=ModelState.CANDIDATE, steps=steps,
        samples=samples, loss=loss, created_at=w.now, decided_at=None, reason="", decision_id=None,
    )  # fmt: skip
    w.emit(ModelRegistered(model_id, line, model_hash, parent_id, job_id))
    return get(w, model_id)


def get(r: Reading, model_id: int) -> Model:
    """The model. Raises `NotFound`."""
    row = r.first(_MODEL, id=model_id)
    if row is None:
        raise NotFound(f"model {model_id} does not exist", remedy="see `gamekeeper models`")
    return _model(row)


def by_hash(r: Reading, line: str, model_hash: str) -> Model | None:
    """The line's model with these weights."""
    row = r.first(_BY_HASH, line=line, hash=model_hash)
    return None if row is None else _model(row)


def models(r: Reading, line: str | None = None, limit: int = 1000) -> list[Model]:
    """The newest models (of `line`, if given), newest first."""
    rows = r.rows(_NEWEST_OF_ALL, limit=limit) if line is None else r.rows(_NEWEST, line=line, limit=limit)
    return [_model(row) for row in rows]


def candidate(r: Reading, line: str) -> Model | None:
    """The line's oldest model that awaits its decision."""
    row = r.first(_CANDIDATE, line=line)
    return None if row is None else _model(row)


def champion(r: Reading, line: str) -> Champion | None:
    """The line's current model."""
    row = r.first(_CHAMPION, line=line)
    return None if row is None else _champion(row)


def champions(r: Reading) -> list[Champion]:
    """The current models of all lines that have one, by line."""
    return [_champion(row) for row in r.rows(_CHAMPIONS)]


def move_champion(w: Writing, line: str, model_id: int, expected: int | None, decision_id: int) -> Champion:
    """Point `line` at `model_id`, provided it points at `expected` (`None`: at nothing), by a stored decision.

    A model that was champion before may come back. Writes the audit row and keeps the decision for good. Raises
    `StaleToken` when the champion was moved meanwhile, `IllegalTransition` for a rejected model, one of another line,
    or the champion itself; `NotFound` for an unknown model or decision.
    """
    model = get(w, model_id)
    if model.line != line or model.state is ModelState.REJECTED or model_id == expected:
        raise IllegalTransition(
            f"model/{model_id} ({model.state}, line {model.line}) cannot become champion of {line}"
        )
    decisions.decision(w, decision_id)
    if expected is None:
        row = w.first(_FIRST, line=line, model_id=model_id, now=w.now)
    else:
        row = w.first(_MOVE, line=line, model_id=model_id, expected=expected, now=w.now)
    if row is None:
        raise StaleToken(f"the champion of {line} is not model/{expected} any more", remedy="decide again")
    generation = int(row["generation"])
    verdict = decisions.verdict_on(w, decision_id, f"model/{model_id}")
    if model.state is ModelState.CANDIDATE:
        reason = verdict.verdict.reason if verdict else ""
        w.run(
            _DECIDE, id=model_id, state=ModelState.PROMOTED, reason=reason, now=w.now, decision_id=decision_id
        )
    counts = matches.pair_counts(w, model_id, f"model/{expected}", Purpose.PROMOTION).counts
    w.number(
        _ADD_PROMOTION, line=line, generation=generation, model_id=model_id, previous_id=expected, at=w.now,
        decision_id=decision_id, pairs=to_json(counts),
        evidence=decisions.encode_evidence(verdict.verdict.evidence if verdict else ()),
    )  # fmt: skip
    decisions.pin(w, decision_id)
    w.emit(ChampionMoved(line, model_id, expected, generation, decision_id))
    return Champion(line, model_id, model.hash, generation, w.now)


def reject(w: Writing, model_id: int, reason: str, decision_id: int) -> Model:
    """Close a candidate for good, by a stored decision, which is kept.

    Raises `StaleToken` when it is no candidate any more; `NotFound` for an unknown model or decision.
    """
    model = get(w, model_id)
    decisions.decision(w, decision_id)
    words = sentence(reason)
    if ModelState.REJECTED not in MODEL_TRANSITIONS[model.state] or not w.run(
        _DECIDE, id=model_id, state=ModelState.REJECTED, reason=words, now=w.now, decision_id=decision_id
    ):
        raise StaleToken(f"model/{model_id} is {model.state} already", remedy="decide again")
    decisions.pin(w, decision_id)
    w.emit(CandidateRejected(model.line, model_id, words, decision_id))
    return get(w, model_id)


def promotions(r: Reading, line: str) -> list[Promotion]:
    """All moves of the line's champion, in order."""
    return [
        Promotion(
            row["line"], row["generation"], row["model_id"], row["previous_id"], row["at"], row["decision_id"],
            _five(row["pairs"]), decisions.decode_evidence(row["evidence"]),
        )
        for row in r.rows(_PROMOTIONS, line=line)
    ]  # fmt: skip


def _five(encoded: str) -> tuple[int, int, int, int, int]:
    decoded = from_json(encoded)
    counts = [int(count) for count in decoded] if isinstance(decoded, Iterable) else []
    return counts[0], counts[1], counts[2], counts[3], counts[4]


def _model(row: Row) -> Model:
    return Model(
        id=row["id"], line=row["line"], hash=row["hash"], parent_id=row["parent_id"], job_id=row["job_id"],
        state=ModelState(row["state"]), steps=row["steps"], samples=row["samples"], loss=row["loss"],
        created_at=row["created_at"], decided_at=row["decided_at"], reason=row["reason"],
    )  # fmt: skip


def _champion(row: Row) -> Champion:
    return Champion(row["line"], row["model_id"], row["hash"], row["generation"], row["since"])
