"""Render the reference pages that follow from the code: states, receipts, events and settings.

`python -m tools.reference_pages` writes them; with `--check` it fails when one is not what the code says. Generated
pages cannot lie about the tables they come from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from gamekeeper.core.events import EVENT_TYPES
from gamekeeper.core.jobs import (
    ATTEMPT_TRANSITIONS,
    END_BUDGETS,
    END_STATES,
    JOB_TRANSITIONS,
    AttemptState,
    Budget,
)
from gamekeeper.core.models import MODEL_TRANSITIONS
from gamekeeper.core.nodes import NODE_TRANSITIONS
from gamekeeper.core.receipts import BUILT_IN_KINDS
from gamekeeper.settings import json_schema
from tools.settings_page import settings_page

S = TypeVar("S", bound=StrEnum)
ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Written by `make docs` from the code; edit the code instead. -->\n"


def transitions(title: str, table: Mapping[S, frozenset[S]]) -> str:
    """A state machine as a diagram and as a table."""
    lines = [f"## {title}\n", "```mermaid", "stateDiagram-v2"]
    for state, following in table.items():
        lines += [f"    {state} --> {target}" for target in table if target in following]
        lines += [] if following else [f"    {state} --> [*]"]
    lines += ["```\n", "| state | may become |", "|---|---|"]
    for state, following in table.items():
        targets = ", ".join(f"`{target}`" for target in table if target in following)
        lines.append(f"| `{state}` | {targets or 'final'} |")
    return "\n".join(lines) + "\n"


def states_page() -> str:
    """docs/reference/states.md."""
    reasons = ["## Why an attempt ends\n", "| reason | attempt state | uses up |", "|---|---|---|"]
    words = {
        Budget.FAILURE: "one allowed failure",
        Budget.LOSS: "one allowed loss",
        Budget.NONE: "nothing",
    }
    for reason, state in END_STATES.items():
        reasons.append(f"| `{reason}` | `{AttemptState(state)}` | {words[END_BUDGETS[state]]} |")
    parts = [
        "# States\n",
        NOTE,
        transitions("Job", JOB_TRANSITIONS),
        transitions("Attempt", ATTEMPT_TRANSITIONS),
        "\n".join(reasons) + "\n",
        transitions("Model", MODEL_TRANSITIONS),
        transitions("Node", NODE_TRANSITIONS),
    ]
    return "\n".join(parts)


def receipts_page() -> str:
    """docs/reference/receipts.md."""
    lines = [
        "# Receipts\n",
        NOTE,
        "Every field is required; counts, lists and texts must not be empty.\n",
        "| kind | progress unit | fields |",
        "|---|---|---|",
    ]
    for kind in BUILT_IN_KINDS.values():
        wanted = ", ".join(f"`{item.name}` ({item.type})" for item in kind.receipt)
        lines.append(f"| `{kind.name}` | {kind.progress_unit} | {wanted} |")
    return "\n".join(lines) + "\n"


def events_page() -> str:
    """docs/reference/events.md."""
    lines = [
        "# Events\n",
        NOTE,
        "The log holds these and nothing else. An event is part of the story of each subject it is about.\n",
        "| event | version | meaning | about | fields |",
        "|---|---|---|---|---|",
    ]
    for name, cls in EVENT_TYPES.items():
        meaning = (cls.__doc__ or "").strip().splitlines()[0]
        about = ", ".join(cls.about)
        names = ", ".join(f"`{field.name}`" for field in fields(cls))
        lines.append(f"| `{name}` | {cls.version} | {meaning} | {about} | {names} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    reference = ROOT / "docs" / "reference"
    return {
        reference / "states.md": states_page(),
        reference / "receipts.md": receipts_page(),
        reference / "events.md": events_page(),
        reference / "settings.md": settings_page(NOTE),
        ROOT / "src" / "gamekeeper" / "settings" / json_schema.FILE: json_schema.schema_text(),
    }


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check name those that are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a page is out of date")
    check = parser.parse_args(arguments).check
    stale = [path for path, text in pages().items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is out of date: run `make docs` and commit it")
        else:
            path.write_text(pages()[path])
            print(f"wrote {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
