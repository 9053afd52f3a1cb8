"""What the policies decided, and why: changes only, in bounded number.

A policy looks at the same subjects many times a second and mostly says the same. A verdict is stored when it is
acted on, or when its reason, its `acted` or the band of its evidence differs from what was said of the subject before.
The newest words are kept for each subject besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import StrEnum

from gamekeeper.core.actions import Action
from gamekeeper.core.decisions import Decision, Evidence, Scalar, Verdict
from gamekeeper.core.errors import Corrupt, NotFound
from gamekeeper.core.requirements import Requirements
from gamekeeper.store.encoding import from_json, object_of, sentence, to_json
from gamekeeper.store.schema import decision_actions, verdicts
from gamekeeper.store.schema import decisions as decision_table
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import Value, adding, sql

KEPT = 2000
PRUNED_AT_ONCE = 64

_ADD = adding(decision_table, returning="id")
_ADD_VERDICT = adding(verdicts)
_ADD_ACTION = adding(decision_actions)
_OUTCOME = sql(
    "UPDATE decision_actions SET outcome = :outcome, detail = :detail"
    " WHERE decision_id = :decision_id AND ordinal = :ordinal"
)
_CURRENT = sql(
    "SELECT subject, reason, acted, band, sentence FROM current_verdicts"
    " WHERE policy = :policy AND subject IN LIST(:subjects)"
)
_SET_CURRENT = sql(
    "INSERT INTO current_verdicts (policy, subject, decision_id, band, reason, sentence, acted, evidence, at)"
    " VALUES (:policy, :subject, :decision_id, :band, :reason, :sentence, :acted, :evidence, :at)"
    " ON CONFLICT (policy, subject) DO UPDATE SET decision_id = :decision_id, band = :band, reason = :reason,"
    " sentence = :sentence, acted = :acted, evidence = :evidence, at = :at"
)
_REWORD = sql(
    "UPDATE current_verdicts SET sentence = :sentence, evidence = :evidence, at = :at"
    " WHERE policy = :policy AND subject = :subject"
)
_COUNT = sql(
    "INSERT INTO decision_counts (policy, kept) VALUES (:policy, 1)"
    " ON CONFLICT (policy) DO UPDATE SET kept = decision_counts.kept + 1 RETURNING kept"
)
_UNCOUNT = sql("UPDATE decision_counts SET kept = kept - :n WHERE policy = :policy")
_PIN = sql("UPDATE decisions SET pinned = 1 WHERE id = :id AND pinned = 0 RETURNING policy")
_OLDEST = sql("SELECT id FROM decisions WHERE pinned = 0 AND policy = :policy ORDER BY id LIMIT :n")
_DROP = (
    sql("DELETE FROM current_verdicts WHERE decision_id = :id"),
    sql("DELETE FROM verdicts WHERE decision_id = :id"),
    sql("DELETE FROM decision_actions WHERE decision_id = :id"),
    sql("DELETE FROM decisions WHERE id = :id"),
)
_WHY = sql("SELECT * FROM verdicts WHERE subject = :subject ORDER BY id DESC LIMIT :limit")
_NOW = sql("SELECT * FROM current_verdicts WHERE subject = :subject ORDER BY at DESC, policy")
_DECISION = sql("SELECT * FROM decisions WHERE id = :id")
_VERDICTS_OF = sql("SELECT * FROM verdicts WHERE decision_id = :id ORDER BY id")
_VERDICT_ON = sql("SELECT * FROM verdicts WHERE decision_id = :id AND subject = :subject ORDER BY id LIMIT 1")
_ACTIONS_OF = sql("SELECT * FROM decision_actions WHERE decision_id = :id ORDER BY ordinal")
_NEWEST = sql("SELECT * FROM verdicts ORDER BY id DESC LIMIT :limit")


class Outcome(StrEnum):
    """What became of an action: not applied yet, applied, its guard no longer held, or a rule refused it."""

    PENDING = "pending"
    APPLIED = "applied"
    OVERTAKEN = "overtaken"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A verdict as it was stored; `decision_id` leads to the decision it stands in."""

    decision_id: int
    policy: str
    at: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class StoredAction:
    """An action of a decision: its class's name, its fields, and what became of it."""

    kind: str
    fields: Mapping[str, object]
    outcome: Outcome
    detail: str


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision as it was stored: the verdicts that were news or acted on, and all actions. `epoch` of the decider."""

    id: int
    policy: str
    decided_at: float
    epoch: int
    verdicts: tuple[StoredVerdict, ...]
    actions: tuple[StoredAction, ...]


def news_of(r: Reading, decision: Decision) -> Decision | None:
    """`decision` without the verdicts that were said in these very words before; `None` when it says nothing new.

    Fresh words for the same reason are no news. For a look before the write: what a policy says of ten thousand idle
    nodes need not pass through the one writer.
    """
    said = _said(r, decision)
    fresh = [verdict.acted or _is_news(said, verdict) for verdict in decision.verdicts]
    if not decision.actions and not any(fresh):
        return None
    kept = [
        verdict
        for verdict, new in zip(decision.verdicts, fresh, strict=True)
        if new or said[verdict.subject]["sentence"] != sentence(verdict.sentence)
    ]
    return replace(decision, verdicts=tuple(kept))


def record(w: Writing, decision: Decision, epoch: int, *, keep: int = KEPT) -> int | None:
    """Store what is new in `decision` before it is applied: its id, or `None` when nothing was.

    A decision with actions is always stored, with every verdict that is acted on. The oldest decisions of the policy
    beyond `keep` go, a few at a time, but for those a promotion or rejection rests on.
    """
    policy = decision.policy
    said = _said(w, decision)
    news = [verdict for verdict in decision.verdicts if verdict.acted or _is_news(said, verdict)]
    decision_id = None
    if decision.actions or news:
        decision_id = w.number(_ADD, policy=policy, decided_at=decision.decided_at, epoch=epoch, pinned=0)
        w.run_many(_ADD_ACTION, [_action_row(decision_id, n, act) for n, act in enumerate(decision.actions)])
        rows = [_verdict_row(decision_id, decision, verdict) for verdict in news]
        w.run_many(_ADD_VERDICT, rows)
        bands = [{**row, "band": band(verdict)} for row, verdict in zip(rows, news, strict=True)]
        w.run_many(_SET_CURRENT, bands)
        _prune(w, policy, w.number(_COUNT, policy=policy), keep)
    told = {id(verdict) for verdict in news}
    _reword(
        w,
        decision,
        [
            verdict
            for verdict in decision.verdicts
            if id(verdict) not in told and said[verdict.subject]["sentence"] != sentence(verdict.sentence)
        ],
    )
    return decision_id


def set_outcome(w: Writing, decision_id: int, ordinal: int, outcome: Outcome, detail: str = "") -> None:
    """Note what became of a decision's action number `ordinal` (from 0)."""
    w.run(_OUTCOME, decision_id=decision_id, ordinal=ordinal, outcome=outcome, detail=sentence(detail))


def pin(w: Writing, decision_id: int) -> None:
    """Keep a decision for good. Raises `NotFound`."""
    row = w.first(_PIN, id=decision_id)
    if row is not None:
        w.run(_UNCOUNT, policy=row["policy"], n=1)
    elif w.first(_DECISION, id=decision_id) is None:
        raise _missing(decision_id)


def why(r: Reading, subject: str, limit: int = 100) -> list[StoredVerdict]:
    """The stored verdicts on `subject`, newest first."""
    return [_verdict(row) for row in r.rows(_WHY, subject=subject, limit=limit)]


def current(r: Reading, subject: str) -> list[StoredVerdict]:
    """The last words of each policy on `subject`, the freshest first."""
    return [_verdict(row) for row in r.rows(_NOW, subject=subject)]


def newest(r: Reading, limit: int) -> list[StoredVerdict]:
    """The newest stored verdicts, newest first."""
    return [_verdict(row) for row in r.rows(_NEWEST, limit=limit)]


def decision(r: Reading, decision_id: int) -> StoredDecision:
    """The stored decision. Raises `NotFound`."""
    row = r.first(_DECISION, id=decision_id)
    if row is None:
        raise _missing(decision_id)
    said = tuple(_verdict(each) for each in r.rows(_VERDICTS_OF, id=decision_id))
    actions = tuple(
        StoredAction(each["kind"], object_of(each["fields"]), Outcome(each["outcome"]), each["detail"])
        for each in r.rows(_ACTIONS_OF, id=decision_id)
    )
    return StoredDecision(row["id"], row["policy"], row["decided_at"], row["epoch"], said, actions)


def verdict_on(r: Reading, decision_id: int, subject: str) -> StoredVerdict | None:
    """What a decision said of `subject`, if that was stored with it."""
    row = r.first(_VERDICT_ON, id=decision_id, subject=subject)
    return None if row is None else _verdict(row)


def band(verdict: Verdict) -> str:
    """Where a verdict's numbers stand, coarsely: a number against its limit in quarters of the limit, up to twice it.

    Numbers without a limit do not count, other values count as they are. So a counter that creeps towards its
    limit is news four times, not at every step.
    """
    return to_json([[item.name, *_place(item.value, item.limit)] for item in verdict.evidence])


def _place(value: Scalar, limit: Scalar) -> tuple[Scalar, ...]:
    if isinstance(value, bool | str) or value is None:
        return value, None
    if isinstance(limit, bool | str) or limit is None:
        return ("number",)
    side = (value > limit) - (value < limit)
    if limit == 0:
        return ("side", side)
    return ("quarters", max(-8.0, min(8.0, float(4 * value // limit))), side)


def encode_evidence(evidence: Iterable[Evidence]) -> str:
    """Evidence as the text it is stored as; numbers that JSON lacks become words."""
    return to_json([[item.name, _finite(item.value), _finite(item.limit), item.origin] for item in evidence])


def decode_evidence(encoded: str) -> tuple[Evidence, ...]:
    """What `encode_evidence` wrote. Raises `Corrupt` for anything else."""
    decoded = from_json(encoded)
    if not isinstance(decoded, list) or any(not isinstance(item, list) or len(item) != 4 for item in decoded):
        raise Corrupt(f"stored evidence reads {encoded!r:.80}", remedy="run `gamekeeper store check`")
    return tuple(Evidence(str(name), value, limit, str(origin)) for name, value, limit, origin in decoded)


def _finite(value: Scalar) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _said(r: Reading, decision: Decision) -> dict[str, Row]:
    """What the policy said last of each subject of `decision`, in one query however many there are."""
    subjects = [verdict.subject for verdict in decision.verdicts]
    if not subjects:
        return {}
    return {row["subject"]: row for row in r.rows(_CURRENT, policy=decision.policy, subjects=subjects)}


def _is_news(said: Mapping[str, Row], verdict: Verdict) -> bool:
    row = said.get(verdict.subject)
    if row is None:
        return True
    return (row["reason"], row["acted"], row["band"]) != (verdict.reason, int(verdict.acted), band(verdict))


def _reword(w: Writing, decision: Decision, old: Sequence[Verdict]) -> None:
    rows = [_verdict_row(0, decision, verdict) for verdict in old]
    w.run_many(_REWORD, rows)


def _verdict_row(decision_id: int, decision: Decision, verdict: Verdict) -> dict[str, Value]:
    return {
        "decision_id": decision_id, "policy": decision.policy, "subject": verdict.subject, "reason": verdict.reason,
        "sentence": sentence(verdict.sentence), "acted": int(verdict.acted), "at": decision.decided_at,
        "evidence": encode_evidence(verdict.evidence),
    }  # fmt: skip


def _action_row(decision_id: int, ordinal: int, action: Action) -> dict[str, Value]:
    content = {field.name: _plain(getattr(action, field.name)) for field in fields(action)}
    return {
        "decision_id": decision_id, "ordinal": ordinal, "kind": type(action).__name__, "fields": to_json(content),
        "outcome": Outcome.PENDING, "detail": "",
    }  # fmt: skip


def _plain(value: object) -> object:
    """A field of an action as JSON can hold it."""
    if isinstance(value, Requirements):
        return value.to_map()
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def _prune(w: Writing, policy: str, kept: int, keep: int) -> None:
    if kept <= keep:
        return
    oldest = w.rows(_OLDEST, policy=policy, n=min(kept - keep, PRUNED_AT_ONCE))
    for statement in _DROP:
        w.run_many(statement, [{"id": row["id"]} for row in oldest])
    w.run(_UNCOUNT, policy=policy, n=len(oldest))


def _missing(decision_id: int) -> NotFound:
    return NotFound(f"decision {decision_id} does not exist", remedy="it may be too old to be kept")


def _verdict(row: Row) -> StoredVerdict:
    verdict = Verdict(
        row["subject"], row["reason"], row["sentence"], bool(row["acted"]), decode_evidence(row["evidence"])
    )
    return StoredVerdict(row["decision_id"], row["policy"], row["at"], verdict)
