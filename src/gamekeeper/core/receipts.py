"""Receipts: the typed proof with which an attempt ends, and the rule that says whether it proves anything.

Exit code 0 is not evidence. A receipt is accepted only when every declared field is present, of its
type, and positive where it must be; nothing has a default. A job kind is declared by its schema and the unit in
which its progress is counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

HASH_PATTERN = re.compile(r"[0-9a-f]{64}\Z")
MAX_LIST = 10_000
MAX_COUNT = 2**53
"""Above this, whole numbers are no longer exact in JSON and in floats, and no store column holds them for sure."""
MAX_UNKNOWN = 5


class FieldType(StrEnum):
    """What a receipt field may hold."""

    COUNT = "count"
    NUMBER = "number"
    HASH = "hash"
    HASHES = "hashes"
    PAIRS = "pairs"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class ReceiptField:
    """One mandatory field: its name and type. A count, a list or a text must be non-empty."""

    name: str
    type: FieldType


@dataclass(frozen=True, slots=True)
class JobKind:
    """A kind of job: its name, the unit of its progress, and the evidence it must hand in."""

    name: str
    progress_unit: str
    receipt: tuple[ReceiptField, ...]


BUILT_IN_KINDS: Mapping[str, JobKind] = {
    kind.name: kind
    for kind in (
        JobKind(
            "found",
            "models",
            (ReceiptField("model", FieldType.HASH), ReceiptField("weights", FieldType.COUNT)),
        ),
        JobKind(
            "selfplay",
            "games",
            (
                ReceiptField("games", FieldType.COUNT),
                ReceiptField("samples", FieldType.COUNT),
                ReceiptField("shards", FieldType.HASHES),
            ),
        ),
        JobKind(
            "train",
            "steps",
            (
                ReceiptField("steps", FieldType.COUNT),
                ReceiptField("samples", FieldType.COUNT),
                ReceiptField("loss", FieldType.NUMBER),
                ReceiptField("model", FieldType.HASH),
                ReceiptField("parent", FieldType.HASH),
            ),
        ),
        JobKind(
            "evaluate",
            "games",
            (ReceiptField("games", FieldType.COUNT), ReceiptField("pairs", FieldType.PAIRS)),
        ),
        JobKind("command", "steps", (ReceiptField("summary", FieldType.TEXT),)),
    )
}


class Proof(StrEnum):
    """What a receipt is worth: proof of work, malformed, or no evidence of any work."""

    GOOD = "good"
    MALFORMED = "malformed"
    HOLLOW = "hollow"


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one receipt, with a sentence for each thing wrong."""

    proof: Proof
    problems: tuple[str, ...] = ()


def examine(kind: JobKind, receipt: object) -> Finding:
    """Judge `receipt` (decoded JSON) against the schema of `kind`.

    A missing receipt or one whose counts are zero is hollow; a field of the wrong type, an unknown field or a
    number that is not finite is malformed.
    """
    if receipt is None:
        return Finding(Proof.HOLLOW, ("no receipt was handed in",))
    if not isinstance(receipt, Mapping):
        return Finding(Proof.MALFORMED, ("the receipt is not a JSON object",))
    malformed: list[str] = []
    hollow: list[str] = []
    declared = {item.name for item in kind.receipt}
    unknown = sorted(name for name in map(str, receipt) if name not in declared)
    malformed += [f"unknown field {name!r:.40}" for name in unknown[:MAX_UNKNOWN]]
    for item in kind.receipt:
        if item.name not in receipt:
            hollow.append(f"field {item.name!r} is missing")
            continue
        problem, empty = _examine_field(item, receipt[item.name])
        if problem:
            (hollow if empty else malformed).append(problem)
    if malformed:
        return Finding(Proof.MALFORMED, tuple(malformed + hollow))
    if hollow:
        return Finding(Proof.HOLLOW, tuple(hollow))
    return Finding(Proof.GOOD)


def _examine_field(item: ReceiptField, value: object) -> tuple[str, bool]:
    """Return (problem or "", whether the problem is emptiness rather than a wrong type)."""
    name = item.name
    if item.type is FieldType.COUNT:
        if not _is_count(value):
            return f"{name} must be a whole number up to {MAX_COUNT}, not {value!r:.40}", False
        return (f"{name} is 0", True) if value == 0 else ("", False)
    if item.type is FieldType.NUMBER:
        fine = isinstance(value, int | float) and _is_moderate(value)
        return ("" if fine else f"{name} must be a finite number, not {value!r:.40}"), False
    if item.type is FieldType.HASH:
        return ("" if is_hash(value) else f"{name} must be a 64-digit hash, not {value!r:.40}"), False
    if item.type is FieldType.TEXT:
        if not isinstance(value, str) or len(value) > MAX_LIST:
            return f"{name} must be a text of at most {MAX_LIST} characters", False
        return (f"{name} is empty", True) if not value.strip() else ("", False)
    return _examine_list(item, value)


def _examine_list(item: ReceiptField, value: object) -> tuple[str, bool]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MAX_LIST:
        return f"{item.name} must be a list of at most {MAX_LIST} entries", False
    if not value:
        return f"{item.name} is empty", True
    if item.type is FieldType.HASHES:
        wrong = [entry for entry in value if not is_hash(entry)]
        if wrong:
            return f"{item.name} holds {wrong[0]!r:.40}, which is not a 64-digit hash", False
        return (f"{item.name} names a hash twice", False) if len(set(value)) != len(value) else ("", False)
    wrong = [entry for entry in value if not _is_pair(entry)]
    if wrong:
        return f"{item.name} holds {wrong[0]!r:.60}, which is not [number, first, second, replay]", False
    numbers = [entry[0] for entry in value]
    return (f"{item.name} names a pair twice", False) if len(set(numbers)) != len(numbers) else ("", False)


def is_hash(value: object) -> bool:
    """Whether `value` is a BLAKE3 digest as 64 lower-case hexadecimal digits."""
    return isinstance(value, str) and HASH_PATTERN.match(value) is not None


def _is_pair(entry: object) -> bool:
    if not isinstance(entry, Sequence) or isinstance(entry, str) or len(entry) != 4:
        return False
    number, first, second, replay = entry
    scores = all(
        isinstance(score, int | float) and not isinstance(score, bool) and score in (0, 0.5, 1)
        for score in (first, second)
    )
    return _is_count(number) and scores and is_hash(replay)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_moderate(value: float) -> bool:
    """Whether a number is finite as a float; whole numbers of JSON have no such bound."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MAX_COUNT
    return math.isfinite(value)
