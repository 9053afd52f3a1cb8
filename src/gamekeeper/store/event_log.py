"""The log of what happened: one order for all, positions 1, 2, 3, … without a gap. `Writing.emit` appends to it."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.control_events import JobsSubmitted, group_subject
from gamekeeper.core.event import Event
from gamekeeper.core.events import decode
from gamekeeper.store.encoding import object_of
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import sql

_AFTER = sql("SELECT * FROM events WHERE position > :position ORDER BY position LIMIT :limit")
_AFTER_OF = sql(
    "SELECT e.* FROM event_subjects s JOIN events e ON e.position = s.position"
    " WHERE s.subject = :subject AND s.position > :position ORDER BY s.position LIMIT :limit"
)
_NEWEST = sql("SELECT * FROM events ORDER BY position DESC LIMIT :limit")
_NEWEST_OF = sql(
    "SELECT e.* FROM event_subjects s JOIN events e ON e.position = s.position"
    " WHERE s.subject = :subject ORDER BY s.position DESC LIMIT :limit"
)
_GROUP_BEFORE = sql(
    "SELECT e.* FROM event_subjects s JOIN events e ON e.position = s.position"
    " WHERE s.subject >= :least AND s.subject <= :most ORDER BY s.subject DESC, s.position LIMIT 1"
)
_LAST = sql("SELECT coalesce(max(position), 0) FROM events")


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event in its place; `at` is when it was written, `subjects` what it is about ("job/17")."""

    position: int
    at: float
    event: Event
    subjects: tuple[str, ...]


def after(r: Reading, position: int, limit: int, subject: str | None = None) -> list[StoredEvent]:
    """The first `limit` events after `position` (about `subject`, if given), in order."""
    _flush(r)
    if subject is None:
        return [_stored(row) for row in r.rows(_AFTER, position=position, limit=limit)]
    found = [_stored(row) for row in r.rows(_AFTER_OF, subject=subject, position=position, limit=limit)]
    return ([one for one in _submission(r, subject) if one.position > position] + found)[:limit]


def story(r: Reading, subject: str, limit: int = 1000) -> list[StoredEvent]:
    """The newest `limit` events about `subject`, in order."""
    _flush(r)
    found = [_stored(row) for row in r.rows(_NEWEST_OF, subject=subject, limit=limit)][::-1]
    return (_submission(r, subject) + found)[-limit:]


def newest(r: Reading, limit: int) -> list[StoredEvent]:
    """The newest `limit` events, in order."""
    _flush(r)
    return [_stored(row) for row in r.rows(_NEWEST, limit=limit)][::-1]


def last_position(r: Reading) -> int:
    """The position of the newest event; 0 for an empty log."""
    _flush(r)
    return r.number(_LAST)


def _submission(r: Reading, subject: str) -> list[StoredEvent]:
    """The event that tells of a job among others that were submitted with it: always the first of its story."""
    kind, _, number = subject.partition("/")
    if kind != "job" or not number.isdecimal() or len(number) > 18:
        return []
    row = r.first(_GROUP_BEFORE, least=group_subject(0), most=group_subject(int(number)))
    found = [] if row is None else [_stored(row)]
    return [one for one in found if isinstance(one.event, JobsSubmitted) and int(number) <= one.event.last_id]


def _flush(r: Reading) -> None:
    if isinstance(r, Writing):
        r.flush()


def _stored(row: Row) -> StoredEvent:
    event = decode(row["name"], row["version"], object_of(row["fields"]))
    return StoredEvent(row["position"], row["at"], event, event.subjects())
