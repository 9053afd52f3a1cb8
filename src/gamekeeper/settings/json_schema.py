"""The JSON Schema of the settings file, for editors and for programs that write it."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from gamekeeper.settings.schema import Document

FILE = "gamekeeper.schema.json"


def schema() -> dict[str, Any]:
    """The schema, made from the types."""
    made = Document.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "gamekeeper.toml"}


def schema_text() -> str:
    """The schema as it is shipped."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def shipped_text() -> str:
    """The schema file that lies in the package."""
    return resources.files("gamekeeper.settings").joinpath(FILE).read_text(encoding="utf-8")
