"""The JSON Schema of the settings file, for editors and for programs that write it."""

from __future__ import annotations

import json
from importlib import resources

from gamekeeper.settings.schema import Document

FILE = "gamekeeper.schema.json"


def schema_text() -> str:
    """The schema, made from the types."""
    schema = Document.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "gamekeeper.toml"}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def shipped_text() -> str:
    """The schema file that lies in the package."""
    return resources.files("gamekeeper.settings").joinpath(FILE).read_text(encoding="utf-8")
