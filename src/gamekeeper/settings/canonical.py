"""The hash of the settings: the same meaning gives the same hash, whatever the layer, the order or the spelling."""

from __future__ import annotations

import json

from blake3 import blake3

from gamekeeper.settings.schema import Document

GOVERNING = frozenset(
    {"seed", "artifacts", "retention", "admission", "distribution", "job_parking", "kinds", "lines"}
)
"""Tables that govern what is decided. Where things are, and what one machine offers, is left out."""


def settings_hash(document: Document) -> str:
    """BLAKE3, as 64 hexadecimal digits, of what governs the loop; no secret goes into it."""
    governing = document.model_dump(mode="json", include=set(GOVERNING))
    governing["lease_s"] = document.coordinator.lease_s
    text = json.dumps(_plain(governing), sort_keys=True, separators=(",", ":"))
    return blake3(text.encode()).hexdigest()


def _plain(value: object) -> object:
    """`value` with one zero."""
    if isinstance(value, dict):
        return {key: _plain(nested) for key, nested in value.items()}
    if isinstance(value, list):
        return [_plain(nested) for nested in value]
    return 0.0 if isinstance(value, float) and value == 0 else value
