"""The commented document that `gamekeeper init` writes, made from the schema: it names no key that is not there."""

from __future__ import annotations

import textwrap

from gamekeeper.settings.line_schema import LineSection
from gamekeeper.settings.schema import SECTION_TYPES, Document
from gamekeeper.settings.section import Section
from gamekeeper.settings.toml_text import to_toml
from gamekeeper.settings.tree import Key, default_of, inner_section

_WIDTH = 100
_TOP = """\
Settings of Gamekeeper. A commented key shows its default. Any key can also be set by an environment variable
(GAMEKEEPER_COORDINATOR__PORT=8100) or a flag (--set coordinator.port=8100), which win over this file."""
_KIND = """\
A kind of jobs of your own: the unit of its progress, and the receipt that proves its work. Remove the leading "#" and
adapt it."""
_KIND_TABLE = """\
[kinds.analysis]
progress_unit = "boards"
receipt = { boards = "count", result = "hash" }"""
_LINE = """\
A line is one game whose champion is being improved: the program of each stage, what its data must look like,
and when a candidate counts as stronger. Any program that keeps the job contract can be a stage. Remove the
leading "#" and adapt it."""
_LINE_VALUES: dict[str, dict[str, object]] = {
    "found": {"command": ["{python}", "-m", "mygame.found"]},
    "selfplay": {
        "command": ["{python}", "-m", "mygame.selfplay"],
        "wanted": {"games": 256},
        "parameters": {"simulations": 64},
    },
    "train": {"command": ["{python}", "-m", "mygame.train"]},
    "evaluate": {"command": ["{python}", "-m", "mygame.evaluate"]},
    "training": {"min_new_samples": 10000, "window_samples": 50000},
    "evaluation": {"pairs_per_job": 50},
    "promotion": {
        "elo0": 0.0,
        "elo1": 50.0,
        "alpha": 0.05,
        "beta": 0.05,
        "max_pairs": 500,
        "canary_pairs": 8,
    },
    "rating": {"opponents": ["random"], "pairs": 100},
}
_CONTRACT = """\
[lines.mygame.contract]
samples_dimension = "N"      # the dimension that counts samples
games_from = "game"          # the array whose distinct values are the games

[lines.mygame.contract.arrays.policy]
dtype = "<f4"
shape = ["N", 9]
finite = true
row_sum = 1.0

[lines.mygame.contract.arrays.game]
dtype = "<i4"
shape = ["N"]"""


def example(*, line_document: str = "") -> str:
    """The text of a commented settings file.

    `line_document`, when given, is TOML of a ready line (the bundled game's) and replaces the commented example line.
    """
    parts = [_comment(_TOP), _keys(Document)]
    for name, section in SECTION_TYPES.items():
        parts.append(f"{_comment(section.__doc__ or '')}\n[{name}]\n{_keys(section)}")
        for inner_name, inner in _tables(section):
            parts.append(f"{_comment(inner.__doc__ or '')}\n[{name}.{inner_name}]\n{_keys(inner)}")
    parts.append(f"{_comment(_KIND)}\n{_commented(_KIND_TABLE)}")
    if line_document:
        parts.append(line_document.strip())
    else:
        parts.append(_comment(_LINE))
        parts.append(_commented(example_line()))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def example_line() -> str:
    """TOML of a small but complete line."""
    blocks = []
    for name, values in _LINE_VALUES.items():
        section = LineSection.model_fields[name].annotation
        assert isinstance(section, type)  # noqa: S101 - every table of a line is a section
        assert issubclass(section, Section)  # noqa: S101 - as above
        blocks.append(
            f"[lines.mygame.{name}]\n" + "\n".join(_setting(section, key, values[key]) for key in values)
        )
    return "\n\n".join([*blocks, _CONTRACT])


def _setting(section: type[Section], key: str, value: object) -> str:
    note = section.model_fields[key].description or ""
    return f"{_comment(note)}\n{key} = {to_toml(value)}" if note else f"{key} = {to_toml(value)}"


def _tables(section: type[Section]) -> list[tuple[str, type[Section]]]:
    """The tables inside a table, by name."""
    found = [(name, inner_section(info)) for name, info in section.model_fields.items()]
    return [(name, inner) for name, (inner, named) in found if inner is not None and not named]


def _keys(section: type[Section]) -> str:
    plain = {name: info for name, info in section.model_fields.items() if inner_section(info)[0] is None}
    return "\n".join(
        f"{_comment(info.description or '')}\n# {name} = {_value(Key((name,), info))}"
        for name, info in plain.items()
    )


def _value(key: Key) -> str:
    """The default, or an example of a key that may be left out."""
    value = default_of(key.info)
    return to_toml(key.info.examples[0] if value is None and key.info.examples else value)


def _comment(text: str) -> str:
    plain = " ".join(text.split())
    return "\n".join(f"# {line}" for line in textwrap.wrap(plain, _WIDTH))


def _commented(toml: str) -> str:
    return "\n".join(f"# {line}".rstrip() for line in toml.splitlines())
