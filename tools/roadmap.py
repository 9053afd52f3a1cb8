"""The coverage roadmap as data: docs/roadmap.toml, read and checked."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = "src/gamekeeper"
STATES = ("planned", "started", "built")
TIERS = {
    1: "Tier 1: data integrity and job safety",
    2: "Tier 2: core infrastructure",
    3: "Tier 3: supporting infrastructure",
    4: "Tier 4: types, definitions and small parts",
    5: "Deferred by the roadmap",
    6: "Named by the roadmap in passing",
}


@dataclass(frozen=True)
class Module:
    """One module of the roadmap.

    `home` and `parts` are paths below src/gamekeeper; a path ending in `/` is a folder. Floors are counts of test
    functions (`tests`) and per cent (`line`, `branch`, `mutation`); `mutation` is None where it is only reported.
    """

    name: str
    tier: int
    priority: str
    risk: str
    home: tuple[str, ...]
    parts: tuple[str, ...]
    theme: str
    tests: int
    line: int
    branch: int
    mutation: int | None
    state: str

    def missing(self, root: Path) -> list[str]:
        """Paths of home and parts that do not exist below `root`."""
        return [path for path in (*self.home, *self.parts) if not (root / PRODUCT / path).exists()]


class RoadmapError(ValueError):
    """docs/roadmap.toml does not say what it must; the message names the module and the key."""


_REQUIRED = {"name", "tier", "risk", "home", "theme", "tests", "line", "branch", "state"}
_OPTIONAL = {"priority", "with", "mutation"}


def parse(text: str) -> list[Module]:
    """The modules of a roadmap document. Raises RoadmapError for anything unknown, missing or out of range."""
    modules: list[Module] = []
    for entry in tomllib.loads(text).get("module", []):
        name = entry.get("name", f"module {len(modules) + 1}")
        if lacking := _REQUIRED - entry.keys():
            raise RoadmapError(f"{name}: lacks {', '.join(sorted(lacking))}")
        if unknown := entry.keys() - _REQUIRED - _OPTIONAL:
            raise RoadmapError(f"{name}: unknown key {', '.join(sorted(unknown))}")
        if entry["state"] not in STATES:
            raise RoadmapError(f"{name}: state {entry['state']!r} is none of {', '.join(STATES)}")
        if entry["tier"] not in TIERS:
            raise RoadmapError(f"{name}: tier {entry['tier']} is none of {', '.join(map(str, TIERS))}")
        if not entry["home"]:
            raise RoadmapError(f"{name}: has no home")
        for floor in ("line", "branch", "mutation"):
            if not 0 <= entry.get(floor, 0) <= 100:
                raise RoadmapError(f"{name}: {floor} is a percentage")
        modules.append(
            Module(
                name=name,
                tier=entry["tier"],
                priority=entry.get("priority", ""),
                risk=entry["risk"],
                home=tuple(entry["home"]),
                parts=tuple(entry.get("with", ())),
                theme=entry["theme"],
                tests=entry["tests"],
                line=entry["line"],
                branch=entry["branch"],
                mutation=entry.get("mutation"),
                state=entry["state"],
            )
        )
    names = [module.name for module in modules]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RoadmapError(f"{min(twice)}: named twice")
    return modules


def load(root: Path = ROOT) -> list[Module]:
    """The modules of the repository at `root`."""
    return parse((root / "docs" / "roadmap.toml").read_text("utf-8"))
