"""Writing values as TOML, which the standard library only reads."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from gamekeeper.settings.keys import spell


def to_toml(value: object) -> str:
    """`value` (texts, numbers, truth values, lists, tables) as one line of TOML. Raises `ValueError` for others."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{spell((str(key),))} = {to_toml(nested)}" for key, nested in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(to_toml(nested) for nested in value) + "]"
    if isinstance(value, str):
        # JSON leaves DEL as it is, which TOML does not allow; all else that JSON escapes, TOML reads alike.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    raise ValueError(f"TOML cannot say {value!r:.60}")


def document_text(values: Mapping[str, object]) -> str:
    """A whole document: plain values first, then a table for each table in it."""
    return "\n".join(_table((), values)).strip() + "\n"


def _table(path: tuple[str, ...], values: Mapping[str, object]) -> list[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [f"\n[{spell(path)}]"] if path and (plain or not values) else []
    lines += [f"{spell((key,))} = {to_toml(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += _table((*path, key), value)
    return lines
