"""The reference page of the settings, made from their schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gamekeeper.settings.json_schema import schema
from gamekeeper.settings.layers import RESERVED_PREFIXES, RESERVED_VARIABLES
from gamekeeper.settings.line_schema import LineSection
from gamekeeper.settings.rules import ORDERS
from gamekeeper.settings.schema import Document
from gamekeeper.settings.section import Section
from gamekeeper.settings.toml_text import to_toml
from gamekeeper.settings.tree import ANY, Key, inner_section

_HEAD = """\
Every key of `gamekeeper.toml`, with its default and bounds. How the file, variables and flags are laid over one
another is told in [Change settings](../how-to/settings.md). `gamekeeper init` writes a file with all of them as
comments; `gamekeeper config schema` prints the [JSON Schema](https://json-schema.org) of it.
"""
_TIMINGS = """\
## Derived

These follow from `coordinator.lease_s` and cannot be set; `gamekeeper config show timings` tells them.

| duration | share of the lease | meaning |
|---|---|---|
| `timings.beat_s` | 1/4 | an agent renews its lease this often: three beats may fail |
| `timings.self_stop_s` | 4/5 | without an answer for this long, an agent stops its own jobs |
| `timings.margin_s` | 1/5 | so long before the lease ends are they told to stop |
| `timings.reap_every_s` | 1/10, at most 1 s | the coordinator looks for leases that ended this often |
"""


def settings_page(note: str) -> str:
    """docs/reference/settings.md."""
    definitions = schema()["$defs"]
    parts = ["# Settings\n", note, _HEAD, _table(Document, definitions)]
    for path, section in _sections(Document, ()):
        title = ".".join("NAME" if part == ANY else part for part in path)
        parts.append(f"## [{title}]\n\n{' '.join((section.__doc__ or '').split())}\n")
        parts.append(_table(section, definitions))
    rules = [f"| {order.words().replace(ANY, 'NAME')} | else {order.why} |" for order in ORDERS]
    parts.append("\n".join(["## Rules that bind two keys\n", "| rule | why |", "|---|---|", *rules]) + "\n")
    parts.append(_TIMINGS)
    reserved = ", ".join(f"`{name}`" for name in sorted(RESERVED_VARIABLES))
    parts.append(
        f"## Variables that are no keys\n\n{reserved}, and all that start with `{RESERVED_PREFIXES[0]}`. Any other"
        " variable whose name starts with `GAMEKEEPER_` must name a key.\n"
    )
    return "\n".join(part for part in parts if part)


def _sections(section: type[Section], at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], type[Section]]]:
    for name, info in section.model_fields.items():
        inner, named = inner_section(info)
        if inner is not None:
            path = (*at, name, ANY) if named else (*at, name)
            yield path, inner
            yield from _sections(inner, path)


def _table(section: type[Section], definitions: dict[str, Any]) -> str:
    own = [
        Key((name,), info) for name, info in section.model_fields.items() if inner_section(info)[0] is None
    ]
    if not own:
        return ""
    rows = ["| key | default | bounds | meaning |", "|---|---|---|---|"]
    for key in own:
        name = key.path[0]
        bounds = _bounds(schema_of(section, definitions)["properties"][name])
        meaning = key.info.description or _MEANINGS.get((section, name), "")
        rows.append(f"| `{name}` | {_default(key)} | {bounds} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


_MEANINGS: dict[tuple[type[Section], str], str] = {
    (
        LineSection,
        "contract",
    ): "What the arrays of a shard must look like; see [the tutorial](../tutorial/your-own-game.md)."
}


def schema_of(section: type[Section], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one table."""
    found: dict[str, Any] = schema() if section is Document else definitions[section.__name__]
    return found


def _default(key: Key) -> str:
    if key.info.is_required():
        return "required"
    if key.path == ("slots",):
        return "cores"
    return "-" if key.default is None else f"`{to_toml(key.default)}`"


def _bounds(found: dict[str, Any]) -> str:
    if "anyOf" in found:
        found = next(one for one in found["anyOf"] if one.get("type") != "null")
    words = [str(found.get("type", "any"))]
    for name, sign in (
        ("minimum", "≥"),
        ("exclusiveMinimum", ">"),
        ("maximum", "≤"),
        ("exclusiveMaximum", "<"),
    ):
        if name in found:
            words.append(_bound(sign, found[name]))
    for name, text in (("maxLength", "characters"), ("maxItems", "entries"), ("maxProperties", "entries")):
        if name in found:
            words.append(f"≤ {found[name]} {text}")
    return ", ".join({"object": "table", "array": "list", "string": "text"}.get(word, word) for word in words)


def _bound(sign: str, value: float) -> str:
    """A bound; the greatest number below a large power of two as that power."""
    if isinstance(value, int) and value > 1 << 40:
        power = value.bit_length() - (sign == "<")
        return f"< 2^{power}"
    return f"{sign} {value:,.10g}"
