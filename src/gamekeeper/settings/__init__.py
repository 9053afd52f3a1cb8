"""Settings: one typed TOML document, with the environment and flags above it; every value knows its origin.

The names below are imported when they are first used: a command that needs one key of the file does not load the
schema of all of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gamekeeper.settings.example_file import example
    from gamekeeper.settings.findings import Findings
    from gamekeeper.settings.loading import Settings, load, look, resolve
    from gamekeeper.settings.reading import FILE_NAME, read_document
    from gamekeeper.settings.rules import Problem
    from gamekeeper.settings.schema import Document
    from gamekeeper.settings.timings import Timings

_HOMES = {
    "FILE_NAME": "reading",
    "Document": "schema",
    "Findings": "findings",
    "Problem": "rules",
    "Settings": "loading",
    "Timings": "timings",
    "example": "example_file",
    "load": "loading",
    "look": "loading",
    "read_document": "reading",
    "resolve": "loading",
}

__all__ = [
    "FILE_NAME",
    "Document",
    "Findings",
    "Problem",
    "Settings",
    "Timings",
    "example",
    "load",
    "look",
    "read_document",
    "resolve",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
