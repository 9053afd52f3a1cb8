"""How values become text in a column: strict JSON, and bounded, printable sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from gamekeeper.core.errors import Corrupt, UsageError

MAX_JSON = 4 * 1024 * 1024
MAX_TEXT = 2000


def to_json(value: object) -> str:
    """`value` as JSON in ASCII; tuples become lists, mappings objects.

    Raises `UsageError` for what JSON cannot hold (NaN, infinities, other types) and beyond `MAX_JSON` characters.
    """
    try:
        encoded = _ENCODE(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a value cannot be stored as JSON: {error}") from error
    if len(encoded) > MAX_JSON:
        raise UsageError(f"a value of {len(encoded)} JSON characters exceeds the {MAX_JSON} allowed")
    return encoded


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


_ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain).encode


def list_json(values: Sequence[int] | Sequence[str]) -> str:
    """A list of whole numbers, or of texts, as JSON: fast."""
    return (
        "["
        + ",".join([int.__repr__(each) if isinstance(each, int) else _quoted(each) for each in values])
        + "]"
    )


def object_of(encoded: str) -> dict[str, object]:
    """Decode a stored JSON object. Raises `Corrupt` when the text is none."""
    decoded = from_json(encoded)
    if not isinstance(decoded, dict):
        raise Corrupt(f"a stored JSON object reads {encoded!r:.80}", remedy="run `gamekeeper store check`")
    return decoded


def list_of(encoded: str) -> list[Any]:
    """Decode a stored JSON list. Raises `Corrupt` when the text is none."""
    decoded = from_json(encoded)
    if not isinstance(decoded, list):
        raise Corrupt(f"a stored JSON list reads {encoded!r:.80}", remedy="run `gamekeeper store check`")
    return decoded


def from_json(encoded: str) -> object:
    """Decode stored JSON. Raises `Corrupt` when the text is none."""
    try:
        decoded: object = json.loads(encoded)
    except ValueError as error:
        raise Corrupt(
            f"stored JSON {encoded!r:.80} cannot be read: {error}", remedy="run `gamekeeper store check`"
        ) from error
    return decoded


def sentence(words: str, limit: int = MAX_TEXT) -> str:
    """`words` cut to `limit` characters, without NUL and lone surrogates, which no database takes as text."""
    clean = words[:limit].replace("\x00", "\ufffd")
    return clean.encode("utf-8", "replace").decode("utf-8")
