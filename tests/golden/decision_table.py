"""Golden decision tables: a view, limits and a time in JSON, and what the policy answers to them.

A table is a JSON file in the folder of its policy: {"about", "view", "limits", "now", "verdicts", "actions"}. Views and
limits are written field by field; a field left out has its default. `python tests/golden/decision_table.py` writes
the answers of today into all tables; read the difference before keeping it.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.policy import continuous_loop, job_parking, job_reaper, promotion, work_distributor

FOLDER = Path(__file__).parent
POLICIES: Mapping[str, types.ModuleType] = {
    "continuous_loop": continuous_loop,
    "job_parking": job_parking,
    "job_reaper": job_reaper,
    "promotion": promotion,
    "work_distributor": work_distributor,
}

ACTED = {True: "+", False: "-"}


def tables() -> list[Path]:
    """All tables, by policy and name."""
    return sorted(path for name in POLICIES for path in (FOLDER / name).glob("*.json"))


def load(document: object, hint: Any) -> Any:
    """Build a value of type `hint` from JSON; a dataclass from an object of its fields."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if document is None:
            return None
        (hint,) = [one for one in arguments if one is not types.NoneType]
        return load(document, hint)
    if origin is tuple and isinstance(document, list):
        if arguments[-1] is Ellipsis:
            return tuple(load(item, arguments[0]) for item in document)
        return tuple(load(item, one) for item, one in zip(document, arguments, strict=True))
    if origin is frozenset and isinstance(document, list):
        return frozenset(load(item, arguments[0]) for item in document)
    if isinstance(document, dict) and origin is not None and issubclass(origin, Mapping):
        return {key: load(value, arguments[1]) for key, value in document.items()}
    if isinstance(document, dict) and isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{key: load(value, hints[key]) for key, value in document.items()})
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(document)
    return document


def plain(value: object) -> Any:
    """A value as JSON; of a dataclass only the fields that are not at their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = {}
        for field in dataclasses.fields(value):
            held = getattr(value, field.name)
            factory: Any = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            if held != default:
                shown[field.name] = plain(held)
        return shown
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def told(verdict: Verdict) -> list[str]:
    """A verdict in lines: what was said ("+" acted, "-" left alone), then each number with its limit and origin."""
    rows = [f"{verdict.subject} {ACTED[verdict.acted]} {verdict.reason}: {verdict.sentence}"]
    for item in verdict.evidence:
        limit = "" if item.limit is None else f" / {item.limit}"
        origin = f" ({item.origin})" if item.origin else ""
        rows.append(f"    {item.name}: {item.value}{limit}{origin}")
    return rows


def answer(policy: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The verdicts and actions that the policy gives to a table, as JSON."""
    module = POLICIES[policy]
    view, limits = load(table["view"], module.View), load(table["limits"], module.Limits)
    decision: Decision = module.decide(view, limits, float(table["now"]))
    assert decision.policy == policy
    return {
        "verdicts": [row for verdict in decision.verdicts for row in told(verdict)],
        "actions": [{type(action).__name__: plain(action)} for action in decision.actions],
    }


def rewrite() -> None:
    """Write the answers of today into all tables."""
    for path in tables():
        table = json.loads(path.read_text("utf-8"))
        table |= answer(path.parent.name, table)
        path.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    rewrite()
