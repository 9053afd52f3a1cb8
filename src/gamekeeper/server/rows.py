"""Stored things as the rows that people are shown."""

from __future__ import annotations

import json

from pydantic import JsonValue, TypeAdapter

from gamekeeper.core.events import encode
from gamekeeper.core.jobs import Attempt
from gamekeeper.core.matches import PairTally
from gamekeeper.inspection import AttemptRow, EloEstimate, EventRow, EvidenceRow, VerdictRow
from gamekeeper.stats.ratings import elo_estimate
from gamekeeper.stats.sprt import PairCounts
from gamekeeper.store.decisions import StoredVerdict
from gamekeeper.store.event_log import StoredEvent

_JSON: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def verdict_row(stored: StoredVerdict) -> VerdictRow:
    """A stored verdict."""
    said = stored.verdict
    return VerdictRow(
        decision=stored.decision_id,
        at=stored.at,
        policy=stored.policy,
        subject=said.subject,
        reason=said.reason,
        sentence=said.sentence,
        acted=said.acted,
        evidence=[
            EvidenceRow(name=one.name, value=one.value, limit=one.limit, origin=one.origin)
            for one in said.evidence
        ],
    )


def attempt_row(attempt: Attempt) -> AttemptRow:
    """A try at a job."""
    return AttemptRow(
        id=attempt.id,
        job=attempt.job_id,
        node=attempt.node_id,
        state=attempt.state,
        reason=attempt.reason,
        detail=attempt.detail,
        token=attempt.token,
        units=attempt.units,
        leased_at=attempt.leased_at,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
    )


def event_row(stored: StoredEvent) -> EventRow:
    """A line of the log."""
    return EventRow(
        position=stored.position,
        at=stored.at,
        name=stored.event.name,
        subjects=list(stored.subjects),
        fields=json_object(encode(stored.event)),
    )


def json_object(value: object) -> dict[str, JsonValue]:
    """Any mapping of plain values as a JSON object."""
    return _JSON.validate_json(json.dumps(value, default=dict))


def elo_of(tally: PairTally) -> EloEstimate | None:
    """The Elo difference that game pairs show; `None` without pairs."""
    estimate = elo_estimate(PairCounts(*tally.counts))
    if estimate is None:
        return None
    return EloEstimate(value=estimate.value, ci95=(estimate.low, estimate.high), pairs=list(tally.counts))
