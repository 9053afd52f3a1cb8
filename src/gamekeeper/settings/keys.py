"""Names of settings: a key is a path of parts, spelled as TOML spells it, and every value has an origin."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum

Path = tuple[str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Layer(StrEnum):
    """Where values come from, the weakest first."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Origin:
    """The place a value was set in: "default", "gamekeeper.toml:12", a variable's name, or a flag's."""

    layer: Layer
    place: str

    def __str__(self) -> str:
        return self.place


DEFAULT = Origin(Layer.DEFAULT, "default")


def spell(path: Path) -> str:
    """The path as TOML spells it; a part that is no bare key stands in quotes."""
    return ".".join(part if _BARE.fullmatch(part) else _quoted(part) for part in path)


def _quoted(part: str) -> str:
    # JSON leaves DEL as it is, which TOML does not allow.
    return json.dumps(part, ensure_ascii=False).replace("\x7f", "\\u007f")
