"""Settings: one typed TOML document, with the environment and flags above it; every value knows its origin."""

from gamekeeper.settings.example import example
from gamekeeper.settings.loading import FILE_NAME, Settings, Timings, load, read_document, resolve
from gamekeeper.settings.schema import (
    AgentSection,
    ArtifactsSection,
    CoordinatorSection,
    Document,
    LineSection,
)

__all__ = [
    "FILE_NAME",
    "AgentSection",
    "ArtifactsSection",
    "CoordinatorSection",
    "Document",
    "LineSection",
    "Settings",
    "Timings",
    "example",
    "load",
    "read_document",
    "resolve",
]
