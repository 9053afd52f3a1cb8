"""How people name things: `job 17`, `job/17`, `j17`, a unique prefix of a model's hash or of a node's id."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gamekeeper.core.errors import NotFound, UsageError

if TYPE_CHECKING:
    from gamekeeper.cli.coordinator_api import CoordinatorApi

KINDS = ("job", "model", "line", "node")
_SHORT = {"j": "job", "m": "model", "l": "line", "n": "node"}
_SHORT_ID = re.compile(r"([jm])(\d+)\Z")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\Z")
MIN_PREFIX = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """One named thing."""

    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}"


def parse_subject(first: str, second: str | None, *, kinds: tuple[str, ...] | None = None) -> Subject:
    """The thing that one word ("job/17", "j17") or two ("job", "17") name.

    With `kinds`, only those are allowed. Raises `UsageError` with an example for anything else.
    """
    kind, subject_id = _split(first, second)
    kind = _SHORT.get(kind, kind)
    if kinds is not None and kind not in kinds:
        raise UsageError(
            f"{kind!r:.60} is not something that can be explained",
            remedy=f"use one of {', '.join(kinds)}, as in: gamekeeper why job 17",
        )
    if not _ID.match(subject_id) or not _ID.match(kind):
        raise UsageError(
            f"{f'{kind} {subject_id}'.strip()!r:.80} does not name a thing",
            remedy="write a kind and an id, as in: job 17, job/17 or j17",
        )
    if kind == "job" and not subject_id.isdigit():
        raise UsageError(f"{subject_id!r:.60} is not a job number", remedy="`gamekeeper jobs` lists them")
    return Subject(kind, subject_id)


def _split(first: str, second: str | None) -> tuple[str, str]:
    if second is not None:
        return first.lower().rstrip("/"), second.lstrip("#")
    kind, slash, subject_id = first.partition("/")
    if slash:
        return kind.lower(), subject_id
    short = _SHORT_ID.match(first)
    return (short.group(1), short.group(2)) if short else (first.lower(), "")


def resolve(coordinator: CoordinatorApi, subject: Subject) -> Subject:
    """Turn a prefix into the full id. Raises `NotFound` for no match and `UsageError` for several."""
    if subject.kind == "model" and not subject.id.isdigit():
        return _unique(subject, [(row.hash, str(row.id)) for row in coordinator.models()])
    if subject.kind == "model":
        # A run of digits may be a number or the start of a hash; a number that exists wins.
        rows = coordinator.models()
        if any(str(row.id) == subject.id for row in rows) or len(subject.id) < MIN_PREFIX:
            return subject
        return _unique(subject, [(row.hash, str(row.id)) for row in rows])
    if subject.kind == "node":
        rows_of_nodes = coordinator.nodes()
        names = [(row.id, row.id) for row in rows_of_nodes] + [
            (row.host_name, row.id) for row in rows_of_nodes
        ]
        return _unique(subject, names)
    return subject


def _unique(subject: Subject, names: list[tuple[str, str]]) -> Subject:
    matches: tuple[Callable[[str], bool], ...] = (
        lambda name: name == subject.id,
        lambda name: len(subject.id) >= MIN_PREFIX and name.startswith(subject.id),
    )
    for match in matches:
        found = sorted({full for name, full in names if match(name)})
        if len(found) == 1:
            return Subject(subject.kind, found[0])
        if found:
            raise UsageError(
                f"{subject.kind} {subject.id} could be any of {', '.join(found[:5])}",
                remedy="write more of it",
            )
    raise NotFound(
        f"there is no {subject.kind} {subject.id}", remedy=f"`gamekeeper {subject.kind}s` lists them"
    )
